"""What several processes publish at once, or are killed while publishing, is released once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.dataset.catalog import Workspace
from engine.dataset.release_verify import verify_release
from engine.dataset.runs import RunManifest, load_run
from tests.dataset.publishing_builders import assert_settled

_SCRIPT = "tests.dataset.publishing_processes"


def in_processes(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", _SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_published_once(root: Path, count: int) -> None:
    """Every run has one release, and the last release verifies."""
    ids = (root.parent / "runs.txt").read_text().split()
    assert len(ids) == count
    with Workspace.open(root, create=False) as workspace:
        runs: list[RunManifest] = [load_run(workspace.store, run_id) for run_id in ids]
        releases = assert_settled(workspace, runs)
        report = verify_release(workspace, releases[-1])
        assert report.passed, report.problems
        assert report.masks > 0


@pytest.mark.parametrize(
    ("points", "seed"),
    [(3, 1), pytest.param(20, 2, marks=pytest.mark.slow)],
)
def test_a_committer_killed_at_random_instants_and_run_again_makes_one_release(
    tmp_path: Path, points: int, seed: int
) -> None:
    effects = in_processes("kill", tmp_path / "work", tmp_path / "photos", points, seed)
    assert int(effects) > 50
    assert_published_once(tmp_path / "work", points + 2)


@pytest.mark.parametrize("processes", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_processes_committing_at_once_lose_nothing_and_double_nothing(
    tmp_path: Path, processes: int
) -> None:
    in_processes("race", tmp_path / "work", tmp_path / "photos", processes)
    assert_published_once(tmp_path / "work", processes + 1)
