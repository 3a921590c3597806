"""Measure drawn masks at full resolution: how stable, where, how large.

    for mask in measure_masks(logits_Mhw, frame, offset=1.0, stability_thresh=0.95):
        if mask is not None:
            mask.stability, mask.region, mask.area, mask.kept.draw()

The only step between the model's low-resolution logits and masks as pixels. What it returns lives
on the processor, wherever the logits are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from engine.automatic.filters import is_stable, stability_score
from engine.masks import encode_region
from engine.records import Rle
from model import Frame, Region, cut_window, upsample_window
from model.thresholding import ThresholdedMasks, threshold_masks

# What is known of a mask before it is counted takes a bit a pixel: 4 MB, 100 masks of 640 x 480.
_PIXELS_AT_ONCE = 2**25


class KeptMask(Protocol):
    """A mask in few bytes until it is known whether it stays."""

    def draw(self) -> NDArray[np.bool_]:
        """Return its pixels inside its region."""
        ...

    def encode(self, x0: int, y0: int, height: int, width: int) -> Rle:
        """Return its RLE in an image of a size, with its region's corner at (x0, y0)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredMask:
    """A mask that is stable and not empty.

    Attributes:
        region: its tight box in pixels of the crop.
        area: number of mask pixels.
        stability: see `stability_score`.
        kept: its pixels inside the region.
    """

    region: Region
    area: int
    stability: np.float32
    kept: KeptMask


@dataclass(frozen=True, slots=True, eq=False)
class MaskWindow:
    """A mask kept as the low-resolution logits that it depends on: large images, many pixels."""

    window_hw: NDArray[np.float32]
    frame: Frame
    region: Region

    def draw(self) -> NDArray[np.bool_]:
        """Return its pixels inside its region."""
        return upsample_window(self.window_hw, self.frame, self.region) > 0

    def encode(self, x0: int, y0: int, height: int, width: int) -> Rle:
        """Return its RLE in an image of a size, with its region's corner at (x0, y0)."""
        return encode_region(self.draw(), x0, y0, height, width)


@dataclass(frozen=True, slots=True, eq=False)
class PackedMask:
    """A mask kept as its pixels, a bit each.

    Attributes:
        bits_Wb: uint8, a row for each column of the region; its bits go down, lowest first.
        skipped: bits before the region's first row.
        height: of the region.
    """

    bits_Wb: NDArray[np.uint8]
    skipped: int
    height: int

    def draw(self) -> NDArray[np.bool_]:
        """Return its pixels inside its region."""
        rows = slice(self.skipped, self.skipped + self.height)
        bits_WH = np.unpackbits(self.bits_Wb, axis=1, bitorder="little")[:, rows]
        return bits_WH.view(np.bool_).T

    def encode(self, x0: int, y0: int, height: int, width: int) -> Rle:
        """Return its RLE in an image of a size, with its region's corner at (x0, y0)."""
        return encode_region(self.draw(), x0, y0, height, width)


def measure_masks(
    logits_Mhw: Tensor, frame: Frame, *, offset: float, stability_thresh: float
) -> list[MeasuredMask | None]:
    """Measure masks at the crop's original size.

    Args:
        logits_Mhw: float32 low-resolution logits.
        frame: how the crop was laid into the model's input.
        offset: distance of the two stability thresholds from the mask threshold 0.
        stability_thresh: see `is_stable`.

    Returns:
        For each mask what was measured, or None where it is unstable or empty.
    """
    logits = logits_Mhw.cpu().numpy()
    height, width = frame.original_size
    at_once = max(1, _PIXELS_AT_ONCE // (height * width))
    return [
        mask
        for start in range(0, len(logits), at_once)
        for mask in _measured(logits[start : start + at_once], frame, offset, stability_thresh)
    ]


def _measured(
    logits_Mhw: NDArray[np.float32], frame: Frame, offset: float, stability_thresh: float
) -> Iterator[MeasuredMask | None]:
    masks = threshold_masks(logits_Mhw, frame, offset)
    regions = masks.regions()
    for i, region in enumerate(regions):
        stability = stability_score(int(masks.high_M[i]), int(masks.low_M[i]))
        if region is None or not is_stable(stability, stability_thresh):
            yield None
            continue
        yield MeasuredMask(
            region=region,
            area=int(masks.area_M[i]),
            stability=stability,
            kept=_kept(logits_Mhw[i], masks, i, frame, region),
        )


def _kept(
    logits_hw: NDArray[np.float32],
    masks: ThresholdedMasks,
    index: int,
    frame: Frame,
    region: Region,
) -> KeptMask:
    """Keep a mask as its logits or its pixels, whichever are fewer bytes."""
    window_hw = cut_window(logits_hw, frame, region)
    rows = masks.rows_of_a_strip
    first, last = region.y0 // rows, (region.y1 - 1) // rows
    words_bW = masks.strips_BMW[first : last + 1, index, region.x0 : region.x1]
    if words_bW.nbytes > window_hw.nbytes:
        return MaskWindow(window_hw, frame, region)
    return PackedMask(
        bits_Wb=np.ascontiguousarray(words_bW.T).view(np.uint8),
        skipped=region.y0 - first * rows,
        height=region.y1 - region.y0,
    )
