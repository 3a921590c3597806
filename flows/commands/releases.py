"""`maskwheel releases`: which states of the data set there are."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from flows.commands.options import json_option, print_json, workspace_option, workspace_path


@click.group("releases")
def command() -> None:
    """List and show releases: named states of the data set that never change."""


@command.command("list", epilog="\b\nExample:\n  maskwheel releases list -w birds")
@workspace_option
@json_option
def list_command(workspace: Path | None, as_json: bool) -> None:
    """List the releases, oldest first."""
    from engine.dataset.catalog import Workspace
    from engine.dataset.releases import list_releases

    with Workspace.open(workspace_path(workspace), create=False) as opened:
        releases = list_releases(opened)
    if as_json:
        print_json({"releases": [asdict(release) for release in releases]})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("release", "created", "images", "masks", "models", box=None, pad_edge=False)
    for release in releases:
        table.add_row(
            release.name,
            f"{release.created_at:%Y-%m-%d %H:%M}",
            str(release.images),
            str(release.masks),
            ", ".join(release.models),
        )
    Console().print(table if releases else "no releases yet; make one: maskwheel auto PHOTOS...")


@command.command("show", epilog="\b\nExample:\n  maskwheel releases show r1 --json")
@click.argument("name")
@workspace_option
@json_option
def show_command(name: str, workspace: Path | None, as_json: bool) -> None:
    """Show what release NAME holds and where it came from."""
    from engine.dataset.catalog import Workspace
    from engine.dataset.releases import load_release

    with Workspace.open(workspace_path(workspace), create=False) as opened:
        release = load_release(opened, name)
    if as_json:
        print_json(asdict(release))
        return
    for key, value in asdict(release).items():
        shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
        click.echo(f"{key:>10}  {shown}")
