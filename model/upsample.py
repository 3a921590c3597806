"""From low-resolution logits to logits at the image's original size, whole or only where a mask is.

Both do what SAM does: bilinear to the padded input, cut the padding, bilinear to the original size.
Most masks are small, so `upsample_window` computes a part only, with the same arithmetic in the
same order as `torch.nn.functional.interpolate`. `upsample_logits` takes both steps at once: an
output row depends on three low-resolution rows at most, and columns likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.types import Frame

LOW_RES_STRIDE = 4
_BLOCK_PIXELS = 2**17  # half a megabyte of float32 stays in the cache


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of the original image: rows y0..y1 and columns x0..x1, ends excluded."""

    y0: int
    y1: int
    x0: int
    x1: int


def upsample_logits(low_res_NMhw: Tensor, frame: Frame) -> Tensor:
    """Upsample logits to the whole image.

    Args:
        low_res_NMhw: logits at a quarter of the padded input.
        frame: how the image was laid into the input.

    Returns:
        (N, M, H, W) float32 at `frame.original_size`; the two interpolations within rounding.
    """
    whole = low_res_NMhw.new_empty(
        *low_res_NMhw.shape[:2], *frame.original_size, dtype=torch.float32
    )
    for rows, block in _upsampled_blocks(low_res_NMhw, frame, _everywhere(frame)):
        whole[..., rows, :] = block
    return whole


def upsample_masks(low_res_NMhw: Tensor, frame: Frame) -> Tensor:
    """Upsample logits to the whole image and return where they are above 0.

    Args:
        low_res_NMhw: logits at a quarter of the padded input.
        frame: how the image was laid into the input.

    Returns:
        (N, M, H, W) bool at `frame.original_size`; the logits in full are never held in memory.
    """
    masks = low_res_NMhw.new_zeros(*low_res_NMhw.shape[:2], *frame.original_size, dtype=torch.bool)
    if low_res_NMhw.device.type != "cpu":
        for rows, block in _upsampled_blocks(low_res_NMhw, frame, _everywhere(frame)):
            torch.gt(block, 0, out=masks[..., rows, :])
        return masks
    # A mask costs what it covers; numpy compares many numbers at once, torch one by one.
    low_res_Khw = low_res_NMhw.float().flatten(0, 1)
    regions = regions_above(low_res_Khw.numpy(), 0.0, frame)
    for low_res_hw, mask_HW, region in zip(low_res_Khw, masks.flatten(0, 1), regions, strict=True):
        if region is None:
            continue
        for rows, block in _upsampled_blocks(low_res_hw, frame, region):
            np.greater(block.numpy(), 0, out=mask_HW[rows, region.x0 : region.x1].numpy())
    return masks


def _everywhere(frame: Frame) -> Region:
    height, width = frame.original_size
    return Region(0, height, 0, width)


def _upsampled_blocks(
    low_res: Tensor, frame: Frame, region: Region
) -> Iterator[tuple[slice, Tensor]]:
    """Yield rows of the image with a region's logits, in a buffer that the next block overwrites.

    Args:
        low_res: (..., h, w).
        frame: how the image was laid into the input.
        region: what is wanted.

    Yields:
        Which rows of the image, and their logits (..., rows, region's columns).
    """
    first_H, weights_3H = axis_reach(frame, 0, low_res.device)
    columns = _column_weights(frame, low_res.device)[:, region.x0 : region.x1]
    top, bottom = _reached_rows(frame, region, low_res.shape[-2])
    wide = low_res[..., top:bottom, :].float() @ columns
    outer, width = wide.shape[:-2], wide.shape[-1]
    rows_at_once = max(1, _BLOCK_PIXELS // max(1, outer.numel() * width))
    buffer = wide.new_empty(*outer, min(rows_at_once, region.y1 - region.y0), width)
    for start in range(region.y0, region.y1, rows_at_once):
        block = slice(start, min(start + rows_at_once, region.y1))
        out = buffer[..., : block.stop - start, :]
        for tap, weights_H1 in enumerate(weights_3H[:, block].unsqueeze(-1)):
            rows = wide.index_select(-2, (first_H[block] + tap - top).clamp(max=bottom - top - 1))
            if tap == 0:
                torch.mul(rows, weights_H1, out=out)
            else:
                out.addcmul_(rows, weights_H1)
        yield block, out


def _reached_rows(frame: Frame, region: Region, height: int) -> tuple[int, int]:
    """Return the low-resolution rows, of `height`, that a region's rows depend on."""
    window = _region_taps(frame, region)[0].window
    return window.start, min(window.stop, height)


def regions_above(
    low_res_Nhw: NDArray[np.float32], threshold: float, frame: Frame
) -> list[Region | None]:
    """Bound where upsampled logits can exceed a threshold.

    Interpolation never exceeds the values it lies between, so a pixel above the threshold has a
    low-resolution neighbour above it.

    Returns:
        For each map a region that holds every such pixel, or None where there can be none.
    """
    above = low_res_Nhw > threshold
    rows: NDArray[np.bool_] = np.any(above, axis=2)
    columns: NDArray[np.bool_] = np.any(above, axis=1)
    regions: list[Region | None] = []
    for row, column in zip(rows, columns, strict=True):
        if not row.any():
            regions.append(None)
            continue
        y0, y1 = _original_span(row, frame, axis=0)
        x0, x1 = _original_span(column, frame, axis=1)
        regions.append(Region(y0, y1, x0, x1) if y0 < y1 and x0 < x1 else None)
    return regions


def _original_span(hit: NDArray[np.bool_], frame: Frame, axis: int) -> tuple[int, int]:
    """Map the low-resolution indices that are set to a span of original pixels, generously."""
    index = np.flatnonzero(hit)
    up = frame.padded_size[axis] / len(hit)
    scale = frame.input_size[axis] / frame.original_size[axis]
    first_input = max(0.0, (index[0] - 1) * up)
    last_input = min(frame.input_size[axis] - 1.0, (index[-1] + 2) * up)
    if first_input > last_input:  # only padding is hit
        return 0, 0
    first = int((first_input - 1) / scale) - 1
    last = int((last_input + 2) / scale) + 2
    return max(0, first), min(frame.original_size[axis], last)


def cut_window(
    low_res_hw: NDArray[np.float32], frame: Frame, region: Region
) -> NDArray[np.float32]:
    """Copy the low-resolution logits that a region of the image depends on."""
    rows, columns = (taps.window for taps in _region_taps(frame, region))
    return low_res_hw[rows, columns].copy()


def upsample_window(
    window_hw: NDArray[np.float32], frame: Frame, region: Region
) -> NDArray[np.float32]:
    """Upsample what `cut_window` returned for the same region.

    Returns:
        (y1 - y0, x1 - x0) float32: what `upsample_logits` has in the region.
    """
    rows, columns = _region_taps(frame, region)
    patch = window_hw
    for row_step, column_step in zip(rows.steps, columns.steps, strict=True):
        patch = _blend(patch, column_step, axis=1)
        patch = _blend(patch, row_step, axis=0)
    return patch


def upsample_points(
    logits_Mhw: NDArray[np.float32],
    frame: Frame,
    mask_K: NDArray[np.int64],
    y_K: NDArray[np.int64],
    x_K: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Upsample K single pixels of the image, each of one of M masks.

    Returns:
        (K,) float32: bit for bit what `upsample_window` has there.
    """
    height, width = frame.original_size
    rows, columns = _region_taps(frame, Region(0, height, 0, width))
    (low_y, input_y), (low_x, input_x) = rows.steps, columns.steps

    def low(y: NDArray[np.int64], x: NDArray[np.int64]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = logits_Mhw[
            mask_K, y + rows.window.start, x + columns.window.start
        ]
        return found

    def widened(y: NDArray[np.int64], x: NDArray[np.int64]) -> NDArray[np.float32]:
        return _between(low_x, x, lambda source: low(y, source))

    def at_input(y: NDArray[np.int64], x: NDArray[np.int64]) -> NDArray[np.float32]:
        return _between(low_y, y, lambda source: widened(source, x))

    def widened_again(y: NDArray[np.int64]) -> NDArray[np.float32]:
        return _between(input_x, x_K, lambda source: at_input(y, source))

    return _between(input_y, y_K, widened_again)


def _between(
    taps: _Taps,
    at_K: NDArray[np.int64],
    value_of: Callable[[NDArray[np.int64]], NDArray[np.float32]],
) -> NDArray[np.float32]:
    left = value_of(taps.left[at_K]) * taps.weight_left[at_K]
    return left + value_of(taps.right[at_K]) * taps.weight_right[at_K]


def _region_taps(frame: Frame, region: Region) -> tuple[_AxisTaps, _AxisTaps]:
    spans = (region.y0, region.y1), (region.x0, region.x1)
    rows, columns = (
        _axis_taps(
            frame.padded_size[axis] // LOW_RES_STRIDE,
            frame.padded_size[axis],
            frame.input_size[axis],
            frame.original_size[axis],
            *spans[axis],
        )
        for axis in (0, 1)
    )
    return rows, columns


@dataclass(frozen=True, slots=True, eq=False)
class _Taps:
    """One linear interpolation along an axis: two source indices and their weights per output."""

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    weight_left: NDArray[np.float32]
    weight_right: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class _AxisTaps:
    """Both interpolations of an axis, on the window of low-resolution indices that they read."""

    window: slice
    steps: tuple[_Taps, _Taps]


@lru_cache(maxsize=4096)
def _axis_taps(
    low_size: int, padded_size: int, input_size: int, original_size: int, start: int, stop: int
) -> _AxisTaps:
    second = _linear_taps(input_size, original_size, start, stop)
    first_needed, last_needed = int(second.left[0]), int(second.right[-1])
    first = _linear_taps(low_size, padded_size, first_needed, last_needed + 1)
    low_start, low_stop = int(first.left[0]), int(first.right[-1]) + 1
    return _AxisTaps(
        slice(low_start, low_stop), (_shifted(first, low_start), _shifted(second, first_needed))
    )


@lru_cache(maxsize=32)
def axis_reach(frame: Frame, axis: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Compose both interpolations of an axis: out[i] = sum over t of weights[t, i] low[first[i]+t].

    Returns:
        First indices (L,) and weights (3, L) for L output pixels.
    """
    size = frame.original_size[axis]
    padded = frame.padded_size[axis]
    taps = _axis_taps(padded // LOW_RES_STRIDE, padded, frame.input_size[axis], size, 0, size)
    lower, upper = taps.steps
    first_L = lower.left[upper.left]
    weights_3L = np.zeros((3, size), dtype=np.float32)
    for middle, share in ((upper.left, upper.weight_left), (upper.right, upper.weight_right)):
        for low, weight in ((lower.left, lower.weight_left), (lower.right, lower.weight_right)):
            np.add.at(weights_3L, (low[middle] - first_L, np.arange(size)), share * weight[middle])
    first = torch.from_numpy(first_L + taps.window.start).to(device)
    return first, torch.from_numpy(weights_3L).to(device)


@lru_cache(maxsize=32)
def _column_weights(frame: Frame, device: torch.device) -> Tensor:
    """Return what `axis_reach` has for columns as a matrix (w, W)."""
    first_W, weights_3W = axis_reach(frame, 1, device)
    width = frame.padded_size[1] // LOW_RES_STRIDE
    columns_Ww = weights_3W.new_zeros(len(first_W), width)
    for tap in range(3):
        columns_Ww.scatter_add_(
            1, (first_W + tap).clamp(max=width - 1).unsqueeze(1), weights_3W[tap].unsqueeze(1)
        )
    return columns_Ww.T.contiguous()


def _linear_taps(in_size: int, out_size: int, start: int, stop: int) -> _Taps:
    """Bilinear weights without aligned corners, in float32 as torch computes them."""
    scale = np.float32(in_size) / np.float32(out_size)
    # torch's kernels fuse this multiply and subtract: one rounding at the end, as from float64.
    source = (np.float64(scale) * (np.arange(start, stop) + 0.5) - 0.5).astype(np.float32)
    source = np.maximum(source, np.float32(0))
    left = np.minimum(source.astype(np.int64), in_size - 1)
    right = np.minimum(left + 1, in_size - 1)
    weight_right = np.clip(source - left.astype(np.float32), 0, 1).astype(np.float32)
    return _Taps(left, right, np.float32(1) - weight_right, weight_right)


def _shifted(taps: _Taps, by: int) -> _Taps:
    return _Taps(taps.left - by, taps.right - by, taps.weight_left, taps.weight_right)


def _blend(patch: NDArray[np.float32], taps: _Taps, axis: int) -> NDArray[np.float32]:
    shape: Sequence[int] = (-1, 1) if axis == 0 else (1, -1)
    left = patch.take(taps.left, axis)
    left *= taps.weight_left.reshape(shape)
    right = patch.take(taps.right, axis)
    right *= taps.weight_right.reshape(shape)
    left += right
    return left
