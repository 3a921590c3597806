"""`maskwheel doctor`: does everything work here?"""

from __future__ import annotations

from dataclasses import asdict

import click

from flows.commands.options import json_option, print_json, workspace_address, workspace_option


@click.command(
    "doctor",
    epilog="""\b
Examples:
  maskwheel doctor
  maskwheel doctor -w s3://team-data/birds                 can it be reached and written?
  maskwheel doctor -w birds --rebuild-catalog              when a table's metadata is lost""",
)
@click.option(
    "--rebuild-catalog",
    is_flag=True,
    help="Instead, find the workspace's tables again when their commit log is damaged.",
)
@workspace_option
@json_option
def command(rebuild_catalog: bool, workspace: str | None, as_json: bool) -> int:
    """Try every part on this machine and say what works; exit code 1 if something does not."""
    if rebuild_catalog:
        return _rebuild(workspace_address(workspace), as_json)
    from engine.doctor import examine

    checks = examine(workspace_address(workspace))
    if as_json:
        print_json({"checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            click.secho(
                "ok  " if check.works else "FAIL", nl=False, fg="green" if check.works else "red"
            )
            click.echo(f"  {check.name:<14} {check.detail}")
    return 0 if all(check.works for check in checks) else 1


def _rebuild(address: str, as_json: bool) -> int:
    from engine.dataset.catalog_rebuild import rebuild_catalog

    found = rebuild_catalog(address)
    if as_json:
        print_json({"workspace": address, "rebuilt": found})
        return 0
    if not found:
        click.echo(f"{address}: no table is lost, nothing was changed")
    for table, state in found.items():
        click.echo(f"{address}: table {table} is found again, as state {state}")
    return 0
