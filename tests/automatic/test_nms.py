"""Box NMS: hand-made cases and the properties that any greedy NMS has."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.automatic.nms import box_nms


def boxes_of(rows: list[tuple[int, int, int, int]]) -> NDArray[np.float32]:
    return np.array(
        [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in rows], dtype=np.float32
    ).reshape(-1, 4)


side = st.integers(0, 20)
scored_boxes = st.lists(
    st.tuples(st.tuples(side, side, side, side), st.integers(0, 5)), max_size=25
)


def test_the_better_of_two_equal_boxes_stays() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [20, 20, 30, 30]], dtype=np.float32)
    scores = np.array([0.5, 0.9, 0.1], dtype=np.float32)
    assert box_nms(boxes, scores, 0.7).tolist() == [1, 2]


def test_equal_scores_keep_the_first() -> None:
    boxes = np.array([[0, 0, 10, 10]] * 3, dtype=np.float32)
    assert box_nms(boxes, np.zeros(3, dtype=np.float32), 0.7).tolist() == [0]


def test_an_overlap_of_exactly_the_threshold_is_kept() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], dtype=np.float32)
    assert len(box_nms(boxes, np.array([1, 0.5], dtype=np.float32), 0.5)) == 2
    assert len(box_nms(boxes, np.array([1, 0.5], dtype=np.float32), 0.49)) == 1


def test_lines_without_area_are_never_suppressed() -> None:
    boxes = np.array([[5, 0, 5, 9], [5, 0, 5, 9]], dtype=np.float32)
    assert len(box_nms(boxes, np.ones(2, dtype=np.float32), 0.1)) == 2


def test_nothing_gives_nothing() -> None:
    empty = box_nms(np.empty((0, 4), dtype=np.float32), np.empty(0, dtype=np.float32), 0.7)
    assert empty.tolist() == []


@given(scored_boxes, st.sampled_from([0.0, 0.3, 0.7, 1.0]))
def test_survivors_come_best_first_and_survive_again(
    rows: list[tuple[tuple[int, int, int, int], int]], threshold: float
) -> None:
    boxes = boxes_of([box for box, _ in rows])
    scores = np.array([score for _, score in rows], dtype=np.float32)
    kept = box_nms(boxes, scores, threshold)
    assert np.all(np.diff(scores[kept]) <= 0)
    again = box_nms(boxes[kept], scores[kept], threshold)
    assert again.tolist() == list(range(len(kept)))
