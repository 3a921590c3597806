"""Cleaning a mask in its box equals cleaning it on the whole image."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from scipy import ndimage

from engine.automatic.filters import tight_box
from engine.automatic.small_regions import (
    fill_small_holes,
    remove_small_islands,
    working_region,
)

EIGHT = np.ones((3, 3), dtype=int)
masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14))


def filled_on_the_whole_image(mask: NDArray[np.bool_], min_area: int) -> NDArray[np.bool_]:
    labels, count = ndimage.label(~mask, EIGHT)
    out = mask.copy()
    for label in range(1, count + 1):
        if (labels == label).sum() < min_area:
            out |= labels == label
    return out


@given(masks, st.integers(1, 40))
@settings(max_examples=300)
def test_holes_are_filled_in_the_box_as_on_the_whole_image(
    mask: NDArray[np.bool_], min_area: int
) -> None:
    box = tight_box(mask)
    if box is None:
        return
    region, open_sides = working_region(box, mask.shape[0], mask.shape[1], min_area)
    part = mask[region.y0 : region.y1, region.x0 : region.x1]
    filled, changed = fill_small_holes(part, min_area, open_sides)
    wanted = filled_on_the_whole_image(mask, min_area)
    whole = mask.copy()
    whole[region.y0 : region.y1, region.x0 : region.x1] = filled
    np.testing.assert_array_equal(whole, wanted)
    assert changed == bool((wanted != mask).any())


@given(masks, st.integers(1, 40))
@settings(max_examples=300)
def test_small_islands_go_and_the_largest_stays(mask: NDArray[np.bool_], min_area: int) -> None:
    cleaned, changed, largest = remove_small_islands(mask, min_area)
    labels, count = ndimage.label(mask, EIGHT)
    areas = [int((labels == label).sum()) for label in range(1, count + 1)]
    assert largest == max(areas, default=0)
    assert changed == any(area < min_area for area in areas)
    kept = sorted(area for area in areas if area >= min_area) or (areas and [max(areas)])
    after, after_count = ndimage.label(cleaned, EIGHT)
    assert sorted(int((after == i).sum()) for i in range(1, after_count + 1)) == list(kept)
    assert not (cleaned & ~mask).any()


@given(masks, st.integers(1, 40))
@settings(max_examples=100)
def test_cleaning_twice_changes_nothing_more(mask: NDArray[np.bool_], min_area: int) -> None:
    once, _, largest = remove_small_islands(mask, min_area)
    again, changed, _ = remove_small_islands(once, min_area)
    np.testing.assert_array_equal(again, once)
    assert changed == (0 < largest < min_area)
