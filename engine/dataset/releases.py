"""Releases: named, immutable states of the data set.

    release = latest_release(workspace)
    masks = scan(workspace, release, "masks", columns=("image_id", "area"), row_filter="area > 99")

The truth is ``releases/<name>.json``, written once. Iceberg tags of the same name keep the
snapshots that it pins; they follow from it and are set again when a crash came between.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.expressions.parser import parse
from pyiceberg.expressions.visitors import bind
from pyiceberg.schema import Schema
from pyiceberg.table import DataScan
from pyparsing import ParseException

from engine.dataset.catalog import Workspace
from engine.dataset.schemas import TABLES, TableName, arrow_schema
from engine.errors import BadInputError, WorkspaceError
from engine.records import Release

__all__ = [
    "data_files",
    "latest_release",
    "list_releases",
    "load_release",
    "next_release_name",
    "scan",
    "scan_batches",
    "tag_releases",
    "write_release",
]

log = logging.getLogger(__name__)

_PREFIX = "releases/"
_SUFFIX = ".json"
_EVERY_ROW = AlwaysTrue()


def list_releases(workspace: Workspace) -> list[Release]:
    """Return all releases, oldest first."""
    names = [
        key.removeprefix(_PREFIX).removesuffix(_SUFFIX)
        for key in workspace.store.list(_PREFIX)
        if key.endswith(_SUFFIX)
    ]
    return [load_release(workspace, name) for name in sorted(names, key=_number)]


def load_release(workspace: Workspace, name: str) -> Release:
    """Return a release by its name.

    Raises:
        BadInputError: there is none of that name.
        WorkspaceError: its record is damaged.
    """
    key = f"{_PREFIX}{name}{_SUFFIX}"
    if not workspace.store.exists(key):
        raise BadInputError(f"got the release {name!r}; `maskwheel releases list` shows the names")
    try:
        fields = json.loads(workspace.store.get(key))
        return Release(
            name=fields["name"],
            snapshots={table: int(snapshot) for table, snapshot in fields["snapshots"].items()},
            runs=tuple(fields["runs"]),
            models=tuple(fields["models"]),
            parent=fields["parent"],
            images=fields["images"],
            masks=fields["masks"],
            created_at=datetime.fromisoformat(fields["created_at"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WorkspaceError(f"{key} is damaged: {error!r}; restore it from a backup") from error


def latest_release(workspace: Workspace) -> Release | None:
    """Return the newest release, None before the first."""
    releases = list_releases(workspace)
    return releases[-1] if releases else None


def next_release_name(releases: Sequence[Release]) -> str:
    """Return the name after the newest: ``"r1"``, ``"r2"``, ..."""
    return f"r{1 + max((_number(release.name)[0] for release in releases), default=0)}"


def write_release(workspace: Workspace, release: Release) -> bool:
    """Write a release's record unless its name is taken; return whether this call did."""
    fields = {**asdict(release), "created_at": release.created_at.isoformat()}
    created = workspace.store.put_if_absent(
        f"{_PREFIX}{release.name}{_SUFFIX}", json.dumps(fields, indent=2).encode()
    )
    if created:
        log.info("release %s: %d masks, %d images", release.name, release.masks, release.images)
    return created


def tag_releases(workspace: Workspace, releases: Sequence[Release]) -> None:
    """Tag the snapshots that the releases pin, where a tag is missing.

    Raises:
        WorkspaceError: a tag of a release's name points to another snapshot.
        TransientError: the catalog stayed busy.
    """
    for table in TABLES:
        tags = {name: ref.snapshot_id for name, ref in workspace.table(table).refs().items()}
        for release in releases:
            snapshot_id = release.snapshots[table]
            if tags.get(release.name) != snapshot_id:
                workspace.tag(table, release.name, snapshot_id)


def scan(
    workspace: Workspace,
    release: Release,
    table: TableName,
    columns: Sequence[str] | None = None,
    row_filter: str | BooleanExpression = _EVERY_ROW,
) -> pa.Table:
    """Read a table as it was in a release, into memory.

    Args:
        workspace: where the release is.
        release: the state to read.
        table: ``"images"``, ``"masks"`` or ``"image_runs"``.
        columns: names; None: all.
        row_filter: an SQL-like condition (``"image_id = 5 and area > 100"``) or an expression.

    Returns:
        Rows with the types of `arrow_schema`, columns in its order; rows in no promised order.

    Raises:
        BadInputError: a column that the table does not have, or a condition that cannot be read.
        WorkspaceError: the release's snapshot is gone.
    """
    rows = _plan(workspace, release, table, columns, row_filter).to_arrow()
    return rows.cast(_schema_of(table, rows.schema.names))


def scan_batches(
    workspace: Workspace,
    release: Release,
    table: TableName,
    columns: Sequence[str] | None = None,
    row_filter: str | BooleanExpression = _EVERY_ROW,
) -> pa.RecordBatchReader:
    """Read a table as it was in a release, batch by batch; arguments and errors as in `scan`."""
    batches = _plan(workspace, release, table, columns, row_filter).to_arrow_batch_reader()
    return batches.cast(_schema_of(table, batches.schema.names))


def data_files(workspace: Workspace, release: Release, table: TableName) -> list[str]:
    """Return the keys of the files that hold a table's rows in a release, ascending.

    For readers that want rows by their place instead of scanning: rows of a file never change.

    Raises:
        WorkspaceError: the release's snapshot is gone, rows of it were deleted after they were
            written, or its files lie outside the workspace.
    """
    everything = _plan(workspace, release, table, None, _EVERY_ROW)
    root = workspace.store.uri("x").removesuffix("x")
    keys = []
    for task in everything.plan_files():
        if task.delete_files or not task.file.file_path.startswith(root):
            raise WorkspaceError(
                f"release {release.name}: {task.file.file_path} has deleted rows or lies outside "
                f"{root}; read it with a scan instead"
            )
        keys.append(task.file.file_path.removeprefix(root))
    return sorted(keys)


def _plan(
    workspace: Workspace,
    release: Release,
    table: TableName,
    columns: Sequence[str] | None,
    row_filter: str | BooleanExpression,
) -> DataScan:
    known = arrow_schema(table).names
    if unknown := sorted(set(columns or ()) - set(known)):
        raise BadInputError(f"got the columns {unknown}; table {table} has {known}")
    snapshot_id = release.snapshots.get(table)
    state = workspace.table(table)
    if snapshot_id is None or state.snapshot_by_id(snapshot_id) is None:
        raise WorkspaceError(
            f"release {release.name}: snapshot {snapshot_id} of table {table} is gone"
        )
    return state.scan(
        row_filter=_condition(row_filter, state.schema()),
        selected_fields=tuple(columns) if columns is not None else ("*",),
        snapshot_id=snapshot_id,
    )


def _schema_of(table: TableName, names: Sequence[str]) -> pa.Schema:
    # pyiceberg widens strings when there is nothing to read
    schema = arrow_schema(table)
    return pa.schema([schema.field(name) for name in names])


def _condition(row_filter: str | BooleanExpression, schema: Schema) -> BooleanExpression:
    try:
        parsed = parse(row_filter) if isinstance(row_filter, str) else row_filter
        bind(schema, parsed, case_sensitive=True)
    except (ParseException, ValueError, TypeError) as error:
        raise BadInputError(
            f"got the condition {str(row_filter)!r}: {error}; expected one like "
            '"image_id = 5 and area > 100" with the table\'s columns'
        ) from error
    return parsed


def _number(name: str) -> tuple[int, str]:
    digits = name.removeprefix("r")
    return (int(digits), name) if name.startswith("r") and digits.isdecimal() else (0, name)
