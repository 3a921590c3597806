"""Training on photos without masks: pre-training of an encoder (MAE), and distillation.

>>> result = pretrain_encoder(job, Path("mae"), device=torch.device("cuda"))
>>> result.file    # for `maskwheel train --init mae:FILE`

As in `engine.learning.training`, one folder holds all of a training, and the same call goes on
where a killed one stopped.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from engine.dataset.catalog import Workspace
from engine.dataset.labelled_sets import CocoMasks
from engine.dataset.releases import load_release
from engine.errors import BadInputError
from engine.learning.pretraining import Photos, distillation_batches, mae_batches
from engine.learning.recipes import UnlabelledRecipe
from engine.learning.training_data import is_coco_file
from engine.learning.training_folder import CHECKPOINT, WEIGHTS, Identity, claimed
from engine.learning.training_log import (
    CURVE,
    LogEntry,
    TrainingLog,
    draw_learning_curve,
    read_log,
)
from engine.learning.training_session import TrainingListener
from engine.learning.training_start import Start
from engine.records import SkippedImage
from model import Sam, save_sam
from model.distill import DistillConfig, distill
from model.mae import MaeConfig, pretrain
from model.step_loop import ImageBatches, StepConfig, learning_rate

__all__ = ["UnlabelledJob", "UnlabelledResult", "distill_model", "open_photos", "pretrain_encoder"]

Batches = Callable[[Callable[[SkippedImage], None]], ImageBatches]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnlabelledJob:
    """What to train on photos alone.

    Attributes:
        start: the model whose encoder is pre-trained, or that learns from the teacher.
        photos: to learn from.
        recipe: ``mae`` or ``distill``.
        rank: this process's number in its group; number 0 writes.
        processes: size of the group.
    """

    start: Start
    photos: Photos
    recipe: UnlabelledRecipe
    rank: int = 0
    processes: int = 1

    @property
    def photos_fingerprint(self) -> str:
        """Of the photos' addresses, 16 digits."""
        return hashlib.sha256("\n".join(self.photos.uris).encode()).hexdigest()[:16]

    @property
    def identity(self) -> Identity:
        """All that decides what comes out, but for the teacher."""
        free = {"steps", "warmup_steps", "log_every", "save_every"}
        return {
            **{k: v for k, v in asdict(self.recipe.train).items() if k not in free},
            "recipe": self.recipe.name,
            "photos": self.photos_fingerprint,
            "start": self.start.sam.model_id(),
            "images_per_batch": self.recipe.images_per_batch,
            "processes": self.processes,
        }

    @property
    def name(self) -> str:
        """The same job has the same name, also with more steps."""
        text = json.dumps({**self.identity, "processes": 0}, sort_keys=True)
        return f"{self.recipe.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnlabelledResult:
    """What a training on photos gave.

    Attributes:
        sam: the model, in inference mode.
        file: the pre-training checkpoint, or the distilled model's weights.
        steps: done in all.
        resumed_at: the step that this call started from.
        skipped: photos that could not be used.
        values: the last that was logged, by name.
    """

    sam: Sam
    file: Path
    steps: int
    resumed_at: int
    skipped: tuple[SkippedImage, ...]
    values: dict[str, float]


def open_photos(names: Sequence[str], workspace: Workspace | None, split: str | None) -> Photos:
    """Find photos: of COCO files and releases, with masks or without, and in folders and lists.

    Raises:
        BadInputError: an input that does not exist or has no photos.
    """
    uris: list[str] = []
    for name in names:
        if name.endswith(".json"):
            uris += [image.uri for image in CocoMasks.load(Path(name), split).images]
        elif Path(name).exists() or is_coco_file(name) or workspace is None or "*" in name:
            uris += Photos.listed([name]).uris
        else:
            uris += Photos.of_release(workspace, load_release(workspace, name), split).uris
    return Photos(tuple(dict.fromkeys(uris)))


def pretrain_encoder(
    job: UnlabelledJob, output: Path, *, listener: TrainingListener | None = None
) -> UnlabelledResult:
    """Pre-train the encoder of a model to predict hidden patches.

    Raises:
        BadInputError: something about the job or the folder is wrong, or no photo can be used.
    """
    config = job.recipe.train
    if not isinstance(config, MaeConfig):
        raise BadInputError(f"recipe {job.recipe.name} is not one of pre-training; expected mae")
    seed = config.seed + job.rank

    def batches(on_skip: Callable[[SkippedImage], None]) -> ImageBatches:
        return mae_batches(job.start.sam, job.photos, job.recipe.images_per_batch, seed, on_skip)

    run = partial(_pretrain, job.start.sam, config)
    result = _run(job, config, output, None, batches, run, listener)
    return replace(result, file=output / CHECKPOINT)


def distill_model(
    job: UnlabelledJob, teacher: Sam, output: Path, *, listener: TrainingListener | None = None
) -> UnlabelledResult:
    """Teach a model to answer as another one does.

    Raises:
        BadInputError: something about the job or the folder is wrong, or no photo can be used.
    """
    config = job.recipe.train
    if not isinstance(config, DistillConfig):
        raise BadInputError(f"recipe {job.recipe.name} is not one of distillation")
    if job.start.sam.config.pad_multiple == job.start.sam.config.image_size:
        config = replace(config, student_px=job.start.sam.config.image_size)  # a ViT's only size
    size_px = max(job.start.sam.config.image_size, 2 * (config.student_px or 0))
    seed = config.seed + job.rank

    def batches(on_skip: Callable[[SkippedImage], None]) -> ImageBatches:
        return distillation_batches(job.photos, size_px, job.recipe.images_per_batch, seed, on_skip)

    run = partial(_distill, job.start.sam, teacher, config)
    result = _run(job, config, output, teacher.model_id(), batches, run, listener)
    if job.rank == 0:
        save_sam(result.sam, output / WEIGHTS)
    return result


def _pretrain(sam: Sam, config: MaeConfig, batches: ImageBatches, path: Path, watch: _Watch) -> Sam:
    return pretrain(sam, batches, config, path, watch.on_log)


def _distill(
    student: Sam,
    teacher: Sam,
    config: DistillConfig,
    batches: ImageBatches,
    path: Path,
    watch: _Watch,
) -> Sam:
    return distill(student, teacher, batches, config, path, watch.on_log)


def _run(
    job: UnlabelledJob,
    config: StepConfig,
    output: Path,
    teacher: str | None,
    batches: Batches,
    run: Callable[[ImageBatches, Path, _Watch], Sam],
    listener: TrainingListener | None,
) -> UnlabelledResult:
    identity = {**job.identity, "teacher": teacher}
    with claimed(output, identity, config.steps, writes=job.rank == 0):
        watch = _Watch(job, config, output, listener)
        try:
            sam = run(watch.watched(batches(watch.on_skip)), output / CHECKPOINT, watch)
        except ValueError as error:
            raise BadInputError(f"{output}: {error}") from error
        finally:
            watch.close()
    return UnlabelledResult(
        sam=sam,
        file=output / WEIGHTS,
        steps=config.steps,
        resumed_at=watch.start,
        skipped=tuple(watch.skipped),
        values=watch.values,
    )


class _Watch:
    """Keeps the log of a run, and the time that it spends waiting for photos."""

    def __init__(
        self,
        job: UnlabelledJob,
        config: StepConfig,
        output: Path,
        listener: TrainingListener | None,
    ) -> None:
        self._config, self._output, self._listener = config, output, listener
        self._writes = job.rank == 0
        self._images_per_step = job.recipe.images_per_batch * job.processes
        self._log: TrainingLog | None = None
        self._waited = 0.0
        self._logged = 0
        self.start = config.steps  # unless there is something left to do
        self.skipped: list[SkippedImage] = []
        self.values: dict[str, float] = {}

    def on_skip(self, image: SkippedImage) -> None:
        self.skipped.append(image)

    def watched(self, batches: ImageBatches) -> ImageBatches:
        def begin(start: int) -> Iterator[Tensor]:
            self.start = self._logged = start
            if self._writes:
                self._log = TrainingLog(self._output, start)
                if self._listener:
                    self._listener.begin(start, self._config.steps)
            return self._timed(batches(start))

        return begin

    def _timed(self, batches: Iterator[Tensor]) -> Iterator[Tensor]:
        while True:
            began = time.monotonic()
            batch = next(batches)
            self._waited += time.monotonic() - began
            yield batch

    def on_log(self, step: int, losses: dict[str, float]) -> None:
        seconds = max(losses["seconds_per_step"], 1e-9)
        self.values = {
            **losses,
            "learning_rate": learning_rate(step - 1, self._config),
            "samples_per_second": self._images_per_step / seconds,
            "waiting_share": self._waited / (seconds * (step - self._logged)),
            "photos_skipped": float(len(self.skipped)),
        }
        self._waited, self._logged = 0.0, step
        entry = LogEntry(step, "train", self.values)
        if self._log is not None:
            self._log.add(entry)
        if self._listener:
            self._listener.step(step)
            self._listener.entry(entry)

    def close(self) -> None:
        if self._log is not None:
            self._log.close()
            draw_learning_curve(read_log(self._output), self._output / CURVE)
