"""The deployments that a plan asks for: one per flow, with its schedules, as Prefect writes them.

    specs = deployment_specs(plan, compute_runs=1)

They run from an installed package: an entrypoint is a module's function, and nothing is fetched.
The form of a deployment in the UI is the flow's signature with the words of its docstring.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version

from prefect import Flow
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.utilities.callables import parameter_schema
from pydantic import ValidationError

from engine.errors import BadInputError
from flows.catalogue import ALERT, FLOWS, FlowEntry
from flows.deployments.plan import HEARTBEAT_SECONDS, MARK, DeploymentPlan
from flows.runtime import LOGGING_ENVIRONMENT

__all__ = ["SLUGS", "DeploymentSpec", "deployment_specs"]

# Any fixed time: with the default, which is now, an interval would differ at every call.
_ANCHOR = datetime(2026, 1, 1, tzinfo=UTC)

_ENQUEUE = ConcurrencyLimitStrategy.ENQUEUE.value

# Of the schedules that are ours; those that people add in the UI have other slugs, or none.
_LOOK, _NIGHTLY, _REGULAR, _TIDY = SLUGS = ("look", "nightly", "regular", "tidy")

# Of the processes that a worker starts, which know nothing of `flows.runtime`.
_ENVIRONMENT = {
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
    **LOGGING_ENVIRONMENT,
}

_STARTED_BY = {
    "publish-annotations": "a campaign that is complete",
    "retrain": "a release with enough new human masks, and an audit below the bar",
    "data-engine": "a model that became the champion",
    ALERT: "a trigger that could not start its run, and runs that failed or died",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSpec:
    """A deployment as it should be.

    Attributes:
        flow_name: of the flow.
        name: of the deployment.
        fields: of Prefect's deployment, JSON.
        schedules: each with a slug, by which it is found again.
    """

    flow_name: str
    name: str
    fields: Mapping[str, object]
    schedules: tuple[DeploymentScheduleCreate, ...]

    @property
    def full_name(self) -> str:
        """As Prefect writes it."""
        return f"{self.flow_name}/{self.name}"


def deployment_specs(plan: DeploymentPlan, *, compute_runs: int) -> list[DeploymentSpec]:
    """Return the deployments that a plan asks for, one per flow; imports the flows.

    Args:
        plan: what to deploy.
        compute_runs: heavy runs that the queue lets through at once.

    Raises:
        BadInputError: schedules or parameters that cannot be.
    """
    unknown = sorted(set(plan.parameters) - set(FLOWS))
    if unknown:
        raise BadInputError(f"parameters for unknown flows {unknown}; expected some of {[*FLOWS]}")
    return [_spec(entry, plan, compute_runs) for entry in FLOWS.values()]


def _spec(entry: FlowEntry, plan: DeploymentPlan, compute_runs: int) -> DeploymentSpec:
    flow: Flow[..., object] = getattr(import_module(entry.module), entry.function)
    schema = parameter_schema(flow)
    parameters = _parameters(entry, plan)
    if unknown := sorted(set(parameters) - set(schema.properties)):
        raise BadInputError(
            f"{entry.name} has no parameters {unknown}; it has {[*schema.properties]}"
        )
    # For one heavy run at once the queue's limit is enough: see `flows.deployments.pools`.
    alone = entry.exclusive and compute_runs > 1
    fields: dict[str, object] = {
        "version": version("maskwheel"),
        "description": _description(entry),
        "tags": [MARK, entry.queue],
        "parameters": parameters,
        "work_pool_name": plan.pool,
        "work_queue_name": entry.queue,
        "entrypoint": entry.entrypoint,
        "path": None,
        "pull_steps": [],
        "job_variables": _job_variables(entry, plan),
        "concurrency_limit": 1 if alone else None,
        "concurrency_options": {"collision_strategy": _ENQUEUE} if alone else None,
        "parameter_openapi_schema": schema.model_dump(exclude_unset=True),
        "enforce_parameter_schema": True,
    }
    return DeploymentSpec(
        flow_name=flow.name,
        name=plan.name,
        fields=fields,
        schedules=tuple(_schedules(entry, plan)),
    )


def _description(entry: FlowEntry) -> str:
    started_by = _STARTED_BY.get(entry.name)
    return entry.summary + (f"\n\nStarted by {started_by}." if started_by else "")


def _parameters(entry: FlowEntry, plan: DeploymentPlan) -> dict[str, object]:
    parameters = {"workspace": plan.workspace, **plan.parameters.get(entry.name, {})}
    if entry.name == "data-engine" and plan.policy is not None:
        parameters["policy"] = plan.policy
    return parameters


def _job_variables(entry: FlowEntry, plan: DeploymentPlan) -> dict[str, object]:
    given = plan.compute_job_variables if entry.queue == "compute" else {}
    environment = given.get("env", {})
    if not isinstance(environment, Mapping):
        raise BadInputError(f"job variable env: got {environment!r}; expected an object")
    return {**given, "env": {**_ENVIRONMENT, **environment}}


def _schedules(entry: FlowEntry, plan: DeploymentPlan) -> Iterator[DeploymentScheduleCreate]:
    times = plan.schedules
    if entry.name == "data-engine" and times.look_every is not None:
        interval = IntervalSchedule(
            interval=times.look_every, anchor_date=_ANCHOR, timezone=times.timezone
        )
        yield DeploymentScheduleCreate(schedule=interval, slug=_LOOK)
    if entry.name == "fully-automatic" and times.nightly:
        yield _cron(times.nightly, times.timezone, _NIGHTLY)
    if entry.name == "retrain" and times.retraining:
        yield _cron(times.retraining, times.timezone, _REGULAR, {"reason": "schedule"})
    if entry.name == "maintenance" and times.maintenance:
        yield _cron(times.maintenance, times.timezone, _TIDY)


def _cron(
    cron: str, timezone: str, slug: str, parameters: Mapping[str, object] | None = None
) -> DeploymentScheduleCreate:
    try:
        schedule = CronSchedule(cron=cron, timezone=timezone)
    except ValidationError as error:
        raise BadInputError(
            f"got the schedule {cron!r}; expected a cron line such as '0 2 * * *', every night at 2"
        ) from error
    return DeploymentScheduleCreate(schedule=schedule, slug=slug, parameters=dict(parameters or {}))
