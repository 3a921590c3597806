"""`maskwheel auto`: the automatic stage from the command line."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flows.commands.options import json_option, print_json, workspace_address, workspace_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.config import TaskRunnerName
    from engine.records import AutomaticOutcome
    from flows.commands.progress_bar import ProgressBar

_SKIPPED_SHOWN = 5


@click.command(
    "auto",
    epilog="""\b
Examples:
  maskwheel auto photos/                                the bundled model, its own thresholds
  maskwheel auto 'shots/*.jpg' -w birds --overlays      and pictures of the masks
  maskwheel auto list.csv --model sam_vit_h_4b8939.pth --preset paper
  maskwheel auto photos/ --preset fast                  sooner, a few masks are missed
  maskwheel auto photos/ --model champion               the model that was promoted last
  maskwheel auto photos/ --points-per-side 16 --pred-iou-thresh 0.6
  maskwheel auto photos/ --task-runner processes        all GPUs of this machine, or all cores

The same command again masks only what is new; after an interruption it goes on where it was.
Exit code 4: an audit of the new masks refused to publish them; they are kept, and it says why.""",
)
@click.argument("photos", nargs=-1, required=True)
@workspace_option
@click.option(
    "--model",
    default="bundled",
    show_default=True,
    help="bundled, a SAM checkpoint (.pth, .safetensors), or of `maskwheel models`: m2, champion.",
)
@click.option("--device", help="cpu, cuda, cuda:1, mps.  [default: the best there is]")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Of weights and computation.",
)
@click.option(
    "--preset",
    type=click.Choice(["paper", "fast"]),
    help="paper: SA-1B's crops and area rules (slow).  fast: sooner, a few masks are missed.",
)
@click.option("--points-per-side", type=int, help="Points per side of the grid.  [default: 32]")
@click.option("--points-per-batch", type=int, help="Prompts decoded at once.  [default: 64]")
@click.option("--pred-iou-thresh", type=float, help="Lowest predicted IoU.  [default: the model's]")
@click.option(
    "--stability-score-thresh", type=float, help="Lowest stability.  [default: the model's]"
)
@click.option(
    "--stability-score-offset", type=float, help="Its logit offset.  [default: the model's]"
)
@click.option("--box-nms-thresh", type=float, help="Box IoU of duplicates.  [default: the model's]")
@click.option("--crop-n-layers", type=int, help="Layers of crops.  [default: 0]")
@click.option("--crop-nms-thresh", type=float, help="Box IoU across crops.  [default: 0.7]")
@click.option("--crop-overlap-ratio", type=float, help="Overlap of crops.  [default: 512/1500]")
@click.option(
    "--crop-n-points-downscale-factor", type=int, help="Fewer points per layer.  [default: 1]"
)
@click.option("--min-mask-region-area", type=int, help="Smallest hole or island in pixels.")
@click.option("--max-mask-area-ratio", type=float, help="Largest share of the image.  [default: 1]")
@click.option(
    "--adaptive-cells",
    type=int,
    help="Prompt between points only near masks below so many grid cells; 0: everywhere.",
)
@click.option(
    "--half-precision/--full-precision",
    default=None,
    help="Decode prompts in bfloat16, where the device can.  [default: full]",
)
@click.option(
    "--images-per-shard",
    type=int,
    help="Images in one task and file.  [default: by their number, 4 to 512]",
)
@click.option(
    "--task-runner",
    type=click.Choice(["threads", "processes", "ray", "dask"]),
    help="Who makes the shards.  [default: MASKWHEEL_TASK_RUNNER or threads]",
)
@click.option(
    "--workers", type=click.IntRange(min=1), help="Shards made at once.  [default: as fits]"
)
@click.option("--overlays", is_flag=True, help="Also write pictures with the masks drawn in.")
@json_option
def command(
    photos: tuple[str, ...],
    workspace: str | None,
    model: str,
    device: str | None,
    precision: str,
    preset: str | None,
    images_per_shard: int | None,
    task_runner: TaskRunnerName | None,
    workers: int | None,
    overlays: bool,
    as_json: bool,
    **settings: float | int | None,
) -> None:
    """Mask everything in PHOTOS and publish a release of the data set.

    PHOTOS are image files, folders, globs, or lists of them (.txt, .csv, .parquet).
    """
    from flows.importing import quick_imports
    from flows.runtime import may_have_server, prepare_prefect

    address = workspace_address(workspace)
    prepare_prefect(verbose=bool(click.get_current_context().find_root().params["verbose"]))
    with quick_imports():
        from engine.automatic.config import AutomaticConfig
        from engine.automatic.shard_worker import ModelSpec, cached_model, pinned
        from engine.config import load_settings
        from engine.dataset.ingest import expand_inputs
        from engine.objects import absolute_address
        from flows.commands.audit_table import explained_refusals
        from flows.commands.progress_bar import ProgressBar
        from flows.masking import mask_photos
        from flows.progress import listening
        from flows.workers import one_suffices, planned_with

    explicit = {name: value for name, value in settings.items() if value is not None}
    # A wrong path, model or setting is told before anything is started.
    expand_inputs(photos)
    staff = load_settings(task_runner=task_runner, workers=workers)
    spec = pinned(ModelSpec(model, device, precision, address, staff.compile))
    AutomaticConfig.for_model(cached_model(planned_with(spec, staff)), explicit, preset)
    # Without a server nobody would see the run, and Prefect takes longer than a photo's masks.
    alone = one_suffices(staff) and not may_have_server()
    stage = mask_photos if alone else _flow()
    with (
        explained_refusals(address, quiet=as_json),
        ProgressBar() as bar,
        listening(bar),
    ):
        outcome = stage(
            photos=list(photos),
            workspace=address,
            model=spec.model,
            device=device,
            precision=precision,
            preset=preset,
            settings=explicit,
            images_per_shard=images_per_shard,
            task_runner=task_runner,
            workers=workers,
        )
        folder = _draw_overlays(address, bar) if overlays and outcome.release else None
    if as_json:
        print_json({**asdict(outcome), "workspace": absolute_address(address), "overlays": folder})
    else:
        _show(outcome, address, folder)


def _flow() -> Callable[..., AutomaticOutcome]:
    from flows.fully_automatic import fully_automatic

    return fully_automatic


def _draw_overlays(address: str, bar: ProgressBar) -> Path:
    from engine.dataset.catalog import Workspace
    from engine.dataset.releases import latest_release
    from engine.quality.overlays import write_overlays

    with Workspace.open(address) as opened:
        folder = opened.local_folder / "overlays"
        release = latest_release(opened)
        if release is not None:
            bar.stage("overlays", release.images)
            write_overlays(opened, release, folder, on_image=lambda image: bar.image(image.uri, 0))
    return folder


def _show(outcome: AutomaticOutcome, address: str, overlays: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 2), pad_edge=False)
    known = outcome.images_listed - outcome.images_masked
    table.add_row(
        "images", f"{outcome.images_masked} masked" + (f", {known} before" if known else "")
    )
    table.add_row("masks", str(outcome.masks))
    if outcome.images_masked:
        table.add_row("masks per image", f"{outcome.median_masks_per_image:.0f} (median)")
        table.add_row("speed", f"{outcome.images_per_second:.2f} images/s, {outcome.seconds:.0f} s")
    if outcome.images_without_masks:
        table.add_row("without a mask", str(outcome.images_without_masks))
    if outcome.duplicates:
        table.add_row("duplicates", str(outcome.duplicates))
    reasons = Counter(image.reason for image in outcome.skipped)
    table.add_row("skipped", ", ".join(f"{n} {r}" for r, n in reasons.items()) or "0")
    table.add_row("release", outcome.release or "none: there was nothing to mask")
    table.add_row("masks are in", f"{address}/runs/*/masks-*.parquet")
    if overlays is not None:
        table.add_row("overlays are in", str(overlays))
    console = Console()
    console.print(table, soft_wrap=True)
    for image in outcome.skipped[:_SKIPPED_SHOWN]:
        console.print(f"  skipped {image.uri}: {image.message}", style="yellow", soft_wrap=True)
    if len(outcome.skipped) > _SKIPPED_SHOWN:
        console.print(f"  ... and {len(outcome.skipped) - _SKIPPED_SHOWN} more", style="yellow")
    if not outcome.images_masked and outcome.release:
        console.print(
            "Nothing to do: this model and these settings have masked all of these images before."
        )
    if outcome.release:
        console.print(f"Next: maskwheel report -w {address}", highlight=False, soft_wrap=True)
