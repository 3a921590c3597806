"""Training a promptable model; read from top to bottom.

A step encodes a batch of images once, then plays the annotator: a first point or box for every
mask, the model's answer, a corrective click into what it got wrong, and so on. Only the best of the
three masks learns from its error (with a little for the others, so that none starves), the
single-mask token always does, and the IoU head learns how good each mask was.
Paper: Segment Anything, appendix A. Several processes (torchrun) average their gradients.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from model.losses import dice_loss, focal_loss, mask_iou
from model.preprocess import PIXEL_MEAN, PIXEL_STD
from model.prompt_sampling import corrective_points, noisy_boxes, uniform_points
from model.sam import Sam
from model.types import ImageFeatures, InputPrompts
from model.upsample import LOW_RES_STRIDE

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How to train; the defaults are the bundled model's recipe.

    Attributes:
        steps: optimiser steps.
        learning_rate: peak, after warm-up; decays to 1 % along a cosine.
        warmup_steps: linear warm-up.
        weight_decay: AdamW's, for matrices only.
        grad_clip: gradients are scaled down to this norm.
        ema_decay: of the averaged weights that are kept in the end.
        box_probability: share of prompts that start with a box rather than a point.
        correction_probability: share of steps that add a corrective click.
        max_corrections: clicks added in such a step, at most.
        focal_weight: weight of the focal loss.
        dice_weight: weight of the dice loss.
        focal_alpha: weight of mask pixels against background in the focal loss.
        runner_up_weight: weight of the mean over the three masks beside their minimum.
        single_weight: weight of the single-mask token.
        iou_weight: weight of the IoU regression.
        seed: of prompts and data.
        log_every: steps between two log lines.
        save_every: steps between two checkpoints.
    """

    steps: int = 1100
    learning_rate: float = 2e-3
    warmup_steps: int = 200
    weight_decay: float = 0.05
    grad_clip: float = 1.0
    ema_decay: float = 0.998
    box_probability: float = 0.3
    correction_probability: float = 0.4
    max_corrections: int = 2
    focal_weight: float = 5.0
    dice_weight: float = 1.5
    focal_alpha: float = 0.5
    runner_up_weight: float = 0.05
    single_weight: float = 0.5
    iou_weight: float = 1.0
    seed: int = 0
    log_every: int = 50
    save_every: int = 500

    def __post_init__(self) -> None:
        if self.steps < 1 or self.warmup_steps < 0:
            raise ValueError(f"steps {self.steps}, warmup_steps {self.warmup_steps}")


@dataclass(frozen=True, slots=True, eq=False)
class TrainBatch:
    """Images of one size with their masks.

    Attributes:
        images_BHW3: uint8 RGB; sides are the model's padded input (multiples of its stride).
        masks_NHW: bool, all masks of all images, none empty.
        image_index_N: which image each mask belongs to.
    """

    images_BHW3: Tensor
    masks_NHW: Tensor
    image_index_N: Tensor

    def to(self, device: torch.device) -> TrainBatch:
        """Move to a device."""
        return TrainBatch(
            self.images_BHW3.to(device),
            self.masks_NHW.to(device),
            self.image_index_N.to(device),
        )


def train(
    sam: Sam,
    batches: Callable[[int], Iterator[TrainBatch]],
    config: TrainConfig,
    checkpoint: Path,
    on_log: Callable[[int, dict[str, float]], None] | None = None,
) -> Sam:
    """Train and return the averaged model; continues from `checkpoint` where it exists.

    Args:
        sam: the model to train, in place.
        batches: called with the step to start from, yields batches from there on without end; a
            process of a group brings its own.
        config: the recipe.
        checkpoint: file that holds model, average, optimiser and step while training.
        on_log: called with the step and its mean losses.
    """
    average = copy.deepcopy(sam).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(parameter_groups(sam, config), betas=(0.9, 0.999), foreach=True)
    start = load_training_state(checkpoint, sam, average, optimizer)
    generator = torch.Generator(sam.device)
    upcoming = batches(start)
    sums: dict[str, float] = {}
    began = time.monotonic()
    for step in range(start, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        # A seed of its own for every step: a resumed training draws what an undisturbed one draws.
        generator.manual_seed(config.seed + 7919 * rank() + 104729 * step)
        losses = train_step(sam, next(upcoming), config, generator)
        losses["total"].backward()  # type: ignore[no-untyped-call]
        average_gradients(sam)
        torch.nn.utils.clip_grad_norm_(sam.parameters(), config.grad_clip, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        update_average(average, sam, min(config.ema_decay, (step + 1) / (step + 10)))
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach()) / config.log_every
        if (step + 1) % config.log_every == 0:
            sums["seconds_per_step"] = (time.monotonic() - began) / config.log_every
            logger.info("step %d %s", step + 1, {k: round(v, 4) for k, v in sums.items()})
            if on_log and rank() == 0:
                on_log(step + 1, sums)
            sums, began = {}, time.monotonic()
        if rank() == 0 and ((step + 1) % config.save_every == 0 or step + 1 == config.steps):
            save_training_state(checkpoint, sam, average, optimizer, step + 1, config)
    return average


def train_step(
    sam: Sam, batch: TrainBatch, config: TrainConfig, generator: torch.Generator
) -> dict[str, Tensor]:
    """Play one round of annotation; return the losses, ``total`` with its graph."""
    sam.train()
    batch = batch.to(sam.device)
    mean = torch.tensor(PIXEL_MEAN, device=sam.device)
    std = torch.tensor(PIXEL_STD, device=sam.device)
    pixels_B3HW = ((batch.images_BHW3 - mean) / std).permute(0, 3, 1, 2)
    features = sam.image_encoder(pixels_B3HW).owned_by(batch.image_index_N)
    wanted = batch.masks_NHW
    targets_N1hw = F.avg_pool2d(wanted.float().unsqueeze(1), LOW_RES_STRIDE)
    prompts = first_prompts(wanted, config, generator)
    corrections = 0
    if _chance(generator) < config.correction_probability:
        corrections = 1 + int(_chance(generator) * config.max_corrections)
    rounds = []
    for i in range(corrections + 1):
        losses, best_logits = answer(sam, features, prompts, targets_N1hw, config)
        rounds.append(losses)
        if i < corrections:
            prompts = corrected_prompts(prompts, best_logits, wanted, generator)
    return {name: torch.stack([r[name] for r in rounds]).mean() for name in rounds[0]}


def answer(
    sam: Sam,
    features: ImageFeatures,
    prompts: InputPrompts,
    targets_N1hw: Tensor,
    config: TrainConfig,
) -> tuple[dict[str, Tensor], Tensor]:
    """Decode all prompts; return losses and the logits of the most trusted mask (N, 1, h, w)."""
    padded_size = (
        targets_N1hw.shape[-2] * LOW_RES_STRIDE,
        targets_N1hw.shape[-1] * LOW_RES_STRIDE,
    )
    scored = sam.score_input(features, prompts, padded_size)
    logits_N4hw = sam.mask_decoder.draw(scored).float()
    targets = targets_N1hw.expand_as(logits_N4hw)
    mask_loss_N4 = config.focal_weight * focal_loss(
        logits_N4hw, targets, alpha=config.focal_alpha
    ) + config.dice_weight * dice_loss(logits_N4hw, targets)
    best = mask_loss_N4[:, 1:].min(1).values.mean()
    mean = mask_loss_N4[:, 1:].mean()
    single = mask_loss_N4[:, 0].mean()
    iou_N4 = mask_iou(logits_N4hw.detach(), targets)
    iou_loss = F.mse_loss(scored.iou_N4, iou_N4)
    total = (
        best
        + config.runner_up_weight * mean
        + config.single_weight * single
        + config.iou_weight * iou_loss
    )
    trusted = scored.iou_N4[:, 1:].argmax(1) + 1
    rows = torch.arange(len(trusted), device=trusted.device)
    losses = {
        "total": total,
        "mask": best,
        "iou_head": iou_loss,
        "miou_trusted": iou_N4[rows, trusted].mean(),
        "miou_oracle": iou_N4[:, 1:].max(1).values.mean(),
    }
    return losses, logits_N4hw.detach()[rows, trusted].unsqueeze(1)


def first_prompts(
    wanted_NHW: Tensor, config: TrainConfig, generator: torch.Generator
) -> InputPrompts:
    """Start every mask of the batch with a box, or every mask with a point."""
    if _chance(generator) < config.box_probability:
        return InputPrompts(None, None, noisy_boxes(wanted_NHW, generator), None)
    points = uniform_points(wanted_NHW, generator).unsqueeze(1)
    return InputPrompts(points, torch.ones_like(points[..., 0], dtype=torch.long), None, None)


def _chance(generator: torch.Generator) -> float:
    """Draw a number in [0, 1)."""
    return float(torch.rand((), generator=generator, device=generator.device))


def corrected_prompts(
    prompts: InputPrompts, best_logits_N1hw: Tensor, wanted_NHW: Tensor, generator: torch.Generator
) -> InputPrompts:
    """Add a click into the error region of the trusted mask, and that mask's logits."""
    predicted = F.interpolate(best_logits_N1hw, wanted_NHW.shape[1:], mode="bilinear")[:, 0] > 0
    points, labels = corrective_points(wanted_NHW, predicted, generator)
    points, labels = points.unsqueeze(1), labels.unsqueeze(1)
    if prompts.points_NK2 is not None and prompts.labels_NK is not None:
        points = torch.cat([prompts.points_NK2, points], dim=1)
        labels = torch.cat([prompts.labels_NK, labels], dim=1)
    return InputPrompts(points, labels, prompts.boxes_N4, best_logits_N1hw)


def parameter_groups(sam: Sam, config: TrainConfig) -> list[dict[str, Any]]:
    """Split parameters for AdamW: matrices decay; biases, norms and embeddings do not."""
    embeddings = {
        id(module.weight) for module in sam.modules() if isinstance(module, torch.nn.Embedding)
    }
    decay: list[Tensor] = []
    keep: list[Tensor] = []
    for name, parameter in sam.named_parameters():
        is_position = name.endswith(("pos_embed", "rel_pos_h", "rel_pos_w"))
        is_matrix = parameter.ndim > 1 and id(parameter) not in embeddings and not is_position
        (decay if is_matrix else keep).append(parameter)
    return [
        {"params": decay, "weight_decay": config.weight_decay},
        {"params": keep, "weight_decay": 0.0},
    ]


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine down to 1 % of the peak."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def rank() -> int:
    """This process's number in its group; 0 when training alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def average_gradients(sam: Sam) -> None:
    """Average gradients over the processes of the group, as one flat message."""
    if not dist.is_initialized():
        return
    parameters = [p for p in sam.parameters() if p.requires_grad]
    for p in parameters:  # a step without mask prompts leaves some untouched, elsewhere perhaps not
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, part in zip(
        gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True
    ):
        gradient.copy_(part.view_as(gradient))


@torch.no_grad()
def update_average(average: Sam, sam: Sam, decay: float) -> None:
    """Move the averaged weights and norm statistics a little towards the current ones."""
    theirs = average.state_dict()
    floats = [(theirs[k], v) for k, v in sam.state_dict().items() if v.is_floating_point()]
    torch._foreach_lerp_([a for a, _ in floats], [b for _, b in floats], 1 - decay)


def save_training_state(
    path: Path,
    sam: Sam,
    average: Sam,
    optimizer: torch.optim.Optimizer,
    step: int,
    config: TrainConfig,
) -> None:
    """Write a checkpoint; an interrupted write leaves the one before it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(
        {
            "model": sam.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "config": asdict(config),
        },
        partial,
    )
    partial.replace(path)


def load_training_state(
    path: Path, sam: Sam, average: Sam, optimizer: torch.optim.Optimizer
) -> int:
    """Restore a checkpoint if there is one; return the step to continue from."""
    if not path.exists():
        return 0
    state = torch.load(path, map_location=sam.device, weights_only=True)
    sam.load_state_dict(state["model"])
    average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    logger.info("continuing from step %d of %s", state["step"], path)
    return int(state["step"])
