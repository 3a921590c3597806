"""Checkpoints of trainings that are over go; those that somebody may go on from stay."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from engine.dataset.catalog import Workspace
from engine.learning.recipes import RecipeChanges
from engine.learning.retraining import RetrainingRequest, plan_retraining, train_candidate
from engine.learning.training_folder import CHECKPOINT, TRAININGS, WEIGHTS
from engine.learning.training_upkeep import remove_finished_checkpoints
from tests.learning.wheel_builders import (
    NOW,
    add_photos,
    publish_masks,
    true_discs,
    with_tiny_champion,
)

GRACE = timedelta(days=30)
LATER = datetime.now(UTC) + timedelta(days=31)
HOLDS = (
    "import fcntl, sys; lock = open(sys.argv[1], 'w'); fcntl.lockf(lock, fcntl.LOCK_EX); "
    "print('mine', flush=True); sys.stdin.read()"
)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """Return a workspace with one finished training."""
    with Workspace.open(tmp_path / "birds") as opened:
        add_photos(opened, tmp_path / "photos", 4)
        with_tiny_champion(opened, tmp_path)
        publish_masks(opened, true_discs, stage="manual")
        changes = RecipeChanges(steps=1, images_per_batch=1)
        request = RetrainingRequest(changes=changes, hold_out=2)
        train_candidate(opened, plan_retraining(opened, request, now=NOW), device="cpu", now=NOW)
        yield opened


def test_only_checkpoints_of_registered_models_go_and_only_old_ones(workspace: Workspace) -> None:
    trainings = workspace.local_folder / TRAININGS
    (checkpoint,) = trainings.glob(f"*/{CHECKPOINT}")
    stopped = trainings / "stopped"
    stopped.mkdir()
    (stopped / CHECKPOINT).write_bytes(b"half way")
    other = trainings / "other"
    other.mkdir()
    (other / CHECKPOINT).write_bytes(b"whole")
    (other / WEIGHTS).write_bytes(b"never registered")

    assert remove_finished_checkpoints(workspace, now=datetime.now(UTC), grace=GRACE).objects == 0
    promised = remove_finished_checkpoints(workspace, now=LATER, grace=GRACE, dry_run=True)
    assert (promised.objects, promised.size_bytes) == (1, checkpoint.stat().st_size)
    assert checkpoint.exists()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, checkpoint.parent / ".lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "mine\n"
        assert remove_finished_checkpoints(workspace, now=LATER, grace=GRACE).objects == 0
    assert remove_finished_checkpoints(workspace, now=LATER, grace=GRACE) == promised
    assert not checkpoint.exists()
    assert checkpoint.with_name(WEIGHTS).exists()
    assert len(list(trainings.glob(f"*/{CHECKPOINT}"))) == 2
    assert remove_finished_checkpoints(workspace, now=LATER, grace=GRACE).objects == 0
