"""`maskwheel status`: what runs, what waits for whom, what comes next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click

from flows.commands.options import json_option, print_json, workspace_address, workspace_option
from flows.commands.release_tables import console, table

if TYPE_CHECKING:
    from flows.up.data_overview import DataOverview
    from flows.up.links import Links
    from flows.up.server_overview import RunLine, ServerOverview
    from flows.up.state_file import UpState
    from flows.up.status import Status


@click.command(
    "status",
    epilog="""\b
Examples:
  maskwheel status
  maskwheel status -w birds --json

Says what it can find out: without `maskwheel up` how far the data set is, and with a Prefect server
what ran, runs, and comes next.""",
)
@workspace_option
@json_option
def command(workspace: str | None, as_json: bool) -> None:
    """Say what runs on this machine for a workspace, and how far it is."""
    from flows.importing import quick_imports

    with quick_imports():
        from engine.config import current_time
        from flows.runtime import prepare_prefect
        from flows.up.status import read_status

    prepare_prefect(verbose=False)
    now = current_time()
    status = read_status(workspace_address(workspace), now)
    if as_json:
        print_json(_fields(status))
        return
    _show_parts(status.up, status.links, now)
    _show_data(status.workspace, status.data)
    if status.server is not None:
        _show_server(status.server, now)
    if status.problem is not None:
        click.secho(status.problem, fg="yellow")


def _fields(status: Status) -> Mapping[str, object]:
    links, up, data = status.links, status.up, status.data
    return {
        "workspace": status.workspace,
        "up": None if up is None else {**asdict(up), "supervisor": up.supervisor.pid},
        "links": None if links is None else asdict(links),
        "data": None if data is None else asdict(data),
        "server": None if status.server is None else asdict(status.server),
        "problem": status.problem,
    }


def _show_parts(up: UpState | None, links: Links | None, now: datetime) -> None:
    if up is None or links is None:
        click.echo("maskwheel up: does not run for this workspace on this machine\n")
        return
    how = "up" if up.is_ready else "starting or stopping"
    click.echo(f"maskwheel up: {how}, for {_span(now - up.since)}, process {up.supervisor.pid}")
    shown = table("  part", "process", "for", "started again")
    for part in up.parts:
        process = "is started again" if part.process is None else str(part.process.pid)
        again = f"{part.restarts} times" if part.restarts else "never"
        shown.add_row(f"  {part.name}", process, _span(now - part.since), again)
    console().print(shown)
    for name, link in [("Dashboard", links.dashboard), ("Annotation", links.annotation)]:
        if link is not None:
            click.echo(f"  {name:<11} ", nl=False)
            click.secho(link, bold=True)
    click.echo()


def _show_data(workspace: str, data: DataOverview | None) -> None:
    from flows.commands.campaigns_tables import show_list

    if data is None:
        click.echo(f"{workspace}: nothing is there yet\n")
        return
    release = data.release
    click.echo(f"{data.workspace}: {data.images:,} photos, champion {data.champion}")
    if release is not None:
        click.echo(
            f"last release {release.name}: {release.masks:,} masks on {release.images:,} photos, "
            f"{release.created_at:%Y-%m-%d %H:%M}"
        )
    if data.campaigns:
        show_list(data.campaigns)
    else:
        click.echo("no campaign is open")
    click.echo()


def _show_server(server: ServerOverview, now: datetime) -> None:
    if not server.deployments:
        click.echo("the Prefect server has no deployments of this workspace: `maskwheel deploy`\n")
        return
    shown = table("flow", "deployment", "next run")
    for line in server.deployments:
        coming = "" if line.next_run is None else f"in {_span(line.next_run - now)}"
        shown.add_row(line.flow, line.name, "paused" if line.is_paused else coming)
    console().print(shown)
    counts = ", ".join(f"{count} {state}" for state, count in server.runs_by_state.items())
    click.echo(f"\nruns of the last day: {counts or 'none'}")
    _show_runs("now at work:", server.running, now)
    _show_runs("the data engine's last looks:", server.decisions, now)


def _show_runs(title: str, runs: tuple[RunLine, ...], now: datetime) -> None:
    if runs:
        click.echo(title)
    for run in runs:
        ago = "" if run.since is None else f", {_span(now - run.since)} ago"
        said = "" if run.summary is None else f": {run.summary}"
        click.echo(f"  {run.flow} {run.name}: {run.state}{ago}{said}")


def _span(time: timedelta) -> str:
    """Return a time for people: ``"3 h 5 min"``."""
    minutes, seconds = divmod(max(0, round(time.total_seconds())), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{seconds} s"
