"""Pairs of boundary pixels: as many as there can be, never too far apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from engine.errors import BadInputError
from engine.evaluation.edge_matching import match_edges

TINY = (4, 5)
tiny_maps = arrays(np.bool_, TINY)
distances = st.sampled_from([0.0, 0.9, 1.0, 1.5, 2.0, 2.3, 9.0])


def most_pairs(
    predicted: NDArray[np.bool_], human: NDArray[np.bool_], max_distance_px: float
) -> int:
    """Try every partner for every pixel, by Kuhn's recursion without any of our shortcuts."""
    points = np.argwhere(predicted)
    targets = np.argwhere(human)
    partner: dict[int, int] = {}

    def find(i: int, seen: set[int]) -> bool:
        for j, target in enumerate(targets):
            near = np.hypot(*(points[i] - target)) <= max_distance_px
            if near and j not in seen:
                seen.add(j)
                if j not in partner or find(partner[j], seen):
                    partner[j] = i
                    return True
        return False

    return sum(find(i, set()) for i in range(len(points)))


@given(tiny_maps, tiny_maps, distances)
@settings(max_examples=150)
def test_as_many_pixels_are_paired_as_by_brute_force(
    predicted: NDArray[np.bool_], human: NDArray[np.bool_], max_distance_px: float
) -> None:
    match = match_edges(predicted, human, max_distance_px)
    assert match.predicted_HW.sum() == match.human_HW.sum()
    assert match.human_HW.sum() == most_pairs(predicted, human, max_distance_px)
    assert not (match.predicted_HW & ~predicted).any()
    assert not (match.human_HW & ~human).any()


@given(tiny_maps, tiny_maps, distances)
@settings(max_examples=50)
def test_the_count_does_not_depend_on_which_map_is_called_predicted(
    one: NDArray[np.bool_], other: NDArray[np.bool_], max_distance_px: float
) -> None:
    forth = match_edges(one, other, max_distance_px)
    back = match_edges(other, one, max_distance_px)
    assert forth.predicted_HW.sum() == back.predicted_HW.sum()


@pytest.mark.parametrize("seed", range(3))
def test_dense_maps_give_the_size_that_scipy_finds(seed: int) -> None:
    random = np.random.default_rng(seed)
    predicted, human = random.random((2, 40, 50)) < 0.2
    y, x = np.nonzero(predicted)
    v, u = np.nonzero(human)
    near = np.hypot(y[:, None] - v, x[:, None] - u) <= 3.2
    expected = (maximum_bipartite_matching(csr_array(near), perm_type="column") >= 0).sum()
    assert match_edges(predicted, human, 3.2).human_HW.sum() == expected


def test_a_line_moved_within_the_tolerance_is_found_whole() -> None:
    human = np.zeros((30, 40), dtype=bool)
    human[5:25, 10] = True
    match = match_edges(np.roll(human, 3, axis=1), human, 3.0)
    assert np.array_equal(match.human_HW, human)


def test_a_line_moved_further_is_not_found() -> None:
    human = np.zeros((30, 40), dtype=bool)
    human[5:25, 10] = True
    assert not match_edges(np.roll(human, 4, axis=1), human, 3.9).human_HW.any()


def test_a_doubled_line_is_paired_once_and_with_the_nearer_half() -> None:
    human = np.zeros((30, 40), dtype=bool)
    human[5:25, 10] = True
    nearer, farther = np.roll(human, 1, axis=1), np.roll(human, 2, axis=1)
    match = match_edges(nearer | farther, human, 2.0)
    assert np.array_equal(match.predicted_HW, nearer)


def test_a_greedy_pair_gives_way_where_that_makes_two() -> None:
    predicted = np.array([[True, True, False, False]])
    human = np.array([[False, True, True, False]])
    match = match_edges(predicted, human, 1.0)
    assert np.array_equal(match.predicted_HW, predicted)
    assert np.array_equal(match.human_HW, human)


def test_empty_maps_match_nothing() -> None:
    nothing, line = np.zeros((5, 5), dtype=bool), np.eye(5, dtype=bool)
    for one, other in ((nothing, line), (line, nothing), (nothing, nothing)):
        match = match_edges(one, other, 2.0)
        assert not match.predicted_HW.any()
        assert not match.human_HW.any()


@pytest.mark.parametrize(
    ("predicted", "human", "distance", "words"),
    [
        (np.zeros((3, 3)), np.zeros((3, 3), bool), 1.0, "threshold them first"),
        (np.zeros((3, 3), bool), np.zeros((3, 4), bool), 1.0, "cannot be compared"),
        (np.zeros((3, 3), bool), np.zeros((3, 3), bool), -1.0, "0 or more"),
        (np.zeros((3, 3), bool), np.zeros((3, 3), bool), float("nan"), "0 or more"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    predicted: NDArray[np.bool_], human: NDArray[np.bool_], distance: float, words: str
) -> None:
    with pytest.raises(BadInputError, match=words):
        match_edges(predicted, human, distance)
