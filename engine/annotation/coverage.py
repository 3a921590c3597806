"""What a model makes of an image, in numbers: how sure, how much of it, and how steadily.

    signals = measure_image(sam, image_HWC3, {"uncertain", "uncovered"}, GridPrompts())
    signals.uncertainty, signals.uncovered, signals.vector_D

Ordering images by what a person should look at first asks this of thousands of images, so it costs
one encoding and a coarse grid of prompts, and leaves a few numbers.

Shapes: H W image pixels, C channels, h w features, N masks, D a pooled embedding.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.annotation.steadiness import mirrored_mask
from engine.automatic import AutomaticConfig, generate_masks
from engine.masks import decode_mask, mask_areas, mask_iou
from engine.records import MaskRecord, Rle
from model import ImageEmbedding, Prompts, Sam, ScoredPrompts

__all__ = [
    "GridPrompts",
    "ImageSignals",
    "Signal",
    "covered_share",
    "disagreement",
    "measure_image",
    "pooled_embedding",
    "uncertainty",
]


Signal = Literal["uncertain", "disagreement", "uncovered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GridPrompts:
    """How an image is asked for masks.

    Attributes:
        points_per_side: of the grid.
        min_iou: masks are confident above this predicted IoU; None: what the model recommends.
    """

    points_per_side: int = 16
    min_iou: float | None = None

    def settings(self, sam: Sam) -> AutomaticConfig:
        """Return how a model is asked."""
        least = sam.config.recommended.pred_iou_thresh if self.min_iou is None else self.min_iou
        return AutomaticConfig.recommended(
            sam, points_per_side=self.points_per_side, pred_iou_thresh=least
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageSignals:
    """What is known of an image; None: nobody asked.

    Attributes:
        uncertainty: 1 minus the mean predicted IoU of the confident masks; 1 where there is none.
        uncovered: share of the image that no confident mask covers.
        disagreement: 1 minus the mean best-match IoU of two answers.
        vector_D: float32; images that look alike have vectors near one another.
    """

    uncertainty: float | None = None
    uncovered: float | None = None
    disagreement: float | None = None
    vector_D: NDArray[np.float32] | None = None


def measure_image(
    sam: Sam,
    image_HWC3: NDArray[np.uint8],
    asked: Collection[str],
    grid: GridPrompts,
    other: Sam | None = None,
) -> ImageSignals:
    """Measure one image.

    Args:
        sam: the model.
        image_HWC3: (H, W, 3) uint8 RGB.
        asked: some of ``uncertain``, ``uncovered``, ``disagreement``, ``diverse``.
        grid: how the model is asked.
        other: a second model for ``disagreement``; None: the mirrored image is asked about.
    """
    embedding = sam.encode(image_HWC3)
    vector_D = pooled_embedding(embedding) if "diverse" in asked else None
    if not {"uncertain", "uncovered", "disagreement"} & set(asked):
        return ImageSignals(vector_D=vector_D)
    masks = generate_masks(_Encoded(sam, embedding), image_HWC3, grid.settings(sam))
    unlike = None
    if "disagreement" in asked:
        unlike = disagreement(
            [mask.rle for mask in masks],
            _mirrored_answer(sam, image_HWC3, grid)
            if other is None
            else [m.rle for m in generate_masks(other, image_HWC3, grid.settings(other))],
        )
    height, width = image_HWC3.shape[:2]
    return ImageSignals(
        uncertainty=uncertainty(masks) if "uncertain" in asked else None,
        uncovered=1 - covered_share(masks, height, width) if "uncovered" in asked else None,
        disagreement=unlike,
        vector_D=vector_D,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Encoded:
    """A model that has seen the image already: `Segmenter` for a generator without crops."""

    sam: Sam
    embedding: ImageEmbedding

    def encode(self, image_HWC3: NDArray[np.uint8]) -> ImageEmbedding:
        return self.embedding

    def score(self, embedding: ImageEmbedding, prompts: Prompts) -> ScoredPrompts:
        return self.sam.score(embedding, prompts)

    def draw(self, scored: ScoredPrompts, chosen: Tensor) -> Tensor:
        return self.sam.draw(scored, chosen)


def uncertainty(masks: Sequence[MaskRecord]) -> float:
    """Return 1 minus the mean predicted IoU, at most 1 each; 1 without masks."""
    if not masks:
        return 1.0
    return 1 - float(np.mean([min(1.0, mask.predicted_iou) for mask in masks]))


def covered_share(masks: Sequence[MaskRecord], height: int, width: int) -> float:
    """Return the share of an image that at least one mask covers."""
    covered_HW = np.zeros((height, width), dtype=np.bool_)
    for mask in masks:
        covered_HW |= decode_mask(mask.rle)
    return float(covered_HW.mean())


def disagreement(a: Sequence[Rle], b: Sequence[Rle]) -> float:
    """Return 1 minus the mean IoU of every mask with its best match among the others, both ways.

    Large masks count more: each counts by the root of its area, as people see sizes.

    Returns:
        0 for the same masks, 1 where nothing matches; two empty answers agree.
    """
    if not a or not b:
        return float(bool(a) != bool(b))
    iou_AB = mask_iou(a, b)
    best = np.concatenate([iou_AB.max(axis=1), iou_AB.max(axis=0)])
    weights = np.sqrt(np.concatenate([mask_areas(a), mask_areas(b)]))
    return 1 - float(np.average(best, weights=weights)) if weights.sum() else 0.0


def _mirrored_answer(sam: Sam, image_HWC3: NDArray[np.uint8], grid: GridPrompts) -> list[Rle]:
    """Ask about the mirrored image, and mirror the masks back."""
    mirrored = np.ascontiguousarray(image_HWC3[:, ::-1])
    masks = generate_masks(sam, mirrored, grid.settings(sam))
    return [mirrored_mask(mask.rle) for mask in masks]


@torch.inference_mode()
def pooled_embedding(embedding: ImageEmbedding) -> NDArray[np.float32]:
    """Return the mean and the spread of an image's features, without its padding, as one vector.

    Returns:
        float32 (2C,).
    """
    frame = embedding.frame
    coarse_Chw = embedding.features.coarse_BCHW[0].float()
    height, width = coarse_Chw.shape[1:]
    rows = max(1, round(height * frame.input_size[0] / frame.padded_size[0]))
    columns = max(1, round(width * frame.input_size[1] / frame.padded_size[1]))
    seen_CN = coarse_Chw[:, :rows, :columns].flatten(1)
    vector_D = torch.cat([seen_CN.mean(dim=1), seen_CN.std(dim=1, correction=0)])
    return np.asarray(vector_D.cpu().numpy(), dtype=np.float32)
