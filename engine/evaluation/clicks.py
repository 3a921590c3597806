"""Where a simulated annotator clicks: into the middle of what is wanted, then of what is wrong.

The standard protocol of interactive segmentation (Sofiiuk et al., RITM, 2021; Segment Anything,
appendix D.1): a click lies where its region is farthest from the region's border.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadInputError
from engine.images import border_distance
from model.evaluate import Click
from model.types import BACKGROUND, FOREGROUND


def centre_clicks(wanted_NHW: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Find the pixel of each mask that is farthest from its border: (N, 2) xy.

    Raises:
        BadInputError: an empty mask.
    """
    _check_not_empty(wanted_NHW)
    return np.array([_deepest(border_distance(mask))[:2] for mask in wanted_NHW], dtype=np.float64)


def random_clicks(
    wanted_NHW: NDArray[np.bool_], random: np.random.Generator
) -> NDArray[np.float64]:
    """Draw a pixel of each mask, uniformly: (N, 2) xy.

    Raises:
        BadInputError: an empty mask.
    """
    _check_not_empty(wanted_NHW)
    drawn = []
    for mask_HW in wanted_NHW:
        ys, xs = np.nonzero(mask_HW)
        pixel = random.integers(len(ys))
        drawn.append((xs[pixel], ys[pixel]))
    return np.array(drawn, dtype=np.float64)


def corrective_click(
    wanted_HW: NDArray[np.bool_], answer_HW: NDArray[np.bool_], clicked_K2: NDArray[np.float64]
) -> Click:
    """Click into the middle of the largest mistake: what was missed, or what was taken too much.

    No pixel is clicked twice. An answer without a mistake gets one more click into the mask, as far
    from its border as the clicks before allow.
    """
    missed = _unclicked(border_distance(wanted_HW & ~answer_HW), clicked_K2)
    excess = _unclicked(border_distance(answer_HW & ~wanted_HW), clicked_K2)
    missed_x, missed_y, missed_depth = _deepest(missed)
    excess_x, excess_y, excess_depth = _deepest(excess)
    if max(missed_depth, excess_depth) == 0:
        x, y, _ = _deepest(_unclicked(border_distance(wanted_HW), clicked_K2))
        return Click(x, y, FOREGROUND)
    if missed_depth >= excess_depth:
        return Click(missed_x, missed_y, FOREGROUND)
    return Click(excess_x, excess_y, BACKGROUND)


def _deepest(distance_HW: NDArray[np.float32]) -> tuple[int, int, float]:
    y, x = np.unravel_index(int(distance_HW.argmax()), distance_HW.shape)
    return int(x), int(y), float(distance_HW[y, x])


def _unclicked(
    distance_HW: NDArray[np.float32], clicked_K2: NDArray[np.float64]
) -> NDArray[np.float32]:
    x, y = clicked_K2.astype(np.intp).T
    distance_HW[y, x] = 0
    return distance_HW


def _check_not_empty(masks_NHW: NDArray[np.bool_]) -> None:
    if not masks_NHW.any((1, 2)).all():
        raise BadInputError("cannot click into an empty mask; leave empty masks out")
