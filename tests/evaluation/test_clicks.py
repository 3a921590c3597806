"""Where simulated annotators click."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from engine.errors import BadInputError
from engine.evaluation.clicks import centre_clicks, corrective_click, random_clicks
from model.prompt_sampling import centre_point
from tests.evaluation.segmenters import disc

NO_CLICKS = np.zeros((0, 2))
masks = hnp.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def depth(mask: NDArray[np.bool_], x: int, y: int) -> float:
    outside = np.argwhere(~np.pad(mask, 1)) - 1
    return float(np.hypot(*(outside - (y, x)).T).min())


def test_the_centre_of_a_disc_is_its_centre() -> None:
    assert centre_clicks(np.stack([disc(40, 30, 12), disc(20, 10, 5)])).tolist() == [
        [40, 30],
        [20, 10],
    ]


@given(masks)
@settings(max_examples=60)
def test_the_centre_is_as_deep_in_the_mask_as_the_plain_search_finds(
    mask: NDArray[np.bool_],
) -> None:
    if mask.any():
        ((x, y),) = centre_clicks(mask[None]).astype(int)
        assert mask[y, x]
        assert depth(mask, x, y) == pytest.approx(depth(mask, *centre_point(mask)), abs=1e-4)


def test_a_mask_that_touches_the_images_edge_ends_there() -> None:
    assert centre_clicks(np.ones((1, 5, 9), dtype=bool))[0, 1] == 2


@given(masks, st.integers(0, 5))
@settings(max_examples=30)
def test_random_clicks_lie_in_the_mask(mask: NDArray[np.bool_], seed: int) -> None:
    if mask.any():
        ((x, y),) = random_clicks(mask[None], np.random.default_rng(seed)).astype(int)
        assert mask[y, x]


def test_random_clicks_reach_the_whole_mask() -> None:
    mask = np.zeros((4, 4), dtype=bool)
    mask[1:3, 1:3] = True
    found = random_clicks(np.repeat(mask[None], 200, axis=0), np.random.default_rng(0))
    assert {(x, y) for x, y in found.tolist()} == {(1, 1), (1, 2), (2, 1), (2, 2)}


def test_nobody_can_click_into_an_empty_mask() -> None:
    nothing = np.zeros((1, 4, 4), dtype=bool)
    with pytest.raises(BadInputError, match="empty mask"):
        centre_clicks(nothing)
    with pytest.raises(BadInputError, match="empty mask"):
        random_clicks(nothing, np.random.default_rng(0))


def test_a_correction_goes_to_the_larger_mistake() -> None:
    wanted, missed, excess = disc(40, 30, 12), disc(40, 30, 5), disc(12, 12, 8)
    assert corrective_click(wanted, (wanted & ~missed) | excess, NO_CLICKS) == (12, 12, 0)
    assert corrective_click(wanted, wanted & ~missed, NO_CLICKS) == (40, 30, 1)


def test_no_pixel_is_clicked_twice() -> None:
    wanted, answer = disc(40, 30, 6), disc(0, 0, 0) & False
    clicked = NO_CLICKS
    for _ in range(6):
        x, y, label = corrective_click(wanted, answer, clicked)
        assert label == 1
        assert wanted[y, x]
        assert [x, y] not in clicked.tolist()
        clicked = np.append(clicked, [[x, y]], axis=0)


def test_a_perfect_answer_gets_one_more_click_into_the_mask() -> None:
    wanted = disc(40, 30, 6)
    x, y, label = corrective_click(wanted, wanted, np.array([[40.0, 30.0]]))
    assert label == 1
    assert wanted[y, x]
    assert (x, y) != (40, 30)
