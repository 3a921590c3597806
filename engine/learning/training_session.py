"""What happens around the steps of a training: data, log, measurements, pictures.

>>> session = Session(recipe=recipe, parts=parts, output=folder, ...)
>>> average = train(sam, session.batches, config, checkpoint, session.on_log, session.on_step)
>>> session.conclude(average).waiting_share
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from engine.dataset.labelled_sets import LabelledSet, readable
from engine.dataset.sample_workers import SampleStream
from engine.dataset.training_samples import BatchPlan
from engine.errors import ImageError
from engine.evaluation.labelled import Selection
from engine.evaluation.points import PromptConfig, score_model
from engine.learning.recipes import Recipe
from engine.learning.training_data import DataParts
from engine.learning.training_log import (
    CURVE,
    LogEntry,
    TrainingLog,
    draw_learning_curve,
    read_log,
)
from engine.records import SkippedImage
from model import Sam, TrainBatch, TrainConfig
from model.optimisation import learning_rate

__all__ = ["Course", "Session", "TrainingListener"]

logger = logging.getLogger(__name__)

_EVALUATIONS = 10
_PROGRESS_PROMPTS = PromptConfig(
    max_clicks=1, report_at=(1,), selection=Selection(masks_per_image=3)
)


class TrainingListener(Protocol):
    """Somebody who watches a training."""

    def begin(self, step: int, steps: int) -> None:
        """Hear that training goes on from a step, to a number of steps."""
        ...

    def step(self, step: int) -> None:
        """Hear that a step is done."""
        ...

    def entry(self, entry: LogEntry) -> None:
        """Hear what has been logged."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Course:
    """How a training went.

    Attributes:
        steps: done in all.
        resumed_at: the step that this call started from.
        samples_per_second: over this call's steps; 0 where there were none.
        waiting_share: of this call's time, what training spent waiting for data.
        skipped: photos that could not be used.
        held_out: what progress was measured on.
        scores: of the last measurement, by name.
    """

    steps: int
    resumed_at: int
    samples_per_second: float
    waiting_share: float
    skipped: tuple[SkippedImage, ...]
    held_out: tuple[LabelledSet, ...]
    scores: Mapping[str, float]


class Session:
    """What happens around the steps of one call: data, log, measurements, pictures."""

    def __init__(
        self,
        *,
        recipe: Recipe,
        parts: DataParts,
        output: Path,
        rank: int,
        processes: int,
        eval_every: int | None,
        data_workers: int,
        listener: TrainingListener | None,
    ) -> None:
        """Take the data; nothing is opened before training asks for batches.

        Args:
            recipe: fitted to the model.
            parts: what to train on, and what to measure progress on.
            output: folder of the training.
            rank: this process's number in its group; number 0 writes.
            processes: size of the group.
            eval_every: steps between two measurements; 0: never; None: ten in all.
            data_workers: processes that prepare samples; 0: a thread.
            listener: told about progress, in the process that writes.
        """
        self._config: TrainConfig = recipe.train
        self._output, self._writes = output, rank == 0
        self._listener, self._workers = listener, data_workers
        some = max(1, recipe.train.steps // _EVALUATIONS)
        self._eval_every = some if eval_every is None else eval_every
        self._plan = BatchPlan(
            sources=parts.train,
            config=recipe.samples,
            seed=recipe.train.seed,
            part=rank,
            parts=processes,
        )
        self._samples_per_step = recipe.samples.images_per_batch * processes
        self._skipped: dict[str, SkippedImage] = {}
        self._held_out = self._readable(parts.held_out) if self._writes else ()
        self._stream: SampleStream | None = None
        self._log: TrainingLog | None = None
        self._scores: Mapping[str, float] = {}
        self._aside_seconds = 0.0
        self._began = self._logged = _Moment(0, 0.0, 0.0)

    def batches(self, start: int) -> Iterator[TrainBatch]:
        """Begin: open the log and the data at the step that the checkpoint has reached."""
        self._stream = SampleStream(self._plan, start, workers=self._workers)
        if self._writes:
            self._log = TrainingLog(self._output, start)
            if self._listener:
                self._listener.begin(start, self._config.steps)
        self._began = self._logged = self._moment(start)
        return self._stream

    def on_log(self, step: int, losses: dict[str, float]) -> None:
        """Log losses, speed and the share of time spent waiting for data."""
        before, self._logged = self._logged, self._moment(step)
        values = {
            **losses,
            **self._logged.speed_since(before, self._samples_per_step),
            "learning_rate": learning_rate(step - 1, self._config),
            "photos_skipped": float(len(self._opened().skipped)),
        }
        self._add(LogEntry(step, "train", values))

    def on_step(self, step: int, average: Sam) -> None:
        """Measure and draw when it is time; the last measurement waits for the plain model."""
        if not self._writes:
            return
        if self._listener:
            self._listener.step(step)
        if step == self._config.steps:
            return
        if self._eval_every and step % self._eval_every == 0:
            self._measure(step, average)
            self._draw()
        elif step % self._config.save_every == 0:
            self._draw()

    def conclude(self, sam: Sam) -> Course:
        """Measure and draw the trained model, unless a call before this one has.

        Args:
            sam: the averaged model, without adapters.
        """
        steps = self._config.steps
        speed = self._moment(steps).speed_since(self._began, self._samples_per_step)
        if self._writes:
            done = [e for e in read_log(self._output) if e.kind == "evaluation" and e.step == steps]
            if done:
                self._scores = done[-1].values
            else:
                self._measure(steps, sam)
            self._draw()
        return Course(
            steps=steps,
            resumed_at=self._began.step,
            samples_per_second=speed["samples_per_second"],
            waiting_share=speed["waiting_share"],
            skipped=tuple((self._skipped | self._opened().skipped).values()),
            held_out=self._held_out,
            scores=self._scores,
        )

    def close(self) -> None:
        """Stop the workers and close the log."""
        if self._stream is not None:
            self._stream.close()
        if self._log is not None:
            self._log.close()

    def _moment(self, step: int) -> _Moment:
        training_seconds = time.monotonic() - self._aside_seconds
        return _Moment(step, training_seconds, self._opened().waited_seconds)

    def _opened(self) -> SampleStream:
        if self._stream is None:
            raise RuntimeError("training ended before it asked for batches")
        return self._stream

    def _add(self, entry: LogEntry) -> None:
        if self._log is not None:
            self._log.add(entry)
        if self._listener:
            self._listener.entry(entry)

    def _measure(self, step: int, sam: Sam) -> None:
        if not self._held_out:
            return
        began = time.monotonic()
        try:
            self._scores = _progress(sam.eval(), self._held_out)
        except ImageError as error:
            logger.warning("step %d is not measured: %s", step, error)
            return
        finally:
            self._aside_seconds += time.monotonic() - began
        self._add(LogEntry(step, "evaluation", self._scores))

    def _draw(self) -> None:
        began = time.monotonic()
        draw_learning_curve(read_log(self._output), self._output / CURVE)
        self._aside_seconds += time.monotonic() - began

    def _readable(self, held_out: Sequence[LabelledSet]) -> tuple[LabelledSet, ...]:
        """Leave photos out that cannot be read: a measurement must not stop a training."""
        kept: list[LabelledSet] = []
        for data in held_out:
            usable, skipped = readable(data)
            self._skipped |= {image.uri: image for image in skipped}
            kept += [usable] if len(usable) else []
        return tuple(kept)


@dataclass(frozen=True, slots=True)
class _Moment:
    """How far a training has come.

    Attributes:
        step: steps done.
        seconds: on a clock that stands still while the model is measured.
        waited_seconds: for data, up to now.
    """

    step: int
    seconds: float
    waited_seconds: float

    def speed_since(self, before: _Moment, samples_per_step: int) -> dict[str, float]:
        """Return figures of the steps since an earlier moment; 0 where there were none."""
        seconds = max(self.seconds - before.seconds, 1e-9)
        steps = self.step - before.step
        return {
            "seconds_per_step": seconds / steps if steps else 0.0,
            "samples_per_second": steps * samples_per_step / seconds,
            "waiting_share": (self.waited_seconds - before.waited_seconds) / seconds,
        }


def _progress(sam: Sam, held_out: Sequence[LabelledSet]) -> dict[str, float]:
    """Measure clicks and boxes on a few masks of every held-out photo, all sets together."""
    scores = [score_model(sam, data, _PROGRESS_PROMPTS) for data in held_out]
    clicks = [score.after(clicks=1) for score in scores]
    figures = {
        "miou_1_click": [click.trusted_iou_N for click in clicks],
        "miou_1_click_oracle": [click.oracle_iou_N for click in clicks],
        "miou_box": [score.box.trusted_iou_N for score in scores if score.box is not None],
    }
    return {name: float(np.concatenate(iou).mean()) for name, iou in figures.items()}
