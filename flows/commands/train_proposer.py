"""`maskwheel train --recipe proposer`: a box detector for the semi-automatic stage."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flows.commands.options import print_json
from flows.commands.train import TrainOptions, default_output, show_skipped

if TYPE_CHECKING:
    from engine.dataset.catalog import Workspace
    from engine.learning.process_group import ProcessGroup
    from engine.learning.proposer_registry import ProposerVersion
    from engine.learning.proposer_training import ProposerRecipe, ProposerResult

_NOT_FOR_PROPOSERS = ("model", "teacher", "precision", "eval_every")


def train_proposer(
    names: tuple[str, ...],
    options: TrainOptions,
    group: ProcessGroup,
    opened: Workspace | None,
    output: Path | None,
    register: bool,
    as_json: bool,
) -> None:
    """Train a box proposer on the features of a model, and say what came of it."""
    from engine.config import current_time
    from engine.learning.proposer_registry import register_proposer
    from engine.learning.proposer_training import ProposerJob, train_proposer
    from engine.learning.training_data import open_data
    from engine.learning.training_start import start_from
    from flows.commands.training_bar import TrainingBar

    _refuse(options, group)
    start = start_from(
        options.init or "champion",
        model=None,
        seed=options.seed,
        device=group.device,
        store=opened.store if opened else None,
    )
    sources = open_data(names, opened, options.split, options.photos)
    job = ProposerJob(
        sam=start.sam, data=sources, recipe=_recipe(options), hold_out=options.hold_out
    )
    folder = output or default_output(opened, job.name)
    with TrainingBar() as bar:
        result = train_proposer(job, folder, listener=bar)
    version = None
    if register and opened is not None:
        version = register_proposer(opened.store, result, sources, now=current_time())
    _tell(result, version, as_json)


def _refuse(options: TrainOptions, group: ProcessGroup) -> None:
    """Say which options mean nothing here, rather than leave them unread."""
    given = [name for name in _NOT_FOR_PROPOSERS if getattr(options, name) is not None]
    if options.tune != "all":
        given.append("tune")
    if given:
        listed = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise click.UsageError(f"{listed} cannot be combined with --recipe proposer")
    if group.processes > 1:
        raise click.UsageError("--recipe proposer trains in one process; start it without torchrun")


def _recipe(options: TrainOptions) -> ProposerRecipe:
    from dataclasses import replace

    from engine.learning.proposer_training import ProposerRecipe

    wanted = {
        "steps": options.steps,
        "images_per_batch": options.batch_images,
        "learning_rate": options.learning_rate,
        "save_every": options.save_every,
        "log_every": options.log_every,
    }
    given = {name: value for name, value in wanted.items() if value is not None}
    return replace(ProposerRecipe(seed=options.seed), **given)  # type: ignore[arg-type]  # by name


def _tell(result: ProposerResult, version: ProposerVersion | None, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "file": result.weights.resolve(),
                "version": version.name if version else None,
                "recipe": "proposer",
                "steps": result.steps,
                "resumed_at": result.resumed_at,
                "scores": result.metrics,
                "skipped": [asdict(image) for image in result.skipped],
            }
        )
        return
    click.echo(f"{result.steps} steps, {result.resumed_at} of them before: {result.weights}")
    for name, value in result.metrics.items():
        click.echo(f"  boxes of held-out masks, {name}: {value:.3f}")
    show_skipped(result.skipped)
    if version is not None:
        click.echo(f"box proposer {version.name}, for {version.model_id}")
        click.echo("Next: maskwheel annotate --stage semi --prefill detector")
