"""What a table's snapshots say about how it came to be: commits, in the order they were made.

    commit_history(workspace.table("masks"))                  # main, oldest first
    commit_history(workspace.table("masks"), branch="run-7")

A snapshot that Maskwheel makes carries what it was for (``commit-id``) and, when it was staged,
the branch that it was staged on (``staged-on``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

__all__ = ["COMMIT_ID", "MAIN", "STAGED_ON", "Commit", "commit_history", "find_commit"]

MAIN = "main"
COMMIT_ID = "commit-id"
STAGED_ON = "staged-on"


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit in the history of a table.

    Attributes:
        commit_id: what the commit was for, e.g. a run's id; never twice in one history.
        snapshot_id: the table's state right after it.
        rows: rows of the table in that state.
        staged_on: the branch that it was staged on; None for a commit to main.
    """

    commit_id: str
    snapshot_id: int
    rows: int
    staged_on: str | None = None


def commit_history(
    table: Table, branch: str = MAIN, *, snapshot_id: int | None = None
) -> list[Commit]:
    """Return the commits that led to a state of the table, oldest first.

    Args:
        table: the table; its state when it was loaded.
        branch: a branch or tag; one that is not there has no history.
        snapshot_id: the state itself, instead of a branch's head.
    """
    if snapshot_id is None:
        head = table.snapshot_by_name(branch)
    else:
        head = table.snapshot_by_id(snapshot_id)
    return [commit for s in ancestors(table, head) if (commit := _commit_of(s))][::-1]


def find_commit(table: Table, commit_id: str, snapshot_id: int | None) -> Commit | None:
    """Return the commit of that id among those that led to the snapshot, if there is one."""
    if snapshot_id is None:
        return None
    history = commit_history(table, snapshot_id=snapshot_id)
    return next((commit for commit in history if commit.commit_id == commit_id), None)


def staged_commits(table: Table, branch: str, base: int | None) -> list[Commit] | None:
    """Return the commits staged on a branch since its base, newest first.

    Args:
        table: the table; its state when it was loaded.
        branch: the branch's name.
        base: the snapshot that the branch is to start from; None: from nothing.

    Returns:
        None when the branch is not there, or starts elsewhere.
    """
    head = table.snapshot_by_name(branch)
    if head is None:
        return None
    staged: list[Commit] = []
    for snapshot in ancestors(table, head):
        if snapshot.snapshot_id == base:
            return staged
        commit = _commit_of(snapshot)
        if commit is None or commit.staged_on != branch:
            return None
        staged.append(commit)
    return staged if base is None else None


def ancestors(table: Table, snapshot: Snapshot | None) -> Iterator[Snapshot]:
    """Yield a snapshot and those before it, as far back as the table still knows them."""
    snapshots = {known.snapshot_id: known for known in table.metadata.snapshots}
    while snapshot is not None:
        yield snapshot
        parent = snapshot.parent_snapshot_id
        snapshot = None if parent is None else snapshots.get(parent)


def _commit_of(snapshot: Snapshot) -> Commit | None:
    summary = snapshot.summary
    if summary is None or (commit_id := summary.get(COMMIT_ID)) is None:
        return None
    rows = int(summary.get("total-records") or 0)
    return Commit(commit_id, snapshot.snapshot_id, rows, summary.get(STAGED_ON))
