"""Train a box proposer on masks, and keep everything about it in one folder.

>>> job = ProposerJob(sam=sam, data=open_data(["r1"], workspace), recipe=ProposerRecipe())
>>> result = train_proposer(job, Path("out"))
>>> result.weights, result.metrics

Boxes are those of the masks, of one class. Samples come from the readers that train the promptable
model (whole photos at random scale, flipped and recoloured), batch by batch from the seed and the
step alone: the same call goes on where a killed one stopped, and ends with the same weights.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from engine.dataset.sample_cutting import SampleConfig
from engine.dataset.training_samples import BatchMaker, BatchPlan, prefetch
from engine.errors import BadInputError
from engine.learning.proposer import (
    Proposer,
    ProposerConfig,
    build_detector,
    feature_channels,
    square_features,
)
from engine.learning.proposer_data import agreed_masks, box_recall
from engine.learning.proposer_file import save_proposer
from engine.learning.training_data import DataSource, split_off
from engine.learning.training_folder import CHECKPOINT, Identity, claimed
from engine.learning.training_log import LogEntry, TrainingLog
from engine.learning.training_session import TrainingListener
from engine.records import SkippedImage
from model import Sam, TrainBatch
from model.prompt_sampling import tight_boxes
from model.state_file import not_of_this_run, read_state, write_state
from model.step_loop import StepConfig, learning_rate, to_pixels

if TYPE_CHECKING:
    from transformers import RTDetrForObjectDetection

__all__ = ["ProposerJob", "ProposerRecipe", "ProposerResult", "train_proposer"]

logger = logging.getLogger(__name__)

PROPOSER_WEIGHTS = "proposer.safetensors"
_STEP_SEEDS_APART = 104_729
_NOT_IDENTITY = {"steps", "log_every", "save_every"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposerRecipe:
    """How a proposer is trained.

    Attributes:
        detector: its sizes.
        steps: optimiser steps.
        images_per_batch: squares in a batch.
        learning_rate: peak, after warm-up; decays to 0 along a cosine.
        warmup_steps: linear warm-up.
        weight_decay: AdamW's, for matrices only.
        grad_clip: gradients are scaled down to this norm.
        ema_decay: of the averaged weights, which are the result.
        scale_range: photos are shown between these shares of the square.
        min_votes: only masks that so many people drew, on images where there are such.
        seed: of weights, samples and noise.
        log_every: steps between two log entries.
        save_every: steps between two checkpoints.
    """

    detector: ProposerConfig = field(default_factory=ProposerConfig)
    steps: int = 6000
    images_per_batch: int = 8
    learning_rate: float = 4e-4
    warmup_steps: int = 200
    weight_decay: float = 1e-4
    grad_clip: float = 0.5
    ema_decay: float = 0.998
    scale_range: tuple[float, float] = (0.6, 1.4)
    min_votes: int = 1
    seed: int = 0
    log_every: int = 20
    save_every: int = 200

    def __post_init__(self) -> None:
        counts = (self.steps, self.images_per_batch, self.log_every, self.save_every)
        if min(*counts, self.min_votes) < 1 or self.warmup_steps < 0:
            raise BadInputError(f"a proposer's recipe counts from 1; got {self}")
        if not 0 <= self.ema_decay < 1 or not self.learning_rate > 0 or not self.grad_clip > 0:
            raise BadInputError(
                "ema_decay goes from 0 to below 1, learning_rate and grad_clip are above 0; got "
                f"{self.ema_decay}, {self.learning_rate} and {self.grad_clip}"
            )

    def to_json(self) -> str:
        """Return the recipe as canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProposerJob:
    """What to train, on what.

    Attributes:
        sam: the model whose features the proposer reads; it does not change.
        data: labelled sets.
        recipe: how.
        hold_out: images held out of each set to measure on; None: 5 %, at most 40.
    """

    sam: Sam
    data: tuple[DataSource, ...]
    recipe: ProposerRecipe = field(default_factory=ProposerRecipe)
    hold_out: int | None = None

    @property
    def identity(self) -> Identity:
        """All that decides what comes out."""
        recipe = {k: v for k, v in asdict(self.recipe).items() if k not in _NOT_IDENTITY}
        return {
            **recipe,
            "recipe": "proposer",
            "model": self.sam.model_id(),
            "data": [source.identity for source in self.data],
            "hold_out": self.hold_out,
        }

    @property
    def name(self) -> str:
        """The same job has the same name, also with more steps."""
        text = json.dumps(self.identity, sort_keys=True)
        return f"proposer-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProposerResult:
    """What a training gave.

    Attributes:
        proposer: with the averaged weights.
        weights: their file.
        recipe: as it was used.
        steps: done in all.
        resumed_at: the step that this call started from.
        skipped: photos that could not be used.
        metrics: share of the held-out masks whose box is among the first boxes, by name; empty
            where nothing was held out.
    """

    proposer: Proposer
    weights: Path
    recipe: ProposerRecipe
    steps: int
    resumed_at: int
    skipped: tuple[SkippedImage, ...]
    metrics: dict[str, float]


def train_proposer(
    job: ProposerJob, output: Path, *, listener: TrainingListener | None = None
) -> ProposerResult:
    """Train, or go on training, and write the averaged weights.

    Args:
        job: what to train.
        output: folder of the training; see `claimed`.
        listener: told about progress.

    Raises:
        BadInputError: something about the job, the data or the folder is wrong, or transformers is
            not installed.
        WorkspaceError: a release or the folder is damaged or cannot be written.
    """
    recipe, sam = job.recipe, job.sam.eval().requires_grad_(False)
    parts = split_off(job.data, job.hold_out)
    plan = BatchPlan(
        sources=tuple(agreed_masks(part, recipe.min_votes) for part in parts.train),
        config=_samples(recipe, recipe.detector.side(sam)),
        seed=recipe.seed,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        detector = build_detector(recipe.detector, feature_channels(sam)).to(sam.device)
    with claimed(output, job.identity, recipe.steps):
        learner = _Learner(detector, recipe)
        start = learner.load(output / CHECKPOINT)
        maker = BatchMaker(plan)
        with ExitStack() as stack:
            log = stack.enter_context(TrainingLog(output, start))
            _run(learner, sam, maker, start, output / CHECKPOINT, log, listener)
        weights = output / PROPOSER_WEIGHTS
        save_proposer(learner.average, recipe.detector, sam.model_id(), weights)
    proposer = Proposer(learner.average, sam, recipe.detector)
    held_out = [agreed_masks(part, recipe.min_votes) for part in parts.held_out]
    return ProposerResult(
        proposer=proposer,
        weights=weights,
        recipe=recipe,
        steps=recipe.steps,
        resumed_at=start,
        skipped=tuple(maker.skipped.values()),
        metrics=box_recall(proposer, held_out) if held_out else {},
    )


def _samples(recipe: ProposerRecipe, side: int) -> SampleConfig:
    return SampleConfig(
        image_size=side,
        crop_px=side,
        images_per_batch=recipe.images_per_batch,
        # Every box needs a query of its own, and the others are what a photo's rest is.
        masks_per_image=max(1, recipe.detector.queries * 3 // 5),
        scale_range=recipe.scale_range,
        mask_sampling_power=0.0,
        max_area_ratio=1.0,
    )


class _Learner:
    """The detector, its average and its optimiser: all that a checkpoint holds."""

    def __init__(self, detector: RTDetrForObjectDetection, recipe: ProposerRecipe) -> None:
        self.detector, self.recipe = detector.train(), recipe
        self.average = copy.deepcopy(detector).eval().requires_grad_(False)
        self._optimizer = torch.optim.AdamW(_groups(detector, recipe), foreach=True)
        self._schedule = StepConfig(
            steps=recipe.steps,
            learning_rate=recipe.learning_rate,
            warmup_steps=recipe.warmup_steps,
        )

    def step(self, packed_BChw: Tensor, labels: list[dict[str, Tensor]], step: int) -> float:
        """Take one step; return the loss."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(step, self._schedule)
        device = packed_BChw.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self.recipe.seed + _STEP_SEEDS_APART * step)  # noise of true boxes
            answer = self.detector(pixel_values=packed_BChw, labels=labels)
        loss: Tensor = answer.loss
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.detector.parameters(), self.recipe.grad_clip, foreach=True)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._update_average(step)
        return loss.item()

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        decay = min(self.recipe.ema_decay, (step + 1) / (step + 10))
        theirs = self.average.state_dict()
        pairs = [(theirs[k], v) for k, v in self.detector.state_dict().items()]
        floats = [(a, b) for a, b in pairs if b.is_floating_point()]
        torch._foreach_lerp_([a for a, _ in floats], [b for _, b in floats], 1 - decay)

    def save(self, path: Path, step: int) -> None:
        """Write a checkpoint."""
        state = {
            "model": self.detector.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step": step,
        }
        write_state(path, state)

    def load(self, path: Path) -> int:
        """Restore a checkpoint if there is one; return the step to go on from."""
        if not path.exists():
            return 0
        state = read_state(path, next(self.detector.parameters()).device)
        try:
            self.detector.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self._optimizer.load_state_dict(state["optimizer"])
            return int(state["step"])
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            raise not_of_this_run(path, error) from error


def _run(
    learner: _Learner,
    sam: Sam,
    maker: BatchMaker,
    start: int,
    checkpoint: Path,
    log: TrainingLog,
    listener: TrainingListener | None,
) -> None:
    recipe = learner.recipe
    if listener is not None:
        listener.begin(start, recipe.steps)
    losses: list[float] = []
    began = time.monotonic()
    for step, batch in enumerate(_batches(maker, start, recipe.steps), start=start):
        pixels = to_pixels(batch.images_BHW3.to(sam.device))
        losses.append(
            learner.step(square_features(sam, pixels), box_labels(batch, sam.device), step)
        )
        done = step + 1
        if done % recipe.log_every == 0 or done == recipe.steps:
            rate = recipe.images_per_batch * len(losses) / (time.monotonic() - began)
            entry = LogEntry(
                done, "train", {"total": sum(losses) / len(losses), "images_per_second": rate}
            )
            log.add(entry)
            if listener is not None:
                listener.entry(entry)
            losses, began = [], time.monotonic()
        if done % recipe.save_every == 0 or done == recipe.steps:
            learner.save(checkpoint, done)
        if listener is not None:
            listener.step(done)


def _batches(maker: BatchMaker, start: int, steps: int) -> Iterator[TrainBatch]:
    stream = prefetch(maker.make(number) for number in range(start, steps))
    try:
        for _ in range(start, steps):
            yield next(stream)
    finally:
        stream.close()


def box_labels(batch: TrainBatch, device: torch.device) -> list[dict[str, Tensor]]:
    """Return the boxes of a batch's masks as RT-DETR takes them: centre and size in shares."""
    boxes_N4 = tight_boxes(batch.masks_NHW).to(device)
    corners = boxes_N4[:, :2], boxes_N4[:, 2:] + 1  # the last pixel counts
    height, width = batch.images_BHW3.shape[1:3]
    side_2 = torch.tensor([width, height], device=device)
    shares_N4 = torch.cat([(corners[0] + corners[1]) / 2, corners[1] - corners[0]], 1)
    shares_N4 = shares_N4 / side_2.repeat(2)
    owners_N = batch.image_index_N.to(device)
    by_image = (shares_N4[owners_N == i] for i in range(len(batch.images_BHW3)))
    return [
        {"boxes": boxes, "class_labels": torch.zeros(len(boxes), dtype=torch.long, device=device)}
        for boxes in by_image
    ]


def _groups(detector: nn.Module, recipe: ProposerRecipe) -> list[dict[str, Any]]:
    """Split parameters for AdamW: matrices decay; biases, norms and embeddings do not."""
    embeddings = {id(m.weight) for m in detector.modules() if isinstance(m, nn.Embedding)}
    parameters: Sequence[nn.Parameter] = list(detector.parameters())
    decays = [p.ndim > 1 and id(p) not in embeddings for p in parameters]
    return [
        {
            "params": [p for p, d in zip(parameters, decays, strict=True) if d is decay],
            "weight_decay": recipe.weight_decay if decay else 0.0,
        }
        for decay in (True, False)
    ]
