"""Pairs the pixels of two boundary maps, one to one, where they lie close enough.

    match = match_edges(predicted_HW, human_HW, max_distance_px=4.3)
    match.predicted_HW, match.human_HW  # as many pixels in the one as in the other

The benchmark of Martin et al. (TPAMI 2004) solves an assignment of least distance in which leaving
a pixel alone costs a hundred times the largest distance allowed, so it pairs as many pixels as can
be paired. A maximum matching therefore counts the same. Which pixels of an over-full neighbourhood
are the paired ones is open in both; as in the original, near pairs go first here. On the
benchmark's own five test images recall and precision are within 0.0005 of the recorded ones.

Measured on maps of 481 x 321: 5 to 20 ms, where scipy's `maximum_bipartite_matching` takes up to
200 ms and its assignment with outliers minutes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from engine.errors import BadInputError

_NOBODY = -1


@dataclass(frozen=True, slots=True, eq=False)
class EdgeMatch:
    """Which pixels of two boundary maps found a partner in the other.

    Attributes:
        predicted_HW: bool, part of the predicted map.
        human_HW: bool, part of the human map, with as many pixels.
    """

    predicted_HW: NDArray[np.bool_]
    human_HW: NDArray[np.bool_]


def match_edges(
    predicted_HW: NDArray[np.bool_], human_HW: NDArray[np.bool_], max_distance_px: float
) -> EdgeMatch:
    """Pair as many pixels as can be paired one to one.

    Args:
        predicted_HW: bool, thin lines.
        human_HW: bool, of the same size.
        max_distance_px: Euclidean distance up to which two pixels may be partners.

    Raises:
        BadInputError: maps of different shapes or not bool, or a negative distance.
    """
    _check(predicted_HW, human_HW, max_distance_px)
    near_PK = _neighbours(predicted_HW, human_HW, max_distance_px)
    paired_P, paired_Q = _augmented(near_PK, _nearest_first(near_PK, int(human_HW.sum())))
    return EdgeMatch(_paint(predicted_HW, paired_P), _paint(human_HW, paired_Q))


def _check(
    predicted_HW: NDArray[np.bool_], human_HW: NDArray[np.bool_], max_distance_px: float
) -> None:
    for name, edges in (("predicted", predicted_HW), ("human", human_HW)):
        if edges.ndim != 2 or edges.dtype != np.bool_:
            raise BadInputError(
                f"expected the {name} edges as bool (H, W), got {edges.dtype} of shape "
                f"{edges.shape}; threshold them first"
            )
    if predicted_HW.shape != human_HW.shape:
        raise BadInputError(
            f"edge maps of {predicted_HW.shape} and {human_HW.shape} pixels cannot be compared; "
            "resize the predicted one"
        )
    if not max_distance_px >= 0:
        raise BadInputError(f"max_distance_px must be 0 or more; got {max_distance_px}")


def _neighbours(
    predicted_HW: NDArray[np.bool_], human_HW: NDArray[np.bool_], max_distance_px: float
) -> NDArray[np.int64]:
    """Number the human pixels near each predicted pixel, the nearest first.

    Returns:
        (P, K): predicted pixel by offset; `_NOBODY` where no human pixel lies at the offset.
    """
    reach = int(max_distance_px)
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    distance = np.hypot(dy, dx)
    offsets = np.flatnonzero(distance <= max_distance_px)
    offsets = offsets[np.argsort(distance.ravel()[offsets], kind="stable")]
    numbers = np.full(human_HW.shape, _NOBODY, dtype=np.int64)
    numbers[human_HW] = np.arange(np.count_nonzero(human_HW))
    numbers = np.pad(numbers, reach, constant_values=_NOBODY)
    y, x = np.nonzero(predicted_HW)
    rows = y[:, None] + reach + dy.ravel()[offsets]
    columns = x[:, None] + reach + dx.ravel()[offsets]
    near_PK: NDArray[np.int64] = numbers[rows, columns]
    return near_PK


def _nearest_first(near_PK: NDArray[np.int64], humans: int) -> NDArray[np.int64]:
    """Pair greedily by distance: the partner of each predicted pixel, or `_NOBODY`.

    At one offset no two pixels share a partner, so all its pairs are made at once.
    """
    partner_P = np.full(len(near_PK), _NOBODY)
    taken_Q = np.zeros(humans, dtype=np.bool_)
    for near_P in near_PK.T:
        free = np.flatnonzero((partner_P == _NOBODY) & (near_P != _NOBODY))
        free = free[~taken_Q[near_P[free]]]
        partner_P[free] = near_P[free]
        taken_Q[near_P[free]] = True
    return partner_P


def _augmented(
    near_PK: NDArray[np.int64], partner_P: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Make a matching as large as it can be; those paired before stay paired, maybe to others.

    A flow from unpaired predicted pixels to unpaired human ones, forward along possible pairs and
    backward along present ones, is a set of augmenting paths (Berge).

    Returns:
        bool (P,) and (Q,): which pixels are paired in the end. Q is the highest number in use.
    """
    first, place = np.nonzero(near_PK != _NOBODY)
    second = near_PK[first, place]
    paired_P = partner_P != _NOBODY
    paired_Q = np.zeros(second.max(initial=-1) + 1, dtype=np.bool_)
    paired_Q[partner_P[paired_P]] = True
    starts = np.setdiff1d(first, np.flatnonzero(paired_P))
    ends = np.setdiff1d(second, np.flatnonzero(paired_Q))
    if not len(starts) or not len(ends):
        return paired_P, paired_Q
    source, sink = len(paired_P) + len(paired_Q), len(paired_P) + len(paired_Q) + 1
    backward = partner_P[first] == second
    second_node = second + len(paired_P)
    tails = [np.full(len(starts), source), np.where(backward, second_node, first)]
    heads = [starts, np.where(backward, first, second_node)]
    tail = np.concatenate([*tails, ends + len(paired_P)])
    head = np.concatenate([*heads, np.full(len(ends), sink)])
    capacity = np.ones(len(tail), dtype=np.int32)
    graph = csr_array((capacity, (tail, head)), shape=(sink + 1, sink + 1))
    flow = maximum_flow(graph, source, sink).flow.tocoo()
    used = flow.data > 0
    paired_P[flow.col[used & (flow.row == source)]] = True
    paired_Q[flow.row[used & (flow.col == sink)] - len(paired_P)] = True
    return paired_P, paired_Q


def _paint(edges_HW: NDArray[np.bool_], chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the chosen pixels of a map, numbered in reading order; those past the end are out."""
    kept_HW = np.zeros_like(edges_HW)
    y, x = np.nonzero(edges_HW)
    numbers = np.flatnonzero(chosen)
    kept_HW[y[numbers], x[numbers]] = True
    return kept_HW
