"""Calibration of predictions whose error is known."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import BadInputError
from engine.evaluation.calibration import calibrate


def test_an_honest_model_has_no_error() -> None:
    iou = np.linspace(0, 1, 100)
    found = calibrate(iou, iou)
    assert found.error == pytest.approx(0, abs=1e-12)
    assert found.bias == pytest.approx(0, abs=1e-12)
    assert found.above_one == 0
    assert [part.masks for part in found.bins] == [10] * 10


def test_a_boaster_is_off_by_what_it_boasts() -> None:
    found = calibrate(np.full(50, 0.4), np.zeros(50))
    assert found.error == pytest.approx(0.4)
    assert found.bias == pytest.approx(0.4)


def test_errors_that_cancel_in_the_mean_do_not_cancel_in_the_bins() -> None:
    found = calibrate(np.repeat([0.2, 0.8], 50), np.repeat([0.5, 0.5], 50), bins=2)
    assert found.bias == pytest.approx(0)
    assert found.error == pytest.approx(0.3)
    assert [part.predicted for part in found.bins] == pytest.approx([0.2, 0.8])


def test_noise_around_an_honest_prediction_stays_small() -> None:
    random = np.random.default_rng(0)
    predicted = random.random(20_000)
    measured = (random.random(20_000) < predicted).astype(float)
    assert calibrate(predicted, measured).error < 0.02


def test_predictions_above_one_are_counted() -> None:
    assert calibrate(np.array([0.5, 1.0, 1.01, 1.2]), np.ones(4)).above_one == 0.5


def test_there_are_never_more_bins_than_masks() -> None:
    assert len(calibrate(np.array([0.1, 0.9]), np.array([0.1, 0.9])).bins) == 2


@pytest.mark.parametrize(("predicted", "measured", "bins"), [(0, 0, 10), (2, 3, 10), (2, 2, 0)])
def test_what_cannot_be_compared_is_bad_input(predicted: int, measured: int, bins: int) -> None:
    with pytest.raises(BadInputError, match="as many predictions"):
        calibrate(np.zeros(predicted), np.zeros(measured), bins)
