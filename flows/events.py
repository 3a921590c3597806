"""What the engine announces, as Prefect events: for triggers and the event feed.

    publish(workspace, publication, gate, announce=announce)

An event is a hint that makes others look sooner; the data engine's look finds what is due without
it. So telling must not hold up the work: it waits a second at most, and what takes longer goes on
in a thread that the process waits for before it ends. Without a Prefect server nobody could hear
anything, so none is started for it. The events are described in infra/docs/events.md.

Prefect's `emit_event` is not used: it queues, and then a server that is gone holds up the end of
the process for ten attempts to connect, while a process that ends at once cannot start the queue.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import asdict, dataclass
from threading import Event, Thread, current_thread, main_thread

from engine.announcements import (
    Announcement,
    AuditFailed,
    CampaignCompleted,
    ModelPromoted,
    ReleasePublished,
)
from flows.runtime import may_have_server, prepare_prefect

__all__ = [
    "AUDIT_FAILED",
    "CAMPAIGN_COMPLETED",
    "MODEL_PROMOTED",
    "RELEASE_PUBLISHED",
    "EventContent",
    "announce",
    "event_of",
]

logger = logging.getLogger(__name__)

RELEASE_PUBLISHED = "maskwheel.release.published"
CAMPAIGN_COMPLETED = "maskwheel.campaign.completed"
MODEL_PROMOTED = "maskwheel.model.promoted"
AUDIT_FAILED = "maskwheel.audit.failed"

_PATIENCE_SECONDS = 1.0
_ANSWER_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EventContent:
    """An event before it is sent.

    Attributes:
        name: of the kind of event.
        resource: what it is about; triggers match these labels.
        payload: JSON; triggers take parameters from it.
    """

    name: str
    resource: dict[str, str]
    payload: dict[str, object]


def announce(announcement: Announcement) -> None:
    """Send an announcement to the Prefect server that is configured, if one is. Never raises."""
    prepare_prefect(verbose=False)  # finds the server of `maskwheel up`
    if not may_have_server():
        return
    prepared = Event()
    thread = Thread(
        target=copy_context().run,  # the flow run that it happened in
        args=(_deliver, announcement, prepared),
        name="announcement",
    )
    thread.start()
    if current_thread() is main_thread():
        # Importing Prefect starts threads, which a process that is ending cannot: a command that
        # has not imported it waits for that. A request to the annotation service does not.
        prepared.wait()
    thread.join(_PATIENCE_SECONDS)


def event_of(announcement: Announcement) -> EventContent:
    """Return an announcement as an event.

    Raises:
        EngineError: the workspace, which says whether a retraining is due, cannot be read.
    """
    match announcement:
        case ReleasePublished():
            return _release_published(announcement)
        case CampaignCompleted():
            return _campaign_completed(announcement)
        case ModelPromoted():
            return _model_promoted(announcement)
        case AuditFailed():
            return _audit_failed(announcement)


def _deliver(announcement: Announcement, prepared: Event) -> None:
    try:
        content = event_of(announcement)
        send = _sender(content)
        prepared.set()
        send()
    except Exception as error:  # the work that is told about is done, whatever happens here
        logger.warning("%s was not announced: %r", type(announcement).__name__, error)
    finally:
        prepared.set()


def _sender(content: EventContent) -> Callable[[], None]:
    """Return what sends an event, with all that it imports."""
    from prefect.client.orchestration import get_client
    from prefect.events.schemas.events import Event as PrefectEvent
    from prefect.events.schemas.events import RelatedResource, Resource
    from prefect.runtime import flow_run
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, get_current_settings
    from prefect.settings.context import temporary_settings

    run = flow_run.id
    related = [] if run is None else [_role("flow-run", f"prefect.flow-run.{run}")]
    event = PrefectEvent(
        event=content.name,
        resource=Resource.model_validate(content.resource),
        related=[RelatedResource.model_validate(resource) for resource in related],
        payload=content.payload,
    )

    def send() -> None:
        if get_current_settings().api.url is None:
            return
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client({"timeout": _ANSWER_SECONDS}, sync_client=True) as client,
        ):
            answer = client.request("POST", "/events", json=[event.model_dump(mode="json")])
            answer.raise_for_status()

    return send


def _role(role: str, resource_id: str) -> dict[str, str]:
    return {"prefect.resource.id": resource_id, "prefect.resource.role": role}


def _release_published(told: ReleasePublished) -> EventContent:
    from engine.dataset.catalog import Workspace
    from engine.wheel.retraining import retraining_need

    release = told.release
    with Workspace.open(told.workspace, create=False) as workspace:
        need = retraining_need(workspace)
    labels = {
        "maskwheel.kind": release.kind,
        "maskwheel.retraining": "due" if need.is_due else "not-due",
    }
    return EventContent(
        name=RELEASE_PUBLISHED,
        resource=_resource("release", release.name, told.workspace, labels),
        payload={
            "workspace": told.workspace,
            "release": release.name,
            "kind": release.kind,
            "parent": release.parent,
            "images": release.images,
            "masks": release.masks,
            "new_human_masks": need.new_human_masks,
        },
    )


def _campaign_completed(told: CampaignCompleted) -> EventContent:
    labels = {"prefect.resource.name": told.campaign, "maskwheel.stage": told.stage}
    return EventContent(
        name=CAMPAIGN_COMPLETED,
        resource=_resource("campaign", told.campaign_id, told.workspace, labels),
        payload=asdict(told),
    )


def _model_promoted(told: ModelPromoted) -> EventContent:
    decision = told.decision
    labels: dict[str, str] = {"maskwheel.outcome": decision.outcome}
    return EventContent(
        name=MODEL_PROMOTED,
        resource=_resource("model", decision.champion, told.workspace, labels),
        payload={
            "workspace": told.workspace,
            "champion": decision.champion,
            "previous_champion": decision.previous_champion,
            "outcome": decision.outcome,
            "decision": decision.number,
            "sha256": decision.champion_sha256,
            "decided_by": decision.decided_by,
            "note": decision.note,
        },
    )


def _audit_failed(told: AuditFailed) -> EventContent:
    return EventContent(
        name=AUDIT_FAILED,
        resource=_resource("release", told.release, told.workspace, {}),
        payload={**asdict(told), "checks": [asdict(check) for check in told.checks]},
    )


def _resource(kind: str, name: str, workspace: str, labels: dict[str, str]) -> dict[str, str]:
    return {
        "prefect.resource.id": f"maskwheel.{kind}.{name}",
        "prefect.resource.name": name,
        "maskwheel.workspace": workspace,
        **labels,
    }
