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
from pyiceberg.types import LongType

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
    """

    table: TableName
    key: str
    size_bytes: int
    rows: int
    image_ids: tuple[int, int] = ANY_ID


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
    field_id = state.schema().find_field("image_id").field_id
    files = []
    for task in state.scan(snapshot_id=snapshot_id).plan_files():
        if task.delete_files or not task.file.file_path.startswith(root):
            raise WorkspaceError(
                f"{task.file.file_path} of table {table} has deleted rows or lies outside {root}; "
                "read it with a scan instead"
            )
        files.append(_data_file(task.file, table, root, field_id))
    return sorted(files)


def release_files(workspace: Workspace, snapshots: Mapping[str, int]) -> list[DataFile]:
    """Return the files of all tables in a release's snapshots; errors as in `table_files`."""
    return [f for table in TABLES for f in table_files(workspace, table, snapshots.get(table))]


def _data_file(file: manifest.DataFile, table: TableName, root: str, field_id: int) -> DataFile:
    low, high = _bound(file.lower_bounds, field_id), _bound(file.upper_bounds, field_id)
    image_ids = ANY_ID if low is None or high is None else (low, high)
    key = file.file_path.removeprefix(root)
    return DataFile(table, key, file.file_size_in_bytes, file.record_count, image_ids)


def _bound(bounds: Mapping[int, bytes] | None, field_id: int) -> int | None:
    """Return the smallest or largest value of a column, None where the file has no statistics."""
    if not bounds or field_id not in bounds:
        return None
    value: object = from_bytes(LongType(), bounds[field_id])
    return value if isinstance(value, int) else None
