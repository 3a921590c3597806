"""Releases: named, immutable states of the data set.

    release = latest_release(workspace)
    masks = scan(workspace, release, "masks", columns=("image_id", "area"), row_filter="area > 99")

The truth is ``releases/<name>.json``, written once. Iceberg tags of the same name keep the
snapshots that it pins; they follow from it and are set again when a crash came between.

A person's own names for releases are objects too, ``releases/tags/<tag>.json``: a tag is given
once and never moves, so that it can be cited. Where a release is asked for, its tag does as well.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from importlib import metadata
from typing import get_args

import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.expressions.parser import parse
from pyiceberg.expressions.visitors import bind
from pyiceberg.schema import Schema
from pyiceberg.table import DataScan
from pyparsing import ParseException

from engine.dataset.catalog import Workspace
from engine.dataset.release_files import table_files
from engine.dataset.schemas import TABLES, TableName, arrow_schema
from engine.errors import BadInputError, WorkspaceError
from engine.records import Release, ReleaseKind

__all__ = [
    "LATEST",
    "ReleaseTag",
    "code_version",
    "data_files",
    "latest_release",
    "list_releases",
    "list_tags",
    "load_release",
    "next_release_name",
    "scan",
    "scan_batches",
    "tag_release",
    "tag_releases",
    "write_release",
]

log = logging.getLogger(__name__)

LATEST = "latest"
_PREFIX = "releases/"
_TAGS = "releases/tags/"
_SUFFIX = ".json"
_EVERY_ROW = AlwaysTrue()
_READERS = 16
# No dots and slashes: beside the records lie other objects, e.g. the tags.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RELEASE = re.compile(r"r\d+")
_RESERVED = (LATEST, "main")
_KINDS: tuple[str, ...] = get_args(ReleaseKind)
# Fields that records of older versions lack; those have the default.
_ADDED = ("kind", "commit_id", "code_version", "note", "accepted", "restores", "checksums")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseTag:
    """A person's name for a release; never moves.

    Attributes:
        name: unique among the tags, and unlike a release's name.
        release: the release that it stands for.
        note: why, in the words of who gave it.
        created_at: UTC.
    """

    name: str
    release: str
    note: str = ""
    created_at: datetime


def list_releases(workspace: Workspace) -> list[Release]:
    """Return all releases, oldest first."""
    # Side by side, as a bucket answers slowly and every publisher asks.
    with ThreadPoolExecutor(_READERS, "releases") as pool:
        return list(pool.map(partial(_read_record, workspace), _names(workspace)))


def load_release(workspace: Workspace, name: str) -> Release:
    """Return a release by its name, by a tag, or as ``"latest"``.

    Raises:
        BadInputError: there is none of that name.
        WorkspaceError: its record is damaged.
    """
    if name == LATEST:
        release = latest_release(workspace)
        if release is None:
            raise BadInputError("there is no release yet; make one with `maskwheel auto`")
        return release
    if _NAME.fullmatch(name) and workspace.store.exists(f"{_PREFIX}{name}{_SUFFIX}"):
        return _read_record(workspace, name)
    if _TAG.fullmatch(name) and workspace.store.exists(f"{_TAGS}{name}{_SUFFIX}"):
        return _read_record(workspace, _read_tag(workspace, name).release)
    raise BadInputError(
        f"got the release {name!r}; `maskwheel releases list` shows the names and tags"
    )


def latest_release(workspace: Workspace) -> Release | None:
    """Return the newest release, None before the first."""
    names = _names(workspace)
    return _read_record(workspace, names[-1]) if names else None


def next_release_name(releases: Sequence[Release]) -> str:
    """Return the name after the newest: ``"r1"``, ``"r2"``, ..."""
    return f"r{1 + max((_number(release.name)[0] for release in releases), default=0)}"


def code_version() -> str:
    """Return the version of Maskwheel that runs; it stands in every release."""
    return metadata.version("maskwheel")


def list_tags(workspace: Workspace) -> list[ReleaseTag]:
    """Return the tags of all releases, by name."""
    return [
        _read_tag(workspace, key.removeprefix(_TAGS).removesuffix(_SUFFIX))
        for key in workspace.store.list(_TAGS)
        if key.endswith(_SUFFIX)
    ]


def tag_release(
    workspace: Workspace, tag: str, name: str, now: datetime, note: str = ""
) -> Release:
    """Give a release a name to cite it by. Giving the same tag to the same release again is fine.

    Args:
        workspace: where the release is.
        tag: letters, digits, ``.``, ``_`` and ``-``, unlike the names of releases.
        name: the release, or another tag of it.
        now: UTC.
        note: why.

    Returns:
        The release.

    Raises:
        BadInputError: a tag that cannot be used, that another release has, or no such release.
        WorkspaceError: a record that is damaged.
    """
    if not _TAG.fullmatch(tag) or _RELEASE.fullmatch(tag) or tag in _RESERVED:
        raise BadInputError(
            f"got the tag {tag!r}; expected up to 100 letters, digits, '.', '_' and '-' that "
            f"begin with a letter or digit, but not {', '.join(_RESERVED)} or r1, r2, ..."
        )
    release = load_release(workspace, name)
    given = ReleaseTag(name=tag, release=release.name, note=note, created_at=now)
    if not workspace.store.put_if_absent(f"{_TAGS}{tag}{_SUFFIX}", _to_json(given)):
        existing = _read_tag(workspace, tag)
        if existing.release != release.name:
            raise BadInputError(
                f"the tag {tag!r} belongs to release {existing.release} since "
                f"{existing.created_at:%Y-%m-%d %H:%M}, and tags never move; choose another name "
                f"for {release.name}"
            )
    return release


def write_release(workspace: Workspace, release: Release) -> bool:
    """Write a release's record unless its name is taken; return whether this call did."""
    created = workspace.store.put_if_absent(f"{_PREFIX}{release.name}{_SUFFIX}", _to_json(release))
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
            snapshot_id = release.snapshots.get(table)
            if snapshot_id is not None and tags.get(release.name) != snapshot_id:
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
    files = table_files(workspace, table, release.snapshots.get(table))
    return [file.key for file in files]


def _names(workspace: Workspace) -> list[str]:
    """Return the releases' names, oldest first."""
    names = (key.removeprefix(_PREFIX) for key in workspace.store.list(_PREFIX))
    names = (name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))
    return sorted((name for name in names if _NAME.fullmatch(name)), key=_number)


def _to_json(record: Release | ReleaseTag) -> bytes:
    fields = {**asdict(record), "created_at": record.created_at.isoformat()}
    return json.dumps(fields, indent=2, ensure_ascii=False).encode()


def _read_record(workspace: Workspace, name: str) -> Release:
    key = f"{_PREFIX}{name}{_SUFFIX}"
    try:
        fields = json.loads(workspace.store.get(key))
        if fields.get("kind", "run") not in _KINDS:
            raise ValueError(f"kind {fields['kind']!r}")
        return Release(
            name=fields["name"],
            snapshots={table: int(snapshot) for table, snapshot in fields["snapshots"].items()},
            runs=tuple(fields["runs"]),
            models=tuple(fields["models"]),
            parent=fields["parent"],
            images=fields["images"],
            masks=fields["masks"],
            created_at=datetime.fromisoformat(fields["created_at"]),
            configs=dict(fields.get("configs", {})),
            **{name: fields[name] for name in _ADDED if name in fields},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WorkspaceError(f"{key} is damaged: {error!r}; restore it from a backup") from error


def _read_tag(workspace: Workspace, tag: str) -> ReleaseTag:
    key = f"{_TAGS}{tag}{_SUFFIX}"
    try:
        fields = json.loads(workspace.store.get(key))
        return ReleaseTag(
            name=fields["name"],
            release=fields["release"],
            note=fields["note"],
            created_at=datetime.fromisoformat(fields["created_at"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WorkspaceError(f"{key} is damaged: {error!r}; restore it from a backup") from error


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
