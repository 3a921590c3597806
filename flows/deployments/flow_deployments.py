"""Deployments on the server: compared before anything is written.

    changes = ensure_deployments(client, plan, specs, dry_run=False)

An update throws away the runs that Prefect has planned ahead, and changes when the thing was "last
updated"; so what is as it should be is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import (
    DeploymentCreate,
    DeploymentScheduleCreate,
    DeploymentUpdate,
)
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    DeploymentFilterTags,
)
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound

from flows.deployments.changes import UNKNOWN, Change, What, differing, page, plain
from flows.deployments.plan import MARK, DeploymentPlan
from flows.deployments.specs import SLUGS, DeploymentSpec

__all__ = ["ensure_deployments"]


def ensure_deployments(
    client: SyncPrefectClient,
    plan: DeploymentPlan,
    specs: Sequence[DeploymentSpec],
    *,
    dry_run: bool,
) -> list[Change]:
    """Create, update and remove until the server has the plan's deployments, and only them."""
    changes = [_ensure(client, spec, dry_run=dry_run) for spec in specs]
    return changes + _remove_others(client, plan, specs, dry_run=dry_run)


def _ensure(client: SyncPrefectClient, spec: DeploymentSpec, *, dry_run: bool) -> Change:
    what: What = "unchanged"
    fields: tuple[str, ...] = ()
    found = _read(client, spec.full_name)
    if found is None:
        what, deployment_id = "created", UNKNOWN
        if not dry_run:
            deployment_id = _create(client, spec)
    else:
        deployment_id = found.id
        fields = differing(spec.fields, _fields_of(found))
        if fields and not dry_run:
            client.update_deployment(found.id, DeploymentUpdate.model_validate(spec.fields))
        if _ensure_schedules(client, spec, found, dry_run=dry_run):
            fields = (*fields, "schedules")
        what = "updated" if fields else "unchanged"
    return Change(
        kind="deployment",
        name=spec.full_name,
        what=what,
        id=deployment_id,
        fields=fields,
        url=None if deployment_id == UNKNOWN else page("deployment", deployment_id),
    )


def _read(client: SyncPrefectClient, full_name: str) -> DeploymentResponse | None:
    try:
        return client.read_deployment_by_name(full_name)
    except ObjectNotFound:
        return None


def _create(client: SyncPrefectClient, spec: DeploymentSpec) -> UUID:
    flow_id = client.create_flow_from_name(spec.flow_name)
    wanted = DeploymentCreate.model_validate(
        {"flow_id": flow_id, "name": spec.name, "schedules": spec.schedules, **spec.fields}
    )
    payload = wanted.model_dump(mode="json", exclude_unset=True)
    return UUID(client.request("POST", "/deployments/", json=payload).json()["id"])


def _fields_of(found: DeploymentResponse) -> dict[str, object]:
    """Return what the server has, in the words in which it is asked for."""
    limit, options = found.global_concurrency_limit, found.concurrency_options
    return {
        **found.model_dump(mode="json", exclude={"concurrency_limit"}),
        "concurrency_limit": limit.limit if limit else None,
        "concurrency_options": options.model_dump(mode="json", exclude_none=True)
        if options
        else None,
    }


def _ensure_schedules(
    client: SyncPrefectClient, spec: DeploymentSpec, found: DeploymentResponse, *, dry_run: bool
) -> bool:
    """Bring our schedules up to date; whether one is paused is left to people."""
    theirs = {schedule.slug: schedule for schedule in found.schedules}
    missing = [wanted for wanted in spec.schedules if wanted.slug not in theirs]
    other = [
        (theirs[wanted.slug], wanted)
        for wanted in spec.schedules
        if wanted.slug in theirs and _times(wanted) != _times(theirs[wanted.slug])
    ]
    slugs = {wanted.slug for wanted in spec.schedules}
    surplus = [theirs[slug] for slug in SLUGS if slug in theirs and slug not in slugs]
    if not dry_run:
        for schedule in surplus:
            client.delete_deployment_schedule(found.id, schedule.id)
        for schedule, wanted in other:
            client.update_deployment_schedule(
                found.id, schedule.id, schedule=wanted.schedule, parameters=wanted.parameters
            )
        if missing:
            _add_schedules(client, found.id, missing)
    return bool(missing or other or surplus)


def _times(schedule: DeploymentSchedule | DeploymentScheduleCreate) -> object:
    return plain(schedule.model_dump(mode="json", include={"schedule", "parameters"}))


def _add_schedules(
    client: SyncPrefectClient, deployment_id: UUID, schedules: Iterable[DeploymentScheduleCreate]
) -> None:
    client.request(  # the client's own method knows neither slugs nor parameters
        "POST",
        "/deployments/{id}/schedules",
        path_params={"id": deployment_id},
        json=[schedule.model_dump(mode="json") for schedule in schedules],
    )


def _remove_others(
    client: SyncPrefectClient,
    plan: DeploymentPlan,
    specs: Iterable[DeploymentSpec],
    *,
    dry_run: bool,
) -> list[Change]:
    """Remove our deployments of flows that there are no more, and only ours."""
    wanted = {spec.flow_name for spec in specs}
    ours = client.read_deployments(
        deployment_filter=DeploymentFilter(
            name=DeploymentFilterName(any_=[plan.name]), tags=DeploymentFilterTags(all_=[MARK])
        )
    )
    changes = []
    for deployment in ours:
        flow_name = client.read_flow(deployment.flow_id).name
        if flow_name in wanted:
            continue
        if not dry_run:
            client.delete_deployment(deployment.id)
        name = f"{flow_name}/{deployment.name}"
        changes.append(Change(kind="deployment", name=name, what="removed", id=deployment.id))
    return changes
