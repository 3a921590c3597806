"""From any image to the model's input, and coordinates along with it.

The resize is Pillow's antialiased bilinear filter on uint8, re-stated in torch: the same 22-bit
fixed point weights and the same rounding between its two passes, so the model sees the pixels it
was trained on, to the bit, on every device and without Pillow.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from model.transfers import upload
from model.types import BACKGROUND, Frame, InputPrompts, Prompts

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)

_FIXED_POINT_BITS = 22
_STRIP_PX = 64  # what is worked on at once stays in the cache


def input_frame(original_size: tuple[int, int], image_size: int, pad_multiple: int) -> Frame:
    """Lay an image into the model's input: long side to `image_size`, then pad right and below.

    Args:
        original_size: (height, width) in pixels.
        image_size: long side of the resized image in pixels.
        pad_multiple: sides are padded to a multiple of this; `image_size` itself gives SAM's
            square.

    Raises:
        ValueError: an image without pixels.
    """
    height, width = original_size
    if height < 1 or width < 1:
        raise ValueError(f"an image needs at least one pixel; got height {height}, width {width}")
    scale = image_size / max(height, width)
    resized = (max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))
    padded = (
        math.ceil(resized[0] / pad_multiple) * pad_multiple,
        math.ceil(resized[1] / pad_multiple) * pad_multiple,
    )
    return Frame(original_size, resized, padded)


def preprocess(image_HWC3: NDArray[np.uint8], frame: Frame, device: torch.device) -> Tensor:
    """Resize, normalise and pad one RGB image.

    Returns:
        (3, H, W) float32 of `frame.padded_size`; padding is zero after normalisation.

    Raises:
        ValueError: not an (H, W, 3) uint8 array.
    """
    if image_HWC3.ndim != 3 or image_HWC3.shape[2] != 3 or image_HWC3.dtype != np.uint8:
        raise ValueError(
            f"expected an RGB image as (H, W, 3) uint8; got {image_HWC3.shape} {image_HWC3.dtype}"
        )
    pixels = upload(torch.from_numpy(np.require(image_HWC3, requirements=("C", "W"))), device)
    pixels = resize_bilinear_uint8(pixels, frame.input_size)
    mean, std = _mean_and_std(device)
    normalised = ((pixels - mean) / std).permute(2, 0, 1)
    (height, width), (padded_height, padded_width) = frame.input_size, frame.padded_size
    return F.pad(normalised, (0, padded_width - width, 0, padded_height - height))


@cache
def _mean_and_std(device: torch.device) -> tuple[Tensor, Tensor]:
    """Copied to a device once: such a copy waits for all that the device was given before."""
    return torch.tensor(PIXEL_MEAN, device=device), torch.tensor(PIXEL_STD, device=device)


def to_input_frame(prompts: Prompts, frame: Frame, device: torch.device) -> InputPrompts:
    """Scale prompts from pixels of the original image to pixels of the model's input.

    Coordinates stay float64 (float32 on mps, which has no other) until they are encoded.
    """
    precision = torch.float32 if device.type == "mps" else torch.float64
    scale_xy = np.array(
        [
            frame.input_size[1] / frame.original_size[1],
            frame.input_size[0] / frame.original_size[0],
        ]
    )

    def tensor(array: NDArray[np.float64]) -> Tensor:
        return upload(torch.from_numpy(array), device, precision)

    points, labels, boxes = prompts.points_xy, prompts.point_labels, prompts.boxes_xyxy
    return InputPrompts(
        points_NK2=None if points is None else tensor(points * scale_xy),
        labels_NK=None if labels is None else upload(torch.tensor(labels), device),
        boxes_N4=None if boxes is None else tensor(boxes * np.tile(scale_xy, 2)),
        mask_logits_N1hw=None
        if prompts.mask_logits is None
        else prompts.mask_logits.to(device, torch.float32),
        has_background=labels is not None and bool((labels == BACKGROUND).any()),
    )


def resize_bilinear_uint8(image_HWC: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize with Pillow's `BILINEAR` filter, bit for bit.

    Args:
        image_HWC: uint8, any number of channels.
        size: (height, width) wanted.

    Returns:
        (height, width, C) uint8.
    """
    height, width = size
    strip_px = _STRIP_PX if image_HWC.device.type == "cpu" else max(image_HWC.shape)
    if width != image_HWC.shape[1]:
        strips = torch.split(image_HWC.transpose(0, 1), strip_px, dim=1)
        image_HWC = torch.cat([_resample(strip, width).transpose(0, 1) for strip in strips])
    if height != image_HWC.shape[0]:
        strips = torch.split(image_HWC, strip_px, dim=1)
        image_HWC = torch.cat([_resample(strip, height) for strip in strips], dim=1)
    return image_HWC


def _resample(lines_LPC: Tensor, out_lines: int) -> Tensor:
    """Resize along the first axis: whole lines are gathered faster than single pixels."""
    taps = _taps(lines_LPC.shape[0], out_lines, lines_LPC.device)
    lines_LQ = lines_LPC.reshape(len(lines_LPC), -1).to(torch.int32)
    total = lines_LQ.new_full((out_lines, lines_LQ.shape[1]), 1 << (_FIXED_POINT_BITS - 1))
    for index, weight in taps:
        total.addcmul_(lines_LQ.index_select(0, index), weight)
    resized = (total >> _FIXED_POINT_BITS).clamp_(0, 255).to(torch.uint8)
    return resized.view(out_lines, *lines_LPC.shape[1:])


@lru_cache(maxsize=64)
def _taps(in_size: int, out_size: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Return the input line and the weight (out_size, 1) that each tap gives an output line."""
    first, weights = _triangle_filter(in_size, out_size)
    return [
        (
            torch.from_numpy(np.minimum(first + tap, in_size - 1)).to(device),
            torch.from_numpy(weights[:, tap, None]).to(device),
        )
        for tap in range(weights.shape[1])
    ]


def _triangle_filter(in_size: int, out_size: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return, for each output pixel, its first input pixel and the fixed-point weights from there.

    The filter is a triangle of half-width max(scale, 1) around the pixel's centre; weights are
    normalised in float64 before rounding.
    """
    scale = in_size / out_size
    half_width = max(scale, 1.0)
    taps = math.ceil(half_width) * 2 + 1
    centre = (np.arange(out_size) + 0.5) * scale
    first = np.maximum((centre - half_width + 0.5).astype(np.int64), 0)
    end = np.minimum((centre + half_width + 0.5).astype(np.int64), in_size)
    position = first[:, None] + np.arange(taps)
    inverse = 1.0 / half_width
    weights = np.maximum(1.0 - np.abs((position - centre[:, None] + 0.5) * inverse), 0.0)
    weights[position >= end[:, None]] = 0.0
    # Pillow sums the weights one after the other; np.sum would pair them and round differently.
    total = np.add.accumulate(weights, axis=1)[:, -1:]
    weights = weights * (1.0 / total)
    fixed = np.floor(weights * (1 << _FIXED_POINT_BITS) + 0.5).astype(np.int32)
    used = int(np.flatnonzero(fixed.any(axis=0))[-1]) + 1
    return first, fixed[:, :used]
