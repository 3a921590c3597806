"""Distillation: a small model learns to answer as a large one does, on photos without masks.

    student = distill(build_sam("bundled"), build_sam("vit_h", "sam_vit_h.pth"), batches,
                      DistillConfig(steps=20_000), Path("distill.pt"))

A step looks at a crop twice, each model at its own size. The student's image features approach the
teacher's (MobileSAM, arXiv 2306.14289), through a projection where their widths differ. Then both
answer the same prompts, and the student learns the teacher's masks, token by token, and what they
are worth; the next click goes where they disagree (EdgeSAM, arXiv 2312.06660: prompts in the loop).

Shapes: B images, N prompts, H W pixels, h w low-resolution logits; the four masks of a prompt are
the single-mask token's and the three of the multimask tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.losses import mask_iou
from model.processes import Rows
from model.prompt_sampling import corrective_points, noisy_boxes, random_rows
from model.sam import Sam
from model.step_loop import ImageBatches, OnLog, StepConfig, run_steps, to_pixels
from model.types import FOREGROUND, ImageFeatures, InputPrompts
from model.upsample import LOW_RES_STRIDE

__all__ = ["DistillConfig", "distill"]

_STUDENT_STRIDE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillConfig(StepConfig):
    """How to distil; see `StepConfig` for the steps themselves.

    Attributes:
        student_px: side at which the student sees a crop; None: as it comes. The teacher always
            sees it at its own size, so crops should be larger than the student needs.
        prompts_per_image: first prompts drawn for each crop.
        box_probability: share of steps whose prompts are boxes of the teacher's masks.
        corrections: clicks added to every prompt where student and teacher disagree.
        feature_weight: of the squared error between image features.
        mask_weight: of the divergence from the teacher's soft masks plus dice.
        iou_weight: of the squared error of the predicted IoU.
    """

    student_px: int | None = 256
    prompts_per_image: int = 8
    box_probability: float = 0.3
    corrections: int = 1
    feature_weight: float = 1.0
    mask_weight: float = 1.0
    iou_weight: float = 1.0

    def __post_init__(self) -> None:
        StepConfig.__post_init__(self)  # super() does not survive slots=True
        if self.prompts_per_image < 1 or self.corrections < 0:
            raise ValueError(
                f"expected at least one prompt and no negative corrections; got prompts_per_image "
                f"{self.prompts_per_image}, corrections {self.corrections}"
            )
        if self.student_px is not None and self.student_px % _STUDENT_STRIDE:
            raise ValueError(
                f"student_px is a multiple of {_STUDENT_STRIDE}; got {self.student_px}"
            )


def distill(
    student: Sam,
    teacher: Sam,
    batches: ImageBatches,
    config: DistillConfig,
    checkpoint: Path,
    on_log: OnLog | None = None,
) -> Sam:
    """Train `student` in place after `teacher`; continues from `checkpoint` where it exists.

    Args:
        student: learns, all of it that is not frozen.
        teacher: answers; put into inference mode, nothing else of it changes.
        batches: called with the step to start from, yields square (B, S, S, 3) uint8 RGB crops
            without end.
        config: the recipe.
        checkpoint: file that holds student, projection, optimiser and step.
        on_log: called with the step and its mean losses, and with ``miou``: of the student's
            masks and the teacher's.

    Returns:
        `student`, in inference mode.

    Raises:
        CheckpointError: a checkpoint of another run.
        ValueError: crops that are not square, a side that the student does not take, or models on
            different devices.
    """
    if student.device != teacher.device:
        raise ValueError(f"student on {student.device}, teacher on {teacher.device}: move one")
    if student.config.pad_multiple == student.config.image_size != config.student_px:
        raise ValueError(
            f"{student.config.name} takes inputs of {student.config.image_size} px only; set "
            f"student_px to it, got {config.student_px}"
        )
    teacher.eval()
    learner = _Learner(student, teacher.config.dim, config.seed).train()

    def losses_of(images_BHW3: Tensor, rows: Rows, generator: torch.Generator) -> dict[str, Tensor]:
        return step_losses(learner, teacher, images_BHW3, config, rows, generator)

    run_steps(learner, losses_of, batches, config, checkpoint, on_log)
    return student.eval()


class _Learner(nn.Module):
    """The student, and what maps its image features to the teacher's width."""

    def __init__(self, student: Sam, teacher_dim: int, seed: int) -> None:
        super().__init__()
        self.student = student
        dim = student.config.dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            projection = nn.Identity() if dim == teacher_dim else nn.Conv2d(dim, teacher_dim, 1)
        self.projection = projection.to(student.device)


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """A model's view of the batch.

    Attributes:
        sam: the model.
        features: of the B images, assigned to the N prompts.
        side_px: of its square input.
    """

    sam: Sam
    features: ImageFeatures
    side_px: int

    def answer(self, prompts: InputPrompts) -> _Answer:
        """Answer N prompts given in this view's pixels."""
        scored = self.sam.score_input(self.features, prompts, (self.side_px, self.side_px))
        return _Answer(self.sam.mask_decoder.draw(scored).float(), scored.iou_N4.float())


@dataclass(frozen=True, slots=True, eq=False)
class _Answer:
    """Logits and predicted IoUs of four masks for each prompt."""

    logits_N4hw: Tensor
    iou_N4: Tensor

    def trusted(self) -> Tensor:
        """Return the logits of the answer with the highest predicted IoU: (N, 1, h, w)."""
        best = self.iou_N4[:, 1:].argmax(1) + 1
        rows = torch.arange(len(best), device=best.device)
        return self.logits_N4hw[rows, best].detach().unsqueeze(1)


def step_losses(
    learner: _Learner,
    teacher: Sam,
    images_BHW3: Tensor,
    config: DistillConfig,
    rows: Rows,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Compare both models on one batch; return the losses, ``total`` with its graph."""
    B, H, W, _ = images_BHW3.shape
    if H != W:
        raise ValueError(f"distillation needs square crops; got {H} x {W} px")
    each = config.prompts_per_image
    owner_N = torch.arange(B, device=images_BHW3.device).repeat_interleave(each)
    prompt_rows = Rows(rows.first * each, rows.count * each, rows.total * each)
    pixels = to_pixels(images_BHW3)
    with torch.no_grad():
        theirs = _view(teacher, pixels, teacher.config.image_size, owner_N)
    ours = _view(learner.student, pixels, config.student_px or H, owner_N)
    feature_loss = _feature_loss(learner.projection, ours.features, theirs.features)
    rounds = _rounds(ours, theirs, config, prompt_rows, generator)
    means = {name: torch.stack([r[name] for r in rounds]).mean() for name in rounds[0]}
    total = (
        config.feature_weight * feature_loss
        + config.mask_weight * means["mask"]
        + config.iou_weight * means["iou_head"]
    )
    return {"total": total, "features": feature_loss, **means}


def _view(sam: Sam, pixels_B3HW: Tensor, side_px: int, owner_N: Tensor) -> _View:
    size = (side_px, side_px)
    if tuple(pixels_B3HW.shape[-2:]) != size:
        pixels_B3HW = F.interpolate(pixels_B3HW, size, mode="bilinear", antialias=True)
    features = sam.image_encoder(pixels_B3HW.to(sam.dtype))
    return _View(sam, features.owned_by(owner_N), side_px)


def _feature_loss(projection: nn.Module, ours: ImageFeatures, theirs: ImageFeatures) -> Tensor:
    """Mean squared error on the teacher's grid."""
    wanted = theirs.coarse_BCHW.float()
    # A 1x1 projection and bilinear resizing commute; the student's grid is the smaller one.
    projected = projection(ours.coarse_BCHW)
    if projected.shape[-2:] != wanted.shape[-2:]:
        projected = F.interpolate(
            projected, wanted.shape[-2:], mode="bilinear", align_corners=False
        )
    return F.mse_loss(projected.float(), wanted)


def _rounds(
    ours: _View, theirs: _View, config: DistillConfig, rows: Rows, generator: torch.Generator
) -> list[dict[str, Tensor]]:
    """Ask both models the same, then again with a click where they disagree."""
    prompts = _first_prompts(theirs, config, rows, generator)
    rounds = []
    for i in range(config.corrections + 1):
        with torch.no_grad():
            wanted = theirs.answer(prompts)
        answer = ours.answer(_scaled(prompts, ours.side_px / theirs.side_px))
        rounds.append(_answer_losses(answer, wanted))
        if i < config.corrections:
            prompts = _corrected(prompts, answer, wanted, rows, generator)
    return rounds


def _first_prompts(
    theirs: _View, config: DistillConfig, rows: Rows, generator: torch.Generator
) -> InputPrompts:
    """Draw points anywhere, or boxes of the teacher's masks there, in the teacher's pixels."""
    places = random_rows(2, rows, generator).unsqueeze(1) * theirs.side_px - 0.5
    labels = torch.full((rows.count, 1), FOREGROUND, device=places.device)
    points = InputPrompts(places, labels, None, None)
    chance = torch.rand((), generator=generator, device=generator.device)
    if float(chance) >= config.box_probability:
        return points
    with torch.no_grad():
        masks_NHW = theirs.answer(points).trusted()[:, 0] > 0
    # At low resolution; noise of 10 % of a side is the same at every scale.
    return _scaled(
        InputPrompts(None, None, noisy_boxes(masks_NHW, generator, rows), None),
        theirs.side_px / masks_NHW.shape[-1],
    )


def _corrected(
    prompts: InputPrompts,
    answer: _Answer,
    wanted: _Answer,
    rows: Rows,
    generator: torch.Generator,
) -> InputPrompts:
    """Click, in the teacher's pixels, into what separates the student's mask from the teacher's."""
    wanted_N1hw = wanted.trusted()
    size = wanted_N1hw.shape[-2:]
    ours_N1hw = F.interpolate(answer.trusted(), size, mode="bilinear", align_corners=False)
    points, labels = corrective_points(wanted_N1hw[:, 0] > 0, ours_N1hw[:, 0] > 0, generator, rows)
    clicks = _scaled(
        InputPrompts(points.unsqueeze(1), labels.unsqueeze(1), None, None), LOW_RES_STRIDE
    )
    if prompts.points_NK2 is None or prompts.labels_NK is None:
        return InputPrompts(clicks.points_NK2, clicks.labels_NK, prompts.boxes_N4, None)
    return InputPrompts(
        torch.cat([prompts.points_NK2, _given(clicks.points_NK2)], dim=1),
        torch.cat([prompts.labels_NK, _given(clicks.labels_NK)], dim=1),
        prompts.boxes_N4,
        None,
    )


def _given(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise ValueError("a click without coordinates")
    return tensor


def _scaled(prompts: InputPrompts, factor: float) -> InputPrompts:
    """Move points and boxes to a view `factor` times as large; pixel centres stay centres."""

    def scale(xy: Tensor | None) -> Tensor | None:
        return None if xy is None else (xy + 0.5) * factor - 0.5

    return InputPrompts(scale(prompts.points_NK2), prompts.labels_NK, scale(prompts.boxes_N4), None)


def _answer_losses(answer: _Answer, wanted: _Answer) -> dict[str, Tensor]:
    """Compare four masks with the teacher's four; masks that it trusts more count more."""
    size = answer.logits_N4hw.shape[-2:]
    wanted_logits = wanted.logits_N4hw
    if wanted_logits.shape[-2:] != size:
        wanted_logits = F.interpolate(wanted_logits, size, mode="bilinear", antialias=True)
    soft_N4hw = wanted_logits.sigmoid()
    trust_N4 = wanted.iou_N4.clamp(0, 1)
    mask_N4 = _divergence(answer.logits_N4hw, wanted_logits) + _soft_dice_loss(
        answer.logits_N4hw.sigmoid(), soft_N4hw
    )
    agreement_N4 = mask_iou(answer.logits_N4hw.detach(), soft_N4hw)
    empty_N4 = ~((answer.logits_N4hw > 0) | (wanted_logits > 0)).flatten(2).any(2)
    agreement_N4 = agreement_N4.masked_fill(empty_N4, 1.0)
    # A mask is worth what the teacher's is worth, times how much of it the student found.
    iou_loss = F.mse_loss(answer.iou_N4, trust_N4 * agreement_N4)
    return {
        "mask": (trust_N4 * mask_N4).sum() / trust_N4.sum().clamp(min=1e-6),
        "iou_head": iou_loss,
        "miou": agreement_N4.mean(),
    }


def _divergence(logits: Tensor, wanted_logits: Tensor) -> Tensor:
    """Cross-entropy less the teacher's own entropy, 0 where both agree: (..., h, w) to (...)."""
    soft = wanted_logits.sigmoid()
    cross = F.binary_cross_entropy_with_logits(logits, soft, reduction="none")
    own = F.binary_cross_entropy_with_logits(wanted_logits, soft, reduction="none")
    return (cross - own).mean((-2, -1))


def _soft_dice_loss(ours: Tensor, wanted: Tensor) -> Tensor:
    """1 - Dice with squares below, which is 0 where soft masks are equal: (..., h, w) to (...)."""
    overlap = (ours * wanted).sum((-2, -1))
    total = ours.square().sum((-2, -1)) + wanted.square().sum((-2, -1))
    return 1 - (2 * overlap + 1) / (total + 1)
