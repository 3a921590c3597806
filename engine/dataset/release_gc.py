"""Garbage collection: removes what no release, branch or running job needs.

    report = collect_garbage(workspace, now, dry_run=True)
    report.size_bytes, report.garbage[0].key

What goes are snapshots that nothing refers to, the metadata and data files that only they held,
files of commits and writers that were killed, and lists of checksums without a release. Runs that
were never finished can be resumed, so they stay unless asked for.

Objects are listed first, and what is needed is found out afterwards: what is published meanwhile
is either not in the list or seen to be needed. A job that has written an object and not yet
referred to it is protected by the grace period. Table metadata forgets a snapshot before its files
are removed, so a crash leaves files that nothing refers to, and the next collection finds them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pyiceberg.exceptions import CommitFailedException

from engine.dataset.catalog import Workspace
from engine.dataset.catalog_database import retry
from engine.dataset.history import commit_history
from engine.dataset.publishing import settle
from engine.dataset.reachability import needed_objects, needed_snapshots
from engine.dataset.release_checksums import CHECKSUMS_PREFIX, checksums_key
from engine.dataset.releases import list_releases
from engine.dataset.schemas import TABLES, TableName
from engine.errors import BadInputError, WorkspaceError
from engine.objects import StoredObject
from engine.records import Release

__all__ = ["DEFAULT_GRACE", "Garbage", "GarbageKind", "GarbageReport", "collect_garbage"]

log = logging.getLogger(__name__)

DEFAULT_GRACE = timedelta(days=7)

GarbageKind = Literal["table metadata", "data file", "checksums", "unfinished run"]

_RUNS = "runs/"
# A run's plan stays: runs are numbered without gaps, and a plan is a few kilobytes.
_PLAN = "run.json"


@dataclass(frozen=True, slots=True)
class Garbage:
    """An object that nothing needs.

    Attributes:
        kind: what it was.
        key: its key.
        size_bytes: its length.
    """

    kind: GarbageKind
    key: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GarbageReport:
    """What was removed, or would be.

    Attributes:
        dry_run: nothing was changed.
        snapshots: number of table snapshots that nothing refers to.
        garbage: the objects, by key.
        unfinished_writes: pieces that killed writers left; None for a dry run, which cannot see
            them.
        young: unneeded objects that stay for now, as they are younger than the grace period.
    """

    dry_run: bool
    snapshots: int
    garbage: tuple[Garbage, ...]
    unfinished_writes: int | None
    young: int

    @property
    def size_bytes(self) -> int:
        """The length of all objects together."""
        return sum(item.size_bytes for item in self.garbage)


def collect_garbage(
    workspace: Workspace,
    now: datetime,
    *,
    grace: timedelta = DEFAULT_GRACE,
    unfinished_runs: bool = False,
    dry_run: bool = False,
    threads: int = 8,
    on_object: Callable[[int, int], None] | None = None,
) -> GarbageReport:
    """Remove what nothing needs. Safe beside running jobs, and after a crash: call it again.

    Args:
        workspace: what to clean.
        now: UTC.
        grace: what is younger stays. Choose it longer than any job takes from writing an object
            to publishing it.
        unfinished_runs: also remove the shards of runs that were never published, are on no
            branch, and did nothing during the grace period. They would be made again.
        dry_run: change nothing, only say what would go.
        threads: manifests read at the same time.
        on_object: called with (objects removed, objects to remove) after each.

    Raises:
        BadInputError: a negative grace period.
        WorkspaceError: a release that is damaged or pins a snapshot that is gone: then nothing is
            removed, as what would restore it may be among it.
        TransientError: the catalog or the store stayed busy.
    """
    if grace < timedelta(0):
        raise BadInputError(f"got a grace period of {grace}; expected 0 or more")
    before = now - grace
    _check_pinned(workspace)
    listed = _listed(workspace, unfinished_runs=unfinished_runs)
    if not dry_run:
        settle(workspace)
    releases = list_releases(workspace)
    with ThreadPoolExecutor(threads, "gc") as pool:
        snapshots, needed = _needed(workspace, releases, before, pool, dry_run=dry_run)
    unneeded = [
        *_unneeded_table_objects(workspace, listed, needed),
        *_unneeded_checksums(listed, releases),
    ]
    young = sum(stored.modified_at >= before for _, stored in unneeded)
    old = [(kind, stored) for kind, stored in unneeded if stored.modified_at < before]
    if unfinished_runs:
        old += _idle_runs(workspace, listed, releases, needed, before)
    garbage = sorted((Garbage(k, o.key, o.size_bytes) for k, o in old), key=lambda item: item.key)
    unfinished = None
    if not dry_run:
        _remove(workspace, garbage, on_object)
        unfinished = workspace.store.remove_unfinished(before)
    return GarbageReport(
        dry_run=dry_run,
        snapshots=snapshots,
        garbage=tuple(garbage),
        unfinished_writes=unfinished,
        young=young,
    )


def _listed(workspace: Workspace, *, unfinished_runs: bool) -> list[StoredObject]:
    """List what may be garbage; everything else in a workspace is never touched."""
    prefixes = [*(f"tables/{table}/" for table in TABLES), CHECKSUMS_PREFIX]
    if unfinished_runs:
        prefixes.append(_RUNS)
    return [stored for prefix in prefixes for stored in workspace.store.objects(prefix)]


def _needed(
    workspace: Workspace,
    releases: Sequence[Release],
    before: datetime,
    pool: ThreadPoolExecutor,
    *,
    dry_run: bool,
) -> tuple[int, set[str]]:
    """Expire snapshots; return how many, and the keys of what the others consist of."""
    root = workspace.store.uri("x").removesuffix("x")
    expired, needed = 0, set[str]()
    for name in TABLES:
        pinned = {release.snapshots[name] for release in releases if name in release.snapshots}
        if not dry_run:
            expired += _expire(workspace, name, pinned, before)
        table = workspace.table(name)
        keep = needed_snapshots(table, name, pinned, before)
        if dry_run:
            expired += len(table.metadata.snapshots) - len(keep)
        else:
            keep = {snapshot.snapshot_id for snapshot in table.metadata.snapshots}
        needed |= needed_objects(table, keep, pool)
    return expired, {address.removeprefix(root) for address in needed}


def _check_pinned(workspace: Workspace) -> None:
    """Raise WorkspaceError when a release pins a snapshot that is gone."""
    releases = list_releases(workspace)
    for name in TABLES:
        table = workspace.table(name)
        for release in releases:
            snapshot_id = release.snapshots.get(name)
            if snapshot_id is not None and table.snapshot_by_id(snapshot_id) is None:
                raise WorkspaceError(
                    f"release {release.name} needs snapshot {snapshot_id} of table {name}, which "
                    "is gone: nothing is removed; restore the table's metadata from a backup"
                )


def _expire(
    workspace: Workspace, name: TableName, pinned: Collection[int], before: datetime
) -> int:
    """Let the table forget the snapshots that nothing needs; return how many."""

    def attempt() -> int:
        table = workspace.table(name)
        keep = needed_snapshots(table, name, pinned, before)
        due = [s.snapshot_id for s in table.metadata.snapshots if s.snapshot_id not in keep]
        if due:
            try:
                table.maintenance.expire_snapshots().by_ids(due).commit()
            except ValueError as error:  # another collection was faster
                raise CommitFailedException(str(error)) from error
        return len(due)

    return retry(f"expire snapshots of table {name}", attempt)


def _unneeded_table_objects(
    workspace: Workspace, listed: Sequence[StoredObject], needed: Collection[str]
) -> Iterator[tuple[GarbageKind, StoredObject]]:
    for stored in listed:
        _, _, place = stored.key.removeprefix("tables/").partition("/")
        if not stored.key.startswith("tables/") or stored.key in needed:
            continue
        if place.startswith("metadata/"):
            yield "table metadata", stored
        elif place.startswith("data/"):
            yield "data file", stored


def _unneeded_checksums(
    listed: Sequence[StoredObject], releases: Sequence[Release]
) -> Iterator[tuple[GarbageKind, StoredObject]]:
    named = {checksums_key(r.checksums) for r in releases if r.checksums is not None}
    for stored in listed:
        if stored.key.startswith(CHECKSUMS_PREFIX) and stored.key not in named:
            yield "checksums", stored


def _idle_runs(
    workspace: Workspace,
    listed: Sequence[StoredObject],
    releases: Sequence[Release],
    needed: Collection[str],
    before: datetime,
) -> list[tuple[GarbageKind, StoredObject]]:
    """Find the shards of runs that nobody works on and that are not on their way to a release."""
    published = {run_id for release in releases for run_id in release.runs}
    published |= {release.commit_id for release in releases if release.commit_id is not None}
    staged = {
        commit.commit_id
        for name in TABLES
        for branch in workspace.branches(name)
        for commit in commit_history(workspace.table(name), branch)
    }
    found: dict[str, list[StoredObject]] = {}
    for stored in listed:
        if stored.key.startswith(_RUNS):
            found.setdefault(stored.key.split("/")[1], []).append(stored)
    return [
        ("unfinished run", stored)
        for run_id, objects in found.items()
        if run_id not in published | staged
        and all(stored.modified_at < before for stored in objects)
        for stored in objects
        if not stored.key.endswith(f"/{_PLAN}") and stored.key not in needed
    ]


def _remove(
    workspace: Workspace,
    garbage: Sequence[Garbage],
    on_object: Callable[[int, int], None] | None,
) -> None:
    for number, item in enumerate(garbage, start=1):
        workspace.store.delete(item.key)
        log.info("removed %s (%s, %d bytes)", item.key, item.kind, item.size_bytes)
        if on_object is not None:
            on_object(number, len(garbage))
