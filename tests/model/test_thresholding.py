"""Masks counted along their outlines against every pixel of the plain arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model import Frame, Region, cut_window, upsample_window
from model.preprocess import input_frame
from model.thresholding import ThresholdedMasks, threshold_masks
from model.upsample import LOW_RES_STRIDE, upsample_points

# Downscaled and upscaled, padded and not, strips of 8 to 64 rows, sizes that no strip divides.
FRAMES = [
    input_frame(size, *padding)
    for size, padding in [
        ((1, 1), (128, 128)),
        ((37, 53), (128, 32)),
        ((97, 143), (512, 32)),
        ((333, 65), (64, 64)),
        ((70, 701), (64, 32)),
        ((700, 3), (128, 128)),
        ((129, 128), (128, 128)),
    ]
]


def plain(logits_Mhw: NDArray[np.float32], frame: Frame) -> NDArray[np.float32]:
    height, width = frame.original_size
    everything = Region(0, height, 0, width)
    return np.stack(
        [
            upsample_window(cut_window(one, frame, everything), frame, everything)
            for one in logits_Mhw
        ]
    )


def drawn(masks: ThresholdedMasks, height: int) -> NDArray[np.bool_]:
    words_MWB = np.ascontiguousarray(masks.strips_BMW.transpose(1, 2, 0))
    bytes_MWb = words_MWB.view(np.uint8)
    bits = np.unpackbits(bytes_MWb, axis=2, bitorder="little").astype(bool)
    assert not bits[:, :, height:].any()
    return bits[:, :, :height].transpose(0, 2, 1)


def assert_as_plain(logits_Mhw: NDArray[np.float32], frame: Frame, offset: float) -> None:
    values_MHW = plain(logits_Mhw, frame)
    masks = threshold_masks(logits_Mhw, frame, offset)
    for counts_M, threshold in ((masks.high_M, offset), (masks.low_M, -offset), (masks.area_M, 0)):
        above_MHW = values_MHW > np.float32(threshold)
        np.testing.assert_array_equal(counts_M, above_MHW.sum((1, 2)))
    np.testing.assert_array_equal(drawn(masks, frame.original_size[0]), values_MHW > 0)
    for region, mask_HW in zip(masks.regions(), values_MHW > 0, strict=True):
        rows, columns = mask_HW.any(1).nonzero()[0], mask_HW.any(0).nonzero()[0]
        if not len(rows):
            assert region is None
        else:
            assert region == Region(rows[0], rows[-1] + 1, columns[0], columns[-1] + 1)


def random_logits(
    frame: Frame, kind: str, offset: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    shape = (3, *(side // LOW_RES_STRIDE for side in frame.padded_size))
    if kind == "noise":
        logits = rng.normal(0, 3, shape)
    elif kind == "blocks":  # large parts that are certain
        small = rng.normal(0, 4, (3, shape[1] // 4 + 1, shape[2] // 4 + 1))
        logits = small.repeat(4, axis=1).repeat(4, axis=2)[:, : shape[1], : shape[2]]
    elif kind == "ties":  # plateaus exactly at the thresholds, where rounding decides
        logits = rng.choice([-offset, 0.0, offset, -0.0, 2 * offset], shape)
    else:  # one low-resolution cell
        logits = np.full(shape, -9.0)
        logits[0, rng.integers(shape[1]), rng.integers(shape[2])] = 30.0
    return np.ascontiguousarray(logits, dtype=np.float32)


@settings(max_examples=80)
@given(
    st.sampled_from(FRAMES),
    st.sampled_from(["noise", "blocks", "ties", "one cell"]),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.integers(0, 2**32 - 1),
)
def test_counts_boxes_and_pixels_are_those_of_every_pixel_upsampled(
    frame: Frame, kind: str, offset: float, seed: int
) -> None:
    logits = random_logits(frame, kind, offset, np.random.default_rng(seed))
    assert_as_plain(logits, frame, offset)


@pytest.mark.parametrize("value", [-9.0, 9.0, 0.0])
def test_maps_of_one_value_are_empty_or_full(value: float) -> None:
    for frame in FRAMES:
        h, w = (side // LOW_RES_STRIDE for side in frame.padded_size)
        assert_as_plain(np.full((2, h, w), value, np.float32), frame, 1.0)


def test_a_photo_in_a_square_input_is_as_every_pixel_upsampled() -> None:
    frame = input_frame((600, 901), 1024, 1024)
    rng = np.random.default_rng(3)
    assert_as_plain(random_logits(frame, "blocks", 1.0, rng), frame, 1.0)


def test_pixels_as_close_to_a_threshold_as_rounding_are_decided_by_the_plain_arithmetic() -> None:
    frame = FRAMES[2]
    rng = np.random.default_rng(5)
    logits = random_logits(frame, "noise", 1.0, rng)
    # Thresholds that some pixel meets exactly: a rounding error on either side would count it.
    for offset in np.abs(rng.choice(plain(logits, frame).ravel(), 20)):
        assert_as_plain(logits, frame, float(offset))


def test_no_mask_gives_no_counts() -> None:
    frame = FRAMES[1]
    h, w = (side // LOW_RES_STRIDE for side in frame.padded_size)
    masks = threshold_masks(np.empty((0, h, w), np.float32), frame, 1.0)
    assert masks.area_M.shape == (0,)
    assert masks.regions() == []


@pytest.mark.parametrize("frame", FRAMES, ids=str)
def test_single_pixels_have_the_bits_of_the_whole(frame: Frame) -> None:
    rng = np.random.default_rng(7)
    logits = random_logits(frame, "noise", 1.0, rng)
    height, width = frame.original_size
    m, y, x = (rng.integers(0, size, 50) for size in (3, height, width))
    np.testing.assert_array_equal(
        upsample_points(logits, frame, m, y, x), plain(logits, frame)[m, y, x]
    )
