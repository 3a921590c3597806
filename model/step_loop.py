"""The loop under pre-training and distillation: optimiser steps that resume exactly.

    run_steps(learner, losses_of, batches, config, Path("mae.pt"))

Every step has a seed of its own and asks for the batch of its number, so a run that was killed and
resumed from its checkpoint computes what an undisturbed one computes. Several processes (torchrun)
bring their own batches and average their gradients.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from model.preprocess import PIXEL_MEAN, PIXEL_STD
from model.processes import (
    Rows,
    average_gradients,
    average_values,
    find_place,
    rank,
    require_same,
)
from model.state_file import log_changes, not_of_this_run, read_state, write_state

logger = logging.getLogger(__name__)

ImageBatches = Callable[[int], Iterator[Tensor]]
OnLog = Callable[[int, dict[str, float]], None]
LossesOf = Callable[[Tensor, Rows, torch.Generator], dict[str, Tensor]]
"""Losses of this process's images, which are these rows of the joint batch; the generator draws the
same numbers in every process."""

_STEP_SEEDS_APART = 104_729
# These say nothing about the numbers that come out.
_FREE_TO_CHANGE = {"log_every", "save_every"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepConfig:
    """How the steps of a run are taken.

    Attributes:
        steps: optimiser steps.
        learning_rate: peak, after warm-up; decays to 0 along a cosine.
        warmup_steps: linear warm-up.
        weight_decay: AdamW's, for matrices only.
        betas: AdamW's.
        grad_clip: gradients are scaled down to this norm.
        precision: of the forward pass; weights and optimiser stay float32.
        seed: of initial weights and of every draw.
        log_every: steps between two log lines.
        save_every: steps between two checkpoints.
    """

    steps: int = 10_000
    learning_rate: float = 5e-4
    warmup_steps: int = 500
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    grad_clip: float = 1.0
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    log_every: int = 50
    save_every: int = 500

    def __post_init__(self) -> None:
        if self.steps < 1 or self.warmup_steps < 0:
            raise ValueError(
                f"expected at least one step and no negative warm-up; got steps {self.steps}, "
                f"warmup_steps {self.warmup_steps}"
            )
        if self.log_every < 1 or self.save_every < 1:
            raise ValueError(
                f"log_every and save_every are at least 1; got {self.log_every}, {self.save_every}"
            )


def run_steps(
    learner: nn.Module,
    losses_of: LossesOf,
    batches: ImageBatches,
    config: StepConfig,
    checkpoint: Path,
    on_log: OnLog | None = None,
) -> None:
    """Train `learner` in place; continues from `checkpoint` where it exists.

    Args:
        learner: everything that learns, in one module.
        losses_of: losses of a batch on the learner's device; ``total`` is minimised.
        batches: called with the step to start from, yields (B, H, W, 3) uint8 RGB images from
            there on; a process of a group brings its own.
        config: the steps.
        checkpoint: file that holds learner, optimiser and step.
        on_log: called with the step and its mean losses.

    Raises:
        CheckpointError: a checkpoint of another run.
        ValueError: `batches` ended early, or a batch is no uint8 image batch.
    """
    optimizer = torch.optim.AdamW(_groups(learner, config), betas=config.betas, foreach=True)
    start = _load(checkpoint, learner, optimizer, config)
    require_same(
        start,
        "step to start from (do all see the same checkpoint?)",
        next(learner.parameters()).device,
    )
    upcoming = batches(start) if start < config.steps else iter(())
    window: list[dict[str, Tensor]] = []
    began = time.monotonic()
    for step in range(start, config.steps):
        batch = _next_batch(upcoming, step)
        window.append(_take_step(learner, losses_of, batch, optimizer, step, config))
        if (step + 1) % config.log_every == 0:
            means = {k: float(torch.stack([w[k] for w in window]).mean()) for k in window[0]}
            means = average_values(means, window[0]["total"].device)
            means["seconds_per_step"] = (time.monotonic() - began) / len(window)
            logger.info("step %d %s", step + 1, {k: round(v, 4) for k, v in means.items()})
            if on_log and rank() == 0:
                on_log(step + 1, means)
            window, began = [], time.monotonic()
        if rank() == 0 and ((step + 1) % config.save_every == 0 or step + 1 == config.steps):
            _save(checkpoint, learner, optimizer, step + 1, config)


def _take_step(
    learner: nn.Module,
    losses_of: LossesOf,
    batch_BHW3: Tensor,
    optimizer: torch.optim.Optimizer,
    step: int,
    config: StepConfig,
) -> dict[str, Tensor]:
    device = next(learner.parameters()).device
    generator = torch.Generator(device).manual_seed(config.seed + _STEP_SEEDS_APART * step)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, config)
    rows = find_place(len(batch_BHW3), 0, device).images
    with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        losses = losses_of(batch_BHW3.to(device), rows, generator)
    losses["total"].backward()  # type: ignore[no-untyped-call]
    average_gradients(learner, rows)
    nn.utils.clip_grad_norm_(learner.parameters(), config.grad_clip, foreach=True)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {name: value.detach() for name, value in losses.items()}


def learning_rate(step: int, config: StepConfig) -> float:
    """Linear warm-up, then a cosine down to 0."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def to_pixels(images_BHW3: Tensor) -> Tensor:
    """Normalise uint8 RGB images as SAM's encoder takes them: (B, 3, H, W) float32."""
    mean = torch.tensor(PIXEL_MEAN, device=images_BHW3.device)
    std = torch.tensor(PIXEL_STD, device=images_BHW3.device)
    return ((images_BHW3 - mean) / std).permute(0, 3, 1, 2)


def _next_batch(upcoming: Iterator[Tensor], step: int) -> Tensor:
    batch = next(upcoming, None)
    if batch is None:
        raise ValueError(f"the batches ended at step {step}; expected an iterator without end")
    if batch.ndim != 4 or batch.shape[3] != 3 or batch.dtype != torch.uint8:
        raise ValueError(
            f"expected images as (B, H, W, 3) uint8; got {tuple(batch.shape)} {batch.dtype}"
        )
    return batch


def _groups(learner: nn.Module, config: StepConfig) -> list[dict[str, Any]]:
    """Split parameters for AdamW: matrices decay; biases, norms, tokens and positions do not."""
    embeddings = {id(m.weight) for m in learner.modules() if isinstance(m, nn.Embedding)}
    decay: list[Tensor] = []
    keep: list[Tensor] = []
    for name, parameter in learner.named_parameters():
        if not parameter.requires_grad:
            continue
        special = name.endswith(("_token", "_colour", "pos_embed", "rel_pos_h", "rel_pos_w"))
        is_matrix = parameter.ndim > 1 and id(parameter) not in embeddings and not special
        (decay if is_matrix else keep).append(parameter)
    return [
        {"params": decay, "weight_decay": config.weight_decay},
        {"params": keep, "weight_decay": 0.0},
    ]


def _save(
    path: Path, learner: nn.Module, optimizer: torch.optim.Optimizer, step: int, config: StepConfig
) -> None:
    state = {
        "model": learner.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "config": asdict(config),
    }
    write_state(path, state)


def _load(
    path: Path, learner: nn.Module, optimizer: torch.optim.Optimizer, config: StepConfig
) -> int:
    """Restore a checkpoint if there is one; return the step to continue from.

    Settings that were changed in between are said in the log, and hold from here on.
    """
    if not path.exists():
        return 0
    state = read_state(path, next(learner.parameters()).device)
    try:
        before, step = dict(state["config"]), int(state["step"])
        learner.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        raise not_of_this_run(path, error) from error
    log_changes(before, asdict(config), _FREE_TO_CHANGE, step)
    logger.info("continuing from step %d of %s", step, path)
    return step
