"""Statistics of a release: what SA-1B's paper reports of its masks (section 5, figures 5 and 6).

    statistics = release_statistics(workspace, release)
    statistics.masks_per_image.median, statistics.relative_size.rebinned(40)

Metadata columns only, batch by batch: no mask is decoded. Memory: some 16 bytes per image and run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyiceberg.expressions import In, Reference
from pyiceberg.expressions.literals import literal

from engine.dataset.catalog import Workspace
from engine.dataset.releases import scan, scan_batches
from engine.dataset.runs import unusable_files
from engine.records import Release

__all__ = [
    "CENTRE_CELLS",
    "Distribution",
    "ReleaseStatistics",
    "SkipExample",
    "SkipReason",
    "integer_distribution",
    "release_statistics",
]

CENTRE_CELLS = 32
"""Rows and columns of the map of mask centres."""

_BINS_PER_UNIT = 1000
_UPPER_END = 1.2  # SAM's predicted IoU has no ceiling and is now and then above 1.
_SMALL_PX, _MEDIUM_PX = 32**2, 96**2  # COCO's limits
_EXAMPLES = 5
# Integers such as 930 = 0.93 * 1000 must not fall below themselves.
_ROUNDING = 1e-9
_MERGE_ROWS = 4_000_000


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram of one quantity, with what is asked of it most.

    Attributes:
        edges: ascending, one more than there are bins; a bin holds its lower edge, not its upper.
        counts: values per bin; values beyond the ends are in the first and the last bin.
        mean: of the finite values; 0 without any.
        median: exact for numbers of masks; else the lower middle value, to within half a bin.
        minimum: smallest finite value.
        maximum: largest finite value.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    mean: float = 0.0
    median: float = 0.0
    minimum: float = 0.0
    maximum: float = 0.0

    @property
    def total(self) -> int:
        """Number of values."""
        return sum(self.counts)

    def rebinned(self, max_bins: int, *, from_zero: bool = False) -> Distribution:
        """Merge bins, of equal and round width, and cut empty ones off at the ends.

        Args:
            max_bins: at least 1; as many bins as the width allows.
            from_zero: keep the lower end, however empty.
        """
        occupied = np.flatnonzero(self.counts)
        if occupied.size == 0:
            return self
        first, last = 0 if from_zero else int(occupied[0]), int(occupied[-1])
        width = _round_width((last - first + 1) / max_bins)
        while (last // width) - (first // width) + 1 > max_bins:
            width = _round_width(width + 1)
        start = first // width * width
        bins = last // width - first // width + 1
        padded = np.zeros(bins * width, dtype=np.int64)
        inside = self.counts[start : start + bins * width]
        padded[: len(inside)] = inside
        step = self.edges[1] - self.edges[0]
        edges = [round(self.edges[0] + step * (start + i * width), 9) for i in range(bins + 1)]
        counts = padded.reshape(bins, width).sum(axis=1).tolist()
        return Distribution(
            tuple(edges), tuple(counts), self.mean, self.median, self.minimum, self.maximum
        )


@dataclass(frozen=True, slots=True)
class SkipExample:
    """An image that was skipped, and what was said of it; the id is 0 for a file that is none."""

    image_id: int
    uri: str
    message: str


@dataclass(frozen=True, slots=True)
class SkipReason:
    """Why images were skipped.

    Attributes:
        reason: as in `ImageError.reason`.
        images: how many.
        examples: the first few by image id.
    """

    reason: str
    images: int
    examples: tuple[SkipExample, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseStatistics:
    """A release in numbers. Every image is exactly one of masked, without masks, skipped, waiting.

    Attributes:
        images: rows of table ``images``.
        images_masked: with at least one mask.
        images_without_masks: processed, and nothing was found.
        images_skipped: no run could use them.
        images_waiting: no run has looked at them.
        images_masked_again: with masks of more than one run, all of which are counted.
        masks: rows of table ``masks``.
        masks_small: with an area below 32^2 pixels (COCO's limits).
        masks_medium: below 96^2 pixels, but not small.
        masks_large: the others.
        masks_per_image: over the images that are masked or without masks.
        relative_size: sqrt(mask area / image area), 0 to 1.
        predicted_iou: as stored; values that are not finite are left out.
        stability_score: likewise.
        centres: number of masks by the centre of their box: `CENTRE_CELLS` rows, top first, of as
            many columns; the image, whatever its shape, is the unit square.
        skipped: by reason, the most frequent first.
        unusable: listed files that could not become images at all, likewise; not in `images`.
    """

    images: int
    images_masked: int
    images_without_masks: int
    images_skipped: int
    images_waiting: int
    images_masked_again: int
    masks: int
    masks_small: int
    masks_medium: int
    masks_large: int
    masks_per_image: Distribution
    relative_size: Distribution
    predicted_iou: Distribution
    stability_score: Distribution
    centres: tuple[tuple[int, ...], ...]
    skipped: tuple[SkipReason, ...]
    unusable: tuple[SkipReason, ...] = ()


def release_statistics(workspace: Workspace, release: Release) -> ReleaseStatistics:
    """Compute a release's statistics; deterministic.

    Raises:
        WorkspaceError: the release's snapshots are gone.
        TransientError: the catalog stayed busy.
    """
    masks = _MaskTotals()
    for batch in scan_batches(workspace, release, "masks", columns=_MaskTotals.COLUMNS):
        masks.add(batch)
    mask_counts = masks.per_image.counts()
    runs = _ImageRuns.read(workspace, release)
    empty = np.setdiff1d(runs.processed, masks.per_image.ids())
    skipped = np.setdiff1d(np.setdiff1d(runs.skipped, runs.processed), masks.per_image.ids())
    images = sum(
        batch.num_rows for batch in scan_batches(workspace, release, "images", ["image_id"])
    )
    return ReleaseStatistics(
        images=images,
        images_masked=mask_counts.size,
        images_without_masks=empty.size,
        images_skipped=skipped.size,
        images_waiting=images - mask_counts.size - empty.size - skipped.size,
        images_masked_again=runs.masked_again,
        masks=int(mask_counts.sum()),
        masks_small=masks.small,
        masks_medium=masks.medium,
        masks_large=int(mask_counts.sum()) - masks.small - masks.medium,
        masks_per_image=integer_distribution(
            np.append(mask_counts, np.zeros(empty.size, np.int64))
        ),
        relative_size=masks.relative_size.distribution(),
        predicted_iou=masks.predicted_iou.distribution(),
        stability_score=masks.stability_score.distribution(),
        centres=tuple(tuple(row) for row in masks.centres.tolist()),
        skipped=_skip_reasons(workspace, release, skipped),
        unusable=_unusable(workspace, release),
    )


class _MaskTotals:
    """Sums over table ``masks``."""

    COLUMNS = (
        *("image_id", "size_h", "size_w", "bbox_x", "bbox_y", "bbox_w", "bbox_h"),
        *("area", "predicted_iou", "stability_score"),
    )

    def __init__(self) -> None:
        self.per_image = _RowsPerImage()
        self.relative_size = _Histogram()
        self.predicted_iou = _Histogram()
        self.stability_score = _Histogram()
        self.small = self.medium = 0
        self.centres: NDArray[np.int64] = np.zeros((CENTRE_CELLS, CENTRE_CELLS), dtype=np.int64)

    def add(self, batch: pa.RecordBatch) -> None:
        """Add rows with `COLUMNS`."""
        column = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in self.COLUMNS}
        area = column["area"].astype(np.float64)
        height = column["size_h"].astype(np.float64)
        width = column["size_w"].astype(np.float64)
        self.per_image.add(column["image_id"])
        self.relative_size.add(np.sqrt(area / (height * width)))
        self.predicted_iou.add(column["predicted_iou"])
        self.stability_score.add(column["stability_score"])
        self.small += int((area < _SMALL_PX).sum())
        self.medium += int(((area >= _SMALL_PX) & (area < _MEDIUM_PX)).sum())
        # A box from x to x + w holds the pixels of both ends: its middle is half a pixel further.
        x = _cell((column["bbox_x"] + (column["bbox_w"] + 1) / 2) / width)
        y = _cell((column["bbox_y"] + (column["bbox_h"] + 1) / 2) / height)
        cells = np.bincount(y * CENTRE_CELLS + x, minlength=CENTRE_CELLS**2)
        self.centres += cells.reshape(CENTRE_CELLS, CENTRE_CELLS)


class _RowsPerImage:
    """How many rows there are of each image id, whatever their order."""

    def __init__(self) -> None:
        self._parts: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        self._pending = 0

    def add(self, image_ids: NDArray[np.int64]) -> None:
        ids, counts = np.unique(image_ids, return_counts=True)
        self._parts.append((ids, counts))
        self._pending += ids.size
        if self._pending > _MERGE_ROWS:
            self._merge()

    def ids(self) -> NDArray[np.int64]:
        """Ascending."""
        return self._merge()[0]

    def counts(self) -> NDArray[np.int64]:
        """At least 1 each, in the order of `ids`."""
        return self._merge()[1]

    def _merge(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if not self._parts:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        if len(self._parts) > 1:
            ids, where = np.unique(
                np.concatenate([part[0] for part in self._parts]), return_inverse=True
            )
            counts = np.zeros(ids.size, dtype=np.int64)
            np.add.at(counts, where, np.concatenate([part[1] for part in self._parts]))
            self._parts = [(ids, counts)]
        self._pending = 0
        return self._parts[0]


class _Histogram:
    """Fine bins over [0, 1.2), with the exact mean and ends."""

    def __init__(self) -> None:
        self._counts: NDArray[np.int64] = np.zeros(
            round(_UPPER_END * _BINS_PER_UNIT), dtype=np.int64
        )
        self._sum = 0.0
        self._minimum, self._maximum = np.inf, -np.inf

    def add(self, values: NDArray[np.float64]) -> None:
        values = values[np.isfinite(values)]
        if values.size == 0:
            return
        bins = np.floor(values * _BINS_PER_UNIT + _ROUNDING).astype(np.int64)
        bins = bins.clip(0, self._counts.size - 1)
        self._counts += np.bincount(bins, minlength=self._counts.size)
        self._sum += float(values.sum())
        self._minimum = min(self._minimum, float(values.min()))
        self._maximum = max(self._maximum, float(values.max()))

    def distribution(self) -> Distribution:
        edges = tuple(i / _BINS_PER_UNIT for i in range(self._counts.size + 1))
        counts = tuple(self._counts.tolist())
        total = int(self._counts.sum())
        if total == 0:
            return Distribution(edges, counts)
        middle = int(np.searchsorted(np.cumsum(self._counts), (total + 1) // 2))
        median = min(max((middle + 0.5) / _BINS_PER_UNIT, self._minimum), self._maximum)
        return Distribution(edges, counts, self._sum / total, median, self._minimum, self._maximum)


@dataclass(frozen=True, slots=True)
class _ImageRuns:
    """What became of the images, from table ``image_runs``: ids ascending, each once."""

    processed: NDArray[np.int64]
    skipped: NDArray[np.int64]
    masked_again: int

    @classmethod
    def read(cls, workspace: Workspace, release: Release) -> _ImageRuns:
        parts: dict[str, list[NDArray[np.int64]]] = {"masked": [], "skipped": []}
        with_masks = _RowsPerImage()
        columns = ("image_id", "status", "masks")
        for batch in scan_batches(workspace, release, "image_runs", columns):
            for status, found in parts.items():
                chosen = batch.filter(pc.equal(batch.column("status"), status))
                found.append(chosen.column("image_id").to_numpy())
            with_masks.add(
                batch.filter(pc.greater(batch.column("masks"), 0))["image_id"].to_numpy()
            )
        return cls(
            _unique(parts["masked"]),
            _unique(parts["skipped"]),
            int((with_masks.counts() > 1).sum()),
        )


def _skip_reasons(
    workspace: Workspace, release: Release, image_ids: NDArray[np.int64]
) -> tuple[SkipReason, ...]:
    """Group the images that were skipped for good by their reason; of several runs the lowest."""
    reason_of: dict[int, tuple[str, str]] = {}
    for image_id, reason, message in _skip_rows(workspace, release, image_ids):
        reason_of[image_id] = min(reason_of.get(image_id, (reason, message)), (reason, message))
    by_reason: dict[str, list[int]] = {}
    for image_id in sorted(reason_of):
        by_reason.setdefault(reason_of[image_id][0], []).append(image_id)
    shown = [image_id for ids in by_reason.values() for image_id in ids[:_EXAMPLES]]
    uris = _uris(workspace, release, shown)
    reasons = [
        SkipReason(
            reason,
            len(ids),
            tuple(SkipExample(i, uris[i], reason_of[i][1]) for i in ids[:_EXAMPLES]),
        )
        for reason, ids in by_reason.items()
    ]
    return tuple(sorted(reasons, key=lambda item: (-item.images, item.reason)))


def _unusable(workspace: Workspace, release: Release) -> tuple[SkipReason, ...]:
    """Group the files that never became images by their reason."""
    by_reason: dict[str, list[SkipExample]] = {}
    for file in unusable_files(workspace.store, release.runs):
        by_reason.setdefault(file.reason, []).append(SkipExample(0, file.uri, file.message))
    reasons = [
        SkipReason(reason, len(files), tuple(files[:_EXAMPLES]))
        for reason, files in by_reason.items()
    ]
    return tuple(sorted(reasons, key=lambda item: (-item.images, item.reason)))


def _skip_rows(
    workspace: Workspace, release: Release, image_ids: NDArray[np.int64]
) -> Iterator[tuple[int, str, str]]:
    if image_ids.size == 0:
        return
    wanted = pa.array(image_ids)
    columns = ("image_id", "status", "reason", "message")
    for batch in scan_batches(
        workspace, release, "image_runs", columns, row_filter="status = 'skipped'"
    ):
        for row in batch.filter(pc.is_in(batch.column("image_id"), wanted)).to_pylist():
            yield row["image_id"], row["reason"] or "unknown", row["message"] or ""


def _uris(workspace: Workspace, release: Release, image_ids: list[int]) -> dict[int, str]:
    if not image_ids:
        return {}
    chosen = In(term=Reference("image_id"), values={literal(i) for i in image_ids})
    rows = scan(workspace, release, "images", ("image_id", "uri"), row_filter=chosen)
    found = {row["image_id"]: row["uri"] for row in rows.to_pylist()}
    return {image_id: found.get(image_id, f"image {image_id}") for image_id in image_ids}


def integer_distribution(values: NDArray[np.int64]) -> Distribution:
    """Return the distribution of numbers from 0 on, one bin for each."""
    if values.size == 0:
        return Distribution((0.0, 1.0), (0,))
    counts = np.bincount(values)
    return Distribution(
        tuple(float(i) for i in range(counts.size + 1)),
        tuple(counts.tolist()),
        float(values.mean()),
        float(np.median(values)),
        float(values.min()),
        float(values.max()),
    )


def _round_width(at_least: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, 25, 50, 100, ... that is not below a number."""
    power = 1
    while True:
        for digit in (10, 20, 25, 50):
            if digit * power % 10 == 0 and digit * power // 10 >= at_least:
                return digit * power // 10
        power *= 10


def _cell(position: NDArray[np.float64]) -> NDArray[np.int64]:
    """Cells of positions in [0, 1] of the image's side; those outside count to the border."""
    return np.floor(position * CENTRE_CELLS).astype(np.int64).clip(0, CENTRE_CELLS - 1)


def _unique(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)
