"""The wheel's state, read from real workspaces: what people, models and audits left behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pytest

from engine.annotation.campaigns import campaign, close_campaign, open_campaign
from engine.annotation.database import Database, database_url, open_database
from engine.annotation.records import CampaignImage, CampaignSpec, Stage
from engine.annotation.release import publish_campaign
from engine.automatic.config import AutomaticConfig
from engine.dataset.catalog import Workspace
from engine.dataset.ingest import ingest
from engine.dataset.inputs import expand_inputs
from engine.dataset.releases import list_releases, tag_release
from engine.dataset.rollback import rollback
from engine.dataset.runs import Recipe, commit_run, plan_runs
from engine.learning.decisions import read_log, record
from engine.learning.registry import built_in_version, find_version, register
from engine.quality.agreement import AgreementConfig, AgreementReport
from engine.quality.audit_records import AuditBars, AuditRecord, AuditSettings, keep_audit
from engine.records import ModelOrigin, PromotionDecision
from engine.wheel.decision import decide
from engine.wheel.initial import adopt_policy
from engine.wheel.looking import take_look
from engine.wheel.policy import POLICY_FILE, PRESETS, AutomaticPolicy, Policy, find_policy
from engine.wheel.retraining import human_masks_since_training, retraining_need
from engine.wheel.state import WheelState, read_state
from model import build_sam
from tests.annotation.annotation_builders import (
    NOW,
    a_lease,
    a_mask,
    a_person,
    an_object,
    at,
    hand_in,
)
from tests.dataset.dataset_builders import LIMITS, write_images, write_pending
from tests.model.small_models import SMALL_COMPACT, small_sam

SMALL = PRESETS["small"]
HEIGHT, WIDTH = 24, 32


@dataclass
class Place:
    """A workspace with twelve images, and its annotation database."""

    workspace: Workspace
    db: Database
    image_ids: tuple[int, ...]
    ada: str
    minutes: int = 0

    def state(self, policy: Policy = SMALL) -> WheelState:
        return read_state(self.workspace, self.db, policy, now=NOW)

    def open(self, name: str, images: range, stage: Stage = "manual") -> str:
        of_campaign = tuple(
            CampaignImage(image_id=self.image_ids[i], width=WIDTH, height=HEIGHT, uri=f"/{i}")
            for i in images
        )
        spec = CampaignSpec(name=name, stage=stage, images=of_campaign, model="m", model_id="m-1")
        return open_campaign(self.db, spec, now=self._now()).campaign_id

    def annotate(self, campaign_id: str, images: int, masks: int = 2) -> None:
        for _ in range(images):
            lease = a_lease(self.db, campaign(self.db, campaign_id), self.ada)
            objects = [
                an_object(f"o{i}", a_mask(2 + i, 3, 10 + i, 9, height=HEIGHT, width=WIDTH))
                for i in range(masks)
            ]
            hand_in(self.db, lease, *objects)

    def publish(self, campaign_id: str) -> None:
        publish_campaign(self.workspace, self.db, campaign_id, now=self._now())

    def people_make(
        self, name: str, images: range, stage: Stage = "manual", masks: int = 2
    ) -> None:
        campaign_id = self.open(name, images, stage)
        self.annotate(campaign_id, len(images), masks)
        self.publish(campaign_id)

    def mask_automatically(self, recipe: Recipe, images: int = 12) -> None:
        for run in plan_runs(self.workspace, self.image_ids[:images], recipe, 4, self._now()):
            write_pending(self.workspace, run)
            commit_run(self.workspace, run)

    def train(self, *releases: str, seed: int = 0) -> str:
        sam = small_sam(SMALL_COMPACT, seed)
        origin = ModelOrigin(kind="trained", trained_on=releases)
        return register(self.workspace.store, sam, origin, now=NOW).name

    def judge(self, version: str, *, accept: bool) -> None:
        log = read_log(self.workspace.store)
        decision = PromotionDecision(
            number=log.next_number,
            outcome="promoted" if accept else "refused",
            candidate=version,
            candidate_sha256="0" * 64,
            previous_champion=log.champion,
            champion=version if accept else log.champion,
            champion_sha256=self._sha256(version if accept else log.champion),
            reasons=() if accept else ("not better",),
            decided_by="ann",
            decided_at=self._now(),
            previous_sha256=log.head_sha256,
        )
        assert record(self.workspace.store, decision)

    def _sha256(self, name: str) -> str:
        return find_version(self.workspace.store, name).sha256

    def _now(self) -> datetime:
        self.minutes += 1
        return at(60 * self.minutes)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    write_images(tmp_path / "photos", 12)
    with (
        Workspace.open(tmp_path / "work") as workspace,
        open_database(database_url(tmp_path)) as db,
    ):
        found = ingest(workspace, expand_inputs([str(tmp_path / "photos")]), LIMITS, NOW)
        yield Place(workspace, db, tuple(sorted(found.image_ids)), a_person(db, "Ada"))


def test_an_empty_workspace_has_a_state(tmp_path: Path) -> None:
    with Workspace.open(tmp_path) as workspace, open_database(database_url(tmp_path)) as db:
        state = read_state(workspace, db, SMALL, now=NOW)
        assert state == WheelState(workspace=workspace.address, workspace_id=workspace.workspace_id)
        assert json.loads(state.to_json())["images"] == 0


def test_campaigns_are_seen_with_how_far_they_are_and_what_is_due(place: Place) -> None:
    campaign_id = place.open("manual-1", range(4))
    place.annotate(campaign_id, 3)
    a_lease_of_the_last = place.state().campaign("manual-1")
    assert a_lease_of_the_last is not None
    assert (a_lease_of_the_last.tasks, a_lease_of_the_last.done) == (4, 3)
    assert (a_lease_of_the_last.is_over, a_lease_of_the_last.due) == (False, 3)
    assert place.state().candidates == 8
    place.annotate(campaign_id, 1)
    look = place.state().campaign("manual-1")
    assert look is not None
    assert (look.state, look.is_over, look.due, look.published) == ("complete", True, 4, 0)
    place.publish(campaign_id)
    look = place.state().campaign("manual-1")
    assert look is not None
    assert (look.due, look.published) == (0, 4)


def test_what_a_person_closed_is_over_and_its_untouched_images_are_free_again(
    place: Place,
) -> None:
    campaign_id = place.open("manual-1", range(6))
    place.annotate(campaign_id, 2)
    close_campaign(place.db, campaign_id, now=NOW)
    look = place.state().campaign("manual-1")
    assert look is not None
    assert (look.state, look.is_over, look.due) == ("closed", True, 2)
    assert place.state().candidates == 10


def test_human_masks_are_counted_by_stage_and_by_what_was_learned(place: Place) -> None:
    place.people_make("manual-1", range(3))
    place.people_make("semi-1", range(3, 5), "semi", masks=3)
    place.mask_automatically(Recipe.of("other", {}))
    state = place.state()
    assert (state.manual_masks, state.semi_masks, state.new_human_masks) == (6, 6, 12)
    place.judge(place.train("r1"), accept=False)
    assert place.state().new_human_masks == 6
    # A release of the automatic stage has the same masks of people as the one before.
    place.judge(place.train("r3", seed=1), accept=True)
    assert place.state().new_human_masks == 0


def test_a_training_counts_when_the_gate_has_judged_it_unless_a_person_promotes(
    place: Place,
) -> None:
    place.people_make("manual-1", range(3))
    version = place.train("r1")
    assert human_masks_since_training(place.workspace) == 6
    by_hand = replace(SMALL, retraining=replace(SMALL.retraining, promote=False))
    assert place.state(by_hand).new_human_masks == 0
    place.judge(version, accept=False)
    state = place.state()
    assert (state.new_human_masks, state.champion) == (0, "bundled")
    assert [(t.version, t.outcome, t.reason) for t in state.trainings] == [
        ("m1", "refused", "not better")
    ]


def test_after_going_back_only_what_is_there_counts(place: Place) -> None:
    place.people_make("manual-1", range(3))
    place.people_make("manual-2", range(3, 5))
    place.judge(place.train("r2"), accept=False)
    rollback(place.workspace, "r1", at(9_000))
    place.people_make("manual-3", range(5, 9))
    state = place.state()
    assert (state.manual_masks, state.new_human_masks) == (14, 8)
    assert [r.name for r in list_releases(place.workspace)] == ["r1", "r2", "r3", "r4"]


def test_images_that_the_champion_masked_are_counted_by_its_own_settings(place: Place) -> None:
    champion = built_in_version()
    sam = build_sam("bundled", device="cpu")
    config = AutomaticConfig.for_model(sam, {})
    place.mask_automatically(Recipe.of(sam.model_id(), config.result_fields()), images=9)
    state = place.state()
    assert (state.images, state.masked, state.champion) == (12, 9, champion.name)
    paper = replace(SMALL, automatic=AutomaticPolicy(preset="paper"))
    assert place.state(paper).masked == 0


def test_audits_count_when_they_were_made_by_the_policy_s_bars(place: Place) -> None:
    place.people_make("manual-1", range(3))
    for bar in (0.75, 0.9):
        settings = AuditSettings(bars=AuditBars(mean_iou=bar), agreement=AgreementConfig())
        audit = AuditRecord(
            release="r1",
            settings=settings,
            outcome="failed" if bar == 0.9 else "passed",
            figure=0.8,
            bar=bar,
            reason=f"0.80 against {bar}",
            model="m-1",
            checks=(),
            agreement=AgreementReport(images=3, rows=(), worst=()),
            audited_at=NOW,
        )
        assert keep_audit(place.workspace.store, audit)
    found = place.state().audit()
    assert found is not None
    assert (found.passed, found.reason) == (True, "0.80 against 0.75")
    strict = replace(SMALL, audit=replace(SMALL.audit, min_mean_iou=0.9))
    found = place.state(strict).audit()
    assert found is not None
    assert not found.passed


def test_tags_are_seen(place: Place) -> None:
    place.people_make("manual-1", range(3))
    tag_release(place.workspace, "v1", "r1", NOW)
    state = place.state()
    assert (state.release_tags, state.tags) == (("v1",), ("v1",))


def test_without_a_policy_of_its_own_a_workspace_is_only_explained(place: Place) -> None:
    look = take_look(place.workspace, place.db, None, now=NOW)
    assert not look.may_act
    assert "maskwheel policy init" in look.decision.reasons[0]
    assert take_look(place.workspace, place.db, "small", now=NOW).may_act
    place.people_make("manual-1", range(3))
    assert not retraining_need(place.workspace).is_due
    assert adopt_policy(place.workspace)
    look = take_look(place.workspace, place.db, None, now=NOW)
    assert look.may_act
    assert look.policy == find_policy(place.workspace.store)
    assert look.decision == decide(look.policy, look.state)
    need = retraining_need(place.workspace)
    assert (need.new_human_masks, need.minimum, need.is_due) == (6, 100, False)
    (Path(place.workspace.address) / POLICY_FILE).write_text(
        "[retraining]\nmin_new_masks = 6\nhold_out = 3\n"
    )
    assert (retraining_need(place.workspace).human_images, place.state().human_images) == (3, 3)
    assert not retraining_need(place.workspace).is_due
    (Path(place.workspace.address) / POLICY_FILE).write_text(
        "[retraining]\nmin_new_masks = 6\nhold_out = 2\n"
    )
    assert retraining_need(place.workspace).is_due
