"""How far a mean may be off by luck: 95 % intervals that resample whole images.

    estimate = bootstrap_mean(iou_N, image_N)
    print(f"{estimate.mean:.1%} [{estimate.low:.1%}, {estimate.high:.1%}]")

The masks of one image are alike, so drawing masks one by one would promise too much. Source: Efron
and Tibshirani, An Introduction to the Bootstrap, 1993 (percentile interval, clusters).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadInputError

_RESAMPLES = 2000
_LEVEL = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over masks with its interval.

    Attributes:
        mean: over all masks, each counting once.
        low: lower end of the interval.
        high: upper end.
    """

    mean: float
    low: float
    high: float


def bootstrap_mean(
    values_N: NDArray[np.float64] | NDArray[np.int64],
    image_N: NDArray[np.int64],
    *,
    seed: int = 0,
    resamples: int = _RESAMPLES,
) -> Estimate:
    """Estimate a mean over masks.

    Args:
        values_N: one value for each mask.
        image_N: which image each mask belongs to.
        seed: of the resampling; the same input gives the same interval.
        resamples: of the images.

    Returns:
        The mean and its 95 % percentile interval; of a single image the interval is the mean.

    Raises:
        BadInputError: no values, or not as many images as values.
    """
    if not len(values_N) or values_N.shape != image_N.shape:
        raise BadInputError(
            f"expected one image for each of at least one value; got {values_N.shape} values and "
            f"{image_N.shape} images"
        )
    _, image_N = np.unique(image_N, return_inverse=True)
    masks_I = np.bincount(image_N)
    sums_I = np.bincount(image_N, weights=values_N)
    images = len(masks_I)
    random = np.random.default_rng(seed)
    times_RI = random.multinomial(images, np.full(images, 1 / images), size=resamples)
    means_R = (times_RI @ sums_I) / (times_RI @ masks_I)
    low, high = np.quantile(means_R, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Estimate(mean=float(np.mean(values_N)), low=float(low), high=float(high))
