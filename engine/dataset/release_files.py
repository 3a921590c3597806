"""The data files of a release, as the metadata of its tables lists them.

    for file in table_files(workspace, "masks", release.snapshots["masks"]):
        print(file.key, file.rows)

For readers that want rows by their place instead of scanning: a data file never changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyiceberg import manifest
from pyiceberg.conversions import from_bytes
from pyiceberg.types import LongType, PrimitiveType, StringType

from engine.dataset.catalog import Workspace
from engine.dataset.schemas import TABLES, TableName
from engine.errors import WorkspaceError

__all__ = [
    "ANY_ID",
    "DataFile",
    "release_files",
    "table_files",
]

ANY_ID = (-(2**63), 2**63 - 1)


@dataclass(frozen=True, slots=True, order=True)
class DataFile:
    """A Parquet file that holds rows of a table, as the table's metadata describes it.

    Attributes:
        table: whose rows.
        key: object key below the workspace's root.
        size_bytes: of the file.
        rows: number of rows.
        image_ids: no image id in it is smaller than the first or larger than the second.
        stage: of all masks in it; None: no masks, or the metadata do not say. (A file is of one
            run, and a run of one stage.)
    """

    table: TableName
    key: str
    size_bytes: int
    rows: int
    image_ids: tuple[int, int] = ANY_ID
    stage: str | None = None


def table_files(workspace: Workspace, table: TableName, snapshot_id: int | None) -> list[DataFile]:
    """Return the files that hold a table's rows in a snapshot, by key.

    Raises:
        WorkspaceError: the snapshot is gone, rows of it were deleted after they were written, or
            its files lie outside the workspace.
    """
    state = workspace.table(table)
    if snapshot_id is None or state.snapshot_by_id(snapshot_id) is None:
        raise WorkspaceError(f"snapshot {snapshot_id} of table {table} is gone")
    root = workspace.store.uri("x").removesuffix("x")
    field_ids = {field.name: field.field_id for field in state.schema().fields}
    files = []
    for task in state.scan(snapshot_id=snapshot_id).plan_files():
        if task.delete_files or not task.file.file_path.startswith(root):
            raise WorkspaceError(
                f"{task.file.file_path} of table {table} has deleted rows or lies outside {root}; "
                "read it with a scan instead"
            )
        files.append(_data_file(task.file, table, root, field_ids))
    return sorted(files)


def release_files(workspace: Workspace, snapshots: Mapping[str, int]) -> list[DataFile]:
    """Return the files of all tables in a release's snapshots; errors as in `table_files`."""
    return [f for table in TABLES for f in table_files(workspace, table, snapshots.get(table))]


def _data_file(
    file: manifest.DataFile, table: TableName, root: str, field_ids: Mapping[str, int]
) -> DataFile:
    low, high = _bounds(file, field_ids["image_id"], LongType())
    image_ids = (low, high) if isinstance(low, int) and isinstance(high, int) else ANY_ID
    first, last = _bounds(file, field_ids.get("stage"), StringType())
    stage = first if isinstance(first, str) and first == last else None
    key = file.file_path.removeprefix(root)
    return DataFile(table, key, file.file_size_in_bytes, file.record_count, image_ids, stage)


def _bounds(
    file: manifest.DataFile, field_id: int | None, kind: PrimitiveType
) -> tuple[object, object]:
    """Return the smallest and largest value of a column, None where there are no statistics."""
    lower, upper = file.lower_bounds or {}, file.upper_bounds or {}
    if field_id is None or field_id not in lower or field_id not in upper:
        return None, None
    return from_bytes(kind, lower[field_id]), from_bytes(kind, upper[field_id])
