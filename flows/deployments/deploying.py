"""Deploy a workspace: everything that Prefect needs to know about it, in one call.

for change in deploy(DeploymentPlan(workspace="birds")):
    print(change.what, change.kind, change.name)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic, sleep
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import get_current_settings

from engine.errors import TerminalError, TransientError
from flows.deployments.alerts import alerts
from flows.deployments.automations import ensure_automations
from flows.deployments.changes import Change
from flows.deployments.flow_deployments import ensure_deployments
from flows.deployments.notifications import ensure_notification
from flows.deployments.plan import DeploymentPlan
from flows.deployments.pools import compute_limit, ensure_pool, ensure_queues
from flows.deployments.specs import deployment_specs
from flows.deployments.triggers import triggers
from flows.deployments.watches import watches

__all__ = ["deploy"]

_LOOK_SECONDS = 0.5


def deploy(
    plan: DeploymentPlan, *, dry_run: bool = False, wait_seconds: float = 0
) -> tuple[Change, ...]:
    """Make the server's work pool, queues, deployments, schedules and automations as planned.

    What is as it should be is not touched, so a second call changes nothing. What people paused or
    switched off stays so. Of what is not in the plan, only what an earlier call made is removed.

    Args:
        plan: what to deploy.
        dry_run: only say what would change.
        wait_seconds: for a server that is still starting.

    Raises:
        BadInputError: schedules, parameters or a notification block that cannot be.
        TerminalError: no server is configured, or it refused.
        TransientError: it does not answer.
    """
    with _server(wait_seconds) as client:
        # Whatever cannot be is refused before anything is written.
        specs = deployment_specs(plan, compute_runs=compute_limit(client, plan))
        notification = ensure_notification(client, plan, dry_run=dry_run)
        pool = ensure_pool(client, plan, dry_run=dry_run)
        queues = ensure_queues(client, plan, dry_run=dry_run)
        deployments = ensure_deployments(client, plan, specs, dry_run=dry_run)
        ids = _ids(deployments)
        notify = notification.id if notification else None
        automations = [*triggers(plan, ids), *watches(plan, ids), *alerts(plan, ids, notify)]
        automatic = ensure_automations(client, plan, automations, dry_run=dry_run)
    told = [notification] if notification else []
    return (pool, *queues, *deployments, *told, *automatic)


def _ids(deployments: list[Change]) -> Mapping[str, UUID]:
    return {change.name.partition("/")[0]: change.id for change in deployments}


@contextmanager
def _server(wait_seconds: float) -> Iterator[SyncPrefectClient]:
    address = get_current_settings().api.url
    if address is None:
        raise TerminalError(
            "no Prefect server to deploy to: `maskwheel up` starts one with everything else, or "
            "set PREFECT_API_URL to the address of yours, e.g. http://127.0.0.1:4200/api"
        )
    with get_client(sync_client=True) as client:
        _wait_for(client, address, wait_seconds)
        try:
            yield client
        except httpx.TransportError as error:
            raise TransientError(
                f"the Prefect server at {address} went away ({error!r}); the same command goes on"
            ) from error
        except PrefectHTTPStatusError as error:
            raise TerminalError(
                f"the Prefect server at {address} refused: {error.response.text[:500]}"
            ) from error


def _wait_for(client: SyncPrefectClient, address: str, seconds: float) -> None:
    deadline = monotonic() + seconds
    while (problem := client.api_healthcheck()) is not None:
        if monotonic() > deadline:
            raise TransientError(
                f"the Prefect server at {address} does not answer ({problem!r}); is it running? "
                "`maskwheel up` starts one, PREFECT_API_URL says where another one is"
            ) from problem
        sleep(_LOOK_SECONDS)
