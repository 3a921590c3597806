"""Who is told about alerts: a webhook, or a notification block that somebody made in Prefect.

change = ensure_notification(client, plan, dry_run=False)      # change.id: for the alerts
"""

from __future__ import annotations

from uuid import UUID

from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound
from prefect.types import SecretDict

from engine.errors import BadInputError
from flows.deployments.changes import UNKNOWN, Change, What, page
from flows.deployments.plan import DeploymentPlan, NotificationBlock, Webhook

__all__ = ["ensure_notification"]

_TYPE = CustomWebhookNotificationBlock.get_block_type_slug()


def ensure_notification(
    client: SyncPrefectClient, plan: DeploymentPlan, *, dry_run: bool
) -> Change | None:
    """Find the block that the plan names, or keep one for its webhook.

    A webhook that was given earlier stays in use until another one is given.

    Raises:
        BadInputError: there is no such block.
    """
    match plan.notify:
        case NotificationBlock():
            return _find(client, plan.notify)
        case Webhook():
            return _keep(client, plan, plan.notify, dry_run=dry_run)
        case None:
            return _kept(client, plan)


def _find(client: SyncPrefectClient, block: NotificationBlock) -> Change:
    try:
        found = client.read_block_document_by_name(
            block.name, block.type_slug, include_secrets=False
        )
    except ObjectNotFound as error:
        raise BadInputError(
            f"there is no block {block.type_slug}/{block.name} on the Prefect server; make it on "
            "its page Blocks, or see `prefect block ls`"
        ) from error
    name = f"{block.type_slug}/{block.name}"
    return Change(
        kind="notification",
        name=name,
        what="unchanged",
        id=found.id,
        url=page("block-document", found.id),
    )


def _kept(client: SyncPrefectClient, plan: DeploymentPlan) -> Change | None:
    try:
        return _find(client, NotificationBlock(type_slug=_TYPE, name=_block_name(plan)))
    except BadInputError:
        return None


def _keep(
    client: SyncPrefectClient, plan: DeploymentPlan, webhook: Webhook, *, dry_run: bool
) -> Change:
    kept = _kept(client, plan)
    what: What = "created" if kept is None else "updated"
    if kept is not None and _address(client, plan) == webhook.url:
        return kept
    block_id = kept.id if kept else UNKNOWN
    if not dry_run:
        block_id = _save(webhook, _block_name(plan))
    return Change(
        kind="notification",
        name=f"{_TYPE}/{_block_name(plan)}",
        what=what,
        id=block_id,
        fields=("url",) if what == "updated" else (),
        url=None if block_id == UNKNOWN else page("block-document", block_id),
    )


def _block_name(plan: DeploymentPlan) -> str:
    return f"{plan.name}-alerts"


def _save(webhook: Webhook, name: str) -> UUID:
    # The address of a chat's webhook is as good as a password: only secrets are kept encrypted.
    block = CustomWebhookNotificationBlock(
        name="Maskwheel",
        url="{{address}}",
        json_data={"text": "{{subject}}\n{{body}}"},
        headers=None,
        cookies=None,
        secrets=SecretDict({"address": webhook.url}),
    )
    saved = block.save(name, overwrite=True)
    if not isinstance(saved, UUID):
        raise TypeError(f"expected a block's id from a synchronous call; got {saved!r}")
    return saved


def _address(client: SyncPrefectClient, plan: DeploymentPlan) -> object:
    kept = client.read_block_document_by_name(_block_name(plan), _TYPE, include_secrets=True)
    return (kept.data.get("secrets") or {}).get("address")
