"""How to train a promptable model: one `TrainConfig`, SAM's own recipe and the bundled model's.

>>> config = BUNDLED_TRAINING
>>> config = dataclasses.replace(SAM_TRAINING, steps=5000)  # SAM's, shorter

Paper: Segment Anything, appendix A; options beyond it say where they come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from model.losses import IouLoss, RegionLoss

Decay = Literal["cosine", "step", "late"]
Average = Literal["mask", "batch"]
Multimask = Literal["every_round", "first_round"]
IouTargets = Literal["all", "best"]
Precision = Literal["float32", "bfloat16"]

_CHOICES = {
    "decay": Decay,
    "multimask": Multimask,
    "region_loss": RegionLoss,
    "region_average": Average,
    "iou_loss": IouLoss,
    "iou_targets": IouTargets,
    "precision": Precision,
}
_SHARES = (
    "box_probability",
    "centre_probability",
    "correction_probability",
    "decay_share",
    "focal_alpha",
)
_BELOW_ONE = ("drop_path", "ema_decay")
_NOT_NEGATIVE = (
    "warmup_steps",
    "weight_decay",
    "grad_clip",
    "focal_weight",
    "dice_weight",
    "runner_up_weight",
    "single_weight",
    "iou_weight",
    "alternatives",
    "alternative_weight",
    "boundary_weight",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How to train; `SAM_TRAINING` is SAM's recipe, `BUNDLED_TRAINING` the bundled model's.

    Attributes:
        steps: optimiser steps.
        learning_rate: peak, after warm-up.
        warmup_steps: linear warm-up.
        decay: after warm-up along a ``cosine`` down to 1 %, in ``step``s, or ``late``: not before
            the end, then straight down. Where late begins can be decided while training.
        decay_share: share of all steps in which a late decay falls.
        decay_at: shares of all steps after which a decay in steps falls...
        decay_factor: ...to this part of what it was.
        weight_decay: AdamW's, for matrices only.
        layer_decay: learning rate of a ViT block against the next one; 1 for all alike.
        drop_path: chance of a residual branch of the ViT's last block to be left out; 0 is off.
        grad_clip: gradients are scaled down to this norm; 0 is off.
        ema_decay: of the averaged weights that are kept in the end; 0 keeps the last ones.
        precision: ``bfloat16`` computes the model under autocast; weights and losses stay float32.
        recompute_rounds: compute every round again while going backward, so that the activations of
            one round, not of all, are in memory; same gradients.
        box_probability: share of prompts that start with a box rather than a point.
        mix_first_prompts: draw point or box for every mask (SAM), not once for a step (cheaper).
        centre_probability: share of first points that lie where the mask is farthest from its
            border, as people click, rather than anywhere in it (SAM); needs
            `TrainBatch.centres_N2`.
        correction_probability: share of steps that add corrective clicks.
        min_corrections: clicks added in such a step, at least.
        max_corrections: clicks added in such a step, at most.
        refinements: such a step has two more rounds without a new click, one before a random one of
            the clicks and one in the end, so that the model learns to improve on its own mask.
        multimask: ``first_round`` as SAM: the three masks answer the first prompt, and the
            single-mask token all later ones, that have several prompts. ``every_round``: both
            learn in all rounds, and the three are corrected.
        min_loss: only the best of the three masks learns; False: all three do.
        alternatives: other masks of the image that contain the first point, at most, which the
            three masks learn from too: one click, several right answers.
        alternative_weight: of each of them against the wanted mask.
        runner_up_weight: weight of the mean over the three masks beside their minimum.
        single_weight: weight of the single-mask token.
        focal_weight: weight of the focal loss.
        focal_alpha: weight of mask pixels against background in the focal loss.
        dice_weight: weight of the region loss, dice or what stands in its place.
        region_loss: ``dice``, ``soft_iou`` (1 - IoU of the soft mask) or ``neg_log_soft_iou``.
        region_average: mean over the losses of each ``mask``, or the loss of the areas of a whole
            ``batch``, in which a pixel of a large mask weighs as much as one of a small mask.
        iou_weight: weight of the IoU regression.
        iou_loss: ``mse`` (SAM) or ``l1`` (SAM 2, with `SamConfig.iou_sigmoid`).
        iou_targets: the IoU head learns from ``all`` masks (SAM 2), or from those alone that are
            supervised too: the ``best`` of the three, and the single one (SAM).
        boundary_weight: of the boundaries that people drew, where the encoder has maps of them and
            the batch `TrainBatch.boundaries_Bhw`.
        seed: of prompts and data.
        log_every: steps between two log lines.
        save_every: steps between two checkpoints.

    Raises:
        ValueError: a choice that does not exist, or a number out of range.
    """

    steps: int = 1100
    learning_rate: float = 2e-3
    warmup_steps: int = 200
    decay: Decay = "cosine"
    decay_at: tuple[float, ...] = (2 / 3, 26 / 27)
    decay_factor: float = 0.1
    decay_share: float = 0.4
    weight_decay: float = 0.05
    layer_decay: float = 1.0
    drop_path: float = 0.0
    grad_clip: float = 1.0
    ema_decay: float = 0.998
    precision: Precision = "float32"
    recompute_rounds: bool = False

    box_probability: float = 0.3
    mix_first_prompts: bool = False
    centre_probability: float = 0.0
    correction_probability: float = 0.4
    min_corrections: int = 1
    max_corrections: int = 2
    refinements: bool = False

    multimask: Multimask = "every_round"
    min_loss: bool = True
    alternatives: int = 0
    alternative_weight: float = 0.5
    runner_up_weight: float = 0.05
    single_weight: float = 0.5
    focal_weight: float = 5.0
    focal_alpha: float = 0.5
    dice_weight: float = 1.5
    region_loss: RegionLoss = "dice"
    region_average: Average = "mask"
    iou_weight: float = 1.0
    iou_loss: IouLoss = "mse"
    iou_targets: IouTargets = "all"
    boundary_weight: float = 0.0

    seed: int = 0
    log_every: int = 50
    save_every: int = 500

    def __post_init__(self) -> None:
        for name, choice in _CHOICES.items():
            if getattr(self, name) not in get_args(choice):
                expected = ", ".join(get_args(choice))
                raise ValueError(f"{name} is one of {expected}; got {getattr(self, name)!r}")
        for name in ("steps", "log_every", "save_every"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in _SHARES:
            self._check(name, 0 <= getattr(self, name) <= 1, "between 0 and 1")
        for name in _BELOW_ONE:
            self._check(name, 0 <= getattr(self, name) < 1, "from 0 to below 1")
        for name in _NOT_NEGATIVE:
            self._check(name, getattr(self, name) >= 0, "not negative")
        for name in ("learning_rate", "decay_factor"):
            self._check(name, getattr(self, name) > 0, "above 0")
        self._check("layer_decay", 0 < self.layer_decay <= 1, "above 0, at most 1")
        self._check("decay_at", all(0 < share <= 1 for share in self.decay_at), "shares of 1")
        self._check("min_corrections", self.min_corrections >= 1, "at least 1")
        self._check(
            "max_corrections",
            self.max_corrections >= self.min_corrections,
            f"at least min_corrections, {self.min_corrections}",
        )

        self._check(
            "alternatives",
            not self.alternatives or self.region_average == "mask",
            'with region_average="batch" 0',
        )

    def _check(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise ValueError(f"{name} must be {expected}; got {getattr(self, name)}")


# Appendix A. What is not the optimiser's business belongs to the data: 256 images in a step, at
# most 64 masks of each, none that covers more than 90 % of its image. The encoder starts from MAE.
# Where the paper is silent we take: the focal loss's usual alpha of .25 and gamma of 2; losses at
# the resolution of the logits; no gradient through the logits that are fed back; the mean over the
# rounds. Its figures are those of ViT-H.
SAM_TRAINING = TrainConfig(
    steps=90_000,
    learning_rate=8e-4,
    warmup_steps=250,
    decay="step",
    decay_at=(60_000 / 90_000, 86_666 / 90_000),
    decay_factor=0.1,
    weight_decay=0.1,
    layer_decay=0.8,
    drop_path=0.4,
    grad_clip=0.0,
    ema_decay=0.0,
    recompute_rounds=True,
    box_probability=0.5,
    mix_first_prompts=True,
    correction_probability=1.0,
    min_corrections=8,
    max_corrections=8,
    refinements=True,
    multimask="first_round",
    min_loss=True,
    runner_up_weight=0.0,
    single_weight=1.0,
    focal_weight=20.0,
    focal_alpha=0.25,
    dice_weight=1.0,
    iou_weight=1.0,
    iou_loss="mse",
    iou_targets="best",
)

# What a model of five million weights learns in three hours on two cores; 8 images in a step, at
# most 12 masks of each. Fewer rounds than SAM's, as decoding costs most, and several right answers
# to a click.
BUNDLED_TRAINING = TrainConfig(
    steps=7400,
    decay="late",
    decay_share=2000 / 7400,
    ema_decay=0.999,
    centre_probability=0.5,
    correction_probability=0.35,
    max_corrections=4,
    alternatives=2,
    boundary_weight=0.5,
    save_every=100,
)
