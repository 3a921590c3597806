"""Rows of table ``images`` by image id: an index of 16 bytes per image, the rest in its files.

    images = ImageRows(ParquetFiles(store, "images", table_files(workspace, "images", snapshot)))
    records = images.records(np.arange(100))          # the images with the 100 smallest ids

Rows lie in the order of ingestion and the ids are hashes: any image may be in any file.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.dataset.parquet_files import ParquetFiles
from engine.dataset.schemas import arrow_schema
from engine.records import ImageRecord

__all__ = ["ImageRows"]

CACHE_BYTES = 256 * 2**20

_COLUMNS = tuple(field.name for field in fields(ImageRecord))


@dataclass(frozen=True, slots=True, eq=False)
class _Index:
    """Where each image is.

    Attributes:
        ids_I: ascending.
        rows_I: the image's row, counted through all files.
        groups: file and row group of each row group.
        starts_G: number of each row group's first row.
    """

    ids_I: NDArray[np.int64]
    rows_I: NDArray[np.int64]
    groups: tuple[tuple[int, int], ...]
    starts_G: NDArray[np.int64]


class ImageRows:
    """The images of a release, ordered by id; a position counts in this order.

    Attributes:
        files: of table ``images``.
    """

    def __init__(self, files: ParquetFiles, cache_bytes: int = CACHE_BYTES) -> None:
        """Take the files; the index is read when it is first needed."""
        self.files = files
        self._cache_bytes = cache_bytes
        self._kept: OrderedDict[tuple[int, int], pa.Table] = OrderedDict()

    def __getstate__(self) -> dict[str, object]:
        # Rows are read again by another process; the index travels if there is one.
        return {**self.__dict__, "_kept": OrderedDict()}

    def __len__(self) -> int:
        return sum(file.rows for file in self.files.files)

    @property
    def sorted_ids(self) -> NDArray[np.int64]:
        """All image ids, ascending."""
        return self._index.ids_I

    def position(self, image_id: int) -> int | None:
        """Return where an image is in `sorted_ids`; None if the release does not have it."""
        ids_I = self._index.ids_I
        place = int(np.searchsorted(ids_I, image_id))
        return place if place < len(ids_I) and int(ids_I[place]) == image_id else None

    def in_split(self, split: str) -> NDArray[np.int64]:
        """Return the positions of the images that were ingested with this split, ascending.

        Raises:
            WorkspaceError: a file that is missing or damaged.
        """
        chosen = pc.fill_null(pc.equal(self.table(("split",))["split"], split), False)
        return np.flatnonzero(chosen.to_numpy()[self._index.rows_I])

    def table(self, columns: Sequence[str]) -> pa.Table:
        """Return columns of all images, in memory, in the order of ingestion.

        Raises:
            WorkspaceError: a file that is missing or damaged.
        """
        schema = arrow_schema("images")
        nothing = pa.schema([schema.field(name) for name in columns]).empty_table()
        found = (table.cast(nothing.schema) for table in self.files.tables(columns))
        return pa.concat_tables([nothing, *found])

    def records(self, positions_P: NDArray[np.int64]) -> list[ImageRecord]:
        """Return the images at these positions, in their order.

        Raises:
            WorkspaceError: a file that is missing or damaged.
        """
        index = self._index
        rows_P = index.rows_I[positions_P]
        groups_P = np.searchsorted(index.starts_G, rows_P, "right") - 1
        records: dict[int, ImageRecord] = {}
        for group in np.unique(groups_P).tolist():
            wanted = rows_P[groups_P == group] - index.starts_G[group]
            rows = self._read(*index.groups[group]).take(pa.array(wanted))
            records |= {row["image_id"]: ImageRecord(**row) for row in rows.to_pylist()}
        return [records[image_id] for image_id in index.ids_I[positions_P].tolist()]

    def _read(self, place: int, group: int) -> pa.Table:
        # Neighbours in the order by id lie in all commits of the ingestion: a row group of each is
        # kept.
        with self.files.turn():
            table = self._kept.pop((place, group), None)
            if table is None:
                table = self.files.read(place, group, _COLUMNS)
            self._kept[place, group] = table
            kept_bytes = sum(kept.nbytes for kept in self._kept.values())
            while len(self._kept) > 1 and kept_bytes > self._cache_bytes:
                kept_bytes -= self._kept.popitem(last=False)[1].nbytes
            return table

    @cached_property
    def _index(self) -> _Index:
        groups = tuple(
            (place, group)
            for place in range(len(self.files.files))
            for group in range(len(self.files.row_groups(place).rows_G))
        )
        tables = list(self.files.tables(("image_id",)))
        sizes = np.array([table.num_rows for table in tables], dtype=np.int64)
        ids = [table["image_id"].to_numpy() for table in tables]
        unsorted_I = np.concatenate([np.empty(0, dtype=np.int64), *ids])
        rows_I = np.argsort(unsorted_I, kind="stable")
        return _Index(unsorted_I[rows_I], rows_I, groups, np.cumsum(sizes) - sizes)
