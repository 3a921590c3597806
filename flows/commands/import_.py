"""`maskwheel import`: masks that were made elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Literal

import click

from flows.cli import EXIT_PARTLY_DONE
from flows.commands.options import json_option, print_json, workspace_address, workspace_option

if TYPE_CHECKING:
    from engine.dataset.imports.importing import ImportReport


@click.command(
    "import",
    epilog="""\b
Examples:
  maskwheel import annotations.json --format coco --images photos/
  maskwheel import instances_val2017.json --format coco --images val2017/ --split val
  maskwheel import sa_000020/ --format sa1b --model sam_vit_h

Masks of COCO files count as drawn by people (stage "manual", model "human"), those of SA-1B as a
model's (stage "auto", model "imported"). Scores that a file does not give count as 1.
The release is of kind "import"; the same import adds nothing the second time.
Exit code 4: some images or masks could not be used; rejected.jsonl beside the run says why.""",
)
@click.argument("path")
@click.option("--format", "format_name", required=True, type=click.Choice(["coco", "sa1b"]))
@click.option(
    "--images",
    metavar="FOLDER|S3://...",
    help="What file names count from.  [default: where the annotations are]",
)
@click.option(
    "--stage",
    type=click.Choice(["manual", "semi", "auto"]),
    help="Who made the masks: people, both, a model.  [default: manual for coco, auto for sa1b]",
)
@click.option("--model", metavar="NAME", help="What made them.  [default: human or imported]")
@click.option("--split", help="Of images for which the file names none.")
@click.option("--keep-crowd", is_flag=True, help="Import COCO's crowd regions as masks too.")
@workspace_option
@json_option
def command(
    path: str,
    format_name: str,
    images: str | None,
    stage: Literal["manual", "semi", "auto"] | None,
    model: str | None,
    split: str | None,
    keep_crowd: bool,
    workspace: str | None,
    as_json: bool,
) -> int:
    """Add the masks in PATH to the data set and publish a release.

    PATH is a COCO instances file, or a folder with SA-1B's JSON files. The images are referenced
    where they are, never copied. Categories and ids are kept beside the run, in notes.parquet.
    """
    from engine.config import current_time, load_settings
    from engine.dataset.catalog import Workspace
    from engine.dataset.imports.coco import CocoSource
    from engine.dataset.imports.importing import ImportOptions, import_masks
    from engine.dataset.imports.sa1b import Sa1bSource
    from engine.quality.gate import audit
    from flows.commands.progress_bar import ProgressBar
    from flows.events import announce
    from flows.limits import image_limits

    settings = load_settings()
    is_coco = format_name == "coco"
    source = CocoSource(path, images) if is_coco else Sa1bSource(path, images)
    options = ImportOptions(
        stage=stage or ("manual" if is_coco else "auto"),
        model_id=model,
        keep_crowd=keep_crowd,
        split=split,
    )
    with ProgressBar() as bar, Workspace.open(workspace_address(workspace)) as opened:
        report = import_masks(
            opened,
            source,
            options,
            limits=image_limits(),
            now=current_time(),
            gate=audit,
            threads=settings.read_threads,
            on_image=bar.image,
            on_stage=bar.stage,
            announce=announce,
        )
    if as_json:
        print_json(asdict(report))
    else:
        _show(report)
    # Crowd regions are left out on purpose.
    lost = {*report.images_rejected, *report.masks_rejected} - {"crowd"}
    return EXIT_PARTLY_DONE if lost else 0


def _show(report: ImportReport) -> None:
    if not report.runs:
        click.echo(f"nothing new: all of it is in the data set ({report.release})")
    else:
        click.echo(f"{report.release}: {report.masks:,} masks on {report.images:,} images imported")
    for what, reasons in (("images", report.images_rejected), ("masks", report.masks_rejected)):
        if reasons:
            click.secho(f"{what} not imported: {_counted(reasons)}", fg="yellow")
    if report.rejected:
        click.secho(f"{report.rejected} says which and why", fg="yellow")


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items()))
