from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.dataset.sample_cutting import SampleConfig, finish_sample
from engine.dataset.sample_hints import draw_boundaries, mask_centres
from engine.dataset.synthetic_samples import scene_sample
from engine.images import tilt


def square(side: int, x0: int, y0: int, x1: int, y1: int) -> torch.Tensor:
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_the_centre_is_the_pixel_farthest_from_the_border_and_the_edge_is_border() -> None:
    masks = torch.stack([square(64, 10, 20, 31, 41), square(64, 0, 0, 64, 64)])
    centres = mask_centres(masks)
    assert centres[0].tolist() == [20, 30]
    assert centres[1].tolist() in ([31, 31], [32, 32], [31, 32], [32, 31])


def test_boundaries_lie_along_masks_and_are_unknown_far_from_all() -> None:
    drawn = draw_boundaries(square(64, 16, 16, 48, 48)[None], np.array([1.0], np.float32))
    assert drawn.shape == (16, 16)
    assert (drawn[0] == -1).all()
    assert (drawn[6:10, 6:10] == 0).all()
    assert (drawn[4, 4:12] == 1).all()


def test_a_boundary_counts_as_many_votes_as_its_masks_have() -> None:
    masks = torch.stack([square(64, 0, 0, 64, 64), square(64, 16, 16, 48, 48)])
    drawn = draw_boundaries(masks, np.array([4.0, 1.0], np.float32))
    assert (drawn >= 0).all()
    assert drawn[4, 6] == pytest.approx(0.25)
    assert drawn[8, 8] == 0


def test_two_masks_that_meet_add_their_sides() -> None:
    masks = torch.stack([square(64, 0, 0, 32, 64), square(64, 32, 0, 64, 64)])
    drawn = draw_boundaries(masks, np.array([1.0, 1.0], np.float32))
    assert (drawn[:, 7:9] == 1).all()
    assert (drawn[:, :7] == 0).all()


def test_a_sample_keeps_the_first_masks_of_a_size_and_boundaries_of_all() -> None:
    config = SampleConfig(crop_px=64, masks_per_image=1, centres=True, boundaries=True)
    masks = torch.stack(
        [square(64, 0, 0, 4, 4), square(64, 10, 10, 31, 31), square(64, 40, 40, 61, 61)]
    )
    image = torch.zeros(64, 64, 3, dtype=torch.uint8)
    sample = finish_sample(image, masks, [1, 1, 1], config)
    assert sample is not None
    assert torch.equal(sample.masks_MSS, masks[1:2])
    assert sample.centres_M2 is not None
    assert sample.centres_M2.tolist() == [[20, 20]]
    assert sample.boundaries_ss is not None
    assert (sample.boundaries_ss[10, 10:15] == 1).all()
    assert finish_sample(image, masks[:1], [1], config) is None


def test_a_tilt_turns_counter_clockwise_about_the_middle() -> None:
    image = np.zeros((33, 33, 3), dtype=np.uint8)
    image[16, 26] = 200  # right of the middle
    turned = tilt(image, 90.0, (7.0, 8.0, 9.0))
    assert turned[6, 16].tolist() == [200, 200, 200]
    assert tilt(image, 45.0, (7.0, 8.0, 9.0))[0, 0].tolist() == [7, 8, 9]
    single = tilt(image[:, :, :1], 0.0, (0.0,))
    assert np.array_equal(single, image[:, :, :1])


@pytest.mark.parametrize("seed", range(5))
def test_scenes_become_samples_like_photos(seed: int) -> None:
    config = SampleConfig(crop_px=128, masks_per_image=5, centres=True, boundaries=True)
    sample = scene_sample(config, np.random.default_rng(seed))
    assert sample.image_SS3.shape == (128, 128, 3)
    assert sample.image_SS3.dtype == torch.uint8
    assert 1 <= len(sample.masks_MSS) <= 5
    assert sample.centres_M2 is not None
    for mask, (x, y) in zip(sample.masks_MSS, sample.centres_M2.long().tolist(), strict=True):
        assert mask[y, x]
    again = scene_sample(config, np.random.default_rng(seed))
    assert torch.equal(again.image_SS3, sample.image_SS3)
