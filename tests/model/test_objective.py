from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model.objective import GradedMasks, grade, round_losses
from model.processes import Rows
from model.train_config import SAM_TRAINING, TrainConfig

# Two of eight pixels are wanted. The masks: unsure (single token), perfect, unsure, inverted.
TARGET = torch.zeros(1, 1, 2, 4)
TARGET[..., 0, :2] = 1
SURE = 20.0
LOGITS = torch.cat(
    [0 * TARGET, SURE * (2 * TARGET - 1), 0 * TARGET, SURE * (1 - 2 * TARGET)], dim=1
)
PREDICTED = torch.tensor([[0.3, 0.9, 0.5, 0.1]])  # measured: 0, 1, 0, 0
CONFIG = replace(
    SAM_TRAINING, focal_weight=2.0, focal_alpha=0.5, dice_weight=3.0, single_weight=0.7
)
ALONE = Rows.alone(1)

UNSURE = 2 * (0.5 * 0.25 * math.log(2)) + 3 * (1 - 3 / 7)
INVERTED = 2 * (0.5 * SURE) + 3 * (1 - 1 / 9)


def losses_of(
    config: TrainConfig, *, three: bool = True, single: bool = False, times: int = 1
) -> dict[str, float]:
    losses = round_losses(
        PREDICTED.repeat(times, 1),
        LOGITS.repeat(times, 1, 1, 1),
        TARGET.repeat(times, 1, 1, 1),
        config,
        Rows.alone(times),
        three=three,
        single=single,
    )
    return {name: float(value) for name, value in losses.items()}


def test_masks_are_graded_by_focal_loss_areas_and_iou() -> None:
    graded = grade(PREDICTED, LOGITS, TARGET, CONFIG)
    unsure = 0.5 * 0.25 * math.log(2)
    assert graded.focal[0].tolist() == pytest.approx([unsure, 0, unsure, 10], abs=1e-5)
    assert graded.overlap[0].tolist() == pytest.approx([1, 2, 1, 0], abs=1e-5)
    assert graded.total[0].tolist() == pytest.approx([6, 4, 6, 8], abs=1e-5)
    assert graded.iou[0].tolist() == [0, 1, 0, 0]
    assert graded.predicted_iou is PREDICTED
    losses = graded.losses(CONFIG)[0].tolist()
    assert losses == pytest.approx([UNSURE, 0, UNSURE, INVERTED], abs=1e-4)
    picked = graded.pick(torch.tensor([[3, 0]]))
    assert picked.iou.tolist() == [[0, 0]]
    assert picked.predicted_iou[0].tolist() == pytest.approx([0.1, 0.3])


def test_only_the_best_of_three_masks_and_its_iou_are_learnt_from_a_first_prompt() -> None:
    losses = losses_of(CONFIG)
    assert losses["mask"] == pytest.approx(0, abs=1e-5)
    assert losses["iou_head"] == pytest.approx((0.9 - 1) ** 2)
    assert losses["total"] == pytest.approx(losses["iou_head"], abs=1e-5)
    assert losses["miou_trusted"] == losses["miou_oracle"] == 1


def test_the_single_mask_is_learnt_from_several_prompts() -> None:
    losses = losses_of(replace(CONFIG, iou_weight=10.0), three=False, single=True)
    assert losses["mask"] == pytest.approx(UNSURE)
    assert losses["iou_head"] == pytest.approx(0.3**2)
    assert losses["total"] == pytest.approx(0.7 * UNSURE + 10 * 0.3**2)
    assert losses["miou_trusted"] == losses["miou_oracle"] == 0


def test_all_three_masks_learn_without_the_minimum() -> None:
    losses = losses_of(replace(CONFIG, min_loss=False))
    assert losses["mask"] == pytest.approx((UNSURE + INVERTED) / 3, rel=1e-5)
    assert losses["total"] == pytest.approx(losses["mask"] + 0.01, rel=1e-5)


def test_runners_up_learn_by_their_weight() -> None:
    losses = losses_of(replace(CONFIG, runner_up_weight=0.3))
    assert losses["total"] == pytest.approx(0.3 * (UNSURE + INVERTED) / 3 + 0.01, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "of_three", "of_both"),
    [
        ({"iou_targets": "best"}, 0.01, (0.01 + 0.09) / 2),
        ({"iou_targets": "all"}, (0.01 + 0.25 + 0.01) / 3, (0.01 + 0.25 + 0.01 + 0.09) / 4),
        ({"iou_targets": "best", "iou_loss": "l1"}, 0.1, (0.1 + 0.3) / 2),
        ({"iou_targets": "all", "iou_loss": "l1"}, 0.7 / 3, 1.0 / 4),
    ],
)
def test_the_iou_head_learns_from_the_best_or_from_all(
    change: dict[str, str], of_three: float, of_both: float
) -> None:
    config = replace(CONFIG, **change)  # type: ignore[arg-type]
    assert losses_of(config)["iou_head"] == pytest.approx(of_three)
    assert losses_of(config, single=True)["iou_head"] == pytest.approx(of_both)


def test_both_kinds_of_mask_add_up() -> None:
    both, three, single = (
        losses_of(replace(CONFIG, iou_weight=0.0), three=t, single=s)
        for t, s in ((True, True), (True, False), (False, True))
    )
    assert both["total"] == pytest.approx(three["total"] + single["total"])
    assert both["mask"] == three["mask"]


def two_graded() -> GradedMasks:
    """One mask of overlap 1 and total 6, one of 4 and 12; focal losses .2 and .4."""
    return GradedMasks(
        focal=torch.tensor([[0.2], [0.4]]),
        overlap=torch.tensor([[1.0], [4.0]]),
        total=torch.tensor([[6.0], [12.0]]),
        iou=torch.zeros(2, 1),
        predicted_iou=torch.zeros(2, 1),
    )


@pytest.mark.parametrize(
    ("kind", "each", "together"),
    [
        ("dice", (1 - 3 / 7 + 1 - 9 / 13) / 2, 1 - 11 / 19),
        ("soft_iou", (1 - 2 / 6 + 1 - 5 / 9) / 2, 1 - 6 / 14),
        ("neg_log_soft_iou", (math.log(3) + math.log(9 / 5)) / 2, math.log(7 / 3)),
    ],
)
def test_regions_are_averaged_over_masks_or_measured_over_the_batch(
    kind: str, each: float, together: float
) -> None:
    config = replace(CONFIG, region_loss=kind)  # type: ignore[arg-type]
    rows = Rows.alone(2)
    assert float(two_graded().loss(config, rows)) == pytest.approx(2 * 0.3 + 3 * each)
    config = replace(config, region_average="batch")
    assert float(two_graded().loss(config, rows)) == pytest.approx(2 * 0.3 + 3 * together)


def test_the_best_mask_is_chosen_for_each_prompt_also_where_regions_are_of_the_batch() -> None:
    config = replace(CONFIG, region_average="batch")
    order = torch.tensor([[0, 1, 2, 3], [0, 3, 2, 1]])  # the perfect one is first, then last
    logits = torch.stack([LOGITS[0, row] for row in order])
    losses = round_losses(
        PREDICTED.repeat(2, 1),
        logits,
        TARGET.repeat(2, 1, 1, 1),
        config,
        Rows.alone(2),
        three=True,
        single=False,
    )
    assert float(losses["mask"]) == pytest.approx(0, abs=1e-5)
    assert float(losses["miou_trusted"]) == 0.5
    assert float(losses["miou_oracle"]) == 1


def gradient(config: TrainConfig, *, three: bool, single: bool) -> tuple[Tensor, Tensor]:
    logits = (LOGITS / SURE).requires_grad_()
    predicted = PREDICTED.clone().requires_grad_()
    losses = round_losses(predicted, logits, TARGET, config, ALONE, three=three, single=single)
    losses["total"].backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert predicted.grad is not None
    return logits.grad.abs().sum((0, 2, 3)) > 0, predicted.grad[0] != 0


def test_gradients_reach_the_masks_that_should_learn_and_no_others() -> None:
    mask, head = gradient(CONFIG, three=True, single=False)
    assert mask.tolist() == head.tolist() == [False, True, False, False]
    mask, head = gradient(CONFIG, three=False, single=True)
    assert mask.tolist() == head.tolist() == [True, False, False, False]
    mask, head = gradient(replace(CONFIG, iou_targets="all"), three=True, single=False)
    assert mask.tolist() == [False, True, False, False]
    assert head.tolist() == [False, True, True, True]
    mask, _ = gradient(replace(CONFIG, min_loss=False), three=True, single=False)
    assert mask.tolist() == [False, True, True, True]
