"""From any image to the model's input, and coordinates along with it.

The resize is Pillow's antialiased bilinear filter on uint8, re-stated in torch: the same 22-bit
fixed point weights and the same rounding between its two passes, so the model sees the pixels it
was trained on, to the bit, on every device and without Pillow.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from model.types import Frame, InputPrompts, Prompts

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
    pixels = torch.from_numpy(np.require(image_HWC3, requirements=("C", "W"))).to(device)
    pixels = resize_bilinear_uint8(pixels, frame.input_size)
    mean = torch.tensor(PIXEL_MEAN, device=device)
    std = torch.tensor(PIXEL_STD, device=device)
    normalised = ((pixels - mean) / std).permute(2, 0, 1)
    (height, width), (padded_height, padded_width) = frame.input_size, frame.padded_size
    return F.pad(normalised, (0, padded_width - width, 0, padded_height - height))


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
        return torch.from_numpy(array).to(device, precision)

    points, labels, boxes = prompts.points_xy, prompts.point_labels, prompts.boxes_xyxy
    return InputPrompts(
        points_NK2=None if points is None else tensor(points * scale_xy),
        labels_NK=None if labels is None else torch.tensor(labels, device=device),
        boxes_N4=None if boxes is None else tensor(boxes * np.tile(scale_xy, 2)),
        mask_logits_N1hw=None
        if prompts.mask_logits is None
        else prompts.mask_logits.to(device, torch.float32),
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
    if width != image_HWC.shape[1]:
        strips = torch.split(image_HWC, _STRIP_PX, dim=0)
        image_HWC = torch.cat([_resample(strip, 1, width) for strip in strips], dim=0)
    if height != image_HWC.shape[0]:
        strips = torch.split(image_HWC, _STRIP_PX, dim=1)
        image_HWC = torch.cat([_resample(strip, 0, height) for strip in strips], dim=1)
    return image_HWC


def _resample(image_HWC: Tensor, axis: int, out_size: int) -> Tensor:
    first, weights = _triangle_filter(image_HWC.shape[axis], out_size)
    shape = [1, 1, 1]
    shape[axis] = out_size
    last = image_HWC.shape[axis] - 1
    total: Tensor | int = 1 << (_FIXED_POINT_BITS - 1)  # rounds to the nearest
    for tap in range(weights.shape[1]):
        index = torch.from_numpy(np.minimum(first + tap, last)).to(image_HWC.device)
        weight = torch.from_numpy(weights[:, tap]).to(image_HWC.device).view(shape)
        total = image_HWC.index_select(axis, index).to(torch.int32).mul_(weight).add_(total)
    return (torch.as_tensor(total) >> _FIXED_POINT_BITS).clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=64)
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
    return first, np.floor(weights * (1 << _FIXED_POINT_BITS) + 0.5).astype(np.int32)
