"""The shape of a mask: its components, its outlines, how deep inside it a pixel lies.

labels_HW, areas = connected_components(mask_HW)
depth_HW = border_distance(mask_HW)
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.errors import BadInputError


def connected_components(
    mask_HW: NDArray[np.bool_] | NDArray[np.uint8],
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Label the 8-connected components of a mask.

    Args:
        mask_HW: bool or uint8 (H, W); whatever is not 0 is foreground.

    Returns:
        (labels int32 (H, W), areas int64 (components + 1,) in pixels). Label 0 is the background,
        its area may be 0.

    Raises:
        BadInputError: another shape or dtype.
    """
    if mask_HW.ndim != 2 or mask_HW.dtype not in (np.bool_, np.uint8):
        raise BadInputError(
            f"expected a bool or uint8 mask of shape (H, W), got {mask_HW.dtype} {mask_HW.shape}"
        )
    if mask_HW.size == 0:
        return np.zeros(mask_HW.shape, dtype=np.int32), np.zeros(1, dtype=np.int64)
    foreground = np.ascontiguousarray(mask_HW).view(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        foreground, connectivity=8, ltype=cv2.CV_32S
    )
    areas = np.asarray(stats[:count, cv2.CC_STAT_AREA], dtype=np.int64)
    return np.asarray(labels, dtype=np.int32), areas


def mask_contours(
    mask_HW: NDArray[np.bool_] | NDArray[np.uint8], tolerance_px: float = 0.0
) -> list[NDArray[np.int32]]:
    """Trace the outlines of a mask's 8-connected components and of their holes.

    Args:
        mask_HW: bool or uint8 (H, W); whatever is not 0 is foreground.
        tolerance_px: drop vertices while the outline stays this close (Douglas-Peucker).

    Returns:
        One int32 (K, 2) of (x, y) per outline, K >= 1, implicitly closed: the foreground pixels on
        the border, columns and rows of `mask_HW`. Filled by the even-odd rule, with the outlines
        themselves, they give the mask.

    Raises:
        BadInputError: another shape or dtype, or a negative tolerance.
    """
    if mask_HW.ndim != 2 or mask_HW.dtype not in (np.bool_, np.uint8) or not tolerance_px >= 0:
        raise BadInputError(
            "expected a bool or uint8 mask of shape (H, W) and a tolerance of at least 0 px, got "
            f"{mask_HW.dtype} {mask_HW.shape} and {tolerance_px}"
        )
    if mask_HW.size == 0:
        return []
    foreground = np.ascontiguousarray(mask_HW).view(np.uint8)
    contours, _ = cv2.findContours(foreground, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if tolerance_px > 0:
        contours = [cv2.approxPolyDP(contour, tolerance_px, True) for contour in contours]
    return [np.asarray(contour, dtype=np.int32).reshape(-1, 2) for contour in contours]


def border_distance(mask_HW: NDArray[np.bool_]) -> NDArray[np.float32]:
    """How far each mask pixel is from all that is not the mask; the image's edge counts as border.

    Args:
        mask_HW: bool (H, W).

    Returns:
        float32 (H, W), Euclidean, in pixels: 1 for a mask pixel beside the border, 0 outside.

    Raises:
        BadInputError: another shape or dtype.
    """
    if mask_HW.ndim != 2 or mask_HW.dtype != np.bool_:
        raise BadInputError(
            f"expected a bool mask of shape (H, W), got {mask_HW.dtype} {mask_HW.shape}"
        )
    distance_HW = np.zeros(mask_HW.shape, dtype=np.float32)
    rows, columns = np.flatnonzero(mask_HW.any(1)), np.flatnonzero(mask_HW.any(0))
    if not len(rows):
        return distance_HW
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    padded = np.pad(mask_HW[box], 1).view(np.uint8)
    inside = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    distance_HW[box] = inside[1:-1, 1:-1]
    return distance_HW


def tilt(
    levels_HWC: NDArray[np.uint8], degrees: float, fill: tuple[float, ...]
) -> NDArray[np.uint8]:
    """Turn an image about its middle; what was outside gets the colour `fill`.

    Args:
        levels_HWC: uint8, at most 4 channels.
        degrees: counter-clockwise as seen.
        fill: one level for each channel.
    """
    height, width = levels_HWC.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    turned = cv2.warpAffine(
        levels_HWC, turn, (width, height), flags=cv2.INTER_LINEAR, borderValue=fill
    )
    return np.asarray(turned, dtype=np.uint8).reshape(levels_HWC.shape)
