"""What must hold of rows of the tables: the rules behind `releases verify`, thousands at a time.

    images = KnownImages.of(rows_of_table_images)
    for fault in mask_faults(rows, images, runs=release.runs, models=release.models):
        print(fault.kind, len(fault.rows), fault.describe(fault.rows[0]))

A fault is one rule and all rows that break it; a row may break several. No mask is decoded: area
and box follow from the run lengths, see `engine.masks.measure_masks`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.errors import InvalidMaskError
from engine.masks import MeasuredMasks, measure_masks, validate_rle
from engine.records import Rle

__all__ = ["Fault", "KnownImages", "image_faults", "image_run_faults", "mask_faults"]

_STAGES = ("auto", "manual", "semi")
_STATUSES = ("masked", "skipped")
_BOX_COLUMNS = ("bbox_x", "bbox_y", "bbox_w", "bbox_h")
_CROP_COLUMNS = ("crop_x", "crop_y", "crop_w", "crop_h")

_Longs = NDArray[np.int64]
_Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Fault:
    """A rule and the rows that break it.

    Attributes:
        kind: the rule, one word, for counting.
        rows: positions in what was checked, ascending; at least one.
        describe: says what is wrong with one of them.
    """

    kind: str
    rows: _Longs
    describe: Callable[[int], str]


@dataclass(frozen=True, slots=True, eq=False)
class KnownImages:
    """Ids and sizes of a release's images, 16 bytes each, ordered by id.

    Attributes:
        ids_I: int64.
        heights_I: int32, rows in pixels.
        widths_I: int32, columns in pixels.
    """

    ids_I: _Longs
    heights_I: NDArray[np.int32]
    widths_I: NDArray[np.int32]

    @classmethod
    def of(cls, rows: pa.Table) -> KnownImages:
        """Take the columns ``image_id``, ``height`` and ``width`` of table ``images``."""
        ids = rows["image_id"].to_numpy()
        order = np.argsort(ids, kind="stable")
        return cls(ids[order], rows["height"].to_numpy()[order], rows["width"].to_numpy()[order])

    def find(self, image_ids_N: _Longs) -> _Longs:
        """Return where each image stands, -1 where it is unknown."""
        if not len(self.ids_I):
            return np.full(len(image_ids_N), -1, np.int64)
        places = np.minimum(np.searchsorted(self.ids_I, image_ids_N), len(self.ids_I) - 1)
        return np.where(self.ids_I[places] == image_ids_N, places, -1)


def mask_faults(
    rows: pa.Table, images: KnownImages, runs: Collection[str], models: Collection[str]
) -> Iterator[Fault]:
    """Yield what is wrong with rows of table ``masks``.

    Args:
        rows: with the columns and types of ``arrow_schema("masks")``, no nulls where they are
            required.
        images: all images of the release.
        runs: ids of all runs of the release.
        models: ids of all its models.
    """
    if not rows.num_rows:
        return
    places = images.find(_longs(rows, "image_id"))
    heights, widths = _longs(rows, "size_h"), _longs(rows, "size_w")
    yield from _fault("id", _longs(rows, "mask_id") < 0, lambda i: f"id {_at(rows, 'mask_id', i)}")
    yield from _unknown("image", rows, "image_id", places < 0)
    if len(images.ids_I):
        wrong = (heights != images.heights_I[places]) | (widths != images.widths_I[places])
        yield from _fault(
            "size",
            wrong & (places >= 0),
            lambda i: (
                f"a mask of {heights[i]} x {widths[i]} pixels, its image has "
                f"{images.heights_I[places[i]]} x {images.widths_I[places[i]]}"
            ),
        )
    yield from _pixel_faults(rows, heights, widths)
    yield from _score_faults(rows)
    yield from _crop_faults(rows, heights, widths)
    yield from _point_faults(rows, heights, widths)
    yield from _unknown("run", rows, "run_id", _is_other(rows, "run_id", runs))
    # Masks that no model has made, e.g. imported ones, name none.
    yield from _unknown("model", rows, "model_id", _is_other(rows, "model_id", (*models, "")))
    yield from _stage_faults(rows)


def image_faults(rows: pa.Table) -> Iterator[Fault]:
    """Yield what is wrong with rows of table ``images``, complete as for `mask_faults`."""
    hashes = rows["sha256"].to_pylist()
    expected = np.array([_id_of(text) for text in hashes], np.int64)
    sizes = np.minimum(_longs(rows, "height"), _longs(rows, "width"))
    yield from _fault(
        "checksum", expected < 0, lambda i: f"sha256 {hashes[i]!r}; expected 64 hex digits"
    )
    yield from _fault(
        "id",
        (expected >= 0) & (expected != _longs(rows, "image_id")),
        lambda i: f"id {_at(rows, 'image_id', i)}; its sha256 makes {expected[i]}",
    )
    yield from _fault(
        "size",
        sizes < 1,
        lambda i: f"{_at(rows, 'height', i)} x {_at(rows, 'width', i)} pixels",
    )
    yield from _fault("address", _flags(pc.equal(rows["uri"], "")), lambda i: "no address")


def image_run_faults(rows: pa.Table, images: KnownImages, runs: Collection[str]) -> Iterator[Fault]:
    """Yield what is wrong with rows of table ``image_runs``; arguments as for `mask_faults`."""
    if not rows.num_rows:
        return
    masks = _longs(rows, "masks")
    skipped = _flags(pc.equal(rows["status"], "skipped"))
    yield from _unknown("image", rows, "image_id", images.find(_longs(rows, "image_id")) < 0)
    yield from _unknown("run", rows, "run_id", _is_other(rows, "run_id", runs))
    yield from _fault(
        "status",
        _is_other(rows, "status", _STATUSES),
        lambda i: f"status {_at(rows, 'status', i)!r}; expected one of {', '.join(_STATUSES)}",
    )
    yield from _fault(
        "status",
        (masks < 0) | (skipped & (masks != 0)),
        lambda i: f"{_at(rows, 'status', i)} with {masks[i]} masks",
    )
    yield from _fault(
        "status",
        skipped & _flags(pc.is_null(rows["reason"])),
        lambda i: "skipped without a reason",
    )


def _pixel_faults(rows: pa.Table, heights_N: _Longs, widths_N: _Longs) -> Iterator[Fault]:
    measured = _measured(rows, heights_N, widths_N)
    areas = _longs(rows, "area")
    stated = np.stack([_longs(rows, name) for name in _BOX_COLUMNS], axis=1)
    x0, y0, x1, y1 = measured.boxes_xyxy_N4.T
    # Width and height are max - min, as in SA-1B; the box of an empty mask has none.
    actual = np.stack([x0, y0, x1 - x0, y1 - y0], axis=1)
    empty = measured.areas_N == 0
    actual[empty, :2] = stated[empty, :2]

    def why(i: int) -> str:
        try:
            validate_rle(Rle(int(heights_N[i]), int(widths_N[i]), str(_at(rows, "counts", i))))
        except InvalidMaskError as error:
            return str(error)
        return "the RLE cannot be decoded"

    yield from _fault("rle", ~measured.is_valid_N, why)
    yield from _fault(
        "area",
        measured.is_valid_N & (areas != measured.areas_N),
        lambda i: f"area {areas[i]:,}, its mask has {measured.areas_N[i]:,} pixels",
    )
    yield from _fault(
        "box",
        measured.is_valid_N & np.any(stated != actual, axis=1),
        lambda i: f"box {stated[i].tolist()} (x, y, w, h), its mask has {actual[i].tolist()}",
    )


def _measured(rows: pa.Table, heights_N: _Longs, widths_N: _Longs) -> MeasuredMasks:
    texts = rows["counts"].combine_chunks()
    _, offsets, text = texts.buffers()
    starts = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    letters = np.frombuffer(text, np.uint8) if text is not None else np.empty(0, np.uint8)
    return measure_masks(letters, starts, heights_N, widths_N)


def _score_faults(rows: pa.Table) -> Iterator[Fault]:
    for name in ("predicted_iou", "stability_score"):
        values = rows[name].to_numpy()
        yield from _fault(
            "score",
            ~np.isfinite(values),
            lambda i, name=name, values=values: f"{name} {values[i]}",  # type: ignore[misc]
        )


def _crop_faults(rows: pa.Table, heights_N: _Longs, widths_N: _Longs) -> Iterator[Fault]:
    crop = np.stack([_longs(rows, name) for name in _CROP_COLUMNS], axis=1)
    x, y, w, h = crop.T
    outside = (crop < 0).any(axis=1) | (x + w > widths_N) | (y + h > heights_N)
    yield from _fault(
        "crop",
        outside,
        lambda i: (
            f"crop box {crop[i].tolist()} (x, y, w, h) leaves the image of "
            f"{heights_N[i]} x {widths_N[i]} pixels"
        ),
    )


def _point_faults(rows: pa.Table, heights_N: _Longs, widths_N: _Longs) -> Iterator[Fault]:
    points = rows["point_coords"].combine_chunks()
    owners = pc.list_parent_indices(points).to_numpy()
    pairs = pc.list_flatten(points)
    lengths = pc.list_value_length(pairs).to_numpy(zero_copy_only=False)
    wrong = np.zeros(rows.num_rows, np.bool_)
    wrong[owners[lengths != 2]] = True
    if not wrong.any() and len(owners):
        xy = pc.list_flatten(pairs).to_numpy().reshape(-1, 2)
        limits = np.stack([widths_N, heights_N], axis=1)[owners]
        # Points from other tools may lie on the far edge; NaN is not inside either.
        wrong[owners[~np.all((xy >= 0) & (xy <= limits), axis=1)]] = True
    yield from _fault(
        "point",
        wrong,
        lambda i: (
            f"point {_at(rows, 'point_coords', i)} in an image of "
            f"{heights_N[i]} x {widths_N[i]} pixels; expected [[x, y]] inside it"
        ),
    )


def _stage_faults(rows: pa.Table) -> Iterator[Fault]:
    yield from _fault(
        "stage",
        _is_other(rows, "stage", _STAGES),
        lambda i: f"stage {_at(rows, 'stage', i)!r}; expected one of {', '.join(_STAGES)}",
    )
    automatic = _flags(pc.equal(rows["stage"], "auto"))
    nobody = _flags(pc.is_null(rows["annotator_id"]))
    seconds = rows["active_seconds"].to_numpy()  # NaN where there is none
    timed = _flags(pc.is_valid(rows["active_seconds"]))
    wrong = automatic & ~nobody
    wrong |= _flags(pc.fill_null(pc.equal(rows["annotator_id"], ""), False))
    wrong |= timed & (nobody | ~(np.isfinite(seconds) & (seconds >= 0)))
    yield from _fault(
        "annotator",
        wrong,
        lambda i: (
            f"stage {_at(rows, 'stage', i)}, annotator {_at(rows, 'annotator_id', i)!r}, "
            f"{_at(rows, 'active_seconds', i)} seconds do not go together"
        ),
    )


def _fault(kind: str, wrong: _Bools, describe: Callable[[int], str]) -> Iterator[Fault]:
    if wrong.any():
        yield Fault(kind, np.flatnonzero(wrong), describe)


def _unknown(kind: str, rows: pa.Table, column: str, wrong: _Bools) -> Iterator[Fault]:
    return _fault(
        kind, wrong, lambda i: f"{kind} {_at(rows, column, i)!r} is not part of the release"
    )


def _is_other(rows: pa.Table, column: str, known: Collection[str]) -> _Bools:
    values = pa.array(sorted(set(known)), pa.string())
    return ~_flags(pc.is_in(rows[column], value_set=values))


def _id_of(sha256: str) -> int:
    """Return the id that a digest makes, -1 where it is none."""
    try:
        return int.from_bytes(bytes.fromhex(sha256)[:8], "big") >> 1 if len(sha256) == 64 else -1
    except ValueError:
        return -1


def _longs(rows: pa.Table, column: str) -> _Longs:
    values: _Longs = rows[column].to_numpy().astype(np.int64, copy=False)
    return values


def _flags(values: pa.ChunkedArray) -> _Bools:
    flags: _Bools = values.to_numpy()
    return flags.astype(np.bool_, copy=False)


def _at(rows: pa.Table, column: str, row: int) -> object:
    value: object = rows[column][row].as_py()
    return value
