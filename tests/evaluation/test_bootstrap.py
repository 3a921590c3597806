"""Intervals against distributions that are known."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import BadInputError
from engine.evaluation.bootstrap import bootstrap_mean


def test_the_mean_counts_every_mask_once() -> None:
    estimate = bootstrap_mean(np.array([0.0, 0.0, 0.0, 1.0]), np.array([7, 7, 7, 9]))
    assert estimate.mean == 0.25
    assert estimate.low == 0
    assert estimate.high == 1


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    image_N = np.repeat(np.arange(60), 5)
    hits = 0
    for trial in range(200):
        values_N = random.normal(0.5, 0.2, 60)[image_N] + random.normal(0, 0.1, 300)
        estimate = bootstrap_mean(values_N, image_N, seed=trial, resamples=400)
        hits += estimate.low <= 0.5 <= estimate.high
    assert 180 <= hits <= 198


def test_masks_of_one_image_count_as_one_observation() -> None:
    values_N = np.repeat(np.random.default_rng(0).random(30), 20)
    together = bootstrap_mean(values_N, np.repeat(np.arange(30), 20))
    alone = bootstrap_mean(values_N, np.arange(600))
    assert together.high - together.low > 3 * (alone.high - alone.low)


def test_the_same_seed_gives_the_same_interval() -> None:
    values, images = np.random.default_rng(0).random(50), np.arange(50) // 3
    assert bootstrap_mean(values, images, seed=4) == bootstrap_mean(values, images, seed=4)
    assert bootstrap_mean(values, images, seed=4) != bootstrap_mean(values, images, seed=5)


def test_one_image_says_nothing_about_others() -> None:
    estimate = bootstrap_mean(np.array([0.2, 0.4]), np.array([0, 0]))
    assert estimate.low == estimate.high == pytest.approx(0.3)


@pytest.mark.parametrize(("values", "images"), [(0, 0), (3, 2)])
def test_values_need_their_images(values: int, images: int) -> None:
    with pytest.raises(BadInputError, match="one image for each"):
        bootstrap_mean(np.zeros(values), np.zeros(images, dtype=np.int64))
