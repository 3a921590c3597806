"""GrabCut: a foreground by colour statistics and a graph cut, from a few hints.

    hints_HW = np.full(image_HWC3.shape[:2], Hint.MAYBE_BACKGROUND, dtype=np.uint8)
    hints_HW[100:200, 80:160] = Hint.MAYBE_FOREGROUND
    mask_HW = grabcut(image_HWC3, hints_HW)

Source: Rother, Kolmogorov, Blake: GrabCut, SIGGRAPH 2004; OpenCV's implementation.
"""

from __future__ import annotations

from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.errors import BadInputError


class Hint(IntEnum):
    """What is known of a pixel beforehand."""

    BACKGROUND = cv2.GC_BGD
    FOREGROUND = cv2.GC_FGD
    MAYBE_BACKGROUND = cv2.GC_PR_BGD
    MAYBE_FOREGROUND = cv2.GC_PR_FGD


def grabcut(
    image_HWC3: NDArray[np.uint8], hints_HW: NDArray[np.uint8], iterations: int = 1
) -> NDArray[np.bool_]:
    """Cut out the foreground.

    Args:
        image_HWC3: uint8 RGB.
        hints_HW: a `Hint` for every pixel. Without any foreground or any background among them
            there is nothing to learn colours from, and the hints are the answer.
        iterations: of learning the colours and cutting.

    Returns:
        bool (H, W). The same for the same input: OpenCV's random start is fixed here.

    Raises:
        BadInputError: other shapes or dtypes, an unknown hint, or `iterations` below 1.
    """
    if image_HWC3.dtype != np.uint8 or image_HWC3.ndim != 3 or image_HWC3.shape[2] != 3:
        raise BadInputError(f"expected uint8 (H, W, 3), got {image_HWC3.dtype} {image_HWC3.shape}")
    if hints_HW.dtype != np.uint8 or hints_HW.shape != image_HWC3.shape[:2]:
        raise BadInputError(
            f"expected uint8 hints of shape {image_HWC3.shape[:2]}, got {hints_HW.dtype} "
            f"{hints_HW.shape}"
        )
    if iterations < 1 or hints_HW.size == 0 or hints_HW.max() > max(Hint):
        raise BadInputError(
            f"expected an image with pixels, hints of {min(Hint)} to {max(Hint)} and at least one "
            f"iteration, got shape {hints_HW.shape} and {iterations} iterations"
        )
    foreground = (hints_HW == Hint.FOREGROUND) | (hints_HW == Hint.MAYBE_FOREGROUND)
    if foreground.all() or not foreground.any():
        return np.asarray(foreground, dtype=np.bool_)
    cv2.setRNGSeed(0)
    labels = hints_HW.copy()
    models = np.zeros((2, 1, 65), dtype=np.float64)
    cv2.grabCut(
        np.ascontiguousarray(image_HWC3),
        labels,
        None,
        models[0],
        models[1],
        iterations,
        cv2.GC_INIT_WITH_MASK,
    )
    return np.asarray((labels == Hint.FOREGROUND) | (labels == Hint.MAYBE_FOREGROUND))
