"""Row groups of stored Parquet files, read one at a time; footers and open files are kept.

    files = ParquetFiles(workspace.store, "masks", table_files(workspace, "masks", snapshot_id))
    for place, group in files.holding(image_id):
        rows = files.read(place, group, ("image_id", "counts"))

Finding an image costs two comparisons per file, a footer the first time, and the row groups whose
smallest and largest id enclose it. Works for sorted and for unsorted files; sorted ones are fast.
"""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.dataset.release_files import ANY_ID, DataFile
from engine.dataset.schemas import TableName, arrow_schema
from engine.errors import WorkspaceError
from engine.objects import ObjectStore

__all__ = ["ParquetFiles", "RowGroups"]

OPEN_FILES = 128

_UNREADABLE = (pa.ArrowException, KeyError, OSError)


@dataclass(frozen=True, slots=True, eq=False)
class RowGroups:
    """What a footer says about a file's row groups.

    Attributes:
        rows_G: number of rows of each.
        first_ids_G: no image id in it is smaller.
        last_ids_G: no image id in it is larger.
    """

    rows_G: NDArray[np.int64]
    first_ids_G: NDArray[np.int64]
    last_ids_G: NDArray[np.int64]

    def between(self, first_id: int, last_id: int) -> list[int]:
        """Return the row groups that may hold an image id from `first_id` to `last_id`."""
        found = (self.first_ids_G <= last_id) & (self.last_ids_G >= first_id)
        return list(np.flatnonzero(found).tolist())


@dataclass(frozen=True, slots=True, eq=False)
class _OpenFile:
    stream: BinaryIO
    parquet: pq.ParquetFile
    groups: RowGroups
    columns: frozenset[str]


class ParquetFiles:
    """The files of one table in a release; may be pickled, forked, and shared by threads in turns.

    Attributes:
        store: where the files are.
        files: the files; a place is a position in them.
    """

    def __init__(
        self,
        store: ObjectStore,
        table: TableName,
        files: Sequence[DataFile],
        *,
        open_files: int = OPEN_FILES,
    ) -> None:
        """Take the files; nothing is opened before it is needed.

        Args:
            store: where the files are.
            table: whose rows they hold.
            files: from `table_files`.
            open_files: how many stay open; the least recently used is closed.
        """
        self.files = tuple(files)
        self.store, self._schema, self._limit = store, arrow_schema(table), open_files
        self._first_ids_F = np.array([file.image_ids[0] for file in files], dtype=np.int64)
        self._last_ids_F = np.array([file.image_ids[1] for file in files], dtype=np.int64)
        self._forget()

    def __getstate__(self) -> dict[str, object]:
        kept = ("files", "store", "_schema", "_limit", "_first_ids_F", "_last_ids_F")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._forget()

    def close(self) -> None:
        """Close the open files; a later call opens them again."""
        with self.turn():
            while self._open:
                _close(self._open.popitem()[1])

    def release(self, place: int) -> None:
        """Close one file, as after reading it to its end: open ones hold what they read ahead."""
        with self.turn():
            if place in self._open:
                _close(self._open.pop(place))

    def __del__(self) -> None:
        if hasattr(self, "_open"):
            self.close()

    def of_stages(self, stages: Collection[str]) -> ParquetFiles:
        """Return only the files of table ``masks`` whose masks were made in one of these stages.

        Raises:
            WorkspaceError: a file that is missing or damaged, where the file has to be asked.
        """
        kept = [
            file
            for place, file in enumerate(self.files)
            if (file.stage or self._stage_within(place)) in stages
        ]
        return ParquetFiles(self.store, "masks", kept, open_files=self._limit)

    def between(self, first_id: int, last_id: int) -> list[int]:
        """Return the places of the files that may hold an image id in this range, inclusive."""
        found = (self._first_ids_F <= last_id) & (self._last_ids_F >= first_id)
        return list(np.flatnonzero(found).tolist())

    def holding(self, image_id: int) -> Iterator[tuple[int, int]]:
        """Yield (place, row group) wherever an image may have rows, in order.

        Raises:
            WorkspaceError: a file that is missing or damaged.
        """
        for place in self.between(image_id, image_id):
            for group in self.row_groups(place).between(image_id, image_id):
                yield place, group

    def row_groups(self, place: int) -> RowGroups:
        """Return what the footer of a file says.

        Raises:
            WorkspaceError: a file that is missing or damaged.
        """
        with self.turn():
            return self._file(place).groups

    def read(self, place: int, group: int, columns: Sequence[str]) -> pa.Table:
        """Read columns of a row group, in the order asked for.

        A column that the table got after the file was written is empty in it.

        Raises:
            WorkspaceError: a file that is missing or damaged.
        """
        with self.turn():
            file = self._file(place)
            there = [name for name in columns if name in file.columns]
            try:
                table = file.parquet.read_row_group(group, columns=there, use_threads=False)
            except _UNREADABLE as error:
                raise self._damaged(place, error) from error
        for name in columns:
            if name not in file.columns:
                field = self._schema.field(name)
                if not field.nullable:
                    raise self._damaged(place, KeyError(name))
                table = table.append_column(field, pa.nulls(table.num_rows, field.type))
        return table.select(columns)

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield columns of every row group, in the order of the files; errors as in `read`."""
        for place in range(len(self.files)):
            for group in range(len(self.row_groups(place).rows_G)):
                yield self.read(place, group, columns)

    def turn(self) -> threading.RLock:
        """Return the lock by which threads take turns; this process's own."""
        if self._process != os.getpid():
            # A forked child must not share positions, connections and locks with its parent.
            inherited = list(self._open.values())
            self._forget()
            for file in inherited:
                _close(file)
        return self._lock

    def _stage_within(self, place: int) -> str | None:
        """Return the stage of a file's masks, which are of one run; None where there is no mask."""
        for group, rows in enumerate(self.row_groups(place).rows_G.tolist()):
            if rows:
                return str(self.read(place, group, ("stage",))["stage"][0].as_py())
        return None

    def _file(self, place: int) -> _OpenFile:
        if place in self._open:
            self._open.move_to_end(place)
            return self._open[place]
        stream = self.store.open(self.files[place].key)
        try:
            # Fetching a row group in one request helps over a network; a local file is faster
            # read column by column, without another thread.
            local = isinstance(stream, io.BufferedReader)
            parquet = pq.ParquetFile(stream, pre_buffer=not local)
            columns = frozenset(parquet.schema_arrow.names)
            opened = _OpenFile(stream, parquet, _row_groups(parquet.metadata), columns)
        except _UNREADABLE as error:
            stream.close()
            raise self._damaged(place, error) from error
        self._open[place] = opened
        if len(self._open) > self._limit:
            _close(self._open.popitem(last=False)[1])
        return opened

    def _damaged(self, place: int, error: Exception) -> WorkspaceError:
        uri = self.store.uri(self.files[place].key)
        return WorkspaceError(
            f"{uri} is not a shard: {error!r}; `maskwheel releases verify` looks for more damage"
        )

    def _forget(self) -> None:
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._open: OrderedDict[int, _OpenFile] = OrderedDict()


def _row_groups(metadata: pq.FileMetaData) -> RowGroups:
    paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    column = paths.index("image_id") if "image_id" in paths else None
    if column is None:
        raise KeyError("image_id")
    rows, first_ids, last_ids = [], [], []
    for group in range(metadata.num_row_groups):
        described = metadata.row_group(group)
        bounds = described.column(column).statistics
        known = bounds is not None and bounds.has_min_max
        rows.append(described.num_rows)
        first_ids.append(bounds.min if known else ANY_ID[0])
        last_ids.append(bounds.max if known else ANY_ID[1])
    return RowGroups(*(np.array(values, dtype=np.int64) for values in (rows, first_ids, last_ids)))


def _close(file: _OpenFile) -> None:
    with suppress(OSError):
        file.parquet.close()
        file.stream.close()
