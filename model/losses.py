"""Losses of promptable segmentation: focal and dice per mask, and regression of the mask's IoU.

Paper: Segment Anything, appendix A; focal loss arXiv 1708.02002, dice loss arXiv 1606.04797.
Shapes: any leading axes ..., then h w. Targets are floats in [0, 1]; at low resolution the share
of a pixel that the mask covers, so thin objects keep their weight.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def focal_loss(
    logits: Tensor, targets: Tensor, *, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """Binary focal loss, mean over the pixels of each mask: (..., h, w) to (...)."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    probability = logits.sigmoid()
    miss = probability + targets - 2 * probability * targets
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return (weight * miss**gamma * cross_entropy).mean((-2, -1))


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """1 - Dice of the soft masks, for each mask: (..., h, w) to (...)."""
    probability = logits.sigmoid()
    overlap = (probability * targets).sum((-2, -1))
    total = (probability + targets).sum((-2, -1))
    return 1 - (2 * overlap + 1) / (total + 1)


def mask_iou(logits: Tensor, targets: Tensor) -> Tensor:
    """IoU of logits > 0 and targets > 0.5: (..., h, w) to (...); 0 where both are empty."""
    predicted, wanted = logits > 0, targets > 0.5
    overlap = (predicted & wanted).sum((-2, -1)).float()
    union = (predicted | wanted).sum((-2, -1)).float()
    return overlap / union.clamp(min=1.0)
