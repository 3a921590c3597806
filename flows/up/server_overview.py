"""What a Prefect server has done for a workspace lately, and does next: for `maskwheel status`.

found = server_overview("http://127.0.0.1:4200/api", "/data/birds", now)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterType,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES
from prefect.settings.context import temporary_settings
from prefect.utilities.urls import url_for

from engine.errors import TransientError

__all__ = ["DeploymentLine", "RunLine", "ServerOverview", "server_overview"]

T = TypeVar("T")

_PAGE = 200
_MOST_RUNS = 2_000
_LOOKS, _ENGINE = 3, "data-engine"
_ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentLine:
    """A flow of the workspace, as it is deployed.

    Attributes:
        flow: its name.
        name: of the deployment.
        is_paused: whether its schedules are switched off.
        next_run: when it starts by itself.
    """

    flow: str
    name: str
    is_paused: bool
    next_run: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLine:
    """A flow run.

    Attributes:
        flow: of which flow.
        name: of the run.
        state: Prefect's name for it.
        since: when that began.
        url: its page.
        summary: what it left to be read, in a line.
    """

    flow: str
    name: str
    state: str
    since: datetime | None
    url: str | None
    summary: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOverview:
    """What a server knows of a workspace.

    Attributes:
        deployments: by flow.
        running: runs that are at work now.
        runs_by_state: of the last day.
        decisions: the data engine's last looks, the latest first.
    """

    deployments: tuple[DeploymentLine, ...]
    running: tuple[RunLine, ...]
    runs_by_state: dict[str, int]
    decisions: tuple[RunLine, ...]


def server_overview(api_url: str, workspace: str, now: datetime) -> ServerOverview:
    """Ask a server about a workspace.

    Raises:
        TransientError: it does not answer.
    """
    settings = {PREFECT_API_URL: api_url, PREFECT_CLIENT_MAX_RETRIES: 0}
    try:
        with (
            temporary_settings(settings),
            get_client({"timeout": _ANSWER_SECONDS}, sync_client=True) as client,
        ):
            return _Asking(client, workspace, now).overview()
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        raise TransientError(f"the Prefect server at {api_url} fails: {error!r}") from error


class _Asking:
    """Questions about the flow runs of one workspace."""

    def __init__(self, client: SyncPrefectClient, workspace: str, now: datetime) -> None:
        self._client = client
        self._now = now
        deployed = [
            one
            for one in _pages(lambda offset: client.read_deployments(limit=_PAGE, offset=offset))
            if one.parameters.get("workspace") == workspace
        ]
        flows = {flow.id: flow.name for flow in client.read_flows(limit=_PAGE)}
        self._deployed = {one.id: one for one in deployed}
        self._flows = {one.id: flows.get(one.flow_id, str(one.flow_id)) for one in deployed}

    def overview(self) -> ServerOverview:
        """Put the answers together."""
        running = self._runs(_in_states(StateType.RUNNING, StateType.PENDING))
        return ServerOverview(
            deployments=self._deployments(),
            running=tuple(self._line(run) for run in running),
            runs_by_state=self._runs_by_state(),
            decisions=self._decisions(),
        )

    def _deployments(self) -> tuple[DeploymentLine, ...]:
        coming = self._runs(
            _in_states(StateType.SCHEDULED),
            _expected(after_=self._now),
            sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        )
        next_runs: dict[UUID | None, datetime | None] = {}
        for run in coming:
            next_runs.setdefault(run.deployment_id, run.expected_start_time)
        lines = (self._deployment(one, next_runs.get(one.id)) for one in self._deployed.values())
        return tuple(sorted(lines, key=lambda line: line.flow))

    def _deployment(self, one: DeploymentResponse, next_run: datetime | None) -> DeploymentLine:
        return DeploymentLine(
            flow=self._flows[one.id], name=one.name, is_paused=one.paused, next_run=next_run
        )

    def _runs_by_state(self) -> dict[str, int]:
        lately = _expected(after_=self._now - timedelta(days=1), before_=self._now)
        counts = Counter(run.state_name or "Unknown" for run in self._runs(None, lately))
        return dict(counts.most_common())

    def _decisions(self) -> tuple[RunLine, ...]:
        engines = [one for one, flow in self._flows.items() if flow == _ENGINE]
        looks = self._runs(
            _in_states(StateType.COMPLETED, StateType.FAILED, StateType.CRASHED),
            deployments=engines,
            limit=_LOOKS,
        )
        return tuple(self._line(run, self._summary(run)) for run in looks)

    def _summary(self, run: FlowRun) -> str | None:
        """Return what the run's page says of itself."""
        pages = self._client.read_artifacts(
            artifact_filter=ArtifactFilter(
                flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]),
                type=ArtifactFilterType(any_=["markdown"]),
            ),
            limit=1,
        )
        return pages[0].description if pages else None

    def _line(self, run: FlowRun, summary: str | None = None) -> RunLine:
        return RunLine(
            flow=self._flows.get(run.deployment_id, "") if run.deployment_id else "",
            name=run.name,
            state=run.state_name or "Unknown",
            since=run.start_time or run.expected_start_time,
            url=url_for(run),
            summary=summary,
        )

    def _runs(
        self,
        state: FlowRunFilterState | None,
        expected: FlowRunFilterExpectedStartTime | None = None,
        *,
        deployments: Sequence[UUID] | None = None,
        sort: FlowRunSort = FlowRunSort.EXPECTED_START_TIME_DESC,
        limit: int = _MOST_RUNS,
    ) -> list[FlowRun]:
        ids = list(self._deployed) if deployments is None else list(deployments)
        if not ids:
            return []
        chosen = FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=ids),
            state=state,
            expected_start_time=expected,
        )
        return _pages(
            lambda offset: self._client.read_flow_runs(
                flow_run_filter=chosen, sort=sort, limit=min(limit, _PAGE), offset=offset
            ),
            limit,
        )


def _in_states(*types: StateType) -> FlowRunFilterState:
    return FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types)))


def _expected(**times: datetime) -> FlowRunFilterExpectedStartTime:
    return FlowRunFilterExpectedStartTime.model_validate(times)


def _pages(read: Callable[[int], Sequence[T]], most: int = _MOST_RUNS) -> list[T]:
    """Read page after page until there is nothing more, or enough."""
    found: list[T] = []
    while len(found) < most:
        page = read(len(found))
        found += page
        if len(page) < _PAGE:
            break
    return found[:most]
