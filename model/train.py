"""Training a promptable model; read from top to bottom.

>>> average = train(sam, batches, SAM_TRAINING, Path("training.pt"))

A step encodes a batch of images once, then plays the annotator: a first point or box for every
mask, the model's answer, a corrective click into what it got wrong, and so on. Only the best of the
three masks learns from its error, the single-mask token answers where a prompt is unambiguous, and
the IoU head learns how good each mask was.
Paper: Segment Anything, appendix A. Several processes (torchrun) make one step together.

Shapes: N masks of B images, M masks per prompt, H W input pixels, h w low-resolution logits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recomputed

from model.compact_encoder import FineFeatures
from model.image_encoder import VitEncoder, drop_path_scales
from model.losses import boundary_loss
from model.objective import SINGLE, THREE, Alternatives, round_losses
from model.optimisation import (
    BETAS,
    parameter_groups,
    set_learning_rates,
    start_average,
    update_average,
)
from model.preprocess import PIXEL_MEAN, PIXEL_STD
from model.processes import (
    Place,
    Rows,
    average_gradients,
    average_values,
    find_place,
    rank,
    require_same,
)
from model.prompt_sampling import (
    SimulatedPrompts,
    corrective_points,
    noisy_boxes,
    others_under,
    random_rows,
    uniform_points,
)
from model.sam import Sam
from model.train_config import BUNDLED_TRAINING as BUNDLED_TRAINING
from model.train_config import SAM_TRAINING as SAM_TRAINING
from model.train_config import TrainConfig as TrainConfig
from model.training_state import load_training_state, save_training_state
from model.types import ImageFeatures
from model.upsample import LOW_RES_STRIDE

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class TrainBatch:
    """Images of one size with their masks.

    Attributes:
        images_BHW3: uint8 RGB; sides are the model's padded input (multiples of its stride).
        masks_NHW: bool, all masks of all images, none empty.
        image_index_N: which image each mask belongs to.
        centres_N2: (x, y) where each mask is farthest from its border; None where no recipe asks.
        boundaries_Bhw: share of people who drew a boundary in each low-resolution pixel, -1 where
            nobody looked; None where no recipe asks.
    """

    images_BHW3: Tensor
    masks_NHW: Tensor
    image_index_N: Tensor
    centres_N2: Tensor | None = None
    boundaries_Bhw: Tensor | None = None

    def to(self, device: torch.device) -> TrainBatch:
        """Move to a device."""
        return TrainBatch(
            self.images_BHW3.to(device),
            self.masks_NHW.to(device),
            self.image_index_N.to(device),
            None if self.centres_N2 is None else self.centres_N2.to(device),
            None if self.boundaries_Bhw is None else self.boundaries_Bhw.to(device),
        )


def train(
    sam: Sam,
    batches: Callable[[int], Iterator[TrainBatch]],
    config: TrainConfig,
    checkpoint: Path,
    on_log: Callable[[int, dict[str, float]], None] | None = None,
    on_step: Callable[[int, Sam], None] | None = None,
) -> Sam:
    """Train and return the averaged model; continues from `checkpoint` where it exists.

    Args:
        sam: the model to train, in place. In a group every process starts with the same weights.
        batches: called with the step to start from, yields batches from there on without end; a
            process of a group brings its own.
        config: the recipe.
        checkpoint: file that holds model, average, optimiser and step while training; in a group
            one that all processes see.
        on_log: called with the step and its mean losses.
        on_step: called in every process after every step, and before its checkpoint, with the
            number of steps done and the averaged model, which it may use but not change.

    Raises:
        ValueError: a checkpoint of another training, or one that not all processes see.
    """
    average = start_average(sam, config)
    optimizer = torch.optim.AdamW(parameter_groups(sam, config), betas=BETAS, foreach=True)
    start = load_training_state(checkpoint, sam, average, optimizer, config)
    require_same(start, "step to start from (do all see the same checkpoint?)", sam.device)
    generator = torch.Generator(sam.device)
    upcoming = batches(start)
    recent: list[dict[str, Tensor]] = []
    began = time.monotonic()
    for step in range(start, config.steps):
        set_learning_rates(optimizer, step, config)
        # A seed of its own for every step: a resumed training draws what an undisturbed one draws.
        generator.manual_seed(config.seed + 104729 * step)
        batch = next(upcoming)
        place = find_place(len(batch.images_BHW3), len(batch.masks_NHW), sam.device)
        losses = train_step(sam, batch, config, generator, place)
        losses["total"].backward()  # type: ignore[no-untyped-call]
        average_gradients(sam, place.masks)
        if config.grad_clip:
            torch.nn.utils.clip_grad_norm_(sam.parameters(), config.grad_clip, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        update_average(average, sam, step, config)
        recent.append({name: value.detach() for name, value in losses.items()})
        if (step + 1) % config.log_every == 0:
            means = average_values({k: _mean(recent, k) for k in recent[0]}, sam.device)
            means["seconds_per_step"] = (time.monotonic() - began) / len(recent)
            logger.info("step %d %s", step + 1, {k: round(v, 4) for k, v in means.items()})
            if on_log and rank() == 0:
                on_log(step + 1, means)
            recent, began = [], time.monotonic()
        if on_step:
            on_step(step + 1, average.eval())
        if rank() == 0 and ((step + 1) % config.save_every == 0 or step + 1 == config.steps):
            save_training_state(checkpoint, sam, average, optimizer, step + 1, config)
    return average.eval()


def _mean(losses: list[dict[str, Tensor]], name: str) -> float:
    return float(torch.stack([each[name] for each in losses]).mean())


def train_step(
    sam: Sam,
    batch: TrainBatch,
    config: TrainConfig,
    generator: torch.Generator,
    place: Place | None = None,
) -> dict[str, Tensor]:
    """Play one round of annotation after another; return the mean losses, ``total`` with its graph.

    Every random number belongs to the step, or to an image or mask by its place in the joint batch;
    so the same masks get the same prompts, whichever processes hold them.

    Args:
        sam: the model; left in training mode.
        batch: images and masks of this process.
        config: the recipe.
        generator: on the model's device; in the same state in all processes.
        place: of the batch in the joint batch; by default there is no other.
    """
    place = place or Place(Rows.alone(len(batch.images_BHW3)), Rows.alone(len(batch.masks_NHW)))
    sam.train()
    batch = batch.to(sam.device)
    wanted_NHW = batch.masks_NHW
    targets_N1hw = F.avg_pool2d(wanted_NHW.float().unsqueeze(1), LOW_RES_STRIDE)
    with torch.autocast(sam.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        features = encode(sam, batch.images_BHW3, config, generator, place.images)
        features = features.owned_by(batch.image_index_N)
        prompts = first_prompts(wanted_NHW, config, generator, place.masks, batch.centres_N2)
        others = find_alternatives(batch, prompts, targets_N1hw, config, generator, place.masks)
        ask = partial(answer, sam, features, targets_N1hw, config, place.masks)
        if config.recompute_rounds:
            ask = partial(recomputed, ask, use_reentrant=False, preserve_rng_state=False)
        losses, logits_N1hw = ask(prompts, others)
        rounds = [losses]
        for new_click in draw_rounds(config, generator):
            prompts = prompts.answered(logits_N1hw)
            if new_click:
                prompts = corrected_prompts(prompts, wanted_NHW, generator, place.masks)
            losses, logits_N1hw = ask(prompts)
            rounds.append(losses)
    means = {name: torch.stack([r[name] for r in rounds]).mean() for name in losses}
    if config.boundary_weight:
        means["boundary"] = boundary_loss(*drawn_boundaries(features, batch))
        means["total"] = means["total"] + config.boundary_weight * means["boundary"]
    return means


def encode(
    sam: Sam, images_BHW3: Tensor, config: TrainConfig, generator: torch.Generator, rows: Rows
) -> ImageFeatures:
    """Encode uint8 images, dropping residual branches of a ViT where the recipe says so.

    Raises:
        ValueError: drop path for a model without a ViT.
    """
    mean, std = (torch.tensor(x, device=sam.device) for x in (PIXEL_MEAN, PIXEL_STD))
    pixels_B3HW = ((images_BHW3 - mean) / std).permute(0, 3, 1, 2).to(sam.dtype)
    encoder = sam.image_encoder
    features: ImageFeatures
    if config.drop_path:
        if not isinstance(encoder, VitEncoder):
            raise ValueError(
                f"drop_path {config.drop_path} is for the blocks of a ViT, and {sam.config.name} "
                "has none; set drop_path=0"
            )
        uniform_BL2 = random_rows(2 * len(encoder.blocks), rows, generator).view(rows.count, -1, 2)
        features = encoder(pixels_B3HW, drop_path_scales(uniform_BL2, config.drop_path))
    else:
        features = encoder(pixels_B3HW)
    return features


def drawn_boundaries(features: ImageFeatures, batch: TrainBatch) -> tuple[Tensor, Tensor]:
    """Return the encoder's boundary logits and what people drew, both (B, h, w).

    Raises:
        ValueError: an encoder without boundaries, or a batch without them.
    """
    if not isinstance(features.fine_BCHW, FineFeatures) or batch.boundaries_Bhw is None:
        raise ValueError(
            "boundary_weight needs the compact encoder and batches with boundaries_Bhw; "
            "set boundary_weight=0"
        )
    return features.fine_BCHW.barriers_BKHW[:, 0].float(), batch.boundaries_Bhw


def first_prompts(
    wanted_NHW: Tensor,
    config: TrainConfig,
    generator: torch.Generator,
    rows: Rows,
    centres_N2: Tensor | None = None,
) -> SimulatedPrompts:
    """Start with a box or a point: drawn for each mask, or once for all.

    Raises:
        ValueError: a recipe that clicks at centres, without them.
    """
    points_N2 = uniform_points(wanted_NHW, generator, rows)
    if config.centre_probability:
        if centres_N2 is None:
            raise ValueError("centre_probability needs batches with centres_N2; set it to 0")
        central_N1 = random_rows(1, rows, generator) < config.centre_probability
        points_N2 = torch.where(central_N1, centres_N2, points_N2)
    boxes_N4 = noisy_boxes(wanted_NHW, generator, rows)
    drawn_N = random_rows(1, rows, generator)[:, 0]
    if not config.mix_first_prompts:
        drawn_N = torch.full_like(drawn_N, _chance(generator))
    return SimulatedPrompts.first(drawn_N < config.box_probability, boxes_N4, points_N2)


def find_alternatives(
    batch: TrainBatch,
    prompts: SimulatedPrompts,
    targets_N1hw: Tensor,
    config: TrainConfig,
    generator: torch.Generator,
    rows: Rows,
) -> Alternatives | None:
    """Find what else the first points could have meant; a box means one thing only."""
    if not config.alternatives or bool(prompts.boxed_N.all()):
        return None
    index_NK, found_NK = others_under(
        prompts.points_NK2[:, 0],
        batch.masks_NHW,
        batch.image_index_N,
        config.alternatives,
        generator,
        rows,
    )
    counted_NK = found_NK & ~prompts.boxed_N.unsqueeze(1)
    return Alternatives(targets_N1hw[index_NK, 0], config.alternative_weight * counted_NK)


def draw_rounds(config: TrainConfig, generator: torch.Generator) -> list[bool]:
    """Draw which rounds follow the first one: True brings a new click, False the mask alone."""
    if _chance(generator) >= config.correction_probability:
        return []
    choices = config.max_corrections - config.min_corrections + 1
    rounds = [True] * (config.min_corrections + int(_chance(generator) * choices))
    if config.refinements:
        rounds.insert(int(_chance(generator) * len(rounds)), False)
        rounds.append(False)
    return rounds


def _chance(generator: torch.Generator) -> float:
    """Draw a number in [0, 1)."""
    return float(torch.rand((), generator=generator, device=generator.device))


def corrected_prompts(
    prompts: SimulatedPrompts, wanted_NHW: Tensor, generator: torch.Generator, rows: Rows
) -> SimulatedPrompts:
    """Add a click into what the answer that the prompts carry got wrong."""
    if prompts.mask_logits_N1hw is None:
        raise ValueError("there is no answer to correct; show one with SimulatedPrompts.answered")
    logits = F.interpolate(prompts.mask_logits_N1hw, wanted_NHW.shape[1:], mode="bilinear")
    return prompts.clicked(*corrective_points(wanted_NHW, logits[:, 0] > 0, generator, rows))


def answer(
    sam: Sam,
    features: ImageFeatures,
    targets_N1hw: Tensor,
    config: TrainConfig,
    rows: Rows,
    prompts: SimulatedPrompts,
    others: Alternatives | None = None,
) -> tuple[dict[str, Tensor], Tensor]:
    """Decode all prompts; return losses and the logits of the most trusted mask (N, 1, h, w).

    No gradient flows through these logits into the round that made them.
    """
    iou_N4, logits_N4hw = decode(sam, features, prompts, targets_N1hw)
    both = config.multimask == "every_round"
    first = prompts.mask_logits_N1hw is None
    three, single = both or first, both or not first
    losses = round_losses(
        iou_N4,
        logits_N4hw,
        targets_N1hw,
        config,
        rows,
        three=three,
        single=single,
        alternatives=others,
    )
    trusted_N = iou_N4[:, THREE].argmax(1) + 1 if three else iou_N4[:, SINGLE].argmax(1)
    rows_N = torch.arange(len(trusted_N), device=trusted_N.device)
    return losses, logits_N4hw.detach()[rows_N, trusted_N].unsqueeze(1)


def decode(
    sam: Sam, features: ImageFeatures, prompts: SimulatedPrompts, targets_N1hw: Tensor
) -> tuple[Tensor, Tensor]:
    """Answer prompts of both kinds: predicted IoU (N, 4) and float32 logits (N, 4, h, w)."""
    if features.owner_N is None:
        raise ValueError("each prompt needs an image; use ImageFeatures.owned_by")
    height, width = targets_N1hw.shape[-2:]
    indices, ious, logits = [], [], []
    for index, asked in prompts.groups():
        owned = features.owned_by(features.owner_N[index])
        scored = sam.score_input(owned, asked, (height * LOW_RES_STRIDE, width * LOW_RES_STRIDE))
        indices.append(index)
        ious.append(scored.iou_N4)
        logits.append(sam.mask_decoder.draw(scored).float())
    back = torch.cat(indices).argsort()
    return torch.cat(ious)[back], torch.cat(logits)[back]
