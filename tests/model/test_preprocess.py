from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from model import PIXEL_MEAN, PIXEL_STD, Frame, Prompts
from model.preprocess import input_frame, preprocess, resize_bilinear_uint8, to_input_frame
from tests.model.small_models import random_image

CPU = torch.device("cpu")


def pillow_resize(image_HWC3: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Width first, then height, one call each: Pillow may swap the axes when asked for both."""
    image = Image.fromarray(image_HWC3)
    image = image.resize((width, image.height), Image.Resampling.BILINEAR)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def ours(image_HWC3: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    resized = resize_bilinear_uint8(torch.from_numpy(image_HWC3), (height, width))
    assert resized.dtype == torch.uint8
    return resized.numpy()


side = st.one_of(st.integers(1, 4), st.integers(1, 300))


@settings(max_examples=150)
@given(side, side, side, side, st.integers(0, 2**32 - 1), st.booleans())
def test_the_resize_is_pillows_bit_for_bit(
    height: int, width: int, new_height: int, new_width: int, seed: int, extreme: bool
) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if extreme:
        image = np.where(image > 127, 255, 0).astype(np.uint8)
    wanted = pillow_resize(image, new_height, new_width)
    np.testing.assert_array_equal(ours(image, new_height, new_width), wanted)


@pytest.mark.parametrize("size", [(1500, 2250), (683, 1024), (40, 3000), (1200, 7), (1, 5000)])
def test_the_resize_of_photo_sizes_to_1024_is_pillows_bit_for_bit(size: tuple[int, int]) -> None:
    image = random_image(*size)
    height, width = input_frame(size, 1024, 1024).input_size
    np.testing.assert_array_equal(ours(image, height, width), pillow_resize(image, height, width))


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.sampled_from([(1024, 1024), (512, 32)]))
def test_the_long_side_becomes_the_image_size_and_sides_round_half_up(
    height: int, width: int, sizes: tuple[int, int]
) -> None:
    image_size, multiple = sizes
    frame = input_frame((height, width), image_size, multiple)
    scale = image_size / max(height, width)
    assert frame.original_size == (height, width)
    assert max(frame.input_size) == image_size
    for got, side_px in zip(frame.input_size, (height, width), strict=True):
        assert got == max(1, math.floor(side_px * scale + 0.5))
    for padded, inner in zip(frame.padded_size, frame.input_size, strict=True):
        assert padded % multiple == 0
        assert inner <= padded < inner + multiple


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((1500, 2250), (683, 1024)), ((2, 4096), (1, 1024)), ((1, 5000), (1, 1024))],
)
def test_known_input_sizes(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    frame = input_frame(size, 1024, 1024)
    assert frame.input_size == wanted
    assert frame.padded_size == (1024, 1024)


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_an_image_without_pixels_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        input_frame(size, 1024, 1024)


def test_pixels_are_normalised_and_the_padding_is_zero_after_that() -> None:
    image = random_image(40, 60)
    frame = Frame((40, 60), (40, 60), (64, 64))
    pixels = preprocess(image, frame, CPU)
    assert pixels.shape == (3, 64, 64)
    assert pixels.dtype == torch.float32
    wanted = (image.astype(np.float64) - PIXEL_MEAN) / PIXEL_STD
    np.testing.assert_allclose(pixels[:, :40, :60].permute(1, 2, 0), wanted, atol=1e-6)
    assert not pixels[:, 40:].any()
    assert not pixels[:, :, 60:].any()


def test_read_only_and_mirrored_arrays_are_taken_as_they_are() -> None:
    image = random_image(20, 30)
    frame = input_frame((20, 30), 32, 32)
    wanted = preprocess(image, frame, CPU)
    read_only = image.copy()
    read_only.flags.writeable = False  # as np.asarray of a PIL image is
    assert torch.equal(preprocess(read_only, frame, CPU), wanted)
    assert torch.equal(preprocess(image[:, ::-1].copy()[:, ::-1], frame, CPU), wanted)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 5), np.uint8),
        np.zeros((4, 5, 4), np.uint8),
        np.zeros((3, 4, 5), np.uint8),
        np.zeros((4, 5, 3), np.float32),
    ],
)
def test_anything_but_an_rgb_uint8_image_is_refused(image: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8"):
        preprocess(image, Frame((4, 5), (4, 5), (32, 32)), CPU)


def test_coordinates_scale_per_axis_in_float64() -> None:
    frame = input_frame((1500, 2251), 1024, 1024)
    points = np.array([[[1 / 3, 2 / 3], [2250.1, 1499.9]]])
    box = np.array([[10.1, 20.2, 1000.3, 1400.4]])
    prompts = Prompts(points_xy=points, point_labels=np.array([[1, 0]]), boxes_xyxy=box)
    prepared = to_input_frame(prompts, frame, CPU)
    assert prepared.points_NK2 is not None
    assert prepared.boxes_N4 is not None
    assert prepared.labels_NK is not None
    assert prepared.points_NK2.dtype == prepared.boxes_N4.dtype == torch.float64
    scale = np.array([frame.input_size[1] / 2251, frame.input_size[0] / 1500])
    assert scale[0] != scale[1]
    np.testing.assert_array_equal(prepared.points_NK2, points * scale)
    np.testing.assert_array_equal(prepared.boxes_N4, box * np.tile(scale, 2))
    assert prepared.labels_NK.tolist() == [[1, 0]]


def test_mask_logits_become_float32_and_the_rest_stays_none() -> None:
    logits = torch.zeros(2, 1, 8, 8, dtype=torch.float16)
    prepared = to_input_frame(Prompts(mask_logits=logits), input_frame((9, 9), 32, 32), CPU)
    assert prepared.mask_logits_N1hw is not None
    assert prepared.mask_logits_N1hw.dtype == torch.float32
    assert prepared.points_NK2 is None
    assert prepared.labels_NK is None
    assert prepared.boxes_N4 is None


def test_prompts_do_not_share_memory_with_the_callers_arrays() -> None:
    labels = np.array([[1, 0]])
    prompts = Prompts(points_xy=np.zeros((1, 2, 2)), point_labels=labels)
    labels[:] = -1
    prepared = to_input_frame(prompts, input_frame((9, 9), 32, 32), CPU)
    assert prepared.labels_NK is not None
    assert prepared.labels_NK.tolist() == [[1, 0]]
