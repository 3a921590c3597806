"""`maskwheel report`: a page about a release."""

from __future__ import annotations

from pathlib import Path

import click

from flows.commands.options import json_option, print_json, workspace_address, workspace_option


@click.command(
    "report",
    epilog="""\b
Examples:
  maskwheel report                            the newest release, to <workspace>/report.html
  maskwheel report -w s3://team-data/birds    ... kept in the bucket too; prints a link to share
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
    workspace: str | None, name: str | None, output: Path | None, max_images: int, as_json: bool
) -> None:
    """Write one self-contained HTML page: gallery with masks, distributions, provenance."""
    from engine.dataset.catalog import Workspace
    from engine.dataset.releases import latest_release, load_release
    from engine.errors import BadInputError
    from engine.objects import is_remote
    from engine.quality.report import write_report
    from engine.quality.report_keeping import keep_page

    address = workspace_address(workspace)
    with Workspace.open(address, create=False) as opened:
        release = load_release(opened, name) if name else latest_release(opened)
        if release is None:
            raise BadInputError(f"{address} has no release yet; make one: maskwheel auto PHOTOS...")
        target = output or opened.local_folder / "report.html"
        target.parent.mkdir(parents=True, exist_ok=True)
        path = write_report(opened, release, target, max_images=max_images)
        link = keep_page(opened.store, release.name, path) if is_remote(address) else None
    if as_json:
        print_json({"release": release.name, "report": path.resolve(), "link": link})
    else:
        click.echo(f"{release.name}: {path}" + (f"\nfor a week: {link}" if link else ""))
