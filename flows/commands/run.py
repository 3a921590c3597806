"""`maskwheel run`: any flow, here or where the Prefect server's workers are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.commands.options import json_option, print_json, workspace_address, workspace_option

if TYPE_CHECKING:
    from prefect import Flow

_PATHS = ("photos", "data")


@click.command(
    "run",
    epilog="""\b
Examples:
  maskwheel run                                          all flows
  maskwheel run retrain --parameters                     what one can be told
  maskwheel run ingest -p photos=photos/ -w birds
  maskwheel run assisted-manual -p images=200 -p campaign=manual-1 -w birds
  maskwheel run retrain -p steps=2000 --deployment       on the workers of `maskwheel up`

The same call again goes on where it was, or does nothing and says so.""",
)
@click.argument("flow", required=False)
@click.option(
    "-p",
    "given",
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter: JSON, or text as it stands. Several times the same name make a list.",
)
@workspace_option
@click.option("--list", "as_list", is_flag=True, help="List the flows.")
@click.option("--parameters", is_flag=True, help="List what FLOW can be told.")
@click.option(
    "--deployment",
    is_flag=True,
    help="Ask the Prefect server to run it where its workers are; print the run's link.",
)
@click.option(
    "--name",
    metavar="DEPLOYMENT",
    help="Which deployment of the flow.  [default: the workspace's]",
)
@json_option
def command(
    flow: str | None,
    given: tuple[str, ...],
    workspace: str | None,
    as_list: bool,
    parameters: bool,
    deployment: bool,
    name: str | None,
    as_json: bool,
) -> None:
    """Run FLOW in this process, and show it in the Prefect UI."""
    if flow is None or as_list:
        if flow is None and given:
            raise click.UsageError("name the flow that -p is for")
        _list_flows(as_json)
        return
    from flows.runtime import prepare_prefect

    prepare_prefect(verbose=bool(click.get_current_context().find_root().params["verbose"]))
    from engine.objects import absolute_address
    from flows.parameters import load_flow, read_parameters

    loaded = load_flow(flow)
    if parameters:
        _list_parameters(loaded, as_json)
        return
    address = absolute_address(workspace_address(workspace))
    values = read_parameters(loaded, given, {"workspace": address})
    if deployment:
        _ask(flow, values, name, as_json)
    else:
        _run(loaded, values, as_json)


def _list_flows(as_json: bool) -> None:
    from flows.catalogue import FLOWS

    if as_json:
        print_json({"flows": {entry.name: entry.summary for entry in FLOWS.values()}})
        return
    width = max(map(len, FLOWS))
    for entry in FLOWS.values():
        click.echo(f"{entry.name:<{width}}  {entry.summary}")
    click.echo("\nWhat one can be told: maskwheel run FLOW --parameters")


def _list_parameters(flow: Flow[..., Any], as_json: bool) -> None:
    from dataclasses import asdict

    from flows.parameters import parameters_of

    found = parameters_of(flow)
    if as_json:
        print_json({"flow": flow.name, "parameters": [asdict(one) for one in found]})
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("parameter", "type", "default", "what it is", box=None, pad_edge=False)
    for one in found:
        default = "needed" if one.required else one.default
        table.add_row(one.name, escape(one.kind), escape(default), escape(one.doc))
    Console().print(table)


def _run(flow: Flow[..., Any], values: Mapping[str, Any], as_json: bool) -> None:
    from flows.commands.audit_table import explained_refusals
    from flows.commands.progress_bar import ProgressBar
    from flows.progress import listening

    with (
        explained_refusals(str(values.get("workspace", "")), quiet=as_json),
        ProgressBar() as bar,
        listening(bar),
    ):
        result = flow(**values)
    fields = _fields(result)
    if as_json:
        print_json({"flow": flow.name, "result": result if fields is None else fields})
    elif fields is None:
        click.echo(f"{flow.name}: {'nothing to do' if result is None else result}")
    else:
        _show(flow.name, fields)


def _fields(result: object) -> dict[str, Any] | None:
    from dataclasses import asdict, is_dataclass

    if is_dataclass(result) and not isinstance(result, type):
        return asdict(result)
    return None


def _show(flow: str, fields: Mapping[str, Any]) -> None:
    width = max(map(len, fields), default=0)
    click.echo(flow)
    for name, value in fields.items():
        if value is None or value == "":
            continue
        many = isinstance(value, list | tuple | dict)
        click.echo(f"  {name.replace('_', ' '):<{width}}  {len(value) if many else value}")


def _ask(flow: str, values: Mapping[str, Any], name: str | None, as_json: bool) -> None:
    """Have the server run a deployment; return at once."""
    from flows.asking import ask

    # The worker has another working folder.
    absolute = {key: _absolute(value) if key in _PATHS else value for key, value in values.items()}
    asked = ask(flow, absolute, name)
    if as_json:
        print_json(
            {"flow": flow, "deployment": asked.deployment, "run": asked.run_id, "url": asked.url}
        )
        return
    click.echo(f"{asked.deployment} was asked to run: {asked.url or asked.run_id}")
    if not asked.has_workers:
        click.secho(
            "No worker is there to do it now; `maskwheel up` starts one.", fg="yellow", err=True
        )


def _absolute(value: object) -> object:
    if isinstance(value, list):
        return [_absolute(item) for item in value]
    if isinstance(value, str) and "://" not in value and Path(value).exists():
        return str(Path(value).resolve())
    return value
