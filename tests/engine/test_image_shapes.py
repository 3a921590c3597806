"""Depth inside a mask, and GrabCut, against plain searches and plain pictures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from engine.errors import BadInputError
from engine.images import Hint, border_distance, grabcut

masks = hnp.arrays(np.bool_, st.tuples(st.integers(1, 14), st.integers(1, 14)))


@given(masks)
@settings(max_examples=80)
def test_depth_is_the_distance_to_the_nearest_pixel_outside(mask_HW: NDArray[np.bool_]) -> None:
    outside = np.argwhere(~np.pad(mask_HW, 1)) - 1
    found = border_distance(mask_HW)
    assert found.dtype == np.float32
    for y, x in np.ndindex(mask_HW.shape):
        wanted = np.hypot(*(outside - (y, x)).T).min() if mask_HW[y, x] else 0
        assert found[y, x] == pytest.approx(wanted, abs=1e-4)


def test_an_empty_mask_has_no_depth() -> None:
    assert not border_distance(np.zeros((4, 5), dtype=bool)).any()
    assert border_distance(np.zeros((0, 5), dtype=bool)).shape == (0, 5)


def test_the_depth_of_other_arrays_is_bad_input() -> None:
    with pytest.raises(BadInputError, match="bool mask"):
        border_distance(np.zeros((4, 4)))  # type: ignore[arg-type]


def square() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A red square on blue, both noisy."""
    random = np.random.default_rng(0)
    wanted = np.zeros((40, 50), dtype=bool)
    wanted[10:30, 15:35] = True
    picture = np.where(wanted[..., None], [200, 30, 30], [30, 30, 200])
    return (picture + random.integers(-20, 20, picture.shape)).astype(np.uint8), wanted


def test_a_box_shrinks_to_what_differs_from_its_surroundings() -> None:
    picture, wanted = square()
    hints = np.full(wanted.shape, Hint.BACKGROUND, dtype=np.uint8)
    hints[6:34, 11:39] = Hint.MAYBE_FOREGROUND
    kept = hints.copy()
    found = grabcut(picture, hints)
    assert (found == wanted).mean() > 0.99
    assert (hints == kept).all()
    assert (grabcut(picture, hints) == found).all()


def test_sure_hints_are_obeyed() -> None:
    picture, _ = square()
    hints = np.full(picture.shape[:2], Hint.MAYBE_BACKGROUND, dtype=np.uint8)
    hints[18:22, 22:28] = Hint.FOREGROUND
    hints[2:4, 2:4] = Hint.FOREGROUND
    hints[14:16, 20:22] = Hint.BACKGROUND
    found = grabcut(picture, hints)
    assert found[2:4, 2:4].all()
    assert not found[14:16, 20:22].any()


@pytest.mark.parametrize("hint", list(Hint))
def test_hints_of_one_side_only_are_the_answer(hint: Hint) -> None:
    picture, _ = square()
    hints = np.full(picture.shape[:2], hint, dtype=np.uint8)
    foreground = hint in (Hint.FOREGROUND, Hint.MAYBE_FOREGROUND)
    assert (grabcut(picture, hints) == foreground).all()


def test_what_cannot_be_cut_is_bad_input() -> None:
    picture, wanted = square()
    hints = wanted.astype(np.uint8)
    with pytest.raises(BadInputError, match=r"expected uint8 \(H, W, 3\)"):
        grabcut(picture[..., 0], hints)
    with pytest.raises(BadInputError, match="hints of shape"):
        grabcut(picture, hints[:-1])
    with pytest.raises(BadInputError, match="hints of 0 to 3"):
        grabcut(picture, hints + np.uint8(4))
    with pytest.raises(BadInputError, match="at least one iteration"):
        grabcut(picture, hints, iterations=0)
