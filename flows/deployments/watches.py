"""Watches over runs whose process died without a word: they are marked as crashed.

    automations = watches(plan, deployment_ids)

Without them a run whose worker and process were killed, or whose machine is gone, stays "Running"
for ever: it holds its place in the queue, and nothing starts in its stead. Only runs of our own
deployments are watched: they say every 30 seconds that they live, others may be silent for longer.
A run that was marked and lives nevertheless, because the server was away, still ends as what it is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from uuid import UUID

from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from flows.catalogue import FLOWS
from flows.deployments.plan import HEARTBEAT_SECONDS, MARK, DeploymentPlan

__all__ = ["of_deployments", "watches"]

_HEARTBEAT = "prefect.flow-run.heartbeat"
_PENDING = "prefect.flow-run.Pending"

# After these nothing more is to be heard of a run for now. Events are called by the state's name.
_AT_REST = frozenset(
    f"prefect.flow-run.{name}"
    for name in (
        "Alert",  # flows.alert
        "AwaitingConcurrencySlot",
        "AwaitingRetry",
        "Cached",
        "Cancelled",
        "Completed",
        "Crashed",
        "Failed",
        "Late",
        "Paused",
        "RolledBack",
        "Scheduled",
        "Stopped",  # flows.up
        "Suspended",
        "TimedOut",
    )
)


def watches(plan: DeploymentPlan, deployment_ids: Mapping[str, UUID]) -> list[AutomationCore]:
    """Return the watches of a plan.

    Args:
        plan: what is deployed.
        deployment_ids: of each flow's name, its deployment.
    """
    ours = [deployment_ids[name] for name in FLOWS]
    return [
        _watch(
            f"{plan.name} watch: a run without a sign of life is dead",
            f"Runs say every {HEARTBEAT_SECONDS} s that they live; one that was silent for "
            f"{plan.silence_seconds} s is marked as crashed.",
            after=_HEARTBEAT,
            expect=_AT_REST | {_HEARTBEAT},
            seconds=plan.silence_seconds,
            deployment_ids=ours,
            message=f"No sign of life for {plan.silence_seconds} s: the run's process or machine "
            "is gone. What it had finished is kept; another run goes on from there.",
        ),
        _watch(
            f"{plan.name} watch: a run that never begins is dead",
            f"A run that a worker took and that did not begin within {plan.starting_seconds} s is "
            "marked as crashed.",
            after=_PENDING,
            expect=_AT_REST | {_HEARTBEAT, "prefect.flow-run.Running"},
            seconds=plan.starting_seconds,
            deployment_ids=ours,
            message=f"A worker took the run, and it did not begin within {plan.starting_seconds} "
            "s: the worker is gone, or there is no machine for it.",
        ),
    ]


def of_deployments(deployment_ids: Collection[UUID]) -> ResourceSpecification:
    """Match events about runs of these deployments."""
    return ResourceSpecification(
        {
            "prefect.resource.role": "deployment",
            "prefect.resource.id": sorted(f"prefect.deployment.{one}" for one in deployment_ids),
        }
    )


def _watch(
    name: str,
    description: str,
    *,
    after: str,
    expect: Collection[str],
    seconds: int,
    deployment_ids: Collection[UUID],
    message: str,
) -> AutomationCore:
    return AutomationCore(
        name=name,
        description=description,
        tags=[MARK],
        trigger=EventTrigger(
            after={after},
            expect=set(expect),
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=of_deployments(deployment_ids),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=seconds),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED, name="Crashed", message=message, force=False
            )
        ],
    )
