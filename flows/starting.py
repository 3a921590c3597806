"""Start what is due on the Prefect server, once: never beside a run that does the same.

    for standing in start_due(look.decision.actions, look.state.workspace_id, attempts=3):
        print(standing.action.why, standing.status, standing.url)

A run's idempotency key is the workspace, the action's key and a number. Whoever asks at the same
time asks by the same key, and the server makes one run. A run that ended, while the workspace still
asks for the action, did not do it: the next has the next number, until the policy's attempts are
used up. Runs that something else started, a trigger or a person, count while they go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterIdempotencyKey,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import get_current_settings
from prefect.utilities.urls import url_for

from engine.errors import BadInputError, TransientError
from engine.wheel.decision import Action
from flows.asking import find_deployment

__all__ = ["Standing", "can_start", "start_due"]

_GOING_ON = [
    StateType.SCHEDULED,
    StateType.PENDING,
    StateType.RUNNING,
    StateType.PAUSED,
    StateType.CANCELLING,
]
# What `maskwheel down` leaves behind: nobody's fault, so no attempt.
_STOPPED = "Stopped"
_MOST_RUNS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What became of an action.

    Attributes:
        action: that is due.
        status: whether a run was started for it, goes on, ended here, or a person has to look.
        detail: one sentence.
        url: the run's page, if there is one.
    """

    action: Action
    status: Literal["started", "running", "finished", "failed", "needs-a-person"]
    detail: str
    url: str | None = None


def can_start(workspace: str) -> bool:
    """Return whether a server is configured that has the deployments of a workspace.

    Raises:
        TransientError: the server does not answer.
    """
    url = get_current_settings().api.url
    if url is None:
        return False
    try:
        with get_client(sync_client=True) as client:
            find_deployment(client, "data-engine", workspace)
    except BadInputError:
        return False
    except httpx.HTTPError as error:
        raise TransientError(f"the Prefect server at {url} does not answer: {error!r}") from error
    return True


def start_due(
    actions: Sequence[Action], workspace_id: str, *, attempts: int
) -> tuple[Standing, ...]:
    """Start a run for each action that no run is at.

    Args:
        actions: that are due, of one workspace.
        workspace_id: of it.
        attempts: so many runs may end without having done it.

    Raises:
        BadInputError: a flow has no deployment for the workspace.
        TransientError: the server does not answer; the same call again goes on.
    """
    try:
        with get_client(sync_client=True) as client:
            return tuple(_standing(client, action, workspace_id, attempts) for action in actions)
    except httpx.HTTPError as error:
        raise TransientError(f"the Prefect server does not answer: {error!r}") from error


def _standing(
    client: SyncPrefectClient, action: Action, workspace_id: str, attempts: int
) -> Standing:
    if (run := _at_work(client, action)) is not None:
        state = (run.state_name or "on its way").lower()
        return Standing(
            action=action, status="running", detail=f"{run.name} is {state}", url=url_for(run)
        )
    key = f"maskwheel-{workspace_id}-{action.key}"
    earlier = _runs_of_key(client, key)
    ended = [run for run in earlier if run.state_name != _STOPPED]
    cancelled = [run for run in ended if run.state_type == StateType.CANCELLED]
    if cancelled or len(ended) >= attempts:
        return _for_a_person(action, cancelled[0] if cancelled else ended[-1], len(ended))
    deployment = find_deployment(client, action.kind, str(action.arguments()["workspace"]))
    run = client.create_flow_run_from_deployment(
        deployment.id,
        parameters=action.arguments(),
        idempotency_key=f"{key}-{len(earlier) + 1}",
        tags=["data-engine"],
    )
    again = f", attempt {len(ended) + 1} of {attempts}" if ended else ""
    return Standing(
        action=action, status="started", detail=f"{run.name} was started{again}", url=url_for(run)
    )


def _at_work(client: SyncPrefectClient, action: Action) -> FlowRun | None:
    """Return a run that does the same already, or is about to."""
    runs = client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[action.kind])),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_GOING_ON))
        ),
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        limit=_MOST_RUNS,
    )
    given = action.arguments()
    return next((run for run in runs if _is_now(run) and _does(run, given)), None)


def _is_now(run: FlowRun) -> bool:
    """Whether a run is not merely scheduled for later, as those of tonight are."""
    state = run.state
    if state is None or state.type != StateType.SCHEDULED or state.name != "Scheduled":
        return True
    later = state.state_details.scheduled_time
    return later is None or later <= datetime.now(UTC)


def _does(run: FlowRun, given: dict[str, object]) -> bool:
    """Whether a run is of the same workspace, and the same campaign if it is of one."""
    return all(
        run.parameters.get(name) == given[name]
        for name in ("workspace", "campaign")
        if name in given
    )


def _runs_of_key(client: SyncPrefectClient, key: str) -> list[FlowRun]:
    """Return the runs that were started for an action, the first first."""
    keys = [f"{key}-{number}" for number in range(1, _MOST_RUNS + 1)]
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=keys)),
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        limit=_MOST_RUNS,
    )


def _for_a_person(action: Action, last: FlowRun, attempts: int) -> Standing:
    message = (last.state.message if last.state else None) or "it says nothing more"
    by_hand = f"`maskwheel run {action.kind}` starts it by hand"
    detail = (
        f"{last.name} was cancelled, so it is left alone; {by_hand}"
        if last.state_type == StateType.CANCELLED
        else f"{attempts} runs did not do it, the last {last.name}: {message}. A person has to "
        f"look; {by_hand}, and a change of the policy is tried again"
    )
    return Standing(action=action, status="needs-a-person", detail=detail, url=url_for(last))
