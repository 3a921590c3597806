"""Where upsampled logits are above a threshold, for many masks at once and exactly, on a processor.

    masks = threshold_masks(logits_Mhw, frame, offset=1.0)
    masks.area_M, masks.high_M, masks.low_M         # pixels above 0, +offset and -offset
    masks.strips_BMW                                # the mask's pixels, a bit each

What is certain is not computed. Interpolation stays between the values it lies between, so most
pixels are decided by the low-resolution logits around them; along the outline both interpolations
are taken in one step, as two matrix products; only where that comes as close to a threshold as its
rounding is a pixel computed in the order of operations that counts, `upsample_points`.

The image is worked through in strips, so high that their bits fit a machine word: a column of a
strip is a word, and counting pixels is counting bits.

Shapes: M masks, h w low-resolution logits, H W image pixels, B strips, R rows of a strip, r
low-resolution rows that a strip depends on, N columns of strips that have to be computed, K pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.types import Frame
from model.upsample import LOW_RES_STRIDE, Region, axis_reach, upsample_points

# About as high as the 8 low-resolution rows that make two thirds of what a strip depends on.
_ROWS_OF_A_STRIP = (8, 16, 32, 64)
_CELLS_OF_A_STRIP = 8
_COLUMNS_AT_ONCE = 8192  # a megabyte of float32 in strips of 32 rows
_REACH = 3  # low-resolution rows, or columns, that a pixel depends on

# Two interpolations of two axes round 12 times at most, the shortcut as often, each by 2**-24 of
# the largest logit: twice that is certain.
_SHORTCUT_ERROR = 2.0**-18
# Of a bound that four blends of equal values can drift by.
_BOUND_ERROR = 1e-5

_Bools = NDArray[np.bool_]
_Floats = NDArray[np.float32]
_Longs = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class ThresholdedMasks:
    """M masks at the image's size.

    Attributes:
        high_M: int64, pixels above +offset.
        area_M: int64, pixels above 0: the mask.
        low_M: int64, pixels above -offset.
        strips_BMW: unsigned words of R bits; bit i of word (b, m, x), from the lowest, is mask m's
            pixel in row ``b * R + i`` and column x.
    """

    high_M: _Longs
    area_M: _Longs
    low_M: _Longs
    strips_BMW: NDArray[np.unsignedinteger]

    @property
    def rows_of_a_strip(self) -> int:
        """R."""
        return 8 * self.strips_BMW.itemsize

    def regions(self) -> list[Region | None]:
        """Return each mask's tight box, None where it is empty."""
        rows_BM = np.bitwise_or.reduce(self.strips_BMW, axis=2)
        columns_MW = np.bitwise_or.reduce(self.strips_BMW, axis=0)
        return [
            self._region(rows_B, columns_W)
            for rows_B, columns_W in zip(rows_BM.T, columns_MW, strict=True)
        ]

    def _region(
        self, rows_B: NDArray[np.unsignedinteger], columns_W: NDArray[np.unsignedinteger]
    ) -> Region | None:
        (strips,) = rows_B.nonzero()
        if not len(strips):
            return None
        first, last = int(rows_B[strips[0]]), int(rows_B[strips[-1]])
        lowest_bit = (first & -first).bit_length() - 1
        y0 = int(strips[0]) * self.rows_of_a_strip + lowest_bit
        y1 = int(strips[-1]) * self.rows_of_a_strip + last.bit_length()
        x0, x1 = int(np.argmax(columns_W != 0)), int(np.argmax(columns_W[::-1] != 0))
        return Region(y0, y1, x0, len(columns_W) - x1)


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """What all masks of a frame share.

    Attributes:
        word: of R bits.
        windows_B: low-resolution rows that each strip depends on.
        weights_BrR: of these rows in each row of the strip; 0 below the image.
        heights_B: rows of each strip, R but for the last.
        starts_w: first of the pixel columns that depend on low-resolution columns c, c + 1, c + 2.
        widths_w: how many these are.
        weights_W3: of these low-resolution columns in each pixel column.
    """

    word: np.dtype[np.unsignedinteger]
    windows_B: list[slice]
    weights_BrR: list[Tensor]
    heights_B: _Longs
    starts_w: _Longs
    widths_w: _Longs
    weights_W3: Tensor


@lru_cache(maxsize=64)
def _plan(frame: Frame) -> _Plan:
    height = frame.original_size[0]
    h, w = (side // LOW_RES_STRIDE for side in frame.padded_size)
    cpu = torch.device("cpu")
    first_H, weights_3H = axis_reach(frame, 0, cpu)
    first_W, weights_3W = axis_reach(frame, 1, cpu)
    rows = _rows_of_a_strip(frame)
    windows, weights = [], []
    for y0 in range(0, height, rows):
        y1 = min(height, y0 + rows)
        window = slice(int(first_H[y0]), min(h, int(first_H[y1 - 1]) + _REACH))
        weights_rR = torch.zeros(window.stop - window.start, rows)
        for tap in range(_REACH):
            place = (first_H[y0:y1] + tap).clamp(max=window.stop - 1) - window.start
            weights_rR[:, : y1 - y0].scatter_add_(0, place[None], weights_3H[tap, None, y0:y1])
        windows.append(window)
        weights.append(weights_rR)
    starts_w = np.searchsorted(first_W.numpy(), np.arange(w))
    return _Plan(
        word=np.dtype(f"<u{rows // 8}"),
        windows_B=windows,
        weights_BrR=weights,
        heights_B=np.minimum(rows, height - np.arange(0, height, rows)),
        starts_w=starts_w,
        widths_w=np.searchsorted(first_W.numpy(), np.arange(w), side="right") - starts_w,
        weights_W3=weights_3W.T.contiguous(),
    )


def _rows_of_a_strip(frame: Frame) -> int:
    rows_of_a_cell = LOW_RES_STRIDE * frame.original_size[0] / frame.input_size[0]
    low = [rows for rows in _ROWS_OF_A_STRIP if rows <= _CELLS_OF_A_STRIP * rows_of_a_cell]
    return max(low, default=_ROWS_OF_A_STRIP[0])


@torch.inference_mode()
def threshold_masks(logits_Mhw: _Floats, frame: Frame, offset: float) -> ThresholdedMasks:
    """Compare upsampled logits with 0 and with `offset` on either side of it.

    Args:
        logits_Mhw: float32 at a quarter of the padded input, finite.
        frame: how the image was laid into the input.
        offset: not negative.

    Returns:
        The same as comparing every pixel of the image after `upsample_window`.
    """
    plan = _plan(frame)
    thresholds_T = np.array([-offset, 0.0, offset], np.float32)
    logits_hMw = np.ascontiguousarray(logits_Mhw.transpose(1, 0, 2))
    passed_BMw, certain_BMw = _certain(logits_hMw, plan, thresholds_T)
    shape = len(plan.windows_B), len(logits_Mhw), frame.original_size[1]
    strips_BMW = np.zeros(shape, plan.word)
    counts_TM = _mark_certain(np.where(certain_BMw, passed_BMw, 0), plan, strips_BMW)
    columns = _uncertain_columns(~certain_BMw & (plan.widths_w > 0), plan, shape[2])
    if len(columns.places_N):
        largest = max(float(logits_Mhw.max()), -float(logits_Mhw.min()))
        error = np.float32(_SHORTCUT_ERROR * (largest + offset))
        above_TN, open_TN = _compared(columns, logits_hMw, plan, thresholds_T, error)
        _settle(above_TN, open_TN, columns, logits_Mhw, frame, thresholds_T)
        strips_BMW.reshape(-1)[columns.places_N] = above_TN[1]
        bits_TS = np.add.reduceat(np.bitwise_count(above_TN), columns.starts_S, 1, np.int64)
        for counts_M, bits_S in zip(counts_TM, bits_TS, strict=True):
            np.add.at(counts_M, columns.masks_S, bits_S)
    low_M, area_M, high_M = counts_TM
    return ThresholdedMasks(high_M, area_M, low_M, strips_BMW)


def _certain(
    logits_hMw: _Floats, plan: _Plan, thresholds_T: _Floats
) -> tuple[NDArray[np.uint8], _Bools]:
    """Bound the pixels of each strip that depend on low-resolution columns c to c + 2.

    Returns:
        (B, M, w) how many thresholds the lowest of them is above, and whether the highest is above
        no more.
    """
    lowest_BMw, highest_BMw = (
        np.stack([extreme(logits_hMw[window], axis=0) for window in plan.windows_B])
        for extreme in (np.min, np.max)
    )
    drift = np.float32(_BOUND_ERROR * (1 + thresholds_T[-1]))
    surely_BMw = _thresholds_below(_widened(lowest_BMw, np.minimum) - drift, thresholds_T)
    possibly_BMw = _thresholds_below(_widened(highest_BMw, np.maximum) + drift, thresholds_T)
    return surely_BMw, surely_BMw == possibly_BMw


def _widened(bounds_BMw: _Floats, extreme: np.ufunc) -> _Floats:
    widened_BMw = bounds_BMw.copy()
    for tap in range(1, _REACH):
        part_BMw = widened_BMw[..., :-tap]
        extreme(part_BMw, bounds_BMw[..., tap:], out=part_BMw)
    return widened_BMw


def _thresholds_below(bounds_BMw: _Floats, thresholds_T: _Floats) -> NDArray[np.uint8]:
    passed_BMw = np.zeros(bounds_BMw.shape, np.uint8)
    for threshold in thresholds_T:
        passed_BMw += bounds_BMw > threshold
    return passed_BMw


def _mark_certain(
    passed_BMw: NDArray[np.uint8], plan: _Plan, strips_BMW: NDArray[np.unsignedinteger]
) -> _Longs:
    """Set the mask's certain pixels and count all certain ones: (3, M)."""
    widths_w = plan.widths_w.astype(np.float32)  # products of float32 are fast, and exact here
    counts_TM = [
        plan.heights_B @ ((passed_BMw > t).astype(np.float32) @ widths_w).astype(np.int64)
        for t in range(3)
    ]
    cells_C = np.flatnonzero(passed_BMw > 1)
    cell_N, places_N, _ = _pixel_columns(cells_C, plan, strips_BMW.shape[2])
    full_B = ((1 << plan.heights_B.astype(object)) - 1).astype(plan.word)
    strip_C = cells_C // passed_BMw[0].size
    strips_BMW.reshape(-1)[places_N] = full_B[strip_C[cell_N]]
    return np.stack(counts_TM)


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """N columns of strips, by strip, mask and place from the left.

    Attributes:
        places_N: flat index into (B, M, W).
        weights_N3: of the three low-resolution columns that each depends on.
        taps_N3: which these are, as places in its strip's `needed_BL`.
        ends_B: where each strip's columns end.
        needed_BL: of each strip, the low-resolution columns to interpolate, flat in (M, w).
        starts_S: where a strip of a mask begins.
        masks_S: which mask that is.
    """

    places_N: _Longs
    weights_N3: Tensor
    taps_N3: Tensor
    ends_B: _Longs
    needed_BL: list[_Longs]
    starts_S: _Longs
    masks_S: _Longs


def _uncertain_columns(uncertain_BMw: _Bools, plan: _Plan, width: int) -> _Columns:
    strips, masks, w = uncertain_BMw.shape
    needed_BMw = uncertain_BMw.copy()
    for tap in range(1, _REACH):
        needed_BMw[..., tap:] |= uncertain_BMw[..., :-tap]
    needed_BL = [np.flatnonzero(needed_Mw) for needed_Mw in needed_BMw]
    lengths_B = np.array([len(needed_L) for needed_L in needed_BL])
    ends_B = np.cumsum(lengths_B)
    cells_C = np.flatnonzero(uncertain_BMw)
    strip_C, row_C = cells_C // (masks * w), cells_C // w
    place_C3 = np.cumsum(needed_BMw.ravel(), dtype=np.int32)[cells_C, None] + np.arange(_REACH) - 1
    # Beyond the last one the weight is 0.
    taps_C3 = np.minimum(place_C3, ends_B[strip_C, None] - 1) - (ends_B - lengths_B)[strip_C, None]
    cell_N, places_N, x_N = _pixel_columns(cells_C, plan, width)
    first_C = np.searchsorted(cell_N, np.arange(len(cells_C)))
    starts_S = np.flatnonzero(np.diff(row_C, prepend=-1))
    return _Columns(
        places_N=places_N,
        weights_N3=plan.weights_W3.index_select(0, torch.from_numpy(x_N)),
        taps_N3=torch.from_numpy(taps_C3.astype(np.int32)).index_select(
            0, torch.from_numpy(cell_N)
        ),
        ends_B=np.append(first_C, len(cell_N))[
            np.searchsorted(strip_C, np.arange(strips), "right")
        ],
        needed_BL=needed_BL,
        starts_S=first_C[starts_S],
        masks_S=row_C[starts_S] % masks,
    )


def _pixel_columns(cells_C: _Longs, plan: _Plan, width: int) -> tuple[_Longs, _Longs, _Longs]:
    """Return the pixel columns of low-resolution cells (B, M, w): cell_N, places_N and x_N."""
    row_C, column_C = np.divmod(cells_C, len(plan.widths_w))
    widths_C = plan.widths_w[column_C]
    ends_C = np.cumsum(widths_C)
    cell_N = np.repeat(np.arange(len(cells_C)), widths_C)
    x_N = np.arange(len(cell_N)) + (plan.starts_w[column_C] - ends_C + widths_C)[cell_N]
    return cell_N, x_N + (row_C * width)[cell_N], x_N


def _compared(
    columns: _Columns, logits_hMw: _Floats, plan: _Plan, thresholds_T: _Floats, error: np.float32
) -> tuple[NDArray[np.unsignedinteger], NDArray[np.unsignedinteger]]:
    """Compare columns with the thresholds by a shortcut: (3, N) words of R bits.

    Returns:
        Which pixels are above each threshold for certain, and which may be.
    """
    shape = len(thresholds_T), len(columns.places_N)
    above_TN, open_TN = np.empty(shape, plan.word), np.empty(shape, plan.word)
    for part, values_NR in _values(columns, logits_hMw, plan):
        for t, threshold in enumerate(thresholds_T):
            above_TN[t, part] = _packed(values_NR > threshold + error, plan.word)
            open_TN[t, part] = _packed(values_NR > threshold - error, plan.word)
    open_TN ^= above_TN
    return above_TN, open_TN


def _values(columns: _Columns, logits_hMw: _Floats, plan: _Plan) -> Iterator[tuple[slice, _Floats]]:
    """Yield logits (N, R) of some columns at a time, -inf below the image."""
    start = 0
    for strip, (end, needed_L) in enumerate(zip(columns.ends_B, columns.needed_BL, strict=True)):
        if start == end:
            continue
        window_rL = logits_hMw[plan.windows_B[strip]].reshape(-1, logits_hMw[0].size)
        tall_LR = torch.from_numpy(window_rL.take(needed_L, axis=1)).T @ plan.weights_BrR[strip]
        for first in range(start, end, _COLUMNS_AT_ONCE):
            part = slice(first, min(end, first + _COLUMNS_AT_ONCE))
            # A bag is a weighted sum of few rows, in one pass: an interpolation.
            values_NR = functional.embedding_bag(
                columns.taps_N3[part],
                tall_LR,
                mode="sum",
                per_sample_weights=columns.weights_N3[part],
            ).numpy()
            values_NR[:, plan.heights_B[strip] :] = -np.inf
            yield part, values_NR
        start = end


def _settle(
    above_TN: NDArray[np.unsignedinteger],
    open_TN: NDArray[np.unsignedinteger],
    columns: _Columns,
    logits_Mhw: _Floats,
    frame: Frame,
    thresholds_T: _Floats,
) -> None:
    """Compute the pixels that the shortcut left open."""
    t_J, n_J = np.nonzero(open_TN != 0)
    j_K, bit_K = np.nonzero(_unpacked(open_TN[t_J, n_J]))
    t_K, n_K = t_J[j_K], n_J[j_K]
    row_K, x_K = np.divmod(columns.places_N[n_K], frame.original_size[1])
    strip_K, mask_K = np.divmod(row_K, len(logits_Mhw))
    y_K = strip_K * 8 * open_TN.itemsize + bit_K
    inside_K = upsample_points(logits_Mhw, frame, mask_K, y_K, x_K) > thresholds_T[t_K]
    bits_K = np.left_shift(inside_K.astype(open_TN.dtype), bit_K.astype(open_TN.dtype))
    np.bitwise_or.at(above_TN, (t_K, n_K), bits_K)


def _packed(above_NR: _Bools, word: np.dtype[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    return np.packbits(above_NR.ravel(), bitorder="little").view(word)


def _unpacked(words_N: NDArray[np.unsignedinteger]) -> NDArray[np.uint8]:
    bytes_NR = words_N.view(np.uint8).reshape(len(words_N), words_N.itemsize)
    return np.unpackbits(bytes_NR, axis=1, bitorder="little")
