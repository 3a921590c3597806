"""COCO run-length encoding of binary masks.

    rle = encode_region(region_hw, x0=800, y0=400, height=1500, width=2250)
    mask_hw = decode_mask(rle)

A COCO RLE walks the image column by column (`pixel = x * height + y`), starting with background.
The compressed text stores each run as base-32 digits; from the fourth run on as the difference to
the run two places earlier (pycocotools, ``common/maskApi.c``).

Run lengths are computed and read with numpy, so that text from elsewhere is checked before C code
sees it and a small mask in a large image costs what the small mask costs. Shapes: H, W rows and
columns of the image; h, w of a region; N number of masks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from engine.errors import BadInputError, InvalidMaskError
from engine.records import Rle

__all__ = [
    "decode_mask",
    "decode_region",
    "encode_mask",
    "encode_polygons",
    "encode_region",
    "encode_runs",
    "mask_area",
    "mask_areas",
    "mask_box_xyxy",
    "mask_iou",
    "validate_rle",
]

# pycocotools computes with 32-bit integers.
MAX_PIXELS = 2**31 - 1
# Seven base-32 digits hold every difference of two runs of an image of that size.
MAX_DIGITS = 7


def encode_mask(mask_HW: NDArray[np.bool_]) -> Rle:
    """Encode a mask of the whole image.

    Args:
        mask_HW: bool (H, W), any memory order.

    Returns:
        The RLE, byte for byte what pycocotools makes.

    Raises:
        BadInputError: not a two-dimensional bool array, no pixels, or 2**31 pixels and more.
    """
    _check_region(mask_HW)
    return encode_region(mask_HW, 0, 0, *mask_HW.shape)


def encode_region(region_hw: NDArray[np.bool_], x0: int, y0: int, height: int, width: int) -> Rle:
    """Encode a mask that is known only inside a region, without allocating the image.

    Args:
        region_hw: bool (h, w); every mask pixel lies in it. May be empty (h or w is 0).
        x0: column of the region's left edge in pixels of the image.
        y0: row of the region's top edge in pixels of the image.
        height: rows of the image in pixels.
        width: columns of the image in pixels.

    Returns:
        The RLE of the (height, width) mask that is `region_hw` at (x0, y0) and False elsewhere,
        byte for byte equal to `encode_mask` of that mask.

    Raises:
        BadInputError: not a two-dimensional bool array, a region that leaves the image, no pixels,
            or 2**31 pixels and more.
    """
    _check_region(region_hw)
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise BadInputError(
            f"an image of {height} x {width} pixels cannot hold a mask; "
            f"expected 1 to {MAX_PIXELS:,} pixels"
        )
    h, w = region_hw.shape
    if x0 < 0 or y0 < 0 or x0 + w > width or y0 + h > height:
        raise BadInputError(
            f"a region of {h} x {w} pixels at row {y0}, column {x0} leaves the image of "
            f"{height} x {width}; clip it to the image first"
        )
    boundaries = _boundaries(region_hw, x0, y0, height)
    runs = np.diff(boundaries, prepend=0, append=height * width)
    if runs[-1] == 0:
        runs = runs[:-1]
    return _compress(runs, height, width)


def encode_runs(runs: Sequence[int], height: int, width: int) -> Rle:
    """Encode COCO's uncompressed RLE: plain run lengths, column-major, starting with background.

    Raises:
        InvalidMaskError: runs that are negative or do not add up to height * width.
    """
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise InvalidMaskError(
            f"an RLE of {height} x {width} pixels; expected 1 to {MAX_PIXELS:,} pixels"
        )
    lengths = np.asarray(runs)
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or lengths.size == 0:
        raise InvalidMaskError("uncompressed counts must be a list of whole numbers, at least one")
    if lengths.min() < 0 or int(lengths.sum()) != height * width:
        raise InvalidMaskError(
            f"uncompressed counts of a {height} x {width} mask must be at least 0 and add up to "
            f"{height * width:,}; got a smallest of {lengths.min()} and a sum of "
            f"{int(lengths.sum()):,}"
        )
    return _compress(lengths.astype(np.int64), height, width)


def encode_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> Rle:
    """Encode COCO polygons: the union of what each one encloses, cut to the image.

    Args:
        polygons: each ``[x0, y0, x1, y1, ...]`` in pixels of the image, 3 points or more. One of
            2 points or less encloses nothing and adds nothing; other tools write such.
        height: rows of the image in pixels.
        width: columns of the image in pixels.

    Raises:
        InvalidMaskError: coordinates that are not finite pairs or lie far outside the image.
        BadInputError: no pixels, or 2**31 pixels and more.
    """
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise BadInputError(
            f"an image of {height} x {width} pixels cannot hold a mask; "
            f"expected 1 to {MAX_PIXELS:,} pixels"
        )
    outlines: list[list[float]] = []
    for polygon in polygons:
        try:
            points_P2 = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
        except (TypeError, ValueError) as error:
            raise InvalidMaskError(f"a polygon must be x, y pairs of numbers: {error}") from error
        # The tracer walks along every edge: a stray coordinate would cost memory without end.
        reach = np.array([width, height]) * 2.0
        if not np.all(np.abs(points_P2) <= reach):  # also where it is NaN
            raise InvalidMaskError(
                f"a polygon reaches {points_P2.min()} to {points_P2.max()} on an image of "
                f"{width} x {height} pixels; its coordinates belong to another image"
            )
        if len(points_P2) >= 3:
            outlines.append(points_P2.ravel().tolist())
    if not outlines:
        return _compress(np.array([height * width]), height, width)
    merged = coco_mask.merge(coco_mask.frPyObjects(outlines, height, width))
    return Rle(height=height, width=width, counts=merged["counts"].decode("ascii"))


def decode_mask(rle: Rle) -> NDArray[np.bool_]:
    """Decode an RLE, trusted or not.

    Returns:
        bool (H, W), writable, in column-major (Fortran) memory order, as the RLE is.

    Raises:
        InvalidMaskError: as `validate_rle`.
    """
    runs = _run_lengths(rle)
    is_mask = np.arange(len(runs)) % 2 == 1
    return np.repeat(is_mask, runs).reshape(rle.width, rle.height).T


def decode_region(rle: Rle, box_xyxy: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """Decode the part of an RLE inside a box; costs what the box's columns cost.

    Args:
        rle: trusted or not.
        box_xyxy: (x0, y0, x1, y1) in pixels of the image, x1 and y1 one past the last, not empty.

    Returns:
        bool (y1 - y0, x1 - x0), equal to ``decode_mask(rle)[y0:y1, x0:x1]``.

    Raises:
        BadInputError: a box that is empty or leaves the image.
        InvalidMaskError: as `validate_rle`.
    """
    x0, y0, x1, y1 = box_xyxy
    if not (0 <= x0 < x1 <= rle.width and 0 <= y0 < y1 <= rle.height):
        raise BadInputError(
            f"got the box {box_xyxy} for a mask of {rle.height} x {rle.width}; expected x0 < x1 "
            "and y0 < y1 inside it"
        )
    ends = np.cumsum(_run_lengths(rle))
    start, stop = x0 * rle.height, x1 * rle.height
    first, last = np.searchsorted(ends, [start + 1, stop])
    cut = np.minimum(ends[first : last + 1], stop)
    is_mask = np.arange(first, last + 1) % 2 == 1
    columns_wH = np.repeat(is_mask, np.diff(cut, prepend=start)).reshape(x1 - x0, rle.height)
    return columns_wH[:, y0:y1].T


def validate_rle(rle: Rle) -> None:
    """Check that an RLE can be decoded to a mask of its size.

    Runs of zero length are accepted, as other writers make them.

    Raises:
        InvalidMaskError: a size below 1 or of 2**31 pixels and more, characters outside ``"0"`` to
            ``"o"``, a cut or overlong number, a negative run, or runs that do not add up to the
            size.
    """
    _run_lengths(rle)


def mask_area(rle: Rle) -> int:
    """Count the mask pixels of an RLE.

    Raises:
        InvalidMaskError: as `validate_rle`.
    """
    return int(_run_lengths(rle)[1::2].sum())


def mask_areas(rles: Sequence[Rle]) -> NDArray[np.int64]:
    """Count the mask pixels of many RLEs, of any sizes and any number.

    Returns:
        int64 (N,), in pixels.

    Raises:
        InvalidMaskError: as `validate_rle`.
    """
    return np.array([mask_area(rle) for rle in rles], dtype=np.int64)


def mask_box_xyxy(rle: Rle) -> tuple[int, int, int, int] | None:
    """Find the tight box of a mask.

    Returns:
        (x0, y0, x1, y1) in pixels of the image, where x1 and y1 are the last column and row that
        hold a mask pixel; None for an empty mask.

    Raises:
        InvalidMaskError: as `validate_rle`.
    """
    runs = _run_lengths(rle)
    boundaries = np.cumsum(runs)
    lengths = runs[1::2]
    stops = boundaries[1::2][lengths > 0]
    if stops.size == 0:
        return None
    starts = stops - lengths[lengths > 0]
    first_columns, first_rows = np.divmod(starts, rle.height)
    last_columns, last_rows = np.divmod(stops - 1, rle.height)
    x0, x1 = int(first_columns[0]), int(last_columns[-1])
    if np.any(first_columns != last_columns):
        # A run that goes on into the next column touches the bottom and the top of the image.
        return x0, 0, x1, rle.height - 1
    return x0, int(first_rows.min()), x1, int(last_rows.max())


def mask_iou(a: Sequence[Rle], b: Sequence[Rle]) -> NDArray[np.float64]:
    """Intersection over union of every mask of `a` with every mask of `b`.

    Args:
        a: masks of one image.
        b: masks of the same image.

    Returns:
        float64 (len(a), len(b)) in [0, 1]; 0 where both masks are empty.

    Raises:
        BadInputError: the masks are of different sizes.
        InvalidMaskError: as `validate_rle`.
    """
    sizes = sorted({(rle.height, rle.width) for rle in (*a, *b)})
    if len(sizes) > 1:
        raise BadInputError(
            f"masks of different sizes (rows, columns) cannot be compared: {sizes[:3]}; "
            "compare masks of one image at a time"
        )
    coco_a, coco_b = [_to_coco(rle) for rle in a], [_to_coco(rle) for rle in b]
    if not coco_a or not coco_b:
        return np.zeros((len(a), len(b)), dtype=np.float64)
    return np.asarray(coco_mask.iou(coco_a, coco_b, [0] * len(coco_b)), dtype=np.float64)


def _check_region(region_hw: NDArray[np.bool_]) -> None:
    """Raise BadInputError unless the array is two-dimensional and bool."""
    if region_hw.ndim != 2 or region_hw.dtype != np.bool_:
        raise BadInputError(
            f"expected a bool mask of shape (H, W), got {region_hw.dtype} of shape "
            f"{region_hw.shape}; threshold it first, e.g. mask > 0"
        )


def _boundaries(region_hw: NDArray[np.bool_], x0: int, y0: int, height: int) -> NDArray[np.int64]:
    """Positions in the column-major image where the value changes, ascending: int64 (even length).

    Even entries are the first pixel of a mask run, odd entries the first pixel after it.
    """
    h, w = region_hw.shape
    # One False before the region and one below each column: no run crosses from column to column.
    padded = np.zeros(1 + w * (h + 1), dtype=np.bool_)
    padded[1:].reshape(w, h + 1)[:, :h] = region_hw.T
    changes = np.flatnonzero(padded[1:] != padded[:-1])
    columns, rows = np.divmod(changes, h + 1)
    boundaries: NDArray[np.int64] = (columns + x0) * height + (rows + y0)
    if h < height:
        return boundaries
    # The region is as high as the image: a run that ends at the bottom of a column continues at the
    # top of the next one.
    joined = np.flatnonzero(boundaries[1:-1:2] == boundaries[2::2]) * 2 + 1
    return np.delete(boundaries, np.concatenate([joined, joined + 1]))


def _compress(runs: NDArray[np.int64], height: int, width: int) -> Rle:
    """Write run lengths in COCO's compressed form.

    pycocotools needs 0.4 of the time of a vectorised numpy compressor (tests/engine/test_masks.py
    holds it to `encode_mask`).
    """
    coco = coco_mask.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)
    return Rle(height=height, width=width, counts=coco["counts"].decode("ascii"))


def _to_coco(rle: Rle) -> dict[str, object]:
    """Check an RLE and hand it over in the form and the spelling that pycocotools makes itself."""
    runs = _run_lengths(rle)
    if np.any(runs[1:] == 0):
        # Runs of zero length mislead the boxes by which pycocotools skips pairs.
        rle = encode_mask(decode_mask(rle))
    return {"size": [rle.height, rle.width], "counts": rle.counts.encode("ascii")}


def _run_lengths(rle: Rle) -> NDArray[np.int64]:
    """Read and check the run lengths of an RLE: int64, none negative, summing to height * width."""
    if rle.height < 1 or rle.width < 1 or rle.height * rle.width > MAX_PIXELS:
        raise InvalidMaskError(
            f"an RLE of {rle.height} x {rle.width} pixels; expected 1 to {MAX_PIXELS:,} pixels"
        )
    numbers = _read_numbers(rle)
    runs = numbers.copy()
    runs[1::2] = np.cumsum(numbers[1::2])
    runs[2::2] = np.cumsum(numbers[2::2])
    if runs.min() < 0:
        raise InvalidMaskError(
            f"the RLE of a {rle.height} x {rle.width} mask has a run of {runs.min()} pixels; "
            "its counts are damaged or uncompressed"
        )
    if (total := int(runs.sum())) != rle.height * rle.width:
        raise InvalidMaskError(
            f"the RLE's runs add up to {total:,} pixels, its size {rle.height} x {rle.width} to "
            f"{rle.height * rle.width:,}; it is cut, or belongs to an image of another size"
        )
    return runs


def _read_numbers(rle: Rle) -> NDArray[np.int64]:
    """Read the numbers of compressed counts: int64, at least one, each within 35 bits.

    A character holds a base-32 digit, least significant first, and a flag for "more digits
    follow"; the highest bit of a number's last digit is its sign.
    """
    if not isinstance(rle.counts, str):
        raise InvalidMaskError(
            f"an RLE's counts must be compressed text, got {type(rle.counts).__name__}"
        )
    text = rle.counts if rle.counts.isascii() else ""
    codes = np.frombuffer(text.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    if codes.size == 0 or codes.min() < 0 or codes.max() > 63:
        raise InvalidMaskError(
            'the RLE\'s counts are empty or hold characters outside "0" to "o": '
            f"{rle.counts[:40]!r}"
        )
    last = np.flatnonzero(codes < 32)
    if last.size == 0 or last[-1] != codes.size - 1:
        raise InvalidMaskError("the RLE's counts end in the middle of a number; they were cut")
    first = np.concatenate([[0], last[:-1] + 1])
    digits = last - first + 1
    if digits.max() > MAX_DIGITS:
        raise InvalidMaskError(
            f"the RLE's counts hold a number of {digits.max()} digits; "
            f"masks need at most {MAX_DIGITS}"
        )
    shifts = 5 * (np.arange(codes.size) - np.repeat(first, digits))
    numbers: NDArray[np.int64] = np.add.reduceat((codes & 31) << shifts, first)
    negative = codes[last] & 16 > 0
    return numbers - np.where(negative, 1 << (5 * digits), 0)
