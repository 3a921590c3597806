"""Eight processes that commit at once lose nothing, add nothing twice and leave nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.dataset.catalog import Workspace, commit_history
from engine.dataset.schemas import TABLES
from tests.dataset.catalog_places import main_ids, place

__all__ = ["place"]  # a fixture

_PROCESSES, _COMMITS = 8, 2


@pytest.fixture
def raced(place: str) -> str:
    arguments = [place, str(_PROCESSES), str(_COMMITS)]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.dataset.commit_race", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return place


def test_eight_processes_at_once(raced: str) -> None:
    own = [1000 * p + n for p in range(1, _PROCESSES + 1) for n in range(_COMMITS)]
    with Workspace.open(raced, create=False) as workspace:
        # No lost update, and no duplicate.
        assert main_ids(workspace) == sorted([7, *own])
        commits = [commit.commit_id for commit in commit_history(workspace.table("images"))]
        assert sorted(commits) == sorted(["shared", *(f"own-{number}" for number in own)])
        branches = workspace.branches("masks")
        runs = [f"run-{process}" for process in range(1, _PROCESSES + 1)]
        assert sorted(branches) == sorted(["shared", *runs])
        for branch in branches:
            history = commit_history(workspace.table("masks"), branch=branch)
            assert [commit.commit_id for commit in history] == [branch]
        for name in TABLES:
            table = workspace.table(name)
            numbers = [snapshot.sequence_number or 0 for snapshot in table.snapshots()]
            assert sorted(numbers) == list(range(1, len(numbers) + 1)), name
            _nothing_is_left_of_lost_races(workspace, name)


def _nothing_is_left_of_lost_races(workspace: Workspace, name: str) -> None:
    table = workspace.table(name)  # type: ignore[arg-type]
    referenced = {table.metadata_location}
    referenced |= {entry.metadata_file for entry in table.metadata.metadata_log}
    for snapshot in table.snapshots():
        referenced.add(snapshot.manifest_list)
        referenced |= {manifest.manifest_path for manifest in snapshot.manifests(table.io)}
    stored = {workspace.store.uri(key) for key in workspace.store.list(f"tables/{name}/metadata/")}
    assert stored == referenced
    log = list(workspace.store.list(f"tables/{name}/commits/"))
    assert [int(key.rpartition("/")[2]) for key in log] == list(range(len(log)))
    assert table.metadata_location.rpartition("/")[2].startswith(f"{len(log) - 1:05d}-")
