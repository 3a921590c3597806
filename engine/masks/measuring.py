"""Areas and boxes of many masks at once, from their run lengths, without a pixel.

    measured = measure_masks(text, starts, heights, widths)     # buffers of an Arrow column
    measured.is_valid_N, measured.areas_N, measured.boxes_xyxy_N4

The same rules as `engine.masks.rle`, one mask after another, but with numpy calls that span
thousands of masks: auditing a data set costs microseconds a mask. Shapes: N masks; B bytes of
text; D numbers (digits read); R runs of mask pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadInputError
from engine.masks.rle import MAX_DIGITS, MAX_PIXELS

__all__ = ["MeasuredMasks", "measure_masks"]

# What is looked at together: its arrays fit into a core's own cache.
_PART_BYTES = 64 * 1024

_Longs = NDArray[np.int64]
_Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredMasks:
    """What the run lengths of N masks say.

    Attributes:
        is_valid_N: whether the mask can be decoded to its size; `validate_rle` says why not.
        areas_N: int64, mask pixels; 0 where it is not valid.
        boxes_xyxy_N4: int64, first and last column and row with a mask pixel; -1 where there is
            none or the mask is not valid.
    """

    is_valid_N: _Bools
    areas_N: _Longs
    boxes_xyxy_N4: _Longs


def measure_masks(
    text_B: NDArray[np.uint8],
    offsets_N1: NDArray[np.integer],
    heights_N: NDArray[np.integer],
    widths_N: NDArray[np.integer],
) -> MeasuredMasks:
    """Measure masks whose compressed counts lie behind one another.

    Args:
        text_B: uint8, the counts' characters.
        offsets_N1: mask i has ``text[offsets[i]:offsets[i + 1]]``.
        heights_N: rows of each image in pixels.
        widths_N: columns of each image in pixels.

    Returns:
        The same for each mask as `validate_rle`, `mask_area` and `mask_box_xyxy`.

    Raises:
        BadInputError: arrays that do not fit together.
    """
    offsets, heights, widths = (np.asarray(a, np.int64) for a in (offsets_N1, heights_N, widths_N))
    count = len(heights)
    if len(offsets) != count + 1 or len(widths) != count or text_B.dtype != np.uint8:
        raise BadInputError(
            f"got {len(offsets)} offsets, {count} heights and {len(widths)} widths into "
            f"{text_B.dtype} text; expected N + 1, N, N and uint8"
        )
    if np.any(np.diff(offsets, prepend=0) < 0) or offsets[-1] > len(text_B):
        raise BadInputError("the offsets of the counts must ascend and end inside the text")
    measured = MeasuredMasks(
        np.zeros(count, np.bool_), np.zeros(count, np.int64), np.full((count, 4), -1, np.int64)
    )
    sane = (heights > 0) & (widths > 0) & (heights <= MAX_PIXELS) & (widths <= MAX_PIXELS)
    sane[sane] = heights[sane] * widths[sane] <= MAX_PIXELS
    for part in _parts(offsets):
        places = np.flatnonzero(sane[part] & (np.diff(offsets[part.start : part.stop + 1]) > 0))
        if places.size:
            _measure(text_B, offsets, heights, widths, places + part.start, measured)
    return measured


def _parts(offsets_N1: _Longs) -> Iterator[slice]:
    """Cut the masks into parts of about `_PART_BYTES`, one mask at least."""
    start, count = 0, len(offsets_N1) - 1
    while start < count:
        stop = int(np.searchsorted(offsets_N1, offsets_N1[start] + _PART_BYTES, "right")) - 1
        stop = min(max(stop, start + 1), count)
        yield slice(start, stop)
        start = stop


def _measure(
    text_B: NDArray[np.uint8],
    offsets_N1: _Longs,
    heights_N: _Longs,
    widths_N: _Longs,
    places: _Longs,
    measured: MeasuredMasks,
) -> None:
    """Measure the masks at `places`, which have text and a possible size, into `measured`."""
    starts, stops = offsets_N1[places], offsets_N1[places + 1]
    first, last = int(starts[0]), int(stops[-1])
    if int((stops - starts).sum()) == last - first:
        text = text_B[first:last]
    else:  # between them lie masks of impossible sizes
        text = np.concatenate(
            [text_B[a:b] for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]
        )
    lengths = stops - starts
    numbers_D, counts_N, is_valid = _read_numbers(text, np.cumsum(lengths))
    heights, widths = heights_N[places], widths_N[places]
    fore_R, back_R, fores_N, spare_N, wrong_N = _runs(numbers_D, counts_N)
    fore_ends = np.concatenate([[0], np.cumsum(fore_R)])
    back_ends = np.concatenate([[0], np.cumsum(back_R)])
    ends = np.cumsum(fores_N)
    begins = ends - fores_N
    areas = fore_ends[ends] - fore_ends[begins]
    backgrounds = back_ends[ends] - back_ends[begins]
    is_valid &= ~wrong_N & (areas + backgrounds + spare_N == heights * widths)
    # Position of each run in its own image, column by column.
    origins = np.repeat(fore_ends[begins] + back_ends[begins], fores_N)
    stops_R = fore_ends[1:] + back_ends[1:] - origins
    boxes = _boxes(stops_R - fore_R, stops_R, fores_N, heights, is_valid)
    measured.is_valid_N[places] = is_valid
    measured.areas_N[places] = np.where(is_valid, areas, 0)
    measured.boxes_xyxy_N4[places] = boxes


def _read_numbers(text_B: NDArray[np.uint8], ends_N: _Longs) -> tuple[_Longs, _Longs, _Bools]:
    """Read base-32 numbers: (numbers, how many each mask has, whether they are well formed).

    Whatever the text says, each number belongs to one mask, and each mask has at least one.
    """
    codes = text_B - np.uint8(48)
    is_valid = np.ones(len(ends_N), np.bool_)
    if codes.max() > 63:
        wrong = np.flatnonzero(codes > 63)
        is_valid[np.searchsorted(ends_N, wrong, "right")] = False
        codes &= 63
    is_last = codes < 32
    is_valid &= is_last[ends_N - 1]
    is_last[ends_N - 1] = True
    last = np.flatnonzero(is_last)
    ends_D = np.searchsorted(last, ends_N)
    digits = np.diff(last, prepend=-1)
    if digits.max() > MAX_DIGITS:
        wrong = np.flatnonzero(digits > MAX_DIGITS)
        is_valid[np.searchsorted(ends_D, wrong, "right")] = False
        digits = np.minimum(digits, MAX_DIGITS)
    # The highest digit carries the sign in its highest bit; the others follow below it.
    top = (codes[last] & 31).astype(np.int64)
    numbers = top - ((top & 16) << 1)
    longer = np.flatnonzero(digits > 1)
    for place in range(1, int(digits.max())):
        numbers[longer] = (numbers[longer] << 5) | (codes[last[longer] - place] & 31)
        longer = longer[digits[longer] > place + 1]
    return numbers, np.diff(ends_D, prepend=0), is_valid


def _runs(numbers_D: _Longs, counts_N: _Longs) -> tuple[_Longs, _Longs, _Longs, _Longs, _Bools]:
    """Undo the differences of all masks.

    Returns:
        Runs of mask; the background before each; runs of mask per mask; the background after each
        mask's last run; whether a run of the mask is impossible.
    """
    ends = np.cumsum(counts_N)
    begins = ends - counts_N
    # Odd places are runs of mask, even ones background; from the fourth number on they hold the
    # difference to the run two places earlier, so that a mask's first number stands alone.
    parity = np.arange(len(numbers_D)) - np.repeat(begins, counts_N) & 1 == 1
    firsts = numbers_D[begins]
    changes = numbers_D.copy()
    changes[begins] = 0
    fores_N, backs_N = counts_N // 2, (counts_N + 1) // 2
    fore = _restarted_sums(changes[parity], fores_N)
    back = _restarted_sums(changes[~parity], backs_N)
    back[np.cumsum(backs_N) - backs_N] = firsts
    # As unsigned numbers, negative runs are too long as well.
    wrong = _any(fore.view(np.uint64) > MAX_PIXELS, fores_N)
    wrong |= _any(back.view(np.uint64) > MAX_PIXELS, backs_N)
    odd = backs_N > fores_N
    trailing = np.cumsum(backs_N)[odd] - 1
    spare = np.zeros(len(counts_N), np.int64)
    spare[odd] = back[trailing]
    return fore, np.delete(back, trailing), fores_N, spare, wrong


def _restarted_sums(values: _Longs, counts_N: _Longs) -> _Longs:
    """Running sums that begin anew with each mask."""
    sums = np.cumsum(values)
    before = np.concatenate([[0], sums])[np.cumsum(counts_N) - counts_N]
    sums -= np.repeat(before, counts_N)
    return sums


def _any(flags: _Bools, counts_N: _Longs) -> _Bools:
    """Whether any of a mask's flags is set."""
    found = np.zeros(len(counts_N), np.bool_)
    if (places := np.flatnonzero(flags)).size:
        found[np.searchsorted(np.cumsum(counts_N), places, "right")] = True
    return found


def _boxes(
    starts_R: _Longs, stops_R: _Longs, counts_N: _Longs, heights_N: _Longs, is_valid_N: _Bools
) -> _Longs:
    """Boxes of the valid masks from where their runs begin and end; -1 for the others."""
    boxes = np.full((len(counts_N), 4), -1, np.int64)
    keep = stops_R > starts_R
    if not (keep.all() and is_valid_N.all()):
        keep &= np.repeat(is_valid_N, counts_N)
        owners = np.repeat(np.arange(len(counts_N)), counts_N)[keep]
        counts_N = np.bincount(owners, minlength=len(counts_N))
        starts_R, stops_R = starts_R[keep], stops_R[keep]
    places = np.flatnonzero(counts_N)
    if not places.size:
        return boxes
    counts, heights = counts_N[places], heights_N[places]
    ends = np.cumsum(counts)
    begins = ends - counts
    heights_R = np.repeat(heights, counts)
    # Quotients below 2**31 of whole numbers are exact to the floor in float64, and much faster.
    first_columns = (starts_R / heights_R).astype(np.int64)
    first_rows = starts_R - first_columns * heights_R
    last_rows = first_rows + (stops_R - starts_R) - 1
    tops = np.minimum.reduceat(first_rows, begins)
    bottoms = np.maximum.reduceat(last_rows, begins)
    # A run that goes on into the next column touches the bottom and the top of the image.
    crosses = bottoms >= heights
    boxes[places, 0] = first_columns[begins]
    boxes[places, 1] = np.where(crosses, 0, tops)
    boxes[places, 2] = (stops_R[ends - 1] - 1) // heights
    boxes[places, 3] = np.where(crosses, heights - 1, bottoms)
    return boxes
