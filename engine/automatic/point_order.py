"""Which points of a crop's grid to prompt, in what order: all of them, or where masks may be new.

    for chosen in point_rounds(grid, crop, found, config):
        found += prompted(grid[chosen])

A mask that is large for the grid is hit by a quarter of the points too. What a coarse grid misses
is small, and small things come together: twigs, windows, faces in a crowd. So a quarter of the
points goes first, then a quarter, then half, and a point of the later rounds is prompted only if a
small mask was found within a step of it. In a crop of the image, where coarser crops have been
before, that holds for the first round too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.automatic.config import AutomaticConfig
from engine.automatic.crops import Crop
from engine.automatic.nms import box_nms


class Found(Protocol):
    """What is asked of a mask that was found."""

    @property
    def box_xyxy(self) -> tuple[int, int, int, int]:
        """Inclusive box in pixels of the image."""
        ...

    @property
    def predicted_iou(self) -> np.float32:
        """By the model."""
        ...


def point_rounds(
    grid: NDArray[np.float64], crop: Crop, found: Sequence[Found], config: AutomaticConfig
) -> Iterator[NDArray[np.int64]]:
    """Yield indices of grid points to prompt together.

    Args:
        grid: (P, 2), see `point_grid`.
        crop: where the grid lies.
        found: the image's masks so far; the caller adds what a round gave before it asks again.
        config: `adaptive_cells` chooses between `everywhere` and `where_new`.
    """
    if config.adaptive_cells > 0:
        return where_new(
            grid, crop, found, cells=config.adaptive_cells, box_nms_thresh=config.box_nms_thresh
        )
    return everywhere(grid)


def everywhere(grid: NDArray[np.float64]) -> Iterator[NDArray[np.int64]]:
    """Yield all points at once, in the grid's order."""
    yield np.arange(len(grid))


def where_new(
    grid: NDArray[np.float64],
    crop: Crop,
    found: Sequence[Found],
    *,
    cells: int,
    box_nms_thresh: float,
) -> Iterator[NDArray[np.int64]]:
    """Yield every second point in both directions, then the points between them near small masks.

    Args:
        grid: (side * side, 2), see `point_grid`.
        crop: where the grid lies.
        found: the image's masks so far, see `point_rounds`.
        cells: a mask is small if its box is below this many cells of the grid.
        box_nms_thresh: found masks that a better one suppresses do not count.
    """
    row, column = np.divmod(np.arange(len(grid)), max(math.isqrt(len(grid)), 1))
    odd_row, odd_column = row % 2 == 1, column % 2 == 1
    first, second, third = (
        np.flatnonzero(chosen)
        for chosen in (~odd_row & ~odd_column, odd_row & odd_column, odd_row ^ odd_column)
    )
    if crop.layer == 0:
        yield first
    else:
        yield first[_near_small(grid, crop, found, cells, box_nms_thresh)[first]]
    for points in (second, third):
        yield points[_near_small(grid, crop, found, cells, box_nms_thresh)[points]]


def crop_rounds(
    crops: Sequence[Crop],
    grids: Sequence[NDArray[np.float64]],
    found: Sequence[Found],
    config: AutomaticConfig,
) -> Iterator[list[Crop]]:
    """Yield crops to prompt together: all, or of each layer those that have a point to prompt.

    Args:
        crops: the whole image's first.
        grids: of each layer.
        found: the image's masks so far; the caller adds what crops gave before it asks again.
        config: `adaptive_cells` chooses.
    """
    cells, thresh = config.adaptive_cells, config.box_nms_thresh
    if not cells:
        yield list(crops)
        return
    for layer, grid in enumerate(grids):
        some = [
            crop
            for crop in crops
            if crop.layer == layer
            and (layer == 0 or _near_small(grid, crop, found, cells, thresh).any())
        ]
        if some:
            yield some


def _near_small(
    grid: NDArray[np.float64],
    crop: Crop,
    found: Sequence[Found],
    cells: int,
    box_nms_thresh: float,
) -> NDArray[np.bool_]:
    """Tell which grid points lie in the box of a small mask, or within a step of it."""
    side = math.isqrt(len(grid))
    boxes_F4 = _boxes_in_steps(_best_boxes(found, box_nms_thresh), crop, side)
    low_F2, high_F2 = boxes_F4[:, :2], boxes_F4[:, 2:]
    small = (high_F2 - low_F2).prod(axis=1) < cells
    low_F2, high_F2 = low_F2[small] - 1, high_F2[small] + 1
    points_P12 = (grid * side)[:, None]
    inside_PF = ((points_P12 >= low_F2) & (points_P12 <= high_F2)).all(axis=2)
    near: NDArray[np.bool_] = inside_PF.any(axis=1)
    return near


def _best_boxes(found: Sequence[Found], box_nms_thresh: float) -> NDArray[np.float32]:
    """Return the boxes that would stay if this were all."""
    boxes_F4 = np.array([one.box_xyxy for one in found], dtype=np.float32).reshape(-1, 4)
    scores = np.array([one.predicted_iou for one in found], dtype=np.float32)
    return boxes_F4[box_nms(boxes_F4, scores, box_nms_thresh)]


def _boxes_in_steps(boxes_F4: NDArray[np.float32], crop: Crop, side: int) -> NDArray[np.float64]:
    """Measure boxes in steps of the grid from the crop's corner, their last pixel included."""
    height, width = crop.size
    corner = np.array([crop.x0, crop.y0, crop.x0 - 1, crop.y0 - 1])
    steps: NDArray[np.float64] = (boxes_F4 - corner) * (
        side / np.array([width, height, width, height])
    )
    return steps
