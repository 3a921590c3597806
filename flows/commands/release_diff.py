"""`maskwheel releases diff`: what differs between two releases."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flows.commands.options import json_option, print_json, workspace_address, workspace_option

if TYPE_CHECKING:
    from engine.dataset.catalog import Workspace
    from engine.dataset.release_diff import ReleaseDiff
    from engine.quality.difference_pictures import DifferencePictures
    from engine.records import Release


@click.command(
    "diff",
    epilog="""\b
Examples:
  maskwheel releases diff r1 r2
  maskwheel releases diff v1.0 latest --pictures difference/
  maskwheel releases diff r4 r2 --json

A mask is changed when both releases have its id, with other values. Pictures show before on the
left and after on the right: the masks that differ, on a sample of the images.""",
)
@click.argument("before")
@click.argument("after", default="latest")
@click.option(
    "--pictures",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Draw a sample of the images here.",
)
@click.option("--sample", type=click.IntRange(1), default=12, show_default=True, help="Images.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the sample.")
@workspace_option
@json_option
def command(
    before: str,
    after: str,
    pictures: Path | None,
    sample: int,
    seed: int,
    workspace: str | None,
    as_json: bool,
) -> None:
    """Say what release AFTER (the latest, unless named) has otherwise than BEFORE."""
    from engine.dataset.catalog import Workspace
    from engine.dataset.release_diff import diff
    from engine.dataset.releases import load_release
    from flows.commands.count_bar import CountBar

    drawn = None
    with Workspace.open(workspace_address(workspace), create=False) as opened:
        first, second = load_release(opened, before), load_release(opened, after)
        with CountBar("comparing", "files") as bar:
            found = diff(opened, first, second, sample=sample, seed=seed, on_file=bar.update)
        if pictures is not None:
            drawn = _draw(opened, first, second, found, pictures)
    if as_json:
        print_json({**asdict(found), "pictures": None if drawn is None else asdict(drawn)})
        return
    _show(found)
    if drawn is not None:
        for line in drawn.left_out:
            click.secho(f"not drawn: {line}", fg="yellow")
        click.echo(f"{len(drawn.paths)} pictures in {pictures}")


def _draw(
    workspace: Workspace, before: Release, after: Release, found: ReleaseDiff, folder: Path
) -> DifferencePictures:
    from engine.quality.difference_pictures import write_difference_pictures
    from flows.commands.count_bar import CountBar

    done = 0

    def count(image_id: int) -> None:
        nonlocal done
        done += 1
        bar.update(done, len(found.sample))

    with CountBar("drawing", "images") as bar:
        return write_difference_pictures(
            workspace, before, after, found.sample, folder, on_image=count
        )


def _show(found: ReleaseDiff) -> None:
    from flows.commands.release_tables import console, table

    shown = table(f"{found.before} to {found.after}", ">added", ">removed", ">changed")
    shown.add_row("images", *_numbers(found.images))
    shown.add_row("masks", *_numbers(found.masks))
    for group in found.groups:
        by = f", {group.annotator_id}" if group.annotator_id else ""
        name = f"  {group.stage}, {group.model_id or 'no model'}{by}"
        shown.add_row(name, *_numbers(group.masks))
    console().print(shown)
    for what, runs in (("added", found.runs_added), ("removed", found.runs_removed)):
        if runs:
            click.echo(f"runs {what}: {', '.join(runs)}")
    if found.images_with_other_masks:
        click.echo(f"masks differ on {found.images_with_other_masks:,} images")


def _numbers(changes: object) -> list[str]:
    counts = (getattr(changes, name) for name in ("added", "removed", "changed"))
    return [f"{count:,}" for count in counts]
