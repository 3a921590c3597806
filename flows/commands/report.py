"""`maskwheel report`: a page about a release."""

from __future__ import annotations

from pathlib import Path

import click

from flows.commands.options import json_option, print_json, workspace_option, workspace_path


@click.command(
    "report",
    epilog="""\b
Examples:
  maskwheel report                            the newest release, to <workspace>/report.html
  maskwheel report --release r1 -o r1.html --max-images 100""",
)
@workspace_option
@click.option("--release", "name", help="Which release.  [default: the newest]")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="Where to write."
)
@click.option(
    "--max-images", default=24, show_default=True, type=click.IntRange(1), help="In the gallery."
)
@json_option
def command(
    workspace: Path | None, name: str | None, output: Path | None, max_images: int, as_json: bool
) -> None:
    """Write one self-contained HTML page: gallery with masks, distributions, provenance."""
    from engine.dataset.catalog import Workspace
    from engine.dataset.releases import latest_release, load_release
    from engine.errors import BadInputError
    from engine.quality.report import write_report

    root = workspace_path(workspace)
    with Workspace.open(root, create=False) as opened:
        release = load_release(opened, name) if name else latest_release(opened)
        if release is None:
            raise BadInputError(f"{root} has no release yet; make one: maskwheel auto PHOTOS...")
        path = write_report(opened, release, output or root / "report.html", max_images=max_images)
    if as_json:
        print_json({"release": release.name, "report": path.resolve()})
    else:
        click.echo(f"{release.name}: {path}")
