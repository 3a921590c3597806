"""`maskwheel ingest`: photos into table ``images``."""

from __future__ import annotations

from dataclasses import asdict

import click

from flows.commands.options import json_option, print_json, workspace_address, workspace_option


@click.command(
    "ingest",
    epilog="""\b
Examples:
  maskwheel ingest photos/ -w birds
  maskwheel ingest list.csv            columns: uri, and optionally license, split""",
)
@click.argument("photos", nargs=-1, required=True)
@workspace_option
@json_option
def command(photos: tuple[str, ...], workspace: str | None, as_json: bool) -> None:
    """Add PHOTOS to the workspace: files, folders, globs, or lists of them (.txt, .csv, .parquet).

    Photos are referenced where they are, never copied; the same content is added once.
    """
    from engine.config import current_time, load_settings
    from engine.dataset.catalog import Workspace
    from engine.dataset.ingest import expand_inputs, ingest
    from flows.commands.progress_bar import ProgressBar
    from flows.limits import image_limits

    address = workspace_address(workspace)
    images = expand_inputs(photos)
    settings = load_settings()
    with ProgressBar() as bar, Workspace.open(address) as opened:
        bar.stage("reading photos", len(images))
        result = ingest(
            opened,
            images,
            image_limits(),
            current_time(),
            on_image=lambda uri: bar.image(uri, 0),
            threads=settings.read_threads,
        )
    if as_json:
        print_json({**asdict(result), "workspace": opened.address})
        return
    click.echo(
        f"{len(result.image_ids)} images in {address}: {result.new} new, "
        f"{result.duplicates} duplicates, {len(result.skipped)} skipped"
    )
    for image in result.skipped:
        click.secho(f"  skipped {image.uri}: {image.message}", fg="yellow")
