"""`maskwheel releases export`: a release in the format of other tools."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Literal

import click

from flows.cli import EXIT_PARTLY_DONE
from flows.commands.options import json_option, print_json, workspace_address, workspace_option

if TYPE_CHECKING:
    from engine.dataset.exports.report import ExportReport

# Repeated here, so that --help loads no engine; a test compares them.
FORMATS = ("sa1b", "coco", "webdataset", "huggingface", "yolo", "png")


@click.command(
    "export",
    epilog="""\b
Examples:
  maskwheel releases export r3 --format coco --to exports/r3-coco
  maskwheel releases export latest --format webdataset --to s3://share/birds-r3
  maskwheel releases export r3 --format yolo --to yolo --split train --split val
  maskwheel releases export r3 --format sa1b --to good --where "predicted_iou > 0.9"

\b
Formats:
  sa1b         a JSON per image beside the image, as SA-1B
  coco         an instances file per split (compressed RLE), and images/
  webdataset   tars of sa_N.jpg and sa_N.json, about 1 GB each
  huggingface  Parquet for datasets.load_dataset, and a data set card
  yolo         a text file of polygons per image, and data.yaml
  png          a 16-bit label map per image, and its key as JSON

The same command goes on with an export that was interrupted. One that is complete has an
export.json; check it with: sha256sum -c SHA256SUMS
Exit code 4: some images or masks are not in it; problems.jsonl says which and why.""",
)
@click.argument("name")
@click.option("--format", "format_name", required=True, type=click.Choice(FORMATS))
@click.option("--to", required=True, metavar="FOLDER|S3://...", help="A new or empty place.")
@click.option("--split", "splits", multiple=True, help="Only images of this split; any number.")
@click.option("--where", metavar="CONDITION", help="Only masks like this, in SQL.")
@click.option(
    "--images",
    type=click.Choice(["copy", "jpeg", "none"]),
    help="Image files as they are, all as JPEG, or none.  [default: jpeg for sa1b and webdataset, "
    "else copy]",
)
@click.option("--no-images", "images", flag_value="none", help="The same as --images none.")
@click.option(
    "--images-per-part", type=click.IntRange(1), help="Images in a tar, Parquet file or folder."
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Pixels that YOLO's polygons may stay from the outlines; more makes smaller files.",
)
@workspace_option
@json_option
def command(
    name: str,
    format_name: str,
    to: str,
    splits: tuple[str, ...],
    where: str | None,
    images: Literal["copy", "jpeg", "none"] | None,
    images_per_part: int | None,
    tolerance: float,
    workspace: str | None,
    as_json: bool,
) -> int:
    """Write release NAME (a name, a tag or "latest") in the format of other tools.

    In it is every image that a run has masked, also those on which it found nothing.
    """
    from engine.config import current_time, load_settings
    from engine.dataset.catalog import Workspace
    from engine.dataset.exports.exporting import export_release
    from engine.dataset.exports.protocol import ExportOptions
    from engine.dataset.releases import load_release
    from flows.commands.progress_bar import ProgressBar
    from flows.limits import image_limits

    settings = load_settings()
    options = ExportOptions(
        format=format_name,
        images=images,
        splits=splits,
        where=where,
        images_per_part=images_per_part,
        tolerance_px=tolerance,
    )
    with (
        ProgressBar() as bar,
        Workspace.open(workspace_address(workspace), create=False) as opened,
    ):
        report = export_release(
            opened,
            load_release(opened, name),
            options,
            to,
            limits=image_limits(),
            now=current_time(),
            threads=settings.read_threads,
            on_image=bar.image,
            on_start=lambda total: bar.stage("exporting", total),
        )
    if as_json:
        print_json(asdict(report))
    else:
        _show(report)
    return EXIT_PARTLY_DONE if report.problems else 0


def _show(report: ExportReport) -> None:
    before = "was complete before: " if report.found_complete else ""
    click.echo(
        f"{report.address}: {before}{report.release} as {report.format}, {report.images:,} images, "
        f"{report.masks:,} masks, {report.size_bytes / 1e6:,.1f} MB in {report.files:,} files"
    )
    if report.problems:
        click.secho(
            f"left out: {report.images_left_out:,} images, {report.masks_left_out:,} masks; "
            f"{report.problems} says which and why",
            fg="yellow",
        )
