"""Removing what a person would not have drawn: specks beside a mask and pinholes in it.

Works on the part of the image that the mask's box covers; `working_region` widens that part to the
whole image in the rare cases where what lies outside decides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.images import connected_components
from model import Region


@dataclass(frozen=True, slots=True)
class OpenSides:
    """Sides of a region beyond which the image goes on, with a background that is no small hole."""

    top: bool
    bottom: bool
    left: bool
    right: bool


def working_region(
    box_xyxy: tuple[int, int, int, int], height: int, width: int, min_area: int
) -> tuple[Region, OpenSides]:
    """Choose the part of an image to clean a mask in: its box, or everything.

    The box is enough when all that lies outside is one background of at least `min_area` pixels.

    Args:
        box_xyxy: the mask's box, inclusive corners.
        height: of the image in pixels.
        width: of the image in pixels.
        min_area: holes below this many pixels will be filled.
    """
    x0, y0, x1, y1 = box_xyxy
    top, bottom, left, right = y0 > 0, y1 < height - 1, x0 > 0, x1 < width - 1
    apart = (top and bottom and not (left or right)) or (left and right and not (top or bottom))
    outside = height * width - (x1 - x0 + 1) * (y1 - y0 + 1)
    if apart or outside < min_area:
        return Region(0, height, 0, width), OpenSides(False, False, False, False)
    return Region(y0, y1 + 1, x0, x1 + 1), OpenSides(top, bottom, left, right)


def fill_small_holes(
    mask_hw: NDArray[np.bool_], min_area: int, open_sides: OpenSides
) -> tuple[NDArray[np.bool_], bool]:
    """Fill background components (8-connected) of fewer than `min_area` pixels.

    Args:
        mask_hw: the mask inside its working region.
        min_area: in pixels.
        open_sides: background that reaches these sides is never a hole.

    Returns:
        The mask and whether it changed.
    """
    height, width = mask_hw.shape
    top, left = int(open_sides.top), int(open_sides.left)
    pads = ((top, int(open_sides.bottom)), (left, int(open_sides.right)))
    labels, areas = connected_components(np.pad(~mask_hw, pads, constant_values=True))
    small = areas < min_area
    small[0] = False
    for is_open, side in (
        (open_sides.top, labels[0]),
        (open_sides.bottom, labels[-1]),
        (open_sides.left, labels[:, 0]),
        (open_sides.right, labels[:, -1]),
    ):
        if is_open:
            small[side] = False
    if not small.any():
        return mask_hw, False
    holes = small[labels[top : top + height, left : left + width]]
    return mask_hw | holes, True


def remove_small_islands(
    mask_hw: NDArray[np.bool_], min_area: int
) -> tuple[NDArray[np.bool_], bool, int]:
    """Remove components (8-connected) of fewer than `min_area` pixels; the largest always stays.

    Returns:
        The mask, whether it changed, and the area of its largest component.
    """
    labels, areas = connected_components(mask_hw)
    islands = areas[1:]
    if not len(islands):
        return mask_hw, False, 0
    largest = int(islands.max())
    small = islands < min_area
    if not small.any():
        return mask_hw, False, largest
    keep = np.concatenate([[False], ~small])
    if not keep.any():
        keep[1 + int(islands.argmax())] = True
    return keep[labels], True, largest
