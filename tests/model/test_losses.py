from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model.losses import (
    RegionLoss,
    SoftAreas,
    dice_loss,
    focal_loss,
    iou_loss,
    mask_iou,
    region_loss,
    soft_areas,
)

SHAPE = (2, 3, 5, 7)


def random_case(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(SHAPE, generator=generator)
    targets = torch.rand(SHAPE, generator=generator)
    return logits, torch.where(targets < 0.5, (targets > 0.25).float(), targets)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.5, 2.0), (0.7, 1.0)])
def test_focal_loss_is_the_plain_formula(alpha: float, gamma: float) -> None:
    logits, targets = random_case(1)
    wanted = torch.zeros(SHAPE[:2], dtype=torch.float64)
    for index in torch.cartesian_prod(*map(torch.arange, SHAPE)).tolist():
        logit, t = float(logits[tuple(index)]), float(targets[tuple(index)])
        p = 1 / (1 + math.exp(-logit))
        entropy = -(t * math.log(p) + (1 - t) * math.log(1 - p))
        p_true = p * t + (1 - p) * (1 - t)
        weight = alpha * t + (1 - alpha) * (1 - t)
        wanted[index[0], index[1]] += weight * (1 - p_true) ** gamma * entropy
    got = focal_loss(logits, targets, alpha=alpha, gamma=gamma)
    torch.testing.assert_close(got.double(), wanted / (5 * 7), rtol=1e-5, atol=1e-7)


def test_dice_loss_is_the_plain_formula() -> None:
    logits, targets = random_case(2)
    p, t = logits.double().sigmoid(), targets.double()
    wanted = torch.stack(
        [
            1 - (2 * (p[i, j] * t[i, j]).sum() + 1) / (p[i, j].sum() + t[i, j].sum() + 1)
            for i in range(2)
            for j in range(3)
        ]
    ).view(2, 3)
    torch.testing.assert_close(dice_loss(logits, targets).double(), wanted, rtol=1e-5, atol=1e-6)


def test_mask_iou_counts_pixels() -> None:
    logits = torch.tensor([[5.0, 1.0, -1.0, -5.0]]).expand(1, 1, 4)
    targets = torch.tensor([[1.0, 0.0, 0.6, 0.5]]).expand(1, 1, 4)
    assert mask_iou(logits, targets).tolist() == [pytest.approx(1 / 3)]
    nothing = torch.zeros(1, 4, 4)
    assert mask_iou(nothing - 1, nothing).tolist() == [0.0]
    assert mask_iou(nothing + 1, nothing + 1).tolist() == [1.0]


@pytest.mark.parametrize("loss", [focal_loss, dice_loss])
def test_a_perfect_mask_costs_next_to_nothing_and_an_inverted_one_much(loss: object) -> None:
    assert callable(loss)
    targets = torch.zeros(1, 8, 8)
    targets[:, 2:5, 2:6] = 1
    sharp = 40 * (targets - 0.5)
    assert float(loss(sharp, targets)) < 1e-3
    assert float(loss(-sharp, targets)) > 0.5


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("scale", [0.0, 1e-6, 30.0, 200.0, 1e4])
@pytest.mark.parametrize("loss", [focal_loss, dice_loss])
def test_gradients_are_finite_on_flat_targets_and_saturated_logits(
    loss: object, scale: float, value: float
) -> None:
    assert callable(loss)
    for sign in (-1, 1):
        logits = torch.full((2, 6, 6), sign * scale, requires_grad=True)
        result = loss(logits, torch.full((2, 6, 6), value))
        assert torch.isfinite(result).all()
        result.sum().backward()
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()


def test_a_wrong_and_unsure_mask_is_pulled_towards_the_target() -> None:
    targets = torch.zeros(1, 4, 4)
    targets[0, :2] = 1
    for loss in (focal_loss, dice_loss):
        logits = torch.zeros(1, 4, 4, requires_grad=True)
        loss(logits, targets).sum().backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        assert (logits.grad[0, :2] < 0).all()
        assert (logits.grad[0, 2:] > 0).all()


# Eight unsure pixels: half of each counts, so the soft mask has an area of 4.
UNSURE = torch.zeros(2, 4)
TWO, ALL = torch.zeros(2, 4), torch.ones(2, 4)
TWO[0, :2] = 1


# Eight unsure pixels: half of each counts, so the soft mask has an area of 4.
UNSURE = torch.zeros(2, 4)
TWO, ALL = torch.zeros(2, 4), torch.ones(2, 4)
TWO[0, :2] = 1


@pytest.mark.parametrize(
    ("kind", "of_two", "of_all", "of_both"),
    [
        ("dice", 1 - 3 / 7, 1 - 9 / 13, 1 - 11 / 19),
        ("soft_iou", 1 - 2 / 6, 1 - 5 / 9, 1 - 6 / 14),
        ("neg_log_soft_iou", math.log(3), math.log(9 / 5), math.log(7 / 3)),
    ],
)
def test_region_losses_are_those_worked_out_by_hand(
    kind: RegionLoss, of_two: float, of_all: float, of_both: float
) -> None:
    areas = soft_areas(torch.stack([UNSURE, UNSURE]), torch.stack([TWO, ALL]))
    assert areas.overlap.tolist() == [1, 4]
    assert areas.total.tolist() == [6, 12]
    assert region_loss(areas, kind).tolist() == pytest.approx([of_two, of_all])
    together = SoftAreas(areas.overlap.sum(), areas.total.sum())
    assert float(region_loss(together, kind)) == pytest.approx(of_both)


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1))
def test_region_losses_agree_on_what_is_perfect_and_are_ordered(
    mask: float, target: float, share: float
) -> None:
    areas = SoftAreas(
        torch.tensor(min(mask, target) * share).double(), torch.tensor(mask + target).double()
    )
    dice, soft_iou, neg_log = (
        float(region_loss(areas, kind)) for kind in ("dice", "soft_iou", "neg_log_soft_iou")
    )
    assert -1e-9 <= dice <= soft_iou + 1e-9 <= neg_log + 2e-9
    perfect = SoftAreas(torch.tensor(mask).double(), torch.tensor(2 * mask).double())
    for kind in ("dice", "soft_iou", "neg_log_soft_iou"):
        assert float(region_loss(perfect, kind)) == pytest.approx(0, abs=1e-9)


def test_the_iou_heads_losses_are_squared_or_absolute_errors() -> None:
    predicted, measured = torch.tensor([[0.5, 1.2]]), torch.tensor([[0.9, 1.0]])
    assert float(iou_loss(predicted, measured, "mse")) == pytest.approx((0.16 + 0.04) / 2)
    assert float(iou_loss(predicted, measured, "l1")) == pytest.approx((0.4 + 0.2) / 2)
