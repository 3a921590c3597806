"""Finding a workspace's tables again when catalog and commit log are lost.

    for table, state in rebuild_catalog("s3://team-data/birds").items(): ...

Not for a lost database alone: that is made again from the commit log whenever a workspace is
opened. This is for a log, or the metadata file that it ends with, that something removed.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError
from pyiceberg.table.metadata import TableMetadata, TableMetadataUtil

from engine.dataset.commit_log import CommitLog, state_number
from engine.dataset.schemas import TABLES, TableName
from engine.dataset.workspace_record import claim_workspace
from engine.errors import WorkspaceError
from engine.objects import ObjectStore

__all__ = ["is_lost", "rebuild_catalog"]


def rebuild_catalog(address: str | Path) -> dict[TableName, int]:
    """Make the newest usable state of every lost table its state again.

    Usable is a metadata file with every snapshot that a release pins, whose branches and tags can
    be read. Whoever opens the workspace next, on whatever machine, has these tables.

    Returns:
        The number of the new state of each table that was lost; the others are untouched.

    Raises:
        WorkspaceError: there is no workspace, or no usable state of some lost table.
    """
    store = claim_workspace(address, create=False).store
    found: dict[TableName, int] = {}
    for table in TABLES:
        states = CommitLog(store, table)
        newest = states.newest(None)
        current = None if newest is None else states.location(newest)
        if current is not None and store.exists(_key(store, current)):
            continue
        candidates = _metadata_files(store, table)
        pinned = _pinned(store, table)
        if newest is None and not candidates and not pinned:
            continue  # new, not lost
        for key in candidates:
            if (content := _usable(store, key, pinned)) is not None:
                number = 1 + max(-1 if newest is None else newest, state_number(key))
                found[table] = number
                _restore(store, states, table, number, content)
                break
        else:
            raise WorkspaceError(
                f"{store.address}: none of {len(candidates)} metadata files of table {table} has "
                f"the {len(pinned)} snapshots that the releases pin; restore "
                f"tables/{table}/metadata from a backup"
            )
    return found


def is_lost(store: ObjectStore, table: TableName) -> bool:
    """Return whether a table that nothing knows any more was there once."""
    files = _metadata_files(store, table)
    return bool(files and state_number(files[0])) or bool(_pinned(store, table))


def _restore(
    store: ObjectStore, states: CommitLog, table: TableName, number: int, content: bytes
) -> None:
    key = f"tables/{table}/metadata/{number:05d}-{uuid.uuid4()}.metadata.json"
    store.put_if_absent(key, content)
    if not states.claim(number, store.uri(key)):
        raise WorkspaceError(f"table {table} was committed to meanwhile: it is in use, not lost")


def _metadata_files(store: ObjectStore, table: TableName) -> list[str]:
    """Return the keys of the table's metadata files, newest first."""
    keys = [
        key for key in store.list(f"tables/{table}/metadata/") if key.endswith(".metadata.json")
    ]
    return sorted(keys, key=lambda key: (state_number(key), key), reverse=True)


def _usable(store: ObjectStore, key: str, pinned: set[int]) -> bytes | None:
    content = store.get(key)
    try:
        metadata = TableMetadataUtil.parse_raw(content.decode())
    except (ValidationError, ValueError):
        return None
    if pinned - {snapshot.snapshot_id for snapshot in metadata.snapshots}:
        return None
    # A commit that lost a race leaves its file when it is killed; its manifests may be gone.
    lists = _manifest_lists(metadata, pinned)
    return content if all(store.exists(_key(store, file)) for file in lists) else None


def _manifest_lists(metadata: TableMetadata, pinned: set[int]) -> Iterator[str]:
    heads = pinned | {ref.snapshot_id for ref in metadata.refs.values()}
    for snapshot in metadata.snapshots:
        if snapshot.snapshot_id in heads and snapshot.manifest_list is not None:
            yield snapshot.manifest_list


def _pinned(store: ObjectStore, table: TableName) -> set[int]:
    """Return the snapshots of a table that releases pin."""
    pinned = set()
    for key in store.list("releases/"):
        if not key.endswith(".json") or key.count("/") != 1:
            continue
        try:
            snapshot = json.loads(store.get(key))["snapshots"].get(table)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WorkspaceError(
                f"{store.uri(key)} is damaged ({error!r}); restore it from a backup"
            ) from error
        if snapshot is not None:
            pinned.add(int(snapshot))
    return pinned


def _key(store: ObjectStore, location: str) -> str:
    return location.removeprefix(store.uri("x").removesuffix("x"))
