"""A release as a stream of images with their masks, in memory that does not grow with it.

    with ReleaseSource.open(workspace, release, folder) as source:
        for image in source.images(split, masks=True): ...

Images come by split and then by id. The rows of table ``images`` are as they were ingested, in no
order: DuckDB sorts them once, on disk. Their masks are merged in as `merged_masks` reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions.parser import parse
from pyiceberg.expressions.visitors import bind
from pyiceberg.io.pyarrow import expression_to_pyarrow
from pyparsing import ParseException

from engine.closing import Closing
from engine.dataset.catalog import Workspace
from engine.dataset.exports.protocol import ExportImage, ExportMask
from engine.dataset.merged_masks import masks_by_image
from engine.dataset.parquet_files import ParquetFiles
from engine.dataset.release_files import ANY_ID, table_files
from engine.dataset.released_images import MASK_COLUMNS, originated_masks
from engine.dataset.schemas import TableName, arrow_schema, iceberg_schema
from engine.errors import BadInputError
from engine.records import Release

__all__ = ["ReleaseSource"]

_IMAGE_COLUMNS = ("image_id", "uri", "sha256", "width", "height", "format", "license", "split")
_BATCH_ROWS = 256
# Sorting spills to disk beyond this; a row of table images is some 300 bytes.
_SORT_MEMORY = "256MB"


@dataclass(frozen=True, slots=True, eq=False)
class ReleaseSource(Closing):
    """The images of a release that a run has looked at, also those on which it found nothing.

    Attributes:
        counts: number of images by split; images without a split (None) come first.
        licenses: what the images' licences are, each once, sorted.
    """

    counts: dict[str | None, int]
    licenses: tuple[str, ...]
    _database: duckdb.DuckDBPyConnection
    _masks: ParquetFiles
    _where: pc.Expression | None

    @classmethod
    def open(
        cls,
        workspace: Workspace,
        release: Release,
        folder: Path,
        *,
        splits: Sequence[str] = (),
        where: str | None = None,
    ) -> ReleaseSource:
        """Sort a release's images.

        Args:
            workspace: where the release is.
            release: the state to read.
            folder: for temporary files; about 100 bytes per image.
            splits: only images of these splits; empty: all.
            where: only masks that meet this condition.

        Raises:
            BadInputError: no image to export, or a condition that cannot be read.
            WorkspaceError: the release's files are missing or damaged.
        """
        condition = None if where is None else _condition(where)
        database = duckdb.connect(folder / "images.duckdb")
        try:
            _fill(database, workspace, release, folder, splits)
            counted = database.execute(
                "SELECT split, count(*) FROM images GROUP BY split ORDER BY split NULLS FIRST"
            ).fetchall()
            licenses = database.execute(
                "SELECT DISTINCT license FROM images WHERE license IS NOT NULL ORDER BY license"
            ).fetchall()
        except BaseException:
            database.close()
            raise
        if not counted:
            database.close()
            raise BadInputError(_nothing(release, splits))
        masks = _files(workspace, release, "masks")
        return cls(dict(counted), tuple(row[0] for row in licenses), database, masks, condition)

    def close(self) -> None:
        """Let go of what it reads or writes."""
        self._masks.close()
        self._database.close()

    def images(
        self, split: str | None, *, masks: bool = False, after: int = -1
    ) -> Iterator[ExportImage]:
        """Yield the images of a split by id.

        Args:
            split: None: images without a split.
            masks: whether to read the masks too.
            after: only ids above this one.

        Raises:
            WorkspaceError: a shard that is missing, damaged or not sorted.
        """
        if not masks:
            yield from self._sorted_images(split, after)
            return
        merged = masks_by_image(
            self._masks, MASK_COLUMNS, originated_masks, (after + 1, ANY_ID[1]), self._where
        )
        head = next(merged, None)
        for image in self._sorted_images(split, after):
            while head is not None and head[0] < image.image_id:
                head = next(merged, None)
            if head is not None and head[0] == image.image_id:
                image = replace(image, masks=tuple(ExportMask(*mask) for mask in head[1]))
            yield image

    def _sorted_images(self, split: str | None, after: int) -> Iterator[ExportImage]:
        cursor = self._database.cursor()
        batches = cursor.sql(
            "SELECT * FROM images WHERE split IS NOT DISTINCT FROM ? AND image_id > ? "
            "ORDER BY image_id",
            params=[split, after],
        ).to_arrow_reader(_BATCH_ROWS)
        try:
            for batch in batches:
                columns = [batch.column(name).to_pylist() for name in _IMAGE_COLUMNS]
                yield from (ExportImage(*row) for row in zip(*columns, strict=True))
        finally:
            cursor.close()


def _fill(
    database: duckdb.DuckDBPyConnection,
    workspace: Workspace,
    release: Release,
    folder: Path,
    splits: Sequence[str],
) -> None:
    database.execute(f"SET memory_limit = '{_SORT_MEMORY}'")
    database.execute("SET threads = 1")
    database.execute("SET temp_directory = ?", [str(folder / "spill")])
    listed = _files(workspace, release, "images")
    runs = _files(workspace, release, "image_runs")
    database.register("listed", _reader(listed, "images", _IMAGE_COLUMNS))
    database.register("runs", _reader(runs, "image_runs", ("image_id", "status")))
    # Images that no run has looked at have no masks *yet*: they are no examples of emptiness.
    database.execute(
        f"CREATE TABLE images AS SELECT {', '.join(_IMAGE_COLUMNS)} FROM listed "  # noqa: S608
        "WHERE image_id IN (SELECT image_id FROM runs WHERE status = 'masked') "
        "AND (len(?) = 0 OR list_contains(?, split))",
        [list(splits), list(splits)],
    )
    for files in (listed, runs):
        files.close()


def _files(workspace: Workspace, release: Release, table: TableName) -> ParquetFiles:
    found = table_files(workspace, table, release.snapshots.get(table))
    return ParquetFiles(workspace.store, table, found)


def _reader(files: ParquetFiles, table: TableName, columns: Sequence[str]) -> pa.RecordBatchReader:
    schema = pa.schema([arrow_schema(table).field(name) for name in columns])

    def batches() -> Iterator[pa.RecordBatch]:
        for place in range(len(files.files)):
            for group in range(len(files.row_groups(place).rows_G)):
                yield from files.read(place, group, columns).cast(schema).to_batches()

    return pa.RecordBatchReader.from_batches(schema, batches())


def _condition(where: str) -> pc.Expression:
    try:
        bound = bind(iceberg_schema("masks"), parse(where), case_sensitive=True)
        return expression_to_pyarrow(bound)
    except (ParseException, ValueError, TypeError) as error:
        raise BadInputError(
            f"got the condition {where!r}: {error}; expected one like "
            "\"predicted_iou > 0.9 and stage = 'manual'\" with columns of table masks"
        ) from error


def _nothing(release: Release, splits: Sequence[str]) -> str:
    which = f" in split {' or '.join(splits)}" if splits else ""
    return f"release {release.name} has no masked image{which}; there is nothing to export"
