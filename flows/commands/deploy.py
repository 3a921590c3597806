"""`maskwheel deploy`: tell a Prefect server what to run, when, and after which events."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flows.commands.options import json_option, print_json, workspace_address, workspace_option

if TYPE_CHECKING:
    from engine.wheel.policy import Policy
    from flows.deployments import Change, DeploymentPlan, NotificationBlock, Webhook


class _JobVariable(click.ParamType[tuple[str, object]]):
    """NAME=VALUE, the value as JSON where it is JSON."""

    name = "name=value"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, object]:
        name, equals, text = str(value).partition("=")
        if not (name and equals):
            self.fail(f"{value!r} is not name=value, such as gpus=1", param, ctx)
        try:
            return name, json.loads(text)
        except json.JSONDecodeError:
            return name, text


@click.command(
    "deploy",
    epilog="""\b
Examples:
  maskwheel deploy -w birds                        to the server that PREFECT_API_URL names
  maskwheel deploy -w birds --dry-run              only say what would change
  maskwheel deploy -w s3://birds/set --name birds --compute-runs 4 --job-variable gpus=1
  maskwheel deploy -w birds --notify-webhook https://hooks.slack.com/services/...

A second call changes nothing. What you pause or switch off in the Prefect UI stays so.
`maskwheel up` does this by itself, on one machine.""",
)
@workspace_option
@click.option(
    "--name",
    default="maskwheel",
    show_default=True,
    help="Of the deployments: retrain/NAME. Two workspaces on one server need two.",
)
@click.option(
    "--pool",
    default="maskwheel",
    show_default=True,
    help="Work pool; made for processes if there is none, else used as it is.",
)
@click.option(
    "--policy",
    metavar="NAME|FILE",
    help="Schedules and parameters by this policy.  [default: the workspace's own]",
)
@click.option("--timezone", default="UTC", show_default=True, help="Of schedules: Europe/Zurich.")
@click.option(
    "--compute-runs",
    type=click.IntRange(1),
    help="Heavy runs at once, over all machines.  [default: 1, or what the queue has]",
)
@click.option(
    "--job-variable",
    "job_variables",
    type=_JobVariable(),
    multiple=True,
    help="Of the pool, for heavy runs, e.g. gpus=1 on Kubernetes; any number.",
)
@click.option("--notify-webhook", metavar="URL", help="Send alerts there as JSON: Slack and alike.")
@click.option("--notify", metavar="TYPE/BLOCK", help="Send alerts by a block of Prefect's.")
@click.option(
    "--wait",
    type=click.FloatRange(0),
    default=10.0,
    show_default=True,
    help="Seconds for a server that is still starting.",
)
@click.option("--dry-run", is_flag=True, help="Change nothing.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    workspace: str | None,
    name: str,
    pool: str,
    policy: str | None,
    timezone: str,
    compute_runs: int | None,
    job_variables: Sequence[tuple[str, object]],
    notify_webhook: str | None,
    notify: str | None,
    wait: float,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Deploy a workspace to a Prefect server: work pool, deployments, schedules, triggers, alerts.

    The flows run where a worker of the pool runs: `prefect worker start --pool maskwheel`.
    """
    from flows.runtime import prepare_prefect

    prepare_prefect(verbose=bool(ctx.find_root().params.get("verbose")))
    from engine.wheel.flow_parameters import flow_parameters
    from flows.deployments import DeploymentPlan, Schedules, deploy

    address = workspace_address(workspace)
    followed = _policy(address, policy)
    plan = DeploymentPlan(
        workspace=address,
        name=name,
        pool=pool,
        schedules=Schedules.of(followed, timezone) if followed else Schedules(timezone=timezone),
        policy=_policy_parameter(policy),
        parameters=flow_parameters(followed) if followed else {},
        compute_runs=compute_runs,
        compute_job_variables=dict(job_variables),
        notify=_notify(notify_webhook, notify),
    )
    changes = deploy(plan, dry_run=dry_run, wait_seconds=wait)
    if as_json:
        print_json(
            {
                "name": plan.name,
                "workspace": plan.workspace,
                "dry_run": dry_run,
                "changes": [asdict(change) for change in changes],
            }
        )
    else:
        _show(plan, changes, dry_run=dry_run, has_policy=followed is not None)


def _policy(address: str, name: str | None) -> Policy | None:
    from engine.objects import open_store
    from engine.wheel.policy import find_policy, load_policy

    store = open_store(address)
    return find_policy(store) if name is None else load_policy(store, name)


def _policy_parameter(name: str | None) -> str | None:
    """Return what the data engine is told: a preset's name, or a path that any folder knows."""
    from engine.wheel.policy import PRESETS

    return name if name is None or name in PRESETS else str(Path(name).resolve())


def _notify(webhook: str | None, block: str | None) -> Webhook | NotificationBlock | None:
    from flows.deployments import NotificationBlock, Webhook

    if webhook is not None and block is not None:
        raise click.UsageError("--notify-webhook and --notify: expected one of them")
    if webhook is not None:
        return Webhook(url=webhook)
    return None if block is None else NotificationBlock.parse(block)


def _show(
    plan: DeploymentPlan, changes: Sequence[Change], *, dry_run: bool, has_policy: bool
) -> None:
    from flows.commands.release_tables import console, table

    shown = table("", "what", "name", "page")
    for change in changes:
        what = f"{change.what} ({', '.join(change.fields)})" if change.fields else change.what
        shown.add_row(what, change.kind, change.name, change.url or "")
    console().print(shown, soft_wrap=True)
    counts = Counter(change.what for change in changes)
    said = ", ".join(f"{count} {what}" for what, count in counts.items())
    click.echo(f"\n{plan.workspace}: {said}{' (dry run: nothing was done)' if dry_run else ''}")
    if not has_policy:
        click.echo("It has no policy: nothing starts by itself. `maskwheel policy init` makes one.")
    click.echo(f"Flows run where a worker does: prefect worker start --pool {plan.pool}")
