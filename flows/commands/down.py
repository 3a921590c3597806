"""`maskwheel down`: stop what `maskwheel up` started, from elsewhere."""

from __future__ import annotations

import click

from flows.commands.options import json_option, print_json, workspace_address, workspace_option


@click.command(
    "down",
    epilog="""\b
Examples:
  maskwheel down
  maskwheel down -w birds
  maskwheel down -w birds --now          without waiting for flow runs

Flow runs are cancelled; the data engine's next look starts them again, and they go on where they
were. Other workspaces, and other people's processes, are left alone.""",
)
@click.option("--now", is_flag=True, help="End everything at once.")
@workspace_option
@json_option
def command(now: bool, workspace: str | None, as_json: bool) -> None:
    """Stop the workspace's `maskwheel up` on this machine, and wait until it has."""
    from flows.up.stopping import stop_up

    address = workspace_address(workspace)
    stopped = stop_up(address, now=now)
    if as_json:
        print_json({"workspace": address, "stopped": list(stopped)})
    elif stopped:
        click.echo(f"stopped {', '.join(stopped)}")
    else:
        click.echo(f"nothing runs for {address} on this machine")
