"""`maskwheel train --recipe mae|distill`: training on photos without masks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flows.commands.options import print_json
from flows.commands.train import TrainOptions, default_output, recipe_changes, show_skipped

if TYPE_CHECKING:
    from engine.dataset.catalog import Workspace
    from engine.learning.process_group import ProcessGroup
    from engine.learning.unlabelled_training import UnlabelledResult
    from engine.records import ModelVersion


def train_on_photos(
    names: tuple[str, ...],
    options: TrainOptions,
    group: ProcessGroup,
    opened: Workspace | None,
    output: Path | None,
    register: bool,
    as_json: bool,
) -> None:
    """Pre-train an encoder or distil a model, and say what came of it."""
    from engine.config import current_time
    from engine.learning.recipes import unlabelled_recipe
    from engine.learning.training_registration import register_distilled
    from engine.learning.training_start import load_teacher, start_from
    from engine.learning.unlabelled_training import (
        UnlabelledJob,
        distill_model,
        open_photos,
        pretrain_encoder,
    )
    from flows.commands.training_bar import TrainingBar

    recipe = unlabelled_recipe(options.recipe).adapted(recipe_changes(options))
    store = opened.store if opened else None
    job = UnlabelledJob(
        start=start_from(
            options.init or recipe.init,
            model=options.model,
            default_model=recipe.model,
            seed=options.seed,
            device=group.device,
            store=store,
        ),
        photos=open_photos(names, opened, options.split),
        recipe=recipe,
        rank=group.rank,
        processes=group.processes,
    )
    folder = output or default_output(opened, job.name)
    with TrainingBar() as bar:
        if options.recipe == "mae":
            result = pretrain_encoder(job, folder, listener=bar)
        else:
            teacher = load_teacher(options.teacher, group.device, store)
            result = distill_model(job, teacher, folder, listener=bar)
    if group.rank:
        return
    version = None
    if register and opened is not None:
        version = register_distilled(opened.store, job, result, now=current_time())
    _tell(result, version, options, as_json)


def _tell(
    result: UnlabelledResult, version: ModelVersion | None, options: TrainOptions, as_json: bool
) -> None:
    if as_json:
        print_json(
            {
                "file": result.file.resolve(),
                "version": version.name if version else None,
                "recipe": options.recipe,
                "steps": result.steps,
                "resumed_at": result.resumed_at,
                "values": dict(result.values),
                "skipped": [asdict(image) for image in result.skipped],
            }
        )
        return
    click.echo(f"{result.steps} steps, {result.resumed_at} of them before: {result.file}")
    show_skipped(result.skipped)
    if options.recipe == "mae":
        click.echo(f"Next: maskwheel train --data DATA --recipe sam --init mae:{result.file}")
    else:
        model = version.name if version else result.file
        click.echo(f"Next: maskwheel auto photos/ --model {model}")
