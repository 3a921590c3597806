"""Data files, a few thousand rows at a time, with the types of their table.

    for rows in read_rows(store, file, ("image_id", "stage")): ...
    for rows_N, rows in read_checked(store, file, checksum, tell): ...

`read_rows` trusts a file and raises when it is damaged. `read_checked` reads it whole, once, tells
what is wrong with it and leaves out what cannot be read.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.dataset.release_checksums import Checksum, hash_stream
from engine.dataset.release_files import DataFile
from engine.dataset.schemas import TableName, arrow_schema
from engine.errors import WorkspaceError
from engine.objects import ObjectStore

__all__ = ["Tell", "read_checked", "read_rows"]

Tell = Callable[[str, int | None, str], None]
"""Takes a problem: its kind, the row (None: the file), and a sentence."""

_BATCH_ROWS = 4096
_CHUNK_BYTES = 1024 * 1024
_MEMORY_BYTES = 32 * 1024 * 1024


def read_checked(
    store: ObjectStore, file: DataFile, checksum: Checksum | None, tell: Tell
) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
    """Yield the rows of a data file in batches, and tell what is wrong with the file.

    Args:
        store: where it is.
        file: what its table says of it.
        checksum: what was recorded when it was published, if anything was.
        tell: called with each problem.

    Yields:
        Positions of rows in the file, and the rows: columns and types of the file's table. Rows
        that lack a required value are told of and left out.

    Raises:
        TransientError: the store failed for now.
    """
    try:
        with _whole(store, file.key) as (stream, size_bytes, sha256):
            _compare(file, checksum, size_bytes, sha256, tell)
            yield from _batches(stream, file, tell)
    except WorkspaceError as error:
        tell("missing", None, str(error))


def read_rows(store: ObjectStore, file: DataFile, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield some columns of a data file in batches, with the types of its table.

    Raises:
        WorkspaceError: the file is missing or damaged.
        TransientError: the store failed for now.
    """
    expected = pa.schema([arrow_schema(file.table).field(name) for name in columns])
    with store.open(file.key) as stream:
        try:
            parquet = pq.ParquetFile(stream, pre_buffer=True)
            there = [name for name in columns if name in parquet.schema_arrow.names]
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=there, use_threads=False):
                yield _typed(batch, expected)
        except (pa.ArrowException, KeyError, ValueError, OSError) as error:
            raise WorkspaceError(
                f"{store.uri(file.key)} is damaged: {error}; `maskwheel releases verify` says "
                "what else is"
            ) from error


@contextmanager
def _whole(store: ObjectStore, key: str) -> Iterator[tuple[IO[bytes], int, str]]:
    """Hash an object: (seekable stream at its start, length, sha256). Reads the store once."""
    with store.open(key) as stream:
        if isinstance(stream, io.BufferedReader) and isinstance(stream.raw, io.FileIO):
            size_bytes, sha256 = hash_stream(stream)  # a local file: the second look is cached
            stream.seek(0)
            yield stream, size_bytes, sha256
            return
        with tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES) as copy:
            digest = hashlib.sha256()
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
                copy.write(chunk)
            size_bytes = copy.tell()
            copy.seek(0)
            yield copy, size_bytes, digest.hexdigest()


def _compare(
    file: DataFile, checksum: Checksum | None, size_bytes: int, sha256: str, tell: Tell
) -> None:
    if size_bytes != file.size_bytes:
        tell("length", None, f"{size_bytes:,} bytes, its table says {file.size_bytes:,}")
    elif checksum is not None and sha256 != checksum.sha256:
        tell("checksum", None, f"sha256 {sha256}, when it was published {checksum.sha256}")


def _batches(
    stream: IO[bytes], file: DataFile, tell: Tell
) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
    start, expected = 0, arrow_schema(file.table)
    try:
        parquet = pq.ParquetFile(stream)
        columns = _columns(parquet.schema_arrow, file.table, tell)
        for batch in parquet.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False):
            rows_N = np.arange(start, start + batch.num_rows)
            start += batch.num_rows
            if columns is not None:
                yield _complete(rows_N, _typed(batch, expected), file.table, tell)
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        tell("unreadable", start or None, f"cannot be read from row {start} on: {error}")
        return
    if start != file.rows:
        tell("length", None, f"{start:,} rows, its table says {file.rows:,}")


def _columns(schema: pa.Schema, table: TableName, tell: Tell) -> list[str] | None:
    """Return the columns to read; None where a required one is missing."""
    expected = arrow_schema(table)
    missing = [f.name for f in expected if not f.nullable and f.name not in schema.names]
    if missing:
        tell("columns", None, f"lacks {', '.join(missing)} of table {table}")
        return None
    return [name for name in expected.names if name in schema.names]


def _typed(batch: pa.RecordBatch, expected: pa.Schema) -> pa.Table:
    """Give a batch the table's types; columns that came later than the file are empty."""
    columns = [
        batch.column(field.name).cast(field.type)
        if field.name in batch.schema.names
        else pa.nulls(batch.num_rows, field.type)
        for field in expected
    ]
    return pa.Table.from_arrays(columns, schema=expected)


def _complete(
    rows_N: NDArray[np.int64], rows: pa.Table, table: TableName, tell: Tell
) -> tuple[NDArray[np.int64], pa.Table]:
    """Leave out rows that lack a required value."""
    lacking = [f.name for f in arrow_schema(table) if not f.nullable and rows[f.name].null_count]
    if not lacking:
        return rows_N, rows
    keep = np.ones(len(rows_N), np.bool_)
    for name in lacking:
        empty = pc.is_null(rows[name]).to_numpy()
        for row in rows_N[empty].tolist():
            tell("missing", row, f"no {name}")
        keep &= ~empty
    return rows_N[keep], rows.filter(pa.array(keep))
