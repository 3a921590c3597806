"""A seeded sample of stored masks: a few row groups of a few Parquet files.

    footers = read_footers(store, keys)
    sample = read_sample(store, footers, files=16, row_groups=2, rng=random.Random("r7"))

Masks of one image stay together, as row groups are cut at image boundaries.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.dataset.schemas import arrow_schema
from engine.errors import WorkspaceError
from engine.objects import ObjectStore

__all__ = ["Footer", "MaskSample", "read_footers", "read_sample"]

_READERS = 8


@dataclass(frozen=True, slots=True)
class Footer:
    """What a Parquet file says about itself.

    Attributes:
        key: object key of the file.
        rows: number of rows.
        row_groups: number of row groups.
        schema: its columns.
    """

    key: str
    rows: int
    row_groups: int
    schema: pa.Schema


@dataclass(frozen=True, slots=True, eq=False)
class MaskSample:
    """Sampled rows.

    Attributes:
        rows: with the columns and types of table ``masks``, or those asked for; rows that lack a
            value which they need are left out.
        files: keys of the files that were read, ascending.
        damaged: what could not be read of them, a sentence per file.
    """

    rows: pa.Table
    files: tuple[str, ...]
    damaged: tuple[str, ...] = ()


def read_footers(store: ObjectStore, keys: Sequence[str]) -> list[Footer]:
    """Read the footers of Parquet files.

    Raises:
        WorkspaceError: a file that is missing or not Parquet.
    """
    with ThreadPoolExecutor(_READERS, "footers") as pool:
        return list(pool.map(partial(_read_footer, store), keys))


def read_sample(
    store: ObjectStore,
    footers: Sequence[Footer],
    *,
    files: int,
    row_groups: int,
    rng: random.Random,
    columns: Sequence[str] | None = None,
) -> MaskSample:
    """Read some row groups of some files, the same for the same generator.

    Args:
        store: where the files are.
        footers: the files to choose from; they have the columns of table ``masks``.
        files: at most so many files.
        row_groups: at most so many of each.
        rng: decides which.
        columns: names; None: all.

    Raises:
        WorkspaceError: a file is missing.
        TransientError: the store failed for now.
    """
    schema = arrow_schema("masks")
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    with_rows = [footer for footer in footers if footer.rows]
    picked = rng.sample(with_rows, min(files, len(with_rows)))
    picked.sort(key=lambda footer: footer.key)
    groups = [
        sorted(rng.sample(range(footer.row_groups), min(row_groups, footer.row_groups)))
        for footer in picked
    ]
    with ThreadPoolExecutor(_READERS, "sample") as pool:
        found = list(pool.map(partial(_read_groups, store, schema), picked, groups))
    return MaskSample(
        pa.concat_tables([schema.empty_table(), *(rows for rows, _ in found if rows is not None)]),
        tuple(footer.key for footer in picked),
        tuple(problem for _, problem in found if problem is not None),
    )


def _read_footer(store: ObjectStore, key: str) -> Footer:
    with store.open(key) as stream:
        try:
            parquet = pq.ParquetFile(stream)
        except (pa.ArrowException, OSError) as error:
            raise WorkspaceError(f"{store.uri(key)} is not a Parquet file: {error}") from error
        about = parquet.metadata
        return Footer(key, about.num_rows, about.num_row_groups, parquet.schema_arrow)


def _read_groups(
    store: ObjectStore, schema: pa.Schema, footer: Footer, groups: Sequence[int]
) -> tuple[pa.Table | None, str | None]:
    """Return the rows that can be read, and what is wrong with the others."""
    with store.open(footer.key) as stream:
        try:
            parquet = pq.ParquetFile(stream)
            held = [name for name in schema.names if name in parquet.schema_arrow.names]
            rows = parquet.read_row_groups(groups, columns=held, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            return None, f"{store.uri(footer.key)} cannot be read: {error}"
    columns = [
        rows[field.name].cast(field.type)
        if field.name in held
        else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    lacking = [
        f.name for f, c in zip(schema, columns, strict=True) if not f.nullable and c.null_count
    ]
    problem = f"{footer.key} has rows without {', '.join(lacking)}" if lacking else None
    table = pa.table(dict(zip(schema.names, columns, strict=True)))
    for name in lacking:
        table = table.filter(pc.is_valid(table[name]))
    return table.cast(schema), problem
