"""Tasks: drafts, events, submissions, verdicts. Who works on one shows its lease: ``X-Lease``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path

from engine.annotation.completion import tell_completion
from engine.annotation.drafts import save_draft
from engine.annotation.events import append_events
from engine.annotation.http.answers import (
    Empty,
    Extended,
    Receipt,
    ReviewReceipt,
    Skip,
    TaskValue,
)
from engine.annotation.http.bodies import JsonRoute
from engine.annotation.http.context import Context, ServiceContext
from engine.annotation.http.convert import (
    domain_draft,
    domain_events,
    domain_submission,
    domain_verdicts,
    task_value,
)
from engine.annotation.http.errors import ApiError
from engine.annotation.http.schemas import (
    Draft,
    DraftSaved,
    EventBatch,
    EventsSaved,
    Submission,
    Verdicts,
)
from engine.annotation.http.security import Reviewing, Signed
from engine.annotation.records import LeaseKey
from engine.annotation.reviews import judge
from engine.annotation.submissions import submit
from engine.annotation.tasks import give_back, heartbeat, skip, task

__all__ = ["Key", "TaskId", "router"]

router = APIRouter(prefix="/api/tasks", tags=["tasks"], route_class=JsonRoute)

_LAST_TASK = 2**31 - 1
TaskId = Annotated[int, Path(ge=1, le=_LAST_TASK)]


async def _key(
    task_id: TaskId,
    me: Signed,
    x_lease: Annotated[str, Header(pattern=r"^[A-Za-z0-9._-]{1,64}$")],
) -> LeaseKey:
    return LeaseKey(task_id=task_id, annotator_id=me.annotator_id, lease_id=x_lease)


Key = Annotated[LeaseKey, Depends(_key)]


@router.get("/{task_id}")
def one_task(task_id: TaskId, context: Context, me: Signed) -> TaskValue:
    """Return a task that the caller has or had; reviewers see all."""
    found = task(context.database, task_id, me.annotator_id)
    if found.annotator_id != me.annotator_id and not me.may("reviewer"):
        raise ApiError(403, "not_allowed", "this is somebody else's task")
    return task_value(found)


@router.post("/{task_id}/heartbeat")
def extend_lease(key: Key, context: Context) -> Extended:
    """Keep the lease: the caller is still at work."""
    expires_at = heartbeat(
        context.database, key, now=context.clock(), seconds=context.lease_seconds
    )
    return Extended(seconds=context.lease_seconds, expires_at=expires_at)


@router.put("/{task_id}/draft")
def put_draft(
    key: Key,
    body: Draft,
    context: Context,
    if_match: Annotated[str, Header(pattern=r'^"?\d{1,9}"?$')],
) -> DraftSaved:
    """Save the draft over the version that If-Match names; 0: there is none yet."""
    version = int(if_match.strip('"'))
    saved = save_draft(context.database, key, version, domain_draft(body), now=context.clock())
    return DraftSaved(version=saved)


@router.post("/{task_id}/events")
def post_events(key: Key, body: EventBatch, context: Context) -> EventsSaved:
    """Add events to the log; those that are there already count once."""
    events = domain_events(body.events)
    saved = append_events(context.database, key, body.page_id, events, now=context.clock())
    last = max((event.seq for event in events), default=0)
    return EventsSaved(saved=saved, last_seq=last)


@router.post("/{task_id}/submit")
def post_submission(key: Key, body: Submission, context: Context) -> Receipt:
    """Hand the task in; the same `submission_id` again gives the same answer."""
    receipt = submit(context.database, key, domain_submission(body), now=context.clock())
    _tell_completion(key, context)
    return Receipt(
        submission_id=receipt.submission_id,
        task_id=str(receipt.task_id),
        objects=receipt.objects,
        state=receipt.state,
    )


@router.post("/{task_id}/skip")
def skip_task(key: Key, body: Skip, context: Context) -> Empty:
    """Say that the image cannot be annotated, and why."""
    skip(context.database, key, body.reason, now=context.clock())
    _tell_completion(key, context)
    return Empty()


@router.post("/{task_id}/give-back")
def give_task_back(key: Key, context: Context) -> Empty:
    """End the lease; somebody else may have the task at once. Its draft is kept."""
    give_back(context.database, key, now=context.clock())
    return Empty()


@router.post("/{task_id}/verdicts")
def post_verdicts(key: Key, body: Verdicts, me: Reviewing, context: Context) -> ReviewReceipt:
    """Hand a review in; the same `submission_id` again gives the same answer."""
    judgement = judge(
        context.database,
        key,
        body.submission_id,
        domain_verdicts(body.verdicts),
        now=context.clock(),
        reason=body.reason or "",
        incomplete=body.incomplete,
    )
    _tell_completion(key, context)
    return ReviewReceipt(state=judgement.state)


def _tell_completion(key: LeaseKey, context: ServiceContext) -> None:
    tell_completion(
        context.database, key.task_id, context.announce, context.workspace, now=context.clock()
    )
