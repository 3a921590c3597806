from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model import Frame, Region, cut_window, regions_above, upsample_window
from model.preprocess import input_frame
from model.upsample import LOW_RES_STRIDE, upsample_logits, upsample_masks

PADDINGS = ((128, 128), (128, 32), (1024, 1024), (512, 32))
SIZES = [(1, 1), (1, 3000), (700, 1), (37, 53), (300, 200), (900, 1300), (64, 128), (1024, 1024)]
OF_SIZE_AND_PADDING = [(size, padding) for size in SIZES for padding in PADDINGS]


def blobs(frame: Frame, seed: int, count: int = 1) -> NDArray[np.float32]:
    """Draw smooth logits with sharp edges, about as large as a decoder's."""
    rng = np.random.default_rng(seed)
    h, w = (side // LOW_RES_STRIDE for side in frame.padded_size)
    noise = torch.from_numpy(rng.normal(0, 1, (count, 1, h // 8 + 2, w // 8 + 2)))
    smooth = F.interpolate(noise, (h, w), mode="bicubic")[:, 0].numpy()
    fine = rng.normal(0, 0.3, (count, h, w))
    drawn: NDArray[np.float32] = (12 * np.tanh(2 * smooth) + fine).astype(np.float32)
    return drawn


def whole(low_res_hw: NDArray[np.float32], frame: Frame) -> NDArray[np.float32]:
    """Upsample as the public code does: two interpolations of everything."""
    logits = torch.from_numpy(low_res_hw)[None, None]
    padded = F.interpolate(logits, frame.padded_size, mode="bilinear", align_corners=False)
    height, width = frame.input_size
    cut = padded[..., :height, :width]
    sized = F.interpolate(cut, frame.original_size, mode="bilinear", align_corners=False)
    return sized[0, 0].numpy()


def random_region(frame: Frame, rng: np.random.Generator) -> Region:
    height, width = frame.original_size
    y0, x0 = int(rng.integers(height)), int(rng.integers(width))
    return Region(y0, int(rng.integers(y0, height)) + 1, x0, int(rng.integers(x0, width)) + 1)


@pytest.mark.parametrize(("size", "padding"), OF_SIZE_AND_PADDING)
def test_a_window_holds_what_the_whole_image_has_there(
    size: tuple[int, int], padding: tuple[int, int]
) -> None:
    frame = input_frame(size, *padding)
    rng = np.random.default_rng(1)
    low_res = blobs(frame, seed=2)[0]
    expected = whole(low_res, frame)
    assert expected.shape == size
    everything = Region(0, size[0], 0, size[1])
    for region in [everything, *(random_region(frame, rng) for _ in range(6))]:
        got = upsample_window(cut_window(low_res, frame, region), frame, region)
        wanted = expected[region.y0 : region.y1, region.x0 : region.x1]
        assert got.dtype == np.float32
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5)
        for threshold in (-1, 0, 1):
            np.testing.assert_array_equal(got > threshold, wanted > threshold)


@pytest.mark.parametrize(("size", "padding"), OF_SIZE_AND_PADDING)
def test_both_interpolations_at_once_give_what_one_after_the_other_gives(
    size: tuple[int, int], padding: tuple[int, int]
) -> None:
    frame = input_frame(size, *padding)
    low_res = blobs(frame, seed=4, count=2)
    got = upsample_logits(torch.from_numpy(low_res)[None], frame)
    assert got.shape == (1, 2, *size)
    assert got.dtype == torch.float32
    for drawn, logits in zip(got[0].numpy(), low_res, strict=True):
        np.testing.assert_allclose(drawn, whole(logits, frame), rtol=0, atol=1e-5)


def test_a_window_is_a_copy_that_outlives_the_logits() -> None:
    frame = input_frame((50, 60), 128, 32)
    low_res = blobs(frame, seed=3)[0]
    region = Region(5, 20, 7, 30)
    window = cut_window(low_res, frame, region)
    before = upsample_window(window, frame, region)
    low_res[:] = 0
    np.testing.assert_array_equal(upsample_window(window, frame, region), before)
    assert window.size < low_res.size


@settings(max_examples=120)
@given(
    st.integers(1, 400),
    st.integers(1, 400),
    st.sampled_from([(128, 128), (128, 32), (64, 32)]),
    st.sampled_from([-1.0, 0.0, 1.0]),
    st.integers(0, 2**32 - 1),
)
def test_no_pixel_outside_the_region_is_above_the_threshold(
    height: int, width: int, padding: tuple[int, int], threshold: float, seed: int
) -> None:
    frame = input_frame((height, width), *padding)
    rng = np.random.default_rng(seed)
    h, w = (side // LOW_RES_STRIDE for side in frame.padded_size)
    # From almost nothing above the threshold to a good part of it, anywhere, padding included.
    chance = 10 ** rng.uniform(-4, -0.5)
    low_res = np.where(rng.random((3, h, w)) < chance, 9.0, -9.0).astype(np.float32)
    low_res[0] = -9.0
    low_res[0, rng.integers(h), rng.integers(w)] = 50.0
    for index, region in enumerate(regions_above(low_res, threshold, frame)):
        above = whole(low_res[index], frame) > threshold
        if region is not None:
            assert 0 <= region.y0 < region.y1 <= height
            assert 0 <= region.x0 < region.x1 <= width
            above[region.y0 : region.y1, region.x0 : region.x1] = False
        assert not above.any()


def test_a_small_mask_gets_a_small_region_and_an_empty_one_gets_none() -> None:
    frame = input_frame((1000, 1000), 1024, 1024)
    low_res = np.full((2, 256, 256), -5, np.float32)
    low_res[0, 100:104, 50:60] = 5
    small, empty = regions_above(low_res, 0.0, frame)
    assert empty is None
    assert small is not None
    assert (small.y1 - small.y0) * (small.x1 - small.x0) < 4 * (16 + 8) * (40 + 8)


def test_logits_in_the_padding_alone_give_no_region() -> None:
    frame = input_frame((100, 1000), 1024, 1024)
    low_res = np.full((1, 256, 256), -5, np.float32)
    low_res[0, 200:, 200:] = 5
    assert regions_above(low_res, 0.0, frame) == [None]


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("size", [(1, 1), (37, 53), (900, 1300)], ids=str)
def test_masks_are_where_the_upsampled_logits_are_above_zero(
    size: tuple[int, int], count: int
) -> None:
    frame = input_frame(size, 512, 32)
    low_res = torch.from_numpy(blobs(frame, seed=4, count=max(1, count)))[None, :count]
    low_res[..., 0] = 0.0  # zero itself is outside
    masks = upsample_masks(low_res, frame)
    assert masks.dtype == torch.bool
    assert masks.shape == (1, count, *size)
    assert torch.equal(masks, upsample_logits(low_res, frame) > 0)
