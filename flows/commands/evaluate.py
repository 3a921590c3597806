"""`maskwheel evaluate`: how good a model is, beside classical methods."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flows.commands.options import json_option, workspace_address, workspace_option

if TYPE_CHECKING:
    from engine.dataset.labelled_sets import LabelledSet
    from engine.evaluation.points import FirstClick
    from engine.evaluation.report import EvaluationReport
    from engine.evaluation.run import Task

_TASKS: tuple[Task, ...] = ("points", "boxes", "proposals", "edges", "instances")
_FIRST_CLICKS: dict[str, tuple[FirstClick, ...]] = {
    "centre": ("centre",),
    "random": ("random",),
    "both": ("centre", "random"),
}
_PIPE_COLUMNS = 200


@click.command(
    "evaluate",
    epilog="""\b
Examples:
  maskwheel evaluate bundled --data bsds500_trainval/annotations.json --split val
  maskwheel evaluate sam_vit_b_01ec64.pth --data coco/annotations.json --hold-out 40 -o results
  maskwheel evaluate bundled --data r3 -w birds --task proposals --max-images 50
  maskwheel evaluate champion --data r3 -w birds --looks --no-baselines --json

Masks are drawn with a fixed seed: the same command gives the same figures.""",
)
@click.argument("model")
@click.option("--data", multiple=True, required=True, help="COCO file or release; any number.")
@click.argument("more_data", nargs=-1)
@workspace_option
@click.option(
    "--task",
    "tasks",
    multiple=True,
    type=click.Choice(_TASKS),
    help="May be given several times.  [default: points, boxes]",
)
@click.option("--split", help="Only images of this split, in sets that know splits.")
@click.option(
    "--hold-out",
    type=click.IntRange(1),
    help="Only so many evenly spaced images: those that a training with --hold-out left out.",
)
@click.option(
    "--min-votes",
    "votes",
    multiple=True,
    type=click.IntRange(1),
    help="Masks that so many people drew; several levels make rows each.  "
    "[default: 1, and 2 where people disagree]",
)
@click.option("--max-images", type=click.IntRange(1), help="Of each set, evenly spaced.")
@click.option(
    "--masks-per-image",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    help="Prompted for, drawn at random; 0: all.",
)
@click.option(
    "--first-click",
    type=click.Choice([*_FIRST_CLICKS]),
    default="centre",
    show_default=True,
    help="Farthest from the mask's border, or anywhere in it.",
)
@click.option(
    "--max-clicks",
    type=click.IntRange(1, 20),
    default=9,
    show_default=True,
    help="Length of the conversations; NoC is capped by it.",
)
@click.option(
    "--looks", is_flag=True, help="Also on grey, inverted, noisy ... images and drawn scenes."
)
@click.option(
    "--baselines/--no-baselines",
    default=True,
    help="Felzenszwalb, GrabCut and discs on the same prompts.  [default: yes]",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draw.")
@click.option("--device", help="cpu, cuda, cuda:1, mps.  [default: the best there is]")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for evaluation.json, evaluation.md and plots.",
)
@json_option
def command(
    model: str,
    data: tuple[str, ...],
    more_data: tuple[str, ...],
    workspace: str | None,
    tasks: tuple[str, ...],
    split: str | None,
    hold_out: int | None,
    votes: tuple[int, ...],
    max_images: int | None,
    masks_per_image: int,
    first_click: str,
    max_clicks: int,
    looks: bool,
    baselines: bool,
    seed: int,
    device: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Put prompts for what people drew to MODEL and print how good its answers are.

    MODEL is bundled, a SAM checkpoint (.pth, .safetensors), or a model of the workspace: m2,
    champion. Data are COCO files (photos in images/ beside them) and releases.
    """
    from engine.automatic.shard_worker import ModelSpec, cached_model
    from engine.config import current_time
    from engine.evaluation.run import EvaluationPlan, evaluate_model
    from engine.evaluation.tables import report_json
    from flows.commands.progress_bar import ProgressBar

    address = workspace_address(workspace)
    plan = EvaluationPlan(
        tasks=tuple(task for task in _TASKS if task in tasks) or ("points", "boxes"),
        first_clicks=_FIRST_CLICKS[first_click],
        max_clicks=max_clicks,
        baselines=baselines,
        looks=looks,
        votes=tuple(sorted(set(votes))) or None,
        masks_per_image=masks_per_image,
        max_images=max_images,
        seed=seed,
    )
    sets = _open_sets((*data, *more_data), address, split, hold_out)
    sam = cached_model(ModelSpec(model, device, workspace=address))
    with ProgressBar() as bar:
        report = evaluate_model(sam, sets, plan, bar, now=current_time(), name=Path(model).stem)
    if output is not None:
        _write(report, output)
    if as_json:
        click.echo(report_json(report))
    else:
        _show(report, output)


def _open_sets(
    names: tuple[str, ...], address: str, split: str | None, held_out: int | None
) -> tuple[LabelledSet, ...]:
    from engine.dataset.catalog import Workspace, is_workspace
    from engine.evaluation.sets import evaluation_sets

    with ExitStack() as stack:
        workspace = None
        if is_workspace(address):
            workspace = stack.enter_context(Workspace.open(address, create=False))
        return evaluation_sets(names, workspace, split, held_out)


def _write(report: EvaluationReport, folder: Path) -> None:
    from engine.evaluation.keeping import report_files

    folder.mkdir(parents=True, exist_ok=True)
    for name, data in report_files(report):
        (folder / name).write_bytes(data)


def _show(report: EvaluationReport, folder: Path | None) -> None:
    import sys

    from rich.console import Console
    from rich.table import Table

    from engine.evaluation.tables import report_tables

    # Tables keep their full width where no terminal limits it: in files and pipes.
    console = Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS, highlight=False)
    console.print(f"{report.model} ({report.model_id})\n")
    for found in report_tables(report):
        table = Table(title=found.title, title_justify="left", box=None, pad_edge=False)
        for place, heading in enumerate(found.columns):
            table.add_column(heading, justify="left" if place < found.labels else "right")
        for row in found.rows:
            table.add_row(*row)
        console.print(table)
        console.print(found.note + "\n" if found.note else "", style="dim")
    if folder is not None:
        console.print(f"tables and plots are in {folder}")
