"""What makes a mask worth keeping: predicted IoU, stability, distance from crop edges, size.

Comparisons with float32 scores happen in float32, as the public generator does them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.automatic.crops import Crop

EDGE_TOLERANCE_PX = 20


def above_iou(iou: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """Tell which predicted IoUs pass; a threshold of 0 lets all pass."""
    return iou > np.float32(threshold) if threshold > 0 else np.ones(iou.shape, dtype=bool)


def stability_score(high_area: int, low_area: int) -> np.float32:
    """IoU of the masks at an offset above and below the mask threshold; 0 where both are empty.

    Args:
        high_area: pixels above the higher threshold.
        low_area: pixels above the lower one.
    """
    return np.float32(high_area) / np.float32(low_area) if low_area else np.float32(0)


def is_stable(score: np.float32, threshold: float) -> bool:
    """Tell whether a stability score passes; a threshold of 0 lets all pass."""
    return bool(score >= np.float32(threshold)) if threshold > 0 else True


def touches_crop_edge(
    box_xyxy: tuple[int, int, int, int], crop: Crop, height: int, width: int
) -> bool:
    """Tell whether a box ends at a side of its crop that is not a side of the image.

    Such a mask was probably cut off; a neighbouring or larger crop shows it whole.

    Args:
        box_xyxy: in pixels of the image, inclusive corners.
        crop: where the mask was found.
        height: of the image in pixels.
        width: of the image in pixels.
    """
    crop_sides = (crop.x0, crop.y0, crop.x1, crop.y1)
    image_sides = (0, 0, width, height)
    return any(
        abs(side - crop_side) <= EDGE_TOLERANCE_PX and abs(side - image_side) > EDGE_TOLERANCE_PX
        for side, crop_side, image_side in zip(box_xyxy, crop_sides, image_sides, strict=True)
    )


def tight_box(mask_hw: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """Return the inclusive box (x0, y0, x1, y1) of a mask, None if it is empty."""
    rows = np.flatnonzero(mask_hw.any(axis=1))
    if not len(rows):
        return None
    columns = np.flatnonzero(mask_hw.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])
