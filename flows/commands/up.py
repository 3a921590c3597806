"""`maskwheel up`: everything on this machine, by one command."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from flows.commands.options import json_option, workspace_address, workspace_option

if TYPE_CHECKING:
    from flows.up.links import Links
    from flows.up.state_file import UpState

_PORT = click.IntRange(0, 65_535)


@click.command(
    "up",
    epilog="""\b
Examples:
  maskwheel up                                the workspace ./maskwheel-data
  maskwheel up -w birds --open                open the pages in a browser
  maskwheel up -w birds --workers 2           two flows that compute at the same time
  maskwheel up -w s3://team-data/birds --no-worker --host 0.0.0.0
  PREFECT_API_URL=https://prefect.example/api maskwheel up -w birds

Ctrl-C stops all, in order; a second one at once. From elsewhere: `maskwheel down`. Nothing is lost:
the same command goes on, with the same links.""",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="What the pages listen on.")
@click.option(
    "--port", type=_PORT, help="Of the annotation service.  [default: 8765, or the next free]"
)
@click.option(
    "--prefect-port", type=_PORT, help="Of the Prefect server.  [default: 4200, or the next free]"
)
@click.option("--no-annotate", is_flag=True, help="Without the annotation service.")
@click.option("--no-worker", is_flag=True, help="Without a worker: they run elsewhere.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True)
@click.option("--policy", help="Of the data engine, see `maskwheel deploy`.")
@click.option("--open", "open_pages", is_flag=True, help="Open the pages in a browser.")
@workspace_option
@json_option
def command(
    host: str,
    port: int | None,
    prefect_port: int | None,
    no_annotate: bool,
    no_worker: bool,
    workers: int,
    policy: str | None,
    open_pages: bool,
    workspace: str | None,
    as_json: bool,
) -> None:
    """Start the Prefect server, a worker, the deployments and the annotation service.

    A server that PREFECT_API_URL or the active Prefect profile names is used instead of a new one.
    """
    from flows.up.links import links_of
    from flows.up.parts import UpPlan
    from flows.up.session import AlreadyUpError, run_up

    plan = UpPlan(
        workspace=workspace_address(workspace),
        host=host,
        port=port,
        prefect_port=prefect_port,
        annotate=not no_annotate,
        workers=0 if no_worker else workers,
        policy=policy,
    )

    def show(state: UpState, links: Links) -> None:
        _show(state, links, as_json=as_json)
        if policy is None and not as_json:
            _tell_of_policy(state.workspace)
        if open_pages:
            _open(links)

    _say(f"starting {plan.workspace} ...")
    try:
        run_up(plan, say=_say, on_ready=show)
    except AlreadyUpError as error:
        _say(str(error))
        show(error.state, links_of(error.state, error.folder))
        return
    _say("stopped; the same command goes on where it was")


def _say(text: str) -> None:
    with suppress(OSError):  # the terminal has been closed
        click.echo(text, err=True)


def _show(state: UpState, links: Links, *, as_json: bool) -> None:
    if as_json:
        fields = {
            "workspace": state.workspace,
            "dashboard": links.dashboard,
            "prefect_api": links.api,
            "annotation": state.annotation_url,
            "admin_link": links.annotation,
            "deployment": state.deployment,
            "server": state.server,
            "logs": str(links.logs),
            "pid": state.supervisor.pid,
        }
        click.echo(json.dumps(fields))
        return
    click.echo()
    for name, value in _rows(state, links):
        click.echo(f"  {name:<11} ", nl=False)
        click.secho(value, bold=True)
    click.echo()


def _tell_of_policy(address: str) -> None:
    from engine.objects import open_store
    from engine.wheel.policy import find_policy

    if find_policy(open_store(address)) is None:
        click.echo(
            "The workspace has no policy, so flows start only when you ask: `maskwheel run`, or "
            f"the\ndashboard. `maskwheel policy init -w {address}` lets the wheel turn by itself.\n"
        )


def _rows(state: UpState, links: Links) -> list[tuple[str, str]]:
    rows = [("Dashboard", links.dashboard), ("Annotation", links.annotation)]
    rows += [("Workspace", state.workspace), ("Logs", str(links.logs))]
    return [(name, value) for name, value in rows if value is not None]


def _open(links: Links) -> None:
    for link in (links.annotation, links.dashboard):
        if link is not None:
            click.launch(link)
