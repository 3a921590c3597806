"""What superpixels look like, and how strong the borders between them are.

    features = measure(image_HWC3, superpixels_HW)

Shapes: H, W rows and columns; N superpixels; D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_gradient_magnitude
from skimage.color import rgb2lab

__all__ = ["COLOUR_FEATURES", "SuperpixelFeatures", "measure"]

_COLOUR_BINS = 12
_TEXTURE_BINS = 8
# Ranges of L, a and b; the few colours beyond count as the outermost ones.
_LAB_RANGES = ((0.0, 100.0), (-50.0, 50.0), (-50.0, 50.0))
_TEXTURE_SCALES_PX = (1, 2, 4)
_EDGE_SCALES_PX = (1, 2)
# The gradient, in Lab units per pixel times scale, of a border that is as strong as it gets.
_STRONG_EDGE = 25.0

COLOUR_FEATURES = 3 * _COLOUR_BINS


@dataclass(frozen=True, slots=True)
class SuperpixelFeatures:
    """Measurements of superpixels that add up when superpixels are merged.

    Attributes:
        sums_ND: pixels per histogram bin: L, a, b in `COLOUR_FEATURES`, then texture.
        areas_N: in pixels.
        frames_N: pixels on the image's frame, corners twice.
        borders: for each superpixel its neighbours, with length in pixels and summed contrast, 0 to
            1 per pixel, of the common border.
    """

    sums_ND: NDArray[np.float64]
    areas_N: NDArray[np.float64]
    frames_N: NDArray[np.float64]
    borders: Mapping[int, Mapping[int, tuple[float, float]]]

    @property
    def count(self) -> int:
        """How many superpixels there are."""
        return len(self.areas_N)


def measure(image_HWC3: NDArray[np.uint8], superpixels_HW: NDArray[np.intp]) -> SuperpixelFeatures:
    """Measure superpixels.

    Args:
        image_HWC3: uint8 RGB.
        superpixels_HW: a number for each pixel, 0 to N-1, all of them used.
    """
    lab_HWC3 = np.asarray(rgb2lab(image_HWC3), dtype=np.float32)
    count = int(superpixels_HW.max()) + 1
    frame = [superpixels_HW[0], superpixels_HW[-1], superpixels_HW[:, 0], superpixels_HW[:, -1]]
    return SuperpixelFeatures(
        np.concatenate(
            [_histograms(superpixels_HW, bin_HW, bins, count) for bin_HW, bins in _bins(lab_HWC3)],
            axis=1,
        ),
        np.bincount(superpixels_HW.ravel(), minlength=count).astype(np.float64),
        np.bincount(np.concatenate(frame), minlength=count).astype(np.float64),
        _borders(superpixels_HW, _contrast(lab_HWC3), count),
    )


def _bins(lab_HWC3: NDArray[np.float32]) -> list[tuple[NDArray[np.intp], int]]:
    """Sort pixels into bins by colour and by gradient: (bin of each pixel, number of bins)."""
    binned = []
    for channel, (low, high) in enumerate(_LAB_RANGES):
        place = (lab_HWC3[..., channel] - low) / (high - low) * _COLOUR_BINS
        binned.append((np.clip(place, 0, _COLOUR_BINS - 1).astype(np.intp), _COLOUR_BINS))
    for scale_px in _TEXTURE_SCALES_PX:
        gradient = gaussian_gradient_magnitude(lab_HWC3[..., 0], scale_px) * scale_px
        place = 1.5 * np.log2(2 * gradient + 1)
        binned.append((np.clip(place, 0, _TEXTURE_BINS - 1).astype(np.intp), _TEXTURE_BINS))
    return binned


def _histograms(
    superpixels_HW: NDArray[np.intp], bin_HW: NDArray[np.intp], bins: int, count: int
) -> NDArray[np.float64]:
    counts = np.bincount((superpixels_HW * bins + bin_HW).ravel(), minlength=count * bins)
    return counts.reshape(count, bins).astype(np.float64)


def _contrast(lab_HWC3: NDArray[np.float32]) -> NDArray[np.float64]:
    """How strong an edge of colour runs through each pixel: float64 (H, W), 0 to 1."""
    total = np.zeros(lab_HWC3.shape[:2])
    for scale_px in _EDGE_SCALES_PX:
        squares = np.zeros_like(total)
        for channel in range(3):
            squares += gaussian_gradient_magnitude(lab_HWC3[..., channel], scale_px) ** 2
        total += scale_px * np.sqrt(squares)
    return np.minimum(total / len(_EDGE_SCALES_PX) / _STRONG_EDGE, 1)


def _borders(
    superpixels_HW: NDArray[np.intp], contrast_HW: NDArray[np.float64], count: int
) -> dict[int, dict[int, tuple[float, float]]]:
    """Find the neighbours of each superpixel, 4-connected."""
    keys, strengths = [], []
    for one, other in (
        (np.s_[1:], np.s_[:-1]),
        (np.s_[:, 1:], np.s_[:, :-1]),
    ):
        a, b = superpixels_HW[one], superpixels_HW[other]
        differ = a != b
        keys.append((np.minimum(a, b) * count + np.maximum(a, b))[differ])
        strengths.append((contrast_HW[one] + contrast_HW[other])[differ] / 2)
    pairs, pair_of = np.unique(np.concatenate(keys), return_inverse=True)
    lengths = np.bincount(pair_of).tolist()
    totals = np.bincount(pair_of, np.concatenate(strengths)).tolist()
    borders: dict[int, dict[int, tuple[float, float]]] = {i: {} for i in range(count)}
    for pair, length, total in zip(pairs.tolist(), lengths, totals, strict=True):
        a, b = divmod(pair, count)
        borders[a][b] = borders[b][a] = (float(length), float(total))
    return borders
