from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from model.processes import Rows
from model.prompt_sampling import (
    SimulatedPrompts,
    centre_point,
    corrective_points,
    noisy_boxes,
    random_rows,
    tight_boxes,
    uniform_points,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_masks(seed: int, count: int = 40, height: int = 23, width: int = 31) -> Tensor:
    """Draw masks from one pixel to the whole image, none empty."""
    rng = np.random.default_rng(seed)
    masks = rng.random((count, height, width)) < 10 ** rng.uniform(-3, 0.1, (count, 1, 1))
    masks[np.arange(count), rng.integers(height, size=count), rng.integers(width, size=count)] = 1
    return torch.from_numpy(masks)


def values_at(masks_NHW: Tensor, points_N2: Tensor) -> Tensor:
    x, y = points_N2.long().unbind(-1)
    return masks_NHW[torch.arange(len(masks_NHW)), y, x]


def test_points_lie_in_their_masks_on_whole_pixels() -> None:
    masks = random_masks(1)
    for seed in range(30):
        points = uniform_points(masks, generator(seed))
        assert points.shape == (40, 2)
        assert torch.equal(points, points.round())
        assert values_at(masks, points).all()


def test_every_pixel_of_a_mask_is_drawn_equally_often() -> None:
    mask = torch.zeros(6, 7, dtype=torch.bool)
    mask[0, 0] = mask[2, 3:6] = mask[5, 6] = True
    points = uniform_points(mask.expand(5000, 6, 7), generator(3)).long()
    counts = torch.bincount(points[:, 1] * 7 + points[:, 0], minlength=42).view(6, 7)
    assert torch.equal(counts > 0, mask)
    # 1000 expected, standard deviation 28.
    assert ((counts[mask] - 1000).abs() < 150).all()


def test_an_empty_mask_gives_its_first_pixel() -> None:
    masks = torch.zeros(2, 4, 5, dtype=torch.bool)
    masks[1, 3, 4] = True
    assert uniform_points(masks, generator()).tolist() == [[0, 0], [4, 3]]


def test_tight_boxes_have_inclusive_corners() -> None:
    masks = random_masks(2)
    for mask, box in zip(masks.numpy(), tight_boxes(masks).tolist(), strict=True):
        ys, xs = np.nonzero(mask)
        assert box == [xs.min(), ys.min(), xs.max(), ys.max()]
    assert tight_boxes(torch.zeros(1, 4, 5, dtype=torch.bool)).tolist() == [[0, 0, 0, 0]]


def test_noisy_boxes_stay_in_the_image_and_within_20_px_of_the_mask() -> None:
    masks = torch.zeros(400, 300, 500, dtype=torch.bool)
    masks[:, 10:290, 20:480] = True
    boxes = noisy_boxes(masks, generator(4))
    tight = torch.tensor([20.0, 10.0, 479.0, 289.0])
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([499.0, 299.0, 499.0, 299.0])).all()
    assert ((boxes - tight).abs() <= 20).all()
    assert ((boxes - tight).abs() > 19.9).any()


def test_box_noise_is_a_tenth_of_the_side() -> None:
    masks = torch.zeros(4000, 200, 200, dtype=torch.bool)
    masks[:, 80:121, 50:111] = True  # 40 px high, 60 px wide between corners
    noise = noisy_boxes(masks, generator(5)) - torch.tensor([50.0, 80.0, 110.0, 120.0])
    np.testing.assert_allclose(noise.std(0), [6, 4, 6, 4], rtol=0.06)
    np.testing.assert_allclose(noise.mean(0), 0, atol=0.4)


def test_corrective_points_lie_in_the_error_with_the_label_that_corrects_it() -> None:
    wanted, predicted = random_masks(6), random_masks(7)
    errors = wanted ^ predicted
    for seed in range(20):
        points, labels = corrective_points(wanted, predicted, generator(seed))
        wrong = errors.flatten(1).any(1)
        assert values_at(errors, points)[wrong].all()
        assert torch.equal(labels, values_at(wanted, points).long())
        assert labels.dtype == torch.long


def test_a_perfect_prediction_gets_another_foreground_click() -> None:
    wanted = random_masks(8)
    points, labels = corrective_points(wanted, wanted.clone(), generator())
    assert (labels == 1).all()
    assert values_at(wanted, points).all()


def test_missed_pixels_are_clicked_as_foreground_and_surplus_ones_as_background() -> None:
    wanted = torch.zeros(2, 4, 4, dtype=torch.bool)
    predicted = wanted.clone()
    wanted[0, 1, 2] = True
    predicted[1, 3, 0] = True
    points, labels = corrective_points(wanted, predicted, generator())
    assert points.tolist() == [[2, 1], [0, 3]]
    assert labels.tolist() == [1, 0]


def test_the_same_generator_state_draws_the_same_prompts() -> None:
    masks, other = random_masks(9), random_masks(10)

    def draw(seed: int) -> list[Tensor]:
        g = generator(seed)
        return [
            uniform_points(masks, g),
            noisy_boxes(masks, g),
            *corrective_points(masks, other, g),
        ]

    assert all(map(torch.equal, draw(1), draw(1)))
    assert not torch.equal(draw(1)[0], draw(2)[0])
    assert not torch.equal(draw(1)[1], draw(2)[1])


@settings(max_examples=25)
@given(st.integers(1, 39), st.integers(0, 2**31))
def test_a_mask_gets_the_same_prompts_whichever_process_holds_it(cut: int, seed: int) -> None:
    masks, other = random_masks(11), random_masks(12)

    def draw(rows: Rows) -> list[Tensor]:
        g = generator(seed)
        return [
            uniform_points(rows.of(masks), g, rows),
            noisy_boxes(rows.of(masks), g, rows),
            *corrective_points(rows.of(masks), rows.of(other), g, rows),
            random_rows(3, rows, g),
            random_rows(2, rows, g, normal=True),
        ]

    parts = zip(draw(Rows(0, cut, 40)), draw(Rows(cut, 40 - cut, 40)), strict=True)
    assert all(map(torch.equal, map(torch.cat, parts), draw(Rows.alone(40))))


def mixed_prompts(boxed: list[bool]) -> SimulatedPrompts:
    count = len(boxed)
    return SimulatedPrompts.first(
        torch.tensor(boxed),
        torch.arange(4.0 * count).view(count, 4),
        -torch.arange(2.0 * count).view(count, 2),
    )


def test_prompts_with_and_without_a_box_are_asked_apart_as_they_would_be_in_use() -> None:
    prompts = mixed_prompts([True, False, True])
    (points_index, points), (boxes_index, boxes) = prompts.groups()
    assert points_index.tolist() == [1]
    assert points.points_NK2 is not None
    assert points.points_NK2.tolist() == [[[-2, -3]]]
    assert points.labels_NK is not None
    assert points.labels_NK.tolist() == [[1]]
    assert points.boxes_N4 is None
    assert boxes_index.tolist() == [0, 2]
    assert boxes.boxes_N4 is not None
    assert boxes.boxes_N4.tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert boxes.points_NK2 is boxes.labels_NK is None
    assert points.mask_logits_N1hw is boxes.mask_logits_N1hw is None


def test_clicks_and_the_answer_are_added_to_both_kinds() -> None:
    logits = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    clicks = torch.tensor([[7.0, 8.0], [5.0, 6.0], [3.0, 4.0]])
    prompts = mixed_prompts([True, False, True]).answered(logits)
    prompts = prompts.clicked(clicks, torch.tensor([0, 1, 1]))
    (_, points), (_, boxes) = prompts.groups()
    assert points.points_NK2 is not None
    assert points.points_NK2.tolist() == [[[-2, -3], [5, 6]]]
    assert boxes.points_NK2 is not None
    assert boxes.points_NK2.tolist() == [[[7, 8]], [[3, 4]]]
    assert boxes.labels_NK is not None
    assert boxes.labels_NK.tolist() == [[0], [1]]
    assert boxes.mask_logits_N1hw is not None
    assert boxes.mask_logits_N1hw[:, 0, 0, 0].tolist() == [0, 2]


@pytest.mark.parametrize("boxed", [True, False])
def test_prompts_of_one_kind_are_asked_at_once(boxed: bool) -> None:
    ((index, asked),) = mixed_prompts([boxed, boxed]).groups()
    assert index.tolist() == [0, 1]
    assert (asked.boxes_N4 is not None) == boxed


def farthest(mask_HW: NDArray[np.bool_]) -> tuple[NDArray[np.float64], float]:
    """Distances to the border, the image's edge included, and the largest of them."""
    distances = ndimage.distance_transform_edt(np.pad(mask_HW, 1))[1:-1, 1:-1]
    return distances, float(distances.max())


@settings(max_examples=100)
@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 3])
)
def test_the_centre_point_is_as_far_from_the_border_as_any(
    height: int, width: int, seed: int, rounds: int
) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < rng.uniform(0.05, 1)
    mask = ndimage.binary_dilation(mask, iterations=rounds) if rounds else mask
    mask[rng.integers(height), rng.integers(width)] = True
    distances, largest = farthest(mask)
    x, y = centre_point(mask)
    assert mask[y, x]
    assert distances[y, x] == pytest.approx(largest)


def test_the_centre_of_a_full_image_is_its_middle() -> None:
    assert centre_point(np.ones((5, 9), np.bool_)) == (2, 2)
    assert centre_point(np.ones((5, 5), np.bool_)) == (2, 2)
    assert centre_point(np.ones((1, 1), np.bool_)) == (0, 0)


def test_an_empty_mask_has_no_centre() -> None:
    with pytest.raises(ValueError, match="empty mask"):
        centre_point(np.zeros((3, 3), np.bool_))
