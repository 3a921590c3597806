"""Publishes runs in processes that are killed or that race.

    python -m tests.dataset.publishing_processes kill ROOT PHOTOS POINTS SEED
    python -m tests.dataset.publishing_processes race ROOT PHOTOS PROCESSES

    kill   for each of POINTS runs: a committer, killed at a random effect, then another one
    race   PROCESSES committers at the same time; each publishes a run of its own and one of all

An effect is as in `crash_points`. The runs are planned and their shards written before.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

import tests.dataset.crash_points as crash_points
from engine.dataset.catalog import Workspace
from engine.dataset.runs import RunManifest, commit_run, load_run
from engine.quality.gate import audit
from tests.dataset.crash_points import Effects, fork, must, wait
from tests.dataset.dataset_builders import write_images
from tests.dataset.publishing_builders import ingest_photos, written_run

_WARM = (crash_points, write_images)


def prepare(root: Path, photos: Path, runs: int) -> list[str]:
    """Plan and write runs in a child, as the parent must not start threads; return their ids."""

    def write() -> None:
        with Workspace.open(root) as workspace:
            image_ids = ingest_photos(workspace, photos, 5)
            ids = [written_run(workspace, image_ids, number).run_id for number in range(runs)]
        (root.parent / "runs.txt").write_text("\n".join(ids))

    must(wait(fork(write)), 0)
    return (root.parent / "runs.txt").read_text().split()


def commit(root: Path, run_id: str) -> None:
    with Workspace.open(root) as workspace:
        run: RunManifest = load_run(workspace.store, run_id)
        commit_run(workspace, run, audit)


def watched_commit(root: Path, run_id: str, kill_at: int | None, counted: Path) -> None:
    effects = Effects(kill_at)
    effects.watch()
    commit(root, run_id)
    sys.setprofile(None)
    counted.write_text(str(effects.count))


def kill(root: Path, photos: Path, points: int, seed: int) -> None:
    counted = root.parent / "count.txt"
    first, second, *others = prepare(root, photos, points + 2)
    must(wait(fork(lambda: commit(root, first))), 0)
    must(wait(fork(lambda: watched_commit(root, second, None, counted))), 0)
    effects = int(counted.read_text())
    rng = random.Random(seed)  # noqa: S311  (no secret)
    print(effects)
    for run_id in others:
        at = rng.randrange(1, effects + 1)
        # Threads make the count vary by a few: a committer may just get through.
        status = wait(fork(lambda: watched_commit(root, run_id, at, counted)))  # noqa: B023
        must(status, -signal.SIGKILL, 0)
        must(wait(fork(lambda: commit(root, run_id))), 0)  # noqa: B023


def race(root: Path, photos: Path, processes: int) -> None:
    shared, *own = prepare(root, photos, processes + 1)
    read_end, write_end = os.pipe()

    def racer(run_id: str) -> None:
        os.close(write_end)
        os.read(read_end, 1)
        commit(root, run_id)
        commit(root, shared)

    children = [fork(lambda run_id=run_id: racer(run_id)) for run_id in own]  # type: ignore[misc]
    os.close(write_end)
    for child in children:
        must(wait(child), 0)


if __name__ == "__main__":
    mode, root, photos, *numbers = sys.argv[1:]
    if mode == "kill":
        kill(Path(root), Path(photos), *map(int, numbers))
    else:
        race(Path(root), Path(photos), *map(int, numbers))
