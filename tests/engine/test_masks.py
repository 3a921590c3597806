"""The RLE codec against pycocotools and plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from engine.errors import BadInputError, InvalidMaskError
from engine.masks import (
    decode_mask,
    decode_region,
    encode_mask,
    encode_polygons,
    encode_region,
    encode_runs,
    mask_area,
    mask_areas,
    mask_box_xyxy,
    mask_iou,
    validate_rle,
)
from engine.records import Rle

Mask = NDArray[np.bool_]

sides = st.integers(1, 12)
masks = hnp.arrays(np.bool_, st.tuples(sides, sides))


@st.composite
def placed_regions(draw: st.DrawFn) -> tuple[Mask, int, int, int, int]:
    """A region of 0 to all pixels anywhere in an image: (region, x0, y0, height, width)."""
    height, width = draw(sides), draw(sides)
    h, w = draw(st.integers(0, height)), draw(st.integers(0, width))
    region = draw(hnp.arrays(np.bool_, (h, w), fill=st.just(True)))
    x0, y0 = draw(st.integers(0, width - w)), draw(st.integers(0, height - h))
    return region, x0, y0, height, width


@st.composite
def same_size_masks(draw: st.DrawFn) -> tuple[list[Mask], list[Mask]]:
    shape = (draw(sides), draw(sides))
    lists = st.lists(hnp.arrays(np.bool_, shape), max_size=4)
    return draw(lists), draw(lists)


def pasted(region: Mask, x0: int, y0: int, height: int, width: int) -> Mask:
    mask = np.zeros((height, width), dtype=bool)
    mask[y0 : y0 + region.shape[0], x0 : x0 + region.shape[1]] = region
    return mask


def pycocotools_counts(mask: Mask) -> str:
    counts: bytes = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    return counts.decode("ascii")


def counts_of(runs: list[int], height: int, width: int) -> str:
    """Compress any run lengths, wrong ones too, one digit at a time."""
    text = ""
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        while True:
            digit, value = value & 31, value >> 5
            more = value != (-1 if digit & 16 else 0)
            text += chr(48 + digit + 32 * more)
            if not more:
                break
    return text


@given(masks)
def test_decoding_gives_back_what_was_encoded(mask: Mask) -> None:
    decoded = decode_mask(encode_mask(mask))
    assert decoded.dtype == np.bool_
    assert decoded.flags.writeable
    np.testing.assert_array_equal(decoded, mask)


@given(masks)
def test_encoding_is_byte_for_byte_that_of_pycocotools(mask: Mask) -> None:
    rle = encode_mask(mask)
    assert (rle.height, rle.width) == mask.shape
    assert rle.counts == pycocotools_counts(mask)


@pytest.mark.parametrize("density", [0.0, 0.001, 0.1, 0.5, 0.999, 1.0])
def test_large_masks_of_any_density_match_pycocotools(density: float) -> None:
    mask = np.random.default_rng(0).random((613, 401)) < density
    rle = encode_mask(mask)
    assert rle.counts == pycocotools_counts(mask)
    np.testing.assert_array_equal(decode_mask(rle), mask)


@pytest.mark.parametrize("order", ["C", "F", "reversed", "strided"])
def test_memory_order_does_not_matter(order: str) -> None:
    mask = np.random.default_rng(1).random((40, 30)) < 0.3
    view = {
        "C": np.ascontiguousarray(mask),
        "F": np.asfortranarray(mask),
        "reversed": np.ascontiguousarray(mask[::-1, ::-1])[::-1, ::-1],
        "strided": np.repeat(np.repeat(mask, 2, axis=0), 3, axis=1)[::2, ::3],
    }[order]
    assert encode_mask(view).counts == pycocotools_counts(mask)


@given(placed_regions())
@settings(max_examples=400)
def test_a_region_is_encoded_like_the_whole_mask(
    placed: tuple[Mask, int, int, int, int],
) -> None:
    whole = pasted(*placed)
    rle = encode_region(*placed)
    assert rle == encode_mask(whole)
    assert rle.counts == pycocotools_counts(whole)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (7, 1), (5, 4)])
def test_every_full_rectangle_at_every_place_is_encoded_exactly(height: int, width: int) -> None:
    for h in range(height + 1):
        for w in range(width + 1):
            region = np.ones((h, w), dtype=bool)
            for y0 in range(height - h + 1):
                for x0 in range(width - w + 1):
                    counts = encode_region(region, x0, y0, height, width).counts
                    assert counts == pycocotools_counts(pasted(region, x0, y0, height, width))


def test_a_region_of_a_huge_image_is_encoded_without_the_image() -> None:
    rle = encode_region(np.ones((2, 1), dtype=bool), 40_000, 30_000, 40_000, 50_000)
    assert mask_area(rle) == 2
    assert mask_box_xyxy(rle) == (40_000, 30_000, 40_000, 30_001)


@pytest.mark.parametrize(
    ("x0", "y0"), [(-1, 0), (0, -1), (8, 0), (0, 7)], ids=["left", "top", "right", "bottom"]
)
def test_a_region_that_leaves_the_image_is_bad_input(x0: int, y0: int) -> None:
    with pytest.raises(BadInputError, match="leaves the image"):
        encode_region(np.ones((4, 3), dtype=bool), x0, y0, 10, 10)


@pytest.mark.parametrize(
    "mask", [np.zeros((2, 2), np.uint8), np.zeros(4, bool), np.zeros((1, 2, 2), bool)]
)
def test_only_two_dimensional_bool_masks_are_encoded(mask: Mask) -> None:
    with pytest.raises(BadInputError, match="bool mask"):
        encode_mask(mask)


@pytest.mark.parametrize(("height", "width"), [(0, 5), (5, 0), (2**16, 2**16)])
def test_images_without_pixels_or_with_too_many_are_bad_input(height: int, width: int) -> None:
    with pytest.raises(BadInputError, match="cannot hold a mask"):
        encode_region(np.zeros((0, 0), dtype=bool), 0, 0, height, width)


@given(masks)
def test_area_and_box_are_those_of_the_pixels(mask: Mask) -> None:
    rle = encode_mask(mask)
    assert mask_area(rle) == mask.sum()
    rows, columns = np.nonzero(mask)
    expected = (columns.min(), rows.min(), columns.max(), rows.max()) if rows.size else None
    assert mask_box_xyxy(rle) == expected


def test_areas_of_many_masks_of_any_size_do_not_overflow() -> None:
    rles = [encode_mask(np.ones((3, 1 + n % 7), dtype=bool)) for n in range(600)]
    areas = mask_areas(rles)
    assert areas.dtype == np.int64
    assert areas.tolist() == [3 * (1 + n % 7) for n in range(600)]
    assert mask_areas([]).shape == (0,)


@given(same_size_masks())
def test_iou_is_that_of_the_pixels(pair: tuple[list[Mask], list[Mask]]) -> None:
    a, b = pair
    iou = mask_iou([encode_mask(m) for m in a], [encode_mask(m) for m in b])
    assert iou.shape == (len(a), len(b))
    assert iou.dtype == np.float64
    for i, mask_a in enumerate(a):
        for j, mask_b in enumerate(b):
            union = (mask_a | mask_b).sum()
            expected = (mask_a & mask_b).sum() / union if union else 0.0
            assert iou[i, j] == pytest.approx(expected)


def test_iou_of_hundreds_of_masks_does_not_overflow() -> None:
    rles = [encode_region(np.ones((2, 2), dtype=bool), n, 0, 4, 302) for n in range(300)]
    iou = mask_iou(rles, rles)
    np.testing.assert_allclose(np.diag(iou), 1)
    np.testing.assert_allclose(np.diag(iou, 1), 1 / 3)
    assert iou[0, 2:].max() == 0


def test_masks_of_different_sizes_are_not_compared() -> None:
    with pytest.raises(BadInputError, match="different sizes"):
        mask_iou([Rle(2, 3, "6")], [Rle(3, 2, "6")])


def test_runs_of_zero_length_are_read_right() -> None:
    rle = Rle(4, 4, counts_of([1, 0, 3, 2, 0, 1, 9], 4, 4))
    expected = np.zeros(16, dtype=bool)
    expected[4:7] = True
    mask = expected.reshape(4, 4).T
    np.testing.assert_array_equal(decode_mask(rle), mask)
    assert mask_area(rle) == 3
    assert mask_box_xyxy(rle) == (1, 0, 1, 2)
    assert mask_iou([rle], [encode_mask(mask)]).item() == 1


@given(st.lists(st.integers(-40, 40), min_size=1, max_size=8))
def test_only_runs_that_fill_the_image_are_valid(runs: list[int]) -> None:
    total = max(1, sum(runs))
    rle = Rle(1, total, counts_of(runs, 1, total))
    if min(runs) >= 0 and sum(runs) == total:
        validate_rle(rle)
        assert decode_mask(rle).sum() == sum(runs[1::2])
    else:
        with pytest.raises(InvalidMaskError):
            validate_rle(rle)


GARBAGE = {
    "empty": Rle(2, 2, ""),
    "space": Rle(2, 2, "4 "),
    "character above": Rle(2, 2, "4p"),
    "character below": Rle(2, 2, "4/"),
    "not ASCII": Rle(2, 2, "4é"),
    "not ASCII at all": Rle(2, 2, "\U0001f600"),
    "cut number": Rle(2, 2, "4P"),
    "endless number": Rle(2, 2, "P" * 100 + "4"),
    "eight digits": Rle(2, 2, "T" + "P" * 6 + "0"),
    "too short": Rle(2, 2, "3"),
    "too long": Rle(2, 2, "5"),
    "negative": Rle(2, 2, counts_of([5, -1], 2, 2)),
    "bytes": Rle(2, 2, b"4"),  # type: ignore[arg-type]
    "uncompressed": Rle(2, 2, [4]),  # type: ignore[arg-type]
    "height 0": Rle(0, 2, "0"),
    "negative size": Rle(-2, -2, "4"),
    "huge": Rle(2**20, 2**20, "0"),
}


@pytest.mark.parametrize("case", GARBAGE)
def test_garbage_is_an_invalid_mask_everywhere(case: str) -> None:
    rle = GARBAGE[case]
    for use in (validate_rle, decode_mask, mask_area, mask_box_xyxy, lambda r: mask_iou([r], [r])):
        with pytest.raises(InvalidMaskError):
            use(rle)


@given(sides, sides, st.text(st.characters(min_codepoint=48, max_codepoint=112), max_size=12))
@settings(max_examples=300)
def test_any_text_decodes_to_its_size_or_is_invalid(height: int, width: int, counts: str) -> None:
    rle = Rle(height, width, counts)
    try:
        mask = decode_mask(rle)
    except InvalidMaskError:
        return
    assert mask.shape == (height, width)
    assert mask.sum() == mask_area(rle)


@given(masks, st.data())
@settings(max_examples=200)
def test_an_rle_with_one_changed_character_is_read_within_its_size_or_refused(
    mask: Mask, data: st.DataObject
) -> None:
    rle = encode_mask(mask)
    at = data.draw(st.integers(0, len(rle.counts) - 1))
    other = data.draw(st.characters(min_codepoint=40, max_codepoint=120))
    damaged = Rle(rle.height, rle.width, rle.counts[:at] + other + rle.counts[at + 1 :])
    try:
        validate_rle(damaged)
    except InvalidMaskError:
        return
    assert decode_mask(damaged).shape == mask.shape
    assert mask_iou([damaged], [rle]).shape == (1, 1)


@given(masks, st.data())
@settings(max_examples=200)
def test_a_region_decodes_to_what_the_whole_mask_has_there(mask: Mask, data: st.DataObject) -> None:
    height, width = mask.shape
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height))
    assert (decode_region(encode_mask(mask), (x0, y0, x1, y1)) == mask[y0:y1, x0:x1]).all()


def test_a_region_with_runs_of_zero_length_is_read_right() -> None:
    rle = Rle(2, 3, counts_of([0, 1, 0, 0, 5, 0], 2, 3))
    assert (decode_region(rle, (0, 0, 2, 2)) == decode_mask(rle)[:, :2]).all()


@pytest.mark.parametrize("box", [(0, 0, 0, 1), (0, 0, 4, 2), (-1, 0, 2, 2), (0, 2, 2, 1)])
def test_a_region_outside_the_image_is_refused(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(BadInputError, match="2 x 3"):
        decode_region(encode_mask(np.zeros((2, 3), dtype=np.bool_)), box)


@given(masks)
def test_uncompressed_runs_encode_to_the_same_mask(mask: Mask) -> None:
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat.astype(np.int8), prepend=0)).tolist()
    runs = np.diff([0, *edges, flat.size]).tolist()
    assert (decode_mask(encode_runs(runs, *mask.shape)) == mask).all()


@pytest.mark.parametrize("runs", [[], [5], [7, -1], [2.5, 3.5], [[6]], ["6"]])
def test_runs_that_are_no_mask_are_refused(runs: list[int]) -> None:
    with pytest.raises(InvalidMaskError):
        encode_runs(runs, 2, 3)


def test_polygons_are_joined_and_cut_to_the_image() -> None:
    left = [2, 1, 7, 1, 7, 5, 2, 5]
    right = [5, 3, 30, 3, 30, 30, 5, 30]  # overlaps the other one and leaves the image
    expected = np.zeros((20, 24), dtype=np.bool_)
    expected[1:5, 2:7] = expected[3:, 5:] = True
    assert (decode_mask(encode_polygons([left, right, [1, 1, 2, 2]], 20, 24)) == expected).all()


def test_a_slanted_polygon_has_its_area() -> None:
    assert mask_area(encode_polygons([[10, 10, 90, 10, 10, 70]], 80, 100)) == pytest.approx(
        80 * 60 / 2, rel=0.03
    )


def test_polygons_without_an_inside_are_an_empty_mask() -> None:
    assert not decode_mask(encode_polygons([[1, 1, 2, 2]], 4, 5)).any()
    assert not decode_mask(encode_polygons([], 4, 5)).any()


@pytest.mark.parametrize(
    "polygon", [[0, 0, 1], [0, 0, 9e9, 1, 1, 1], [0, 0, float("nan"), 1, 1, 1], ["a"] * 6]
)
def test_polygons_of_another_image_are_refused(polygon: list[float]) -> None:
    with pytest.raises(InvalidMaskError):
        encode_polygons([polygon], 20, 24)
