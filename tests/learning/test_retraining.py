"""Retraining: what is learned from, what is held out, once per content, and the gate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.announcements import Announcement, ModelPromoted
from engine.dataset.catalog import Workspace
from engine.errors import BadInputError, WorkspaceError
from engine.learning.decisions import read_log, resolve
from engine.learning.held_out import held_out_below, number_held_out, place, places
from engine.learning.promotion import GateConfig, roll_back
from engine.learning.recipes import RecipeChanges
from engine.learning.registry import list_versions
from engine.learning.retraining import (
    Candidate,
    RetrainingRequest,
    judge_candidate,
    plan_retraining,
    train_candidate,
    training_entries,
)
from engine.learning.retrainings import Retraining, find_retraining, list_retrainings
from engine.learning.training_log import LogEntry
from tests.learning.wheel_builders import (
    NOW,
    add_photos,
    publish_masks,
    small_discs,
    true_discs,
    with_tiny_champion,
)

SHORT = RecipeChanges(steps=4, images_per_batch=1, log_every=1, save_every=2)
REQUEST = RetrainingRequest(changes=SHORT, hold_out=3, reason="12 new masks")
EASY = GateConfig(margin=0, resamples=100)


class KilledError(Exception):
    """Stands for a kill."""


class KilledAfter:
    """A listener that ends the training after a step."""

    def __init__(self, step: int) -> None:
        self._last = step

    def begin(self, step: int, steps: int) -> None:
        pass

    def step(self, step: int) -> None:
        if step > self._last:
            raise KilledError

    def entry(self, entry: LogEntry) -> None:
        pass


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """Return twelve photos with people's masks, release r1, and a tiny champion, m1."""
    with Workspace.open(tmp_path / "birds") as opened:
        add_photos(opened, tmp_path / "photos", 12)
        with_tiny_champion(opened, tmp_path)
        publish_masks(opened, true_discs, stage="manual")
        yield opened


def planned(workspace: Workspace, request: RetrainingRequest = REQUEST) -> Retraining:
    return plan_retraining(workspace, request, now=NOW)


def trained(workspace: Workspace, plan: Retraining) -> Candidate:
    return train_candidate(workspace, plan, device="cpu", now=NOW)


def test_a_candidate_learns_from_people_only_and_is_judged_on_what_it_has_not_seen(
    workspace: Workspace, tmp_path: Path
) -> None:
    publish_masks(workspace, small_discs, stage="auto", maker="model-0")
    plan = planned(workspace)
    assert (plan.release, plan.images, plan.human_masks, plan.held_out) == ("r2", 12, 24, 3)
    assert (plan.init, plan.init_asked, plan.stages) == ("m1", "champion", ("manual", "semi"))
    candidate = trained(workspace, plan)
    assert (candidate.version.name, candidate.steps, candidate.resumed_at) == ("m2", 4, 0)
    assert candidate.version.origin.parent == "m1"
    assert candidate.version.origin.trained_on == ("r2",)

    heard: list[Announcement] = []
    judgement = judge_candidate(
        workspace, plan, EASY, by="ann", now=NOW, device="cpu", announce=heard.append
    )
    decision = judgement.decision
    assert (decision.candidate, decision.note) == ("m2", "12 new masks")
    assert (decision.rows[0].row, decision.rows[0].images) == ("r2, 1 click", 3)
    assert decision.rows[0].masks == 6, "the model's masks are not wanted"
    assert isinstance(heard[0], ModelPromoted) if decision.outcome == "promoted" else not heard
    entries = training_entries(workspace.store, plan)
    assert [e.step for e in entries if e.kind == "train"] == [1, 2, 3, 4]


def test_the_same_call_again_finds_the_plan_the_version_and_the_decision(
    workspace: Workspace,
) -> None:
    plan = planned(workspace)
    first = trained(workspace, plan)
    judged = judge_candidate(workspace, plan, EASY, by="ann", now=NOW, device="cpu")
    roll_back(workspace.store, "bundled", by="ann", now=NOW)  # the champion is another one now

    again = planned(workspace, replace(REQUEST, release="r1", reason="by mistake"))
    assert again == replace(plan, version="m2")
    second = trained(workspace, again)
    assert (second.version, second.steps) == (first.version, 0)
    known = judge_candidate(workspace, again, EASY, by="bob", now=NOW, device="cpu")
    assert not known.is_new
    assert known.decision == judged.decision
    assert [v.name for v in list_versions(workspace.store)] == ["bundled", "m1", "m2"]
    assert len(read_log(workspace.store).decisions) == 3


def test_an_automatic_run_brings_nothing_new_to_learn_but_people_do(
    workspace: Workspace, tmp_path: Path
) -> None:
    plan = planned(workspace)
    publish_masks(workspace, small_discs, stage="auto", maker="model-0")
    assert planned(workspace).key == plan.key
    assert planned(workspace, replace(REQUEST, changes=replace(SHORT, steps=5))).key != plan.key
    assert planned(workspace, replace(REQUEST, init="m1")).key != plan.key
    add_photos(workspace, tmp_path / "more", 4, first=50)
    new = [f"{n:03d}.png" for n in range(50, 54)]
    publish_masks(workspace, true_discs, stage="semi", names=new)
    later = planned(workspace)
    assert later.key != plan.key
    assert (later.release, later.images, later.human_masks) == ("r3", 16, 32)
    assert later.held_out_below <= plan.held_out_below
    assert [r.release for r in list_retrainings(workspace.store)].count("r3") == 1


def test_a_training_that_was_killed_goes_on_and_ends_with_the_same_weights(
    workspace: Workspace,
) -> None:
    plan = planned(workspace)
    with pytest.raises(KilledError):
        train_candidate(workspace, plan, device="cpu", now=NOW, listener=KilledAfter(2))
    found = find_retraining(workspace.store, plan.key)
    assert found is not None
    assert found.version is None
    with pytest.raises(BadInputError, match="has no model yet"):
        judge_candidate(workspace, plan, EASY, by="ann", now=NOW)
    resumed = trained(workspace, plan)
    assert (resumed.resumed_at, resumed.steps) == (2, 2)

    other = planned(workspace, replace(REQUEST, init=resolve(workspace.store, "m1").name))
    undisturbed = trained(workspace, other)
    assert undisturbed.version.model_id == resumed.version.model_id


def test_too_few_masks_and_wrong_wishes_are_told_before_anything_is_trained(
    workspace: Workspace,
) -> None:
    for wrong, reason in (
        (replace(REQUEST, hold_out=12), "12 images of release r1 .* too few to train on"),
        (replace(REQUEST, hold_out=None, stages=("semi",)), "people make them"),
        (replace(REQUEST, hold_out=1), "2 images at least"),
        (replace(REQUEST, recipe="guess"), "unknown recipe 'guess'"),
        (replace(REQUEST, init="m9"), "unknown model 'm9'"),
        (replace(REQUEST, release="r9"), "got the release 'r9'"),
    ):
        with pytest.raises(BadInputError, match=reason):
            planned(workspace, wrong)
    assert list_retrainings(workspace.store) == ()
    planned(workspace)
    with pytest.raises(BadInputError, match="only 3 images of release r1 were never trained on"):
        planned(workspace, replace(REQUEST, hold_out=None))


def test_a_damaged_record_is_told(workspace: Workspace, tmp_path: Path) -> None:
    plan = planned(workspace)
    path = tmp_path / "birds" / "models" / "retrainings" / plan.key / "plan.json"
    path.write_text("{}")
    with pytest.raises(WorkspaceError, match="is damaged"):
        list_retrainings(workspace.store)


def test_what_is_held_out_was_never_trained_on_however_a_data_set_grows() -> None:
    random = np.random.default_rng(0)
    ids = random.integers(0, 2**62, 30).tolist()
    bounds: list[int] = []
    seen: set[int] = set()
    for _ in range(40):
        below = held_out_below(ids, number_held_out(len(ids)), bounds)
        held = {i for i in ids if place(i) < below}
        assert not held & seen
        assert len(held) <= number_held_out(len(ids))
        seen |= set(ids) - held
        bounds.append(below)
        ids += random.integers(0, 2**62, int(random.integers(1, 60))).tolist()
    assert len(held) >= 10
    assert np.mean(places(ids) < 2**61) == pytest.approx(0.5, abs=0.05)
