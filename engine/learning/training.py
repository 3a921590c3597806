"""Train a model on masks and keep everything about it in one folder; `maskwheel train` calls this.

>>> job = TrainingJob(recipe=find_recipe("finetune"), data=open_data(["r3"], workspace))
>>> result = train_model(job, Path("out"), device=torch.device("cpu"))
>>> result.weights

The same call with the same folder goes on where a killed one stopped, and ends with the same
weights: batches and prompts depend on the seed and the step alone.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from engine.errors import BadInputError
from engine.learning.recipes import Recipe
from engine.learning.training_data import DataSource, split_off
from engine.learning.training_folder import CHECKPOINT, WEIGHTS, Identity, claimed
from engine.learning.training_session import Course, Session, TrainingListener
from engine.learning.training_start import Tune, start_from, tune, tuned
from engine.objects import ObjectStore
from model import Sam, SamConfig, TrainConfig, save_sam, train

__all__ = ["TrainingJob", "TrainingResult", "train_model", "training_name"]

# They change nothing about the numbers that come out, or may change while training goes on.
_NOT_IDENTITY = {"steps", "warmup_steps", "log_every", "save_every", "recompute_rounds"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """What to train, on what.

    Attributes:
        recipe: steps, losses, prompts, samples.
        data: labelled sets.
        init: where to start, see `start_from`; None: as the recipe says.
        model: size of the model; None: what `init` has, or the recipe's.
        tune: what of the model learns.
        lora_rank: of the low-rank updates.
        hold_out: images held out of each set to measure progress on; None: 5 %, at most 40.
        eval_every: steps between two measurements; 0: never; None: ten in all.
        data_workers: processes that prepare samples, for each that trains; 0: a thread.
    """

    recipe: Recipe
    data: tuple[DataSource, ...]
    init: str | None = None
    model: str | None = None
    tune: Tune = "all"
    lora_rank: int = 8
    hold_out: int | None = None
    eval_every: int | None = None
    data_workers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingResult:
    """What a training gave.

    Attributes:
        sam: the averaged model, in inference mode.
        weights: its file.
        model_id: the name of the exact weights.
        parent: the registered version that training started from, if it was one.
        source: the file that it started from, if it was one.
        recipe: as it was used, fitted to the model.
        course: how it went.
    """

    sam: Sam
    weights: Path
    model_id: str
    parent: str | None
    source: str | None
    recipe: Recipe
    course: Course


def train_model(
    job: TrainingJob,
    output: Path,
    *,
    device: torch.device,
    rank: int = 0,
    processes: int = 1,
    store: ObjectStore | None = None,
    listener: TrainingListener | None = None,
) -> TrainingResult:
    """Train, or go on training, and write the averaged weights.

    Args:
        job: what to train.
        output: folder of the training; see `claimed`.
        device: where to compute.
        rank: this process's number in its group; number 0 writes.
        processes: size of the group.
        store: of the workspace, where `init` names a registered model.
        listener: told about progress, in the process that writes.

    Raises:
        BadInputError: something about the job, the data or the folder is wrong.
        WorkspaceError: a release or the folder is damaged or cannot be written.
    """
    recipe, seed = job.recipe, job.recipe.train.seed
    start = start_from(
        job.init or recipe.init,
        model=job.model,
        default_model=recipe.model,
        seed=seed,
        device=device,
        store=store,
    )
    recipe = _fitted(recipe, start.sam.config)
    hold_out = 0 if job.eval_every == 0 and job.hold_out is None else job.hold_out
    identity = _identity(job, recipe, start.sam.model_id(), hold_out, processes)
    with ExitStack() as stack:
        stack.enter_context(claimed(output, identity, recipe.train.steps, writes=rank == 0))
        tune(start.sam, job.tune, job.lora_rank, seed)
        parts = split_off(job.data, hold_out)
        session = Session(
            recipe=recipe,
            parts=parts,
            output=output,
            rank=rank,
            processes=processes,
            eval_every=job.eval_every,
            data_workers=job.data_workers,
            listener=listener,
        )
        stack.callback(session.close)
        average = _train(start.sam, session, recipe.train, output)
        sam = tuned(average, job.tune).eval()
        course = session.conclude(sam)
        if rank == 0:
            save_sam(sam, output / WEIGHTS)
    return TrainingResult(
        sam=sam,
        weights=output / WEIGHTS,
        model_id=sam.model_id(),
        parent=start.parent,
        source=start.source,
        recipe=recipe,
        course=course,
    )


def _fitted(recipe: Recipe, config: SamConfig) -> Recipe:
    return replace(
        recipe,
        train=recipe.train_for(config),
        samples=recipe.samples_for(config),
        model=config.name,
    )


def _train(sam: Sam, session: Session, config: TrainConfig, output: Path) -> Sam:
    checkpoint = output / CHECKPOINT
    try:
        return train(sam, session.batches, config, checkpoint, session.on_log, session.on_step)
    except ValueError as error:
        raise BadInputError(f"{output}: {error}") from error


def training_name(job: TrainingJob) -> str:
    """Name a job: the same one gets the same name, and so the same folder, also with more steps."""
    identity = _identity(job, job.recipe, f"{job.init} {job.model}", job.hold_out, 0)
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return f"{job.recipe.name}-{digest[:8]}"


def _identity(
    job: TrainingJob, recipe: Recipe, start: str, hold_out: int | None, processes: int
) -> Identity:
    settings = {
        f"{part}.{name}": value
        for part, values in (("train", asdict(recipe.train)), ("samples", asdict(recipe.samples)))
        for name, value in values.items()
        if name not in _NOT_IDENTITY
    }
    return {
        **settings,
        "recipe": recipe.name,
        "data": [source.identity for source in job.data],
        "hold_out": hold_out,
        "start": start,
        "tune": f"lora {job.lora_rank}" if job.tune == "lora" else job.tune,
        "processes": processes,
    }
