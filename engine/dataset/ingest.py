"""Ingest: from the addresses of images to rows of table ``images``.

    listed = expand_inputs(["photos", "more/*.png", "urls.csv"])
    result = ingest(workspace, listed, limits, now)

Images are known by their content: the same bytes under two names are one image, and a second
ingest of the same folder adds nothing. Images are not copied.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyiceberg.expressions import And, GreaterThanOrEqual, In, LessThanOrEqual, Reference
from pyiceberg.expressions.literals import literal
from pyiceberg.table import Table

from engine.dataset.catalog import Workspace
from engine.dataset.inputs import IMAGE_SUFFIXES, ListedImage, expand_inputs
from engine.dataset.schemas import arrow_schema
from engine.errors import BadInputError, ImageError, WorkspaceError
from engine.images import ImageLimits, content_id, probe_image, read_image_bytes
from engine.records import ImageRecord, SkippedImage

__all__ = [
    "IMAGE_SUFFIXES",
    "IngestOutcome",
    "IngestResult",
    "ListedImage",
    "expand_inputs",
    "ingest",
    "known_images",
    "load_images",
]

log = logging.getLogger(__name__)

# Commits cost more the more there are: large inputs are cut into about a hundred.
_IMAGES_PER_COMMIT = 2000
_COMMITS = 100


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What an ingest found.

    Attributes:
        image_ids: every usable image that was listed, new or known before; ascending.
        new: how many of them were not in the data set.
        duplicates: listed images whose content another listed image has.
        skipped: listed images that cannot be used, in the order of the list.
    """

    image_ids: tuple[int, ...]
    new: int
    duplicates: int
    skipped: tuple[SkippedImage, ...]

    @property
    def outcome(self) -> IngestOutcome:
        """The same in numbers, for whoever does not need millions of ids."""
        return IngestOutcome(len(self.image_ids), self.new, self.duplicates, self.skipped)


@dataclass(frozen=True, slots=True)
class IngestOutcome:
    """An ingest in numbers.

    Attributes:
        images: usable images that were listed, new or known before.
        new: how many of them were not in the data set.
        duplicates: listed images whose content another listed image has.
        skipped: listed images that cannot be used.
    """

    images: int
    new: int
    duplicates: int
    skipped: tuple[SkippedImage, ...]


def ingest(
    workspace: Workspace,
    images: Sequence[ListedImage],
    limits: ImageLimits,
    now: datetime,
    on_image: Callable[[str], None] | None = None,
    *,
    threads: int = 8,
    on_record: Callable[[ImageRecord], None] | None = None,
) -> IngestResult:
    """Read every listed image once and add those that are new to table ``images``.

    Killed at any point and run again, it gives the table that an undisturbed run gives.

    Args:
        workspace: the data set.
        images: as `expand_inputs` returns them; of equal content the first listed one counts.
        limits: what is too large to be used.
        now: UTC; becomes ``ingested_at`` of the new rows.
        on_image: called with each image's URI when it has been read; for progress bars.
        threads: files read at the same time.
        on_record: called with each usable image as it was listed, in that order; an image whose
            content another one has keeps its own address here.

    Raises:
        TransientError: the catalog stayed unreachable. (Images that did are skipped and tried
            again by the next ingest.)
        WorkspaceError: the workspace cannot be written.
    """
    per_commit = max(_IMAGES_PER_COMMIT, len(images) // _COMMITS)
    known = _KnownImages()
    usable: set[int] = set()
    skipped: list[SkippedImage] = []
    new = duplicates = 0
    with ThreadPoolExecutor(threads, thread_name_prefix="ingest") as pool:
        for start in range(0, len(images), per_commit):
            records: list[ImageRecord] = []
            chunk = images[start : start + per_commit]
            for outcome in pool.map(lambda image: _read(image, limits, now), chunk):
                if on_record is not None and isinstance(outcome, ImageRecord):
                    on_record(outcome)
                if isinstance(outcome, SkippedImage):
                    log.warning("skipped %s (%s): %s", outcome.uri, outcome.reason, outcome.message)
                    skipped.append(outcome)
                elif outcome.image_id in usable:
                    duplicates += 1
                else:
                    usable.add(outcome.image_id)
                    records.append(outcome)
                if on_image is not None:
                    on_image(outcome.uri)
            new += _append_unknown(workspace, records, known)
    return IngestResult(tuple(sorted(usable)), new, duplicates, tuple(skipped))


def known_images(workspace: Workspace) -> IngestResult:
    """Return all images of table ``images``, as an ingest that finds nothing new does."""
    rows = workspace.table("images").scan(selected_fields=("image_id",)).to_arrow()
    return IngestResult(tuple(sorted(rows["image_id"].to_pylist())), 0, 0, ())


def load_images(workspace: Workspace, image_ids: Sequence[int]) -> list[ImageRecord]:
    """Return the records of images, in the order of their ids as given.

    Raises:
        WorkspaceError: an id that table ``images`` does not have.
    """
    if not image_ids:
        return []
    image_id = Reference("image_id")
    # A shard's images are neighbours in the order of their ids. The range leaves out files and row
    # groups, which the many ids alone would not: statistics are not compared with hundreds of them.
    chosen = And(
        GreaterThanOrEqual(term=image_id, value=literal(min(image_ids))),
        LessThanOrEqual(term=image_id, value=literal(max(image_ids))),
        In(term=image_id, values={literal(i) for i in image_ids}),
    )
    rows = workspace.table("images").scan(row_filter=chosen).to_arrow()
    found = {row["image_id"]: ImageRecord(**row) for row in rows.to_pylist()}
    if missing := [image_id for image_id in image_ids if image_id not in found]:
        raise WorkspaceError(
            f"table images lacks {len(missing)} of {len(image_ids)} images, e.g. {missing[0]}; "
            "ingest them first"
        )
    return [found[image_id] for image_id in image_ids]


def _read(image: ListedImage, limits: ImageLimits, now: datetime) -> ImageRecord | SkippedImage:
    try:
        data = read_image_bytes(image.uri, limits)
        info = probe_image(data, limits)
    except ImageError as error:
        return SkippedImage(image.uri, error.reason, str(error))
    except BadInputError as error:
        # One address of a kind that cannot be read does not stop the others of its list.
        return SkippedImage(image.uri, "unsupported-address", str(error))
    image_id, sha256 = content_id(data)
    return ImageRecord(
        image_id=image_id,
        uri=image.uri,
        sha256=sha256,
        width=info.width,
        height=info.height,
        format=info.format,
        license=image.license,
        split=image.split,
        ingested_at=now,
    )


class _KnownImages:
    """The ids in table ``images``, kept up with its history by reading only what is new."""

    def __init__(self) -> None:
        self._ids: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._snapshot_id: int | None = None

    def refresh(self, table: Table) -> None:
        head = table.current_snapshot()
        if head is None or head.snapshot_id == self._snapshot_id:
            return
        rows = table.incremental_append_scan(
            from_snapshot_id_exclusive=self._snapshot_id, selected_fields=("image_id",)
        ).to_arrow()
        self._ids = np.union1d(self._ids, rows["image_id"].to_numpy())
        self._snapshot_id = head.snapshot_id

    def lacks(self, image_id: int) -> bool:
        position = int(np.searchsorted(self._ids, image_id))
        return position == len(self._ids) or int(self._ids[position]) != image_id


def _append_unknown(
    workspace: Workspace, records: Sequence[ImageRecord], known: _KnownImages
) -> int:
    """Append the images that the table lacks, also when others append meanwhile; count them."""
    if not records:
        return 0
    # By id, so that the statistics of a file's row groups tell which may hold an image.
    records = sorted(records, key=lambda record: record.image_id)
    appended = 0

    def unknown(table: Table) -> pa.Table:
        nonlocal appended
        known.refresh(table)
        # By id within a commit: readers that go by id then find neighbours side by side.
        by_id = sorted(records, key=lambda record: record.image_id)
        rows = [asdict(record) for record in by_id if known.lacks(record.image_id)]
        appended = len(rows)
        return pa.Table.from_pylist(rows, schema=arrow_schema("images"))

    digest = hashlib.sha256(" ".join(str(record.image_id) for record in records).encode())
    workspace.append_rows("images", unknown, f"ingest-{digest.hexdigest()[:24]}")
    return appended
