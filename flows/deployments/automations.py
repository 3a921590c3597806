"""Automations on the server: found by name, written only where they differ, never doubled.

    changes = ensure_automations(client, plan, automations, dry_run=False)

An update makes Prefect forget what an automation has seen, e.g. the runs that it watches over; so
one that is as it should be is left alone. Whether it is switched on is left to people.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from prefect.client.orchestration import SyncPrefectClient
from prefect.events.schemas.automations import Automation, AutomationCore

from flows.deployments.changes import UNKNOWN, Change, What, differing, page
from flows.deployments.plan import MARK, DeploymentPlan

__all__ = ["ensure_automations"]

_PAGE = 200


def ensure_automations(
    client: SyncPrefectClient,
    plan: DeploymentPlan,
    automations: Iterable[AutomationCore],
    *,
    dry_run: bool,
) -> list[Change]:
    """Create, update and remove until the server has exactly these of ours."""
    wanted = {automation.name: automation for automation in automations}
    found = _ours(client, plan, wanted)
    changes = []
    surplus: list[Automation] = []
    for name, automation in wanted.items():
        same = found.pop(name, [])
        changes.append(_ensure(client, automation, same[0] if same else None, dry_run=dry_run))
        surplus += same[1:]
    surplus += [automation for others in found.values() for automation in others]
    return changes + [_remove(client, automation, dry_run=dry_run) for automation in surplus]


def _ours(
    client: SyncPrefectClient, plan: DeploymentPlan, wanted: Container[str]
) -> dict[str, list[Automation]]:
    """Return the automations that were made for the plan, by name.

    What is called as a wanted one is one: `prefect deploy` makes triggers without our mark.
    """
    beginnings = tuple(f"{plan.name}{kind}: " for kind in ("", " watch", " alert"))
    ours: dict[str, list[Automation]] = {}
    for automation in _all(client):
        is_marked = MARK in automation.tags and automation.name.startswith(beginnings)
        if is_marked or automation.name in wanted:
            ours.setdefault(automation.name, []).append(automation)
    return ours


def _all(client: SyncPrefectClient) -> Iterable[Automation]:
    offset = 0
    while found := client.read_automations(limit=_PAGE, offset=offset):
        yield from found
        offset += len(found)


def _ensure(
    client: SyncPrefectClient,
    wanted: AutomationCore,
    found: Automation | None,
    *,
    dry_run: bool,
) -> Change:
    what: What = "unchanged"
    fields: tuple[str, ...] = ()
    if found is None:
        what = "created"
        automation_id = UNKNOWN if dry_run else client.create_automation(wanted)
    else:
        automation_id = found.id
        fields = differing(_content(wanted), _content(found))
        if fields:
            what = "updated"
            if not dry_run:
                kept = wanted.model_copy(update={"enabled": found.enabled})
                client.update_automation(found.id, kept)
    return Change(
        kind="automation",
        name=wanted.name,
        what=what,
        id=automation_id,
        fields=fields,
        url=None if automation_id == UNKNOWN else page("automation", automation_id),
    )


def _remove(client: SyncPrefectClient, automation: Automation, *, dry_run: bool) -> Change:
    if not dry_run:
        client.delete_automation(automation.id)
    return Change(kind="automation", name=automation.name, what="removed", id=automation.id)


def _content(automation: AutomationCore) -> dict[str, object]:
    content = automation.model_dump(
        mode="json", include={"description", "tags", "trigger", "actions"}
    )
    return {name: _in_order(value) for name, value in content.items()}


def _in_order(value: object) -> object:
    """Sort what Prefect keeps as sets, whose order means nothing."""
    if isinstance(value, dict):
        return {key: _in_order(item) for key, item in value.items()}
    if isinstance(value, list):
        items = [_in_order(item) for item in value]
        return sorted(items, key=str) if all(isinstance(item, str) for item in items) else items
    return value
