"""Ask the Prefect server for a run, where its workers are.

asked = ask("retrain", {"workspace": "/data/birds", "steps": 2000})
asked.url                              # the run's page
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.responses import DeploymentResponse
from prefect.settings import get_current_settings
from prefect.utilities.urls import url_for

from engine.errors import BadInputError, TransientError

__all__ = ["AskedRun", "ask", "find_deployment"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedRun:
    """A run that was asked for.

    Attributes:
        deployment: ``flow/deployment``.
        run_id: of the flow run.
        url: its page; None: the server has no pages.
        has_workers: whether a worker is there to do it.
    """

    deployment: str
    run_id: str
    url: str | None
    has_workers: bool


def ask(flow: str, parameters: Mapping[str, Any], name: str | None = None) -> AskedRun:
    """Ask for a run now; returns at once.

    Args:
        flow: its name.
        parameters: of the run.
        name: of the deployment; None: the one that is for this workspace.

    Raises:
        BadInputError: no server is configured, or it has no such deployment.
        TransientError: it does not answer.
    """
    url = get_current_settings().api.url
    if url is None:
        raise BadInputError(
            "no Prefect server is known; `maskwheel up` starts one, PREFECT_API_URL names another, "
            "and without --deployment the flow runs here"
        )
    try:
        with get_client(sync_client=True) as client:
            deployment = find_deployment(client, flow, str(parameters.get("workspace", "")), name)
            has_workers = _has_workers(client, deployment.work_pool_name)
            run = client.create_flow_run_from_deployment(deployment.id, parameters=dict(parameters))
    except httpx.HTTPError as error:
        raise TransientError(f"the Prefect server at {url} does not answer: {error!r}") from error
    return AskedRun(
        deployment=f"{flow}/{deployment.name}",
        run_id=str(run.id),
        url=url_for(run),
        has_workers=has_workers,
    )


def find_deployment(
    client: SyncPrefectClient, flow: str, workspace: str, name: str | None = None
) -> DeploymentResponse:
    """Return the deployment of a flow that is for a workspace, or has a name.

    Raises:
        BadInputError: the server has none.
    """
    of_flow = FlowFilter(name=FlowFilterName(any_=[flow]))
    found = client.read_deployments(flow_filter=of_flow)
    for deployment in found:
        if name is not None and deployment.name == name:
            return deployment
        if name is None and deployment.parameters.get("workspace") == workspace:
            return deployment
    what = f"deployment {flow}/{name}" if name else f"deployment of {flow} for {workspace}"
    others = ", ".join(
        f"{one.name} for {one.parameters.get('workspace', 'any workspace')}" for one in found
    )
    raise BadInputError(
        f"the Prefect server has no {what}; it has {others or 'none of this flow'}. `maskwheel "
        "deploy -w WORKSPACE` makes them, `maskwheel up` does it too"
    )


def _has_workers(client: SyncPrefectClient, pool: str | None) -> bool:
    """Return whether a work pool has a worker that was heard of lately."""
    return pool is None or any(
        worker.status == "ONLINE" for worker in client.read_workers_for_work_pool(pool)
    )
