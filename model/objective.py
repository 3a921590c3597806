"""What one round of answers costs: which of a prompt's masks learn, and from what.

>>> losses = round_losses(iou_N4, logits_N4hw, targets_N1hw, config, rows, three=True, single=False)

Paper: Segment Anything, section 3 and appendix A; the IoU head's options are SAM 2's
(arXiv 2408.00714). Shapes: N prompts, M masks of each, h w low-resolution logits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from model.losses import SoftAreas, focal_loss, iou_loss, mask_iou, region_loss, soft_areas
from model.processes import Rows, joint_sum
from model.train_config import TrainConfig

SINGLE, THREE = slice(0, 1), slice(1, None)  # of the decoder's four masks


class Alternatives(NamedTuple):
    """Other masks that a click could have meant.

    Attributes:
        targets_NKhw: share of each low-resolution pixel that they cover.
        weights_NK: of each against the wanted mask, whose weight is 1; 0 for none.
    """

    targets_NKhw: Tensor
    weights_NK: Tensor


class GradedMasks(NamedTuple):
    """Measures of masks against their targets; all (N, M).

    Attributes:
        focal: focal loss.
        overlap: soft area of mask and target, pixels.
        total: soft areas of both, added.
        iou: of the mask with its target.
        predicted_iou: what the IoU head said.
    """

    focal: Tensor
    overlap: Tensor
    total: Tensor
    iou: Tensor
    predicted_iou: Tensor

    def pick(self, index_NK: Tensor) -> GradedMasks:
        """Take K of each prompt's masks."""
        return GradedMasks(*(measure.gather(1, index_NK) for measure in self))

    def losses(self, config: TrainConfig) -> Tensor:
        """Focal and region loss of each mask: (N, M)."""
        region = region_loss(SoftAreas(self.overlap, self.total), config.region_loss)
        return config.focal_weight * self.focal + config.dice_weight * region

    def loss(self, config: TrainConfig, rows: Rows) -> Tensor:
        """Focal and region loss of all masks, the latter of each or of the joint batch: scalar."""
        if config.region_average == "mask":
            return self.losses(config).mean()
        areas = SoftAreas(joint_sum(self.overlap.sum(), rows), joint_sum(self.total.sum(), rows))
        region = region_loss(areas, config.region_loss)
        return config.focal_weight * self.focal.mean() + config.dice_weight * region


def grade(
    predicted_iou_NM: Tensor, logits_NMhw: Tensor, targets_N1hw: Tensor, config: TrainConfig
) -> GradedMasks:
    """Measure masks; gradients flow into the logits and the predicted IoUs."""
    targets = targets_N1hw.expand_as(logits_NMhw)
    return GradedMasks(
        focal_loss(logits_NMhw, targets, alpha=config.focal_alpha),
        *soft_areas(logits_NMhw, targets),
        mask_iou(logits_NMhw.detach(), targets),
        predicted_iou_NM,
    )


def round_losses(
    iou_N4: Tensor,
    logits_N4hw: Tensor,
    targets_N1hw: Tensor,
    config: TrainConfig,
    rows: Rows,
    *,
    three: bool,
    single: bool,
    alternatives: Alternatives | None = None,
) -> dict[str, Tensor]:
    """Losses of one round: of the three masks, of the single one, or of both.

    Args:
        iou_N4: predicted IoU.
        logits_N4hw: float32.
        targets_N1hw: share of each low-resolution pixel that the mask covers.
        config: weights and options.
        rows: of the masks in the joint batch.
        three: the three masks for ambiguous prompts take part.
        single: the single-mask token takes part.
        alternatives: what the three masks learn from besides; the nearest of them from each.

    Returns:
        Scalars: ``total`` for the optimiser; ``mask``, of the best mask, and ``iou_head`` without
        their weights; mean IoU of the mask with the highest predicted IoU, ``miou_trusted``, and
        of the best one, ``miou_oracle``.
    """
    total = logits_N4hw.new_zeros(())
    learning = []
    if single:
        one = grade(iou_N4[:, SINGLE], logits_N4hw[:, SINGLE], targets_N1hw, config)
        mask_loss = one.loss(config, rows)
        total = total + config.single_weight * mask_loss
        learning.append(one)
        shown = one
    if three:
        every = grade(iou_N4[:, THREE], logits_N4hw[:, THREE], targets_N1hw, config)
        best = every.pick(every.losses(config).detach().argmin(1, keepdim=True))
        mask_loss = (best if config.min_loss else every).loss(config, rows)
        if alternatives is not None:
            mask_loss = shared_loss(best, logits_N4hw[:, THREE], alternatives, config)
        total = total + mask_loss + config.runner_up_weight * every.loss(config, rows)
        learning.append(best if config.iou_targets == "best" else every)
        shown = every
    head = iou_loss(
        torch.cat([masks.predicted_iou for masks in learning], dim=1),
        torch.cat([masks.iou for masks in learning], dim=1),
        config.iou_loss,
    )
    trusted = shown.pick(shown.predicted_iou.detach().argmax(1, keepdim=True))
    return {
        "total": total + config.iou_weight * head,
        "mask": mask_loss,
        "iou_head": head,
        "miou_trusted": trusted.iou.mean(),
        "miou_oracle": shown.iou.max(1).values.mean(),
    }


def shared_loss(
    best: GradedMasks, logits_NMhw: Tensor, alternatives: Alternatives, config: TrainConfig
) -> Tensor:
    """Mean loss of the best mask for the wanted one and for each alternative: a scalar.

    A prompt's weights are scaled to a sum of 1, so that ambiguous clicks do not count for more.
    """
    losses = [best.losses(config)[:, 0]]
    weights = [torch.ones_like(losses[0])]
    no_iou = torch.zeros_like(logits_NMhw[..., 0, 0])
    for k in range(alternatives.weights_NK.shape[1]):
        graded = grade(no_iou, logits_NMhw, alternatives.targets_NKhw[:, k : k + 1], config)
        losses.append(graded.losses(config).min(1).values)
        weights.append(alternatives.weights_NK[:, k])
    weights_NK = torch.stack(weights, dim=1)
    return ((torch.stack(losses, dim=1) * weights_NK).sum(1) / weights_NK.sum(1)).mean()
