"""Retraining and evaluation as flows against a real Prefect server, killed and called twice."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient

from engine.dataset.catalog import Workspace
from engine.errors import BadInputError
from engine.learning.decisions import read_log
from engine.learning.registry import list_versions
from engine.learning.retraining import training_entries
from engine.learning.retrainings import list_retrainings
from engine.learning.training_folder import CHECKPOINT, TRAININGS, checkpoint_step
from flows.evaluate import evaluate
from flows.retrain import retrain
from tests.learning.wheel_builders import (
    add_photos,
    publish_masks,
    small_discs,
    true_discs,
    with_tiny_champion,
)
from tests.orchestration.conftest import newest_artifact, wait_for
from tests.prefect_server import PrefectServer

HOLDS = (
    "import fcntl, sys; lock = open(sys.argv[1], 'w'); fcntl.lockf(lock, fcntl.LOCK_EX); "
    "print('mine', flush=True); sys.stdin.read()"
)
RETRAINS = "import json, sys; from flows.retrain import retrain; retrain(**json.loads(sys.argv[1]))"


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """Return fourteen photos with people's masks and a tiny model's, and that model as champion."""
    with Workspace.open(tmp_path / "birds") as opened:
        add_photos(opened, tmp_path / "photos", 14)
        with_tiny_champion(opened, tmp_path)
        publish_masks(opened, true_discs, stage="manual")
        publish_masks(opened, small_discs, stage="auto", maker="model-0")
        yield opened


def test_people_s_masks_become_a_model_that_meets_the_champion_once(
    workspace: Workspace, prefect_client: SyncPrefectClient
) -> None:
    first = retrain(workspace.address, reason="28 masks", steps=3, images_per_batch=1, device="cpu")
    assert (first.release, first.version, first.is_new) == ("r2", "m2", True)
    decision = read_log(workspace.store).decisions[-1]
    assert (decision.candidate, decision.note, decision.decided_by) == ("m2", "28 masks", "retrain")
    assert first.outcome == decision.outcome
    assert decision.rows[0].images == 10, "of 14 photos, ten are held out"

    training = newest_artifact(prefect_client, "training")
    assert "data:image/png;base64," in str(training.data)
    promotion = newest_artifact(prefect_client, "promotion")
    assert decision.champion in str(promotion.data)
    assert training.flow_run_id is not None
    run = prefect_client.read_flow_run(training.flow_run_id)
    assert run.name == "retrain m1 on r2: 28 masks"
    assert {"stage:retrain", "release:r2", "model:m1"} <= set(run.tags)
    progress = prefect_client.read_artifacts()
    assert any("steps" in str(a.description) for a in progress if a.type == "progress")

    again = retrain(workspace.address, reason="doubled", steps=3, images_per_batch=1, device="cpu")
    assert (again.version, again.outcome, again.is_new) == ("m2", first.outcome, False)
    assert "was trained on these masks before" in again.said
    assert len(list_versions(workspace.store)) == 3
    assert len(read_log(workspace.store).decisions) == decision.number


def test_a_candidate_that_is_not_to_be_promoted_meets_nobody(
    workspace: Workspace, prefect_client: SyncPrefectClient
) -> None:
    decisions = len(read_log(workspace.store).decisions)
    wish: dict[str, Any] = {"steps": 1, "images_per_batch": 1, "hold_out": 3, "device": "cpu"}
    outcome = retrain(workspace.address, promote=False, **wish)
    assert (outcome.outcome, outcome.champion) == ("candidate", None)
    assert len(read_log(workspace.store).decisions) == decisions
    later = retrain(workspace.address, **wish)
    assert later.version == outcome.version
    assert len(read_log(workspace.store).decisions) == decisions + 1


def test_too_few_masks_fail_the_run_before_anything_is_trained(
    workspace: Workspace, prefect_client: SyncPrefectClient
) -> None:
    with pytest.raises(BadInputError, match=r"14 images of release r2 .* too few to train on"):
        retrain(workspace.address, hold_out=14)
    assert not (workspace.local_folder / TRAININGS).exists()


@pytest.mark.slow
def test_a_retraining_that_was_killed_goes_on_where_it_was(
    workspace: Workspace,
    prefect_server: PrefectServer,
    prefect_client: SyncPrefectClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wish: dict[str, Any] = {
        "workspace": workspace.address,
        "reason": "killed",
        "steps": 20,
        "images_per_batch": 1,
        "save_every": 2,
        "hold_out": 3,
        "device": "cpu",
        "init": "m1",
        "promote": False,
    }
    child = subprocess.Popen(
        [sys.executable, "-c", RETRAINS, json.dumps(wish)],
        env={**os.environ, **prefect_server.environment(), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    trainings = workspace.local_folder / TRAININGS
    wait_for(lambda: list(trainings.glob(f"*/{CHECKPOINT}")), "a checkpoint")
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    (retraining,) = list_retrainings(workspace.store)
    assert retraining.version is None
    (checkpoint,) = trainings.glob(f"*/{CHECKPOINT}")
    reached = checkpoint_step(checkpoint.parent)
    assert 0 < reached < 20

    with caplog.at_level(logging.INFO, "flows"):
        outcome = retrain(**wish)
    assert (outcome.version, outcome.outcome, outcome.is_new) == ("m2", "candidate", True)
    assert f"20 steps from {reached}" in caplog.text
    (retraining,) = list_retrainings(workspace.store)
    assert retraining.version == "m2"
    steps = [e.step for e in training_entries(workspace.store, retraining) if e.kind == "train"]
    assert steps == [20]


def test_two_at_once_do_not_train_the_same(
    workspace: Workspace, prefect_client: SyncPrefectClient
) -> None:
    wish: dict[str, Any] = {
        "steps": 1,
        "images_per_batch": 1,
        "hold_out": 3,
        "device": "cpu",
        "promote": False,
    }
    with pytest.raises(BadInputError, match="device 'warp' cannot be used"):
        retrain(workspace.address, **{**wish, "device": "warp"})
    (retraining,) = list_retrainings(workspace.store)
    folder = workspace.local_folder / TRAININGS / f"retrain-{retraining.key}"
    folder.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, folder / ".lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "mine\n"
        outcome = retrain(workspace.address, **wish)
    assert (outcome.outcome, outcome.version, outcome.is_new) == ("in progress", None, False)
    assert retrain(workspace.address, **wish).version == "m2"


def test_a_model_is_measured_once_on_what_nobody_has_learned(
    workspace: Workspace, prefect_client: SyncPrefectClient, tmp_path: Path
) -> None:
    wish: dict[str, Any] = {"max_images": 4, "max_clicks": 1, "device": "cpu"}
    address = evaluate(workspace.address, **wish)
    folder = Path(address.removeprefix("file://"))
    assert folder.parent == tmp_path / "birds" / "evaluations"
    names = {path.name for path in folder.iterdir()}
    assert {"evaluation.json", "evaluation.md"} <= names
    found = json.loads((folder / "evaluation.json").read_text())
    assert found["model"] == "m1"
    assert found["prompts"][0]["case"]["images"] == 4
    assert found["prompts"][0]["case"]["masks"] == 8, "people's two on each, not the model's"
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert evaluate(workspace.address, "m1", **wish) == address
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    shown = newest_artifact(prefect_client, "evaluation")
    assert "measured before" in str(shown.description)
    named = evaluate(workspace.address, data=["r1"], tasks=["boxes"], **wish)
    assert named != address
