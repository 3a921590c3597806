"""Does a predicted IoU of .8 mean an IoU of .8? Reliability in bins of equal count.

    calibration = calibrate(quality.predicted_iou_N, quality.trusted_iou_N)
    calibration.error, calibration.above_one

Source: Guo et al., On Calibration of Modern Neural Networks, 2017 (expected calibration error);
with bins of equal count (Nguyen and O'Connor, 2015) every point of the diagram is equally certain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Predictions next to each other in size.

    Attributes:
        masks: how many.
        predicted: mean predicted IoU.
        measured: mean IoU.
    """

    masks: int
    predicted: float
    measured: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How predicted and measured IoU agree.

    Attributes:
        error: expected calibration error: the mean gap of the bins, weighted by their masks.
        bias: mean predicted minus mean measured IoU; positive for a model that boasts.
        above_one: share of predictions above 1, which no IoU can be; SAM 1 has no sigmoid.
        bins: the reliability diagram, ascending in predicted IoU.
    """

    error: float
    bias: float
    above_one: float
    bins: tuple[Bin, ...]


def calibrate(
    predicted_N: NDArray[np.float64], measured_N: NDArray[np.float64], bins: int = 10
) -> Calibration:
    """Compare predicted with measured IoU.

    Args:
        predicted_N: what the model said.
        measured_N: what was true.
        bins: of equal count; fewer when there are fewer masks.

    Raises:
        BadInputError: nothing to compare, arrays of different lengths, or no bin.
    """
    if predicted_N.shape != measured_N.shape or not predicted_N.size or bins < 1:
        raise BadInputError(
            f"expected as many predictions as measurements, at least one, and at least one bin; "
            f"got {predicted_N.shape}, {measured_N.shape} and {bins} bins"
        )
    order = np.argsort(predicted_N, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    found = tuple(
        Bin(
            masks=len(part),
            predicted=float(predicted_N[part].mean()),
            measured=float(measured_N[part].mean()),
        )
        for part in parts
    )
    gaps = [abs(one.predicted - one.measured) * one.masks for one in found]
    return Calibration(
        error=sum(gaps) / len(order),
        bias=float(predicted_N.mean() - measured_N.mean()),
        above_one=float((predicted_N > 1).mean()),
        bins=found,
    )
