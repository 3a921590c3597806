"""`maskwheel train`: a better model from releases and COCO files."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from flows.commands.options import json_option, print_json, workspace_address, workspace_option

if TYPE_CHECKING:
    from engine.dataset.catalog import Workspace
    from engine.learning.process_group import ProcessGroup
    from engine.learning.recipes import RecipeChanges
    from engine.learning.training import TrainingJob, TrainingResult
    from engine.records import ModelVersion, SkippedImage

_SKIPPED_SHOWN = 5
_GPU_WORKERS = 4
_UNLABELLED = ("mae", "distill")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """What the command line says, but for where things are."""

    recipe: str
    init: str | None
    model: str | None
    steps: int | None
    tune: Literal["all", "decoder", "lora"]
    lora_rank: int
    teacher: str | None
    batch_images: int | None
    learning_rate: float | None
    precision: Literal["float32", "bfloat16"] | None
    split: str | None
    photos: Path | None
    hold_out: int | None
    eval_every: int | None
    save_every: int | None
    log_every: int | None
    data_workers: int | None
    seed: int


@click.command(
    "train",
    epilog="""\b
Examples:
  maskwheel train --data r3 -w birds                       the bundled model on a release
  maskwheel train --data a.json b.json --recipe finetune --init sam_vit_b_01ec64.pth --tune lora
  maskwheel train --data coco.json --recipe bundled --init scratch --steps 5000
  maskwheel train --data photos/ --recipe mae --model vit_b         photos without masks
  maskwheel train --data r3 --recipe sam --init mae:training/mae-1/training.pt
  maskwheel train --data photos/ --recipe distill --teacher sam_vit_h_4b8939.pth
  maskwheel train --data r3 --recipe proposer -w birds     boxes for annotate --stage semi
Several GPUs:
  torchrun --nproc-per-node 4 -m flows.cli train --data r3 --recipe sam --device cuda

The same command again goes on where it was stopped, and ends with the same weights.""",
)
@click.option("--data", multiple=True, required=True, help="Release or COCO file; any number.")
@click.argument("more_data", nargs=-1)
@workspace_option
@click.option(
    "--recipe",
    type=click.Choice(["finetune", "sam", "bundled", "proposer", *_UNLABELLED]),
    default="finetune",
    show_default=True,
    help="How to train; mae and distill learn from photos without masks, proposer finds boxes.",
)
@click.option(
    "--init",
    help="Where to start: scratch, bundled, champion, m3, vit_b, a checkpoint, mae:PATH.  "
    "[default: the recipe's]",
)
@click.option(
    "--model",
    type=click.Choice(["bundled", "vit_b", "vit_l", "vit_h"]),
    help="Size of a new model.  [default: the recipe's]",
)
@click.option("--steps", type=click.IntRange(1), help="Optimiser steps.  [default: the recipe's]")
@click.option(
    "--tune",
    type=click.Choice(["all", "decoder", "lora"]),
    default="all",
    show_default=True,
    help="What of the model learns.",
)
@click.option("--lora-rank", type=click.IntRange(1), default=8, show_default=True)
@click.option("--teacher", help="Checkpoint that is distilled (--recipe distill).")
@click.option("--batch-images", type=click.IntRange(1), help="Images in a step of one process.")
@click.option("--learning-rate", type=float, help="Its peak.  [default: the recipe's]")
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), help="Of the computation.")
@click.option("--split", help="Only images of this split, e.g. train.")
@click.option(
    "--images",
    "photos",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of the photos of COCO files.  [default: images/ beside the file, or its folder]",
)
@click.option(
    "--hold-out",
    type=click.IntRange(0),
    help="Images of each set to measure on, not to train on.  [default: 5 %, at most 40]",
)
@click.option(
    "--eval-every",
    type=click.IntRange(0),
    help="Steps between two measurements; 0: none.  [default: a tenth of the steps]",
)
@click.option("--save-every", type=click.IntRange(1), help="Steps between two checkpoints.")
@click.option("--log-every", type=click.IntRange(1), help="Steps between two log entries.")
@click.option(
    "--data-workers",
    type=click.IntRange(0),
    help="Processes that prepare samples; 0: a thread.  [default: 0, with a GPU 4]",
)
@click.option("--device", help="cpu, cuda, cuda:1, mps.  [default: the best there is]")
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights, data, prompts.")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the training.  [default: a folder of its own in the workspace]",
)
@click.option(
    "--register/--no-register", default=True, help="Keep the model as a version.  [default: yes]"
)
@json_option
def command(
    data: tuple[str, ...],
    more_data: tuple[str, ...],
    workspace: str | None,
    device: str | None,
    output: Path | None,
    register: bool,
    as_json: bool,
    **given: object,
) -> None:
    """Train a model on the masks of releases and COCO files (RLE or polygons).

    In the folder of the training: model.safetensors, learning_curve.png, training.jsonl, and
    TensorBoard's events.
    """
    from engine.learning.process_group import process_group

    options = TrainOptions(**given)  # type: ignore[arg-type]  # click has checked them
    names = (*data, *more_data)
    register = register and options.recipe != "mae"
    with ExitStack() as stack:
        group = stack.enter_context(process_group(device))
        opened = _open_workspace(workspace, names, options, needed=register or output is None)
        if opened is not None:
            stack.callback(opened.close)
        if options.recipe in _UNLABELLED:
            from flows.commands.train_on_photos import train_on_photos as train
        elif options.recipe == "proposer":
            from flows.commands.train_proposer import train_proposer as train
        else:
            train = _train_on_masks
        train(names, options, group, opened, output, register, as_json)


def _open_workspace(
    given: str | None, names: tuple[str, ...], options: TrainOptions, *, needed: bool
) -> Workspace | None:
    """Open the workspace where something comes from it or goes to it."""
    from engine.dataset.catalog import Workspace, is_workspace
    from engine.errors import BadInputError
    from engine.learning.training_data import is_coco_file

    address = workspace_address(given)
    exists = is_workspace(address)
    unknown = [name for name in names if not is_coco_file(name)]
    if unknown and not exists and options.recipe not in _UNLABELLED:
        raise BadInputError(
            f"got the data {unknown[0]!r}, which is no COCO file; nor can it be a release, as "
            f"{address} holds no workspace: name its --workspace"
        )
    return Workspace.open(address) if needed or exists else None


def _train_on_masks(
    names: tuple[str, ...],
    options: TrainOptions,
    group: ProcessGroup,
    opened: Workspace | None,
    output: Path | None,
    register: bool,
    as_json: bool,
) -> None:
    from engine.config import current_time
    from engine.learning.recipes import find_recipe
    from engine.learning.training import TrainingJob, train_model, training_name
    from engine.learning.training_data import open_data
    from engine.learning.training_registration import register_training
    from flows.commands.training_bar import TrainingBar

    recipe = find_recipe(options.recipe).adapted(recipe_changes(options))
    sources = open_data(names, opened, options.split, options.photos)
    job = TrainingJob(
        recipe=recipe,
        data=sources,
        init=options.init,
        model=options.model,
        tune=options.tune,
        lora_rank=options.lora_rank,
        hold_out=options.hold_out,
        eval_every=options.eval_every,
        data_workers=_data_workers(options, group),
    )
    folder = output or default_output(opened, training_name(job))
    with TrainingBar() as bar:
        result = train_model(
            job,
            folder,
            device=group.device,
            rank=group.rank,
            processes=group.processes,
            store=opened.store if opened else None,
            listener=bar,
        )
    if group.rank:
        return
    version = None
    if register and opened is not None:
        version = register_training(opened.store, result, sources, now=current_time())
    if as_json:
        print_json(_summary(result, folder, version))
    else:
        _show(result, folder, version, opened, job)


def recipe_changes(options: TrainOptions) -> RecipeChanges:
    """Return what the user wants otherwise than the recipe has it."""
    from engine.learning.recipes import RecipeChanges

    return RecipeChanges(
        steps=options.steps,
        images_per_batch=options.batch_images,
        learning_rate=options.learning_rate,
        precision=options.precision,
        save_every=options.save_every,
        log_every=options.log_every,
        seed=options.seed,
    )


def _data_workers(options: TrainOptions, group: ProcessGroup) -> int:
    if options.data_workers is not None:
        return options.data_workers
    return 0 if group.device.type == "cpu" else _GPU_WORKERS


def default_output(opened: Workspace | None, name: str) -> Path:
    """Return the folder of a job of this name in the workspace."""
    from engine.learning.training_folder import TRAININGS

    if opened is None:
        raise click.UsageError("name an --output folder")
    return opened.local_folder / TRAININGS / name


def _summary(
    result: TrainingResult, folder: Path, version: ModelVersion | None
) -> dict[str, object]:
    course = result.course
    return {
        "output": folder.resolve(),
        "weights": result.weights.resolve(),
        "model_id": result.model_id,
        "version": version.name if version else None,
        "recipe": result.recipe.name,
        "steps": course.steps,
        "resumed_at": course.resumed_at,
        "samples_per_second": course.samples_per_second,
        "waiting_share": course.waiting_share,
        "scores": dict(course.scores),
        "skipped": [asdict(image) for image in course.skipped],
    }


def _show(
    result: TrainingResult,
    folder: Path,
    version: ModelVersion | None,
    opened: Workspace | None,
    job: TrainingJob,
) -> None:
    from rich.console import Console
    from rich.table import Table

    from flows.commands.training_bar import figures

    course = result.course
    table = Table(show_header=False, box=None, padding=(0, 2), pad_edge=False)
    before = f", {course.resumed_at} before" if course.resumed_at else ""
    table.add_row("steps", f"{course.steps}{before}")
    if course.steps > course.resumed_at:
        table.add_row(
            "speed",
            f"{course.samples_per_second:.1f} samples/s, {course.waiting_share:.1%} of the time "
            "waiting for data",
        )
    if course.scores:
        table.add_row("held-out images", figures(course.scores))
    table.add_row("weights", str(result.weights))
    table.add_row("learning curve", str(folder / "learning_curve.png"))
    if version is not None:
        table.add_row("model", f"{version.name} ({version.model_id}), a candidate")
    console = Console()
    console.print(table, soft_wrap=True, highlight=False)
    show_skipped(course.skipped)
    console.print(f"Next: {_next(result, version, opened, job)}", highlight=False, soft_wrap=True)


def _next(
    result: TrainingResult, version: ModelVersion | None, opened: Workspace | None, job: TrainingJob
) -> str:
    from engine.learning.training_data import held_out_number

    if version is None or opened is None:
        return f"maskwheel auto photos/ --model {result.weights}"
    numbers = {held_out_number(source, job.hold_out) for source in job.data}
    if len(numbers) > 1 or 0 in numbers or any(source.is_release for source in job.data):
        return f"maskwheel models show {version.name} -w {opened.address}"
    data = " ".join(f"--data {source.name}" for source in job.data)
    return (
        f"maskwheel models promote {version.name} {data} --hold-out {numbers.pop()} "
        f"-w {opened.address}"
    )


def show_skipped(skipped: tuple[SkippedImage, ...]) -> None:
    """Say which photos could not be used."""
    for image in skipped[:_SKIPPED_SHOWN]:
        click.secho(f"  left out {image.uri}: {image.message}", fg="yellow")
    if len(skipped) > _SKIPPED_SHOWN:
        click.secho(f"  ... and {len(skipped) - _SKIPPED_SHOWN} more", fg="yellow")
