"""Brush and eraser: the pixels of a stroke, and the stroke that mends the largest mistake.

    painted_HW = answer_HW | stroke_mask(stroke.points_P2, stroke.radius_px, answer_HW.shape)

Coordinates are pixels of the image, x to the right; pixel i covers [i, i + 1), so its centre is at
i + 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.images import border_distance

__all__ = ["Stroke", "mending_stroke", "stroke_mask"]

# A person paints a mistake with a brush that fits into it almost everywhere.
_FIT = 0.7
_SMALLEST_RADIUS_PX = 1.5
_MAX_POINTS = 24


@dataclass(frozen=True, slots=True, eq=False)
class Stroke:
    """One movement of the brush or the eraser.

    Attributes:
        mode: what it does to the mask.
        radius_px: of the round tip.
        points_P2: float64 xy along the movement, at least one.
    """

    mode: Literal["brush", "eraser"]
    radius_px: float
    points_P2: NDArray[np.float64]

    @property
    def length_px(self) -> float:
        """How far the tip moves."""
        steps: NDArray[np.float64] = np.diff(self.points_P2, axis=0)
        return float(np.hypot(steps[:, 0], steps[:, 1]).sum())

    @property
    def pieces(self) -> int:
        """How many straight lines it amounts to: one more for every 45 degrees that it turns."""
        steps: NDArray[np.float64] = np.diff(self.points_P2, axis=0)
        headings = np.unwrap(np.arctan2(steps[:, 1], steps[:, 0]))
        return 1 + round(float(np.abs(np.diff(headings)).sum()) / (np.pi / 4))

    def apply(self, mask_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the mask after the stroke."""
        touched_HW = stroke_mask(self.points_P2, self.radius_px, mask_HW.shape)
        return mask_HW | touched_HW if self.mode == "brush" else mask_HW & ~touched_HW


def stroke_mask(
    points_P2: NDArray[np.float64], radius_px: float, size: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Draw a polyline with a round tip: pixels whose centre is within the radius of it.

    Args:
        points_P2: xy, at least one.
        radius_px: of the tip.
        size: (height, width) of the image.

    Returns:
        bool (H, W).
    """
    height, width = size
    drawn_HW = np.zeros((height, width), dtype=np.bool_)
    ends = points_P2[1:] if len(points_P2) > 1 else points_P2
    for start, end in zip(points_P2[: len(ends)], ends, strict=True):
        low = np.floor(np.minimum(start, end) - radius_px).astype(int)
        high = np.ceil(np.maximum(start, end) + radius_px).astype(int)
        (x0, y0), (x1, y1) = low.clip(0), np.minimum(high, (width, height))
        if x0 >= x1 or y0 >= y1:
            continue
        x = np.arange(x0, x1)[None, :] + 0.5 - start[0]
        y = np.arange(y0, y1)[:, None] + 0.5 - start[1]
        along = end - start
        share = (x * along[0] + y * along[1]) / max(float(along @ along), 1e-12)
        share = share.clip(0, 1)
        apart = (x - share * along[0]) ** 2 + (y - share * along[1]) ** 2
        drawn_HW[y0:y1, x0:x1] |= apart <= radius_px**2
    return drawn_HW


def mending_stroke(wanted_HW: NDArray[np.bool_], answer_HW: NDArray[np.bool_]) -> Stroke | None:
    """Find the stroke that a person would mend the thickest mistake with.

    The brush adds what was missed, the eraser takes away what is too much. The tip is nearly as
    wide as the mistake and is drawn along its length.

    Returns:
        None where there is no mistake.
    """
    missed_HW = border_distance(wanted_HW & ~answer_HW)
    excess_HW = border_distance(answer_HW & ~wanted_HW)
    if missed_HW.max() == excess_HW.max() == 0:
        return None
    if missed_HW.max() >= excess_HW.max():
        return _stroke_through(missed_HW, "brush")
    return _stroke_through(excess_HW, "eraser")


def _stroke_through(depth_HW: NDArray[np.float32], mode: Literal["brush", "eraser"]) -> Stroke:
    """Draw from the deepest pixel along the thick part of the region, both ways."""
    radius = max(_SMALLEST_RADIUS_PX, float(depth_HW.max()) * _FIT)
    ys, xs = np.nonzero(depth_HW >= min(radius, float(depth_HW.max())))
    centres_P2 = np.stack([xs, ys], axis=1).astype(np.float64) + 0.5
    depth_P = depth_HW[ys, xs]
    left_P = np.ones(len(centres_P2), dtype=np.bool_)
    begin = int(depth_P.argmax())
    forth = _walk(begin, centres_P2, depth_P, left_P, radius)
    back = _walk(begin, centres_P2, depth_P, left_P, radius)
    return Stroke(mode, round(radius, 2), centres_P2[[*reversed(back[1:]), *forth]])


def _walk(
    begin: int,
    centres_P2: NDArray[np.float64],
    depth_P: NDArray[np.float32],
    left_P: NDArray[np.bool_],
    radius: float,
) -> list[int]:
    """Step to the deepest pixel nearby that was not passed yet, until there is none."""
    path = [begin]
    while len(path) < _MAX_POINTS:
        apart_P = np.hypot(*(centres_P2 - centres_P2[path[-1]]).T)
        left_P &= apart_P > radius
        near_P = np.flatnonzero(left_P & (apart_P <= 2 * radius + 1))
        if not len(near_P):
            break
        path.append(int(near_P[depth_P[near_P].argmax()]))
    return path
