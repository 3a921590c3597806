"""Losses of promptable segmentation: focal and region loss of masks, regression of their IoU.

>>> loss = 20 * focal_loss(logits, targets) + region_loss(soft_areas(logits, targets), "dice")

Paper: Segment Anything, appendix A; focal loss arXiv 1708.02002, dice loss arXiv 1606.04797.
Shapes: any leading axes ..., then h w. Targets are floats in [0, 1]; at low resolution the share
of a pixel that the mask covers, so thin objects keep their weight.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor

RegionLoss = Literal["dice", "soft_iou", "neg_log_soft_iou"]
IouLoss = Literal["mse", "l1"]


def focal_loss(
    logits: Tensor, targets: Tensor, *, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """Binary focal loss, mean over the pixels of each mask: (..., h, w) to (...)."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    probability = logits.sigmoid()
    miss = probability + targets - 2 * probability * targets
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return (weight * miss**gamma * cross_entropy).mean((-2, -1))


class SoftAreas(NamedTuple):
    """Areas in pixels, a probability counting as that share of a pixel; both (...).

    Attributes:
        overlap: of the soft mask with its target.
        total: of the soft mask and of its target, added.
    """

    overlap: Tensor
    total: Tensor


def soft_areas(logits: Tensor, targets: Tensor) -> SoftAreas:
    """Measure soft masks: (..., h, w) to (...)."""
    probability = logits.sigmoid()
    return SoftAreas((probability * targets).sum((-2, -1)), (probability + targets).sum((-2, -1)))


def region_loss(areas: SoftAreas, kind: RegionLoss) -> Tensor:
    """Loss of the share of an area that is wrong, one pixel added so that nothing is 0 / 0.

    Areas of single masks give a loss for each mask, so small masks weigh as much as large ones;
    areas added up over a batch give one loss in which a pixel weighs the same in every mask.
    """
    if kind == "dice":
        return 1 - (2 * areas.overlap + 1) / (areas.total + 1)
    soft_iou = (areas.overlap + 1) / (areas.total - areas.overlap + 1)
    return 1 - soft_iou if kind == "soft_iou" else -soft_iou.log()


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """1 - Dice of the soft masks, for each mask: (..., h, w) to (...)."""
    return region_loss(soft_areas(logits, targets), "dice")


def mask_iou(logits: Tensor, targets: Tensor) -> Tensor:
    """IoU of logits > 0 and targets > 0.5: (..., h, w) to (...); 0 where both are empty."""
    predicted, wanted = logits > 0, targets > 0.5
    overlap = (predicted & wanted).sum((-2, -1)).float()
    union = (predicted | wanted).sum((-2, -1)).float()
    return overlap / union.clamp(min=1.0)


def boundary_loss(logits_Bhw: Tensor, boundaries_Bhw: Tensor) -> Tensor:
    """Cross entropy of boundary logits, boundaries weighing up to three times as much: a scalar.

    Args:
        logits_Bhw: of a boundary in each low-resolution pixel.
        boundaries_Bhw: share of people who drew one there; -1 where nobody looked.
    """
    known = boundaries_Bhw >= 0
    drawn = boundaries_Bhw.clamp(min=0)
    cross_entropy = F.binary_cross_entropy_with_logits(logits_Bhw, drawn, reduction="none")
    weight = known * (1 + 2 * drawn)
    return (cross_entropy * weight).sum() / weight.sum().clamp(min=1.0)


def iou_loss(predicted: Tensor, measured: Tensor, kind: IouLoss) -> Tensor:
    """Mean error of predicted IoUs, any shape to a scalar: squared (SAM) or absolute (SAM 2)."""
    error = predicted - measured
    return error.square().mean() if kind == "mse" else error.abs().mean()
