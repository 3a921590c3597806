"""Regular grids of point prompts, one for each crop layer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def point_grid(points_per_side: int) -> NDArray[np.float64]:
    """Spread points evenly over the unit square, half a step from its border.

    Returns:
        (points_per_side**2, 2), (x, y) in 0..1, x fastest.
    """
    half_step = 1 / (2 * points_per_side)
    along = np.linspace(half_step, 1 - half_step, points_per_side)
    x, y = np.meshgrid(along, along)
    return np.stack([x.ravel(), y.ravel()], axis=-1)


def layer_point_grids(
    points_per_side: int, crop_n_layers: int, downscale_factor: int
) -> list[NDArray[np.float64]]:
    """Return the grid of every layer, the whole image's first; an empty grid where none is left."""
    sides = [int(points_per_side / downscale_factor**layer) for layer in range(crop_n_layers + 1)]
    return [point_grid(side) if side else np.empty((0, 2)) for side in sides]
