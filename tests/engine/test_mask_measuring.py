"""Measuring many masks at once agrees with reading them one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import BadInputError, InvalidMaskError
from engine.masks import (
    MeasuredMasks,
    encode_mask,
    encode_runs,
    mask_area,
    mask_box_xyxy,
    measure_masks,
)
from engine.records import Rle

_LETTERS = st.text(st.characters(min_codepoint=46, max_codepoint=114), max_size=12)


def measured(rles: Sequence[Rle]) -> MeasuredMasks:
    texts = [rle.counts.encode() for rle in rles]
    text = np.frombuffer(b"".join(texts), np.uint8)
    offsets = np.cumsum([0, *map(len, texts)])
    return measure_masks(
        text, offsets, np.array([r.height for r in rles]), np.array([r.width for r in rles])
    )


def agrees_with_one_by_one(rles: Sequence[Rle]) -> None:
    found = measured(rles)
    for i, rle in enumerate(rles):
        try:
            area, box = mask_area(rle), mask_box_xyxy(rle) or (-1, -1, -1, -1)
        except InvalidMaskError:
            assert not found.is_valid_N[i], rle
            area, box = 0, (-1, -1, -1, -1)
        else:
            assert found.is_valid_N[i], rle
        assert (found.areas_N[i], tuple(found.boxes_xyxy_N4[i])) == (area, box), rle


@st.composite
def masks(draw: st.DrawFn) -> Rle:
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    bits = draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    return encode_mask(np.array(bits).reshape(height, width))


@st.composite
def runs_with_zeros(draw: st.DrawFn) -> Rle:
    runs = draw(st.lists(st.integers(0, 6), min_size=1, max_size=12).filter(any))
    total = sum(runs)
    height = draw(st.sampled_from([d for d in range(1, total + 1) if total % d == 0]))
    return encode_runs(runs, height, total // height)


@st.composite
def nonsense(draw: st.DrawFn) -> Rle:
    size = st.sampled_from([-1, 0, 1, 2, 7, 50_000, 2**31, 2**40])
    return Rle(draw(size), draw(size), draw(_LETTERS))


@settings(max_examples=200)
@given(st.lists(st.one_of(masks(), runs_with_zeros(), nonsense()), max_size=8))
def test_a_batch_says_of_each_mask_what_the_mask_alone_says(rles: list[Rle]) -> None:
    agrees_with_one_by_one(rles)


def test_large_masks_that_fill_several_parts_agree() -> None:
    random = np.random.default_rng(3)
    rles = []
    for number in range(40):
        height, width = random.integers(1, 400, 2)
        mask_HW = random.random((height, width)) < random.choice([0, 0.001, 0.3, 1])
        rles.append(encode_mask(mask_HW))
        if number % 7 == 0:
            rles.append(Rle(int(height), int(width), rles[-1].counts[:-1]))
        if number % 9 == 0:
            rles.append(Rle(-5, 3, "04"))
    assert sum(len(rle.counts) for rle in rles) > 100_000
    agrees_with_one_by_one(rles)


def test_runs_whose_sum_overflows_are_not_valid() -> None:
    huge = "oooooo7"  # the longest positive number
    assert not measured([Rle(2, 2, huge * 40), Rle(2, 2, "4")]).is_valid_N[0]


def test_no_masks_at_all_are_fine() -> None:
    assert measured([]).areas_N.shape == (0,)


@pytest.mark.parametrize("offsets", [[0], [0, 3, 2], [0, 1, 9], [-1, 0, 1]])
def test_buffers_that_do_not_fit_together_are_refused(offsets: list[int]) -> None:
    text = np.frombuffer(b"044", np.uint8)
    size = np.array([2, 2])
    with pytest.raises(BadInputError, match="offsets"):
        measure_masks(text, np.array(offsets), size, size)
