"""`maskwheel doctor`: does everything work here?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from flows.commands.options import json_option, print_json, workspace_option, workspace_path


@click.command("doctor", epilog="\b\nExample:\n  maskwheel doctor")
@workspace_option
@json_option
def command(workspace: Path | None, as_json: bool) -> int:
    """Try every part on this machine and say what works; exit code 1 if something does not."""
    from engine.doctor import examine

    checks = examine(workspace_path(workspace))
    if as_json:
        print_json({"checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            click.secho(
                "ok  " if check.works else "FAIL", nl=False, fg="green" if check.works else "red"
            )
            click.echo(f"  {check.name:<14} {check.detail}")
    return 0 if all(check.works for check in checks) else 1
