"""What people made becomes a release, once, with who made it in how many seconds."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from engine.annotation import release as release_module
from engine.annotation.campaigns import close_campaign, open_campaign
from engine.annotation.database import Database, database_url, open_database
from engine.annotation.proposals import set_proposals
from engine.annotation.publications import PublicationPlan, folded_images
from engine.annotation.records import (
    Campaign,
    CampaignImage,
    CampaignSpec,
    Lease,
    MaskObject,
    PointPrompt,
    Stage,
    StrokePrompt,
    Verdict,
)
from engine.annotation.release import publish_campaign, run_of
from engine.annotation.reviews import judge, lease_review
from engine.annotation.tasks import skip
from engine.dataset.catalog import Workspace
from engine.dataset.ingest import ingest
from engine.dataset.inputs import expand_inputs
from engine.dataset.reader import ReleaseReader
from engine.dataset.release_verify import verify_release
from engine.dataset.releases import list_releases, scan
from engine.dataset.runs import commit_run, load_run, plan_runs, publish_run
from engine.dataset.shards import write_shard
from engine.errors import RefusedError, WorkspaceError
from engine.quality.gate import GateConfig, audit
from engine.records import Release, Rle
from tests.annotation.annotation_builders import (
    NOW,
    a_lease,
    a_mask,
    a_person,
    at,
    hand_in,
    some_events,
)
from tests.dataset.dataset_builders import LIMITS, RECIPE, write_images, write_pending

HEIGHT, WIDTH = 24, 32


def box(x0: int, y0: int, x1: int, y1: int) -> Rle:
    return a_mask(x0, y0, x1, y1, height=HEIGHT, width=WIDTH)


A = MaskObject(
    object_id="a",
    rle=box(2, 3, 10, 9),
    predicted_iou=0.8,
    prompts=(PointPrompt(30.0, 20.0, 0), PointPrompt(4.5, 5.0, 1)),
    decoder="browser",
)
BRUSHED = MaskObject(
    object_id="b",
    rle=box(12, 3, 30, 20),
    # Longer than what Parquet keeps statistics of.
    prompts=(StrokePrompt("brush", 4.0, tuple((13.0 + i / 40, 4.5) for i in range(600))),),
)


@dataclass(frozen=True)
class Place:
    """A workspace with images, a database beside it, and people."""

    workspace: Workspace
    db: Database
    image_ids: tuple[int, ...]
    ada: str
    bob: str

    def campaign(
        self, *, name: str = "birds", stage: Stage = "manual", people: int = 1, review: bool = False
    ) -> Campaign:
        images = tuple(
            CampaignImage(image_id=i, width=WIDTH, height=HEIGHT, uri=f"/{i}")
            for i in self.image_ids
        )
        spec = CampaignSpec(
            name=name,
            stage=stage,
            images=images,
            model="m1",
            model_id="model-1",
            annotators_per_image=people,
            review=review,
        )
        return open_campaign(self.db, spec, now=NOW)

    def publish(self, campaign: Campaign, seconds: float = 100) -> Release | None:
        return publish_campaign(self.workspace, self.db, campaign.campaign_id, now=at(seconds))

    def annotate(self, campaign: Campaign, *objects: MaskObject, images: int = 4) -> None:
        for _ in range(images):
            hand_in(self.db, a_lease(self.db, campaign, self.ada), *objects)

    def rows(self, release: Release | None) -> list[dict[str, object]]:
        assert release is not None
        found = scan(self.workspace, release, "masks")
        rows: list[dict[str, object]] = found.to_pylist()
        return sorted(rows, key=lambda row: str(row["mask_id"]))

    def statuses(self, release: Release | None) -> dict[int, tuple[object, ...]]:
        assert release is not None
        rows = scan(self.workspace, release, "image_runs").to_pylist()
        names = ("status", "masks", "exhaustive", "reason", "message")
        return {row["image_id"]: tuple(row[name] for name in names) for row in rows}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    write_images(tmp_path / "photos", 4)
    with (
        Workspace.open(tmp_path / "work") as workspace,
        open_database(database_url(tmp_path)) as db,
    ):
        found = ingest(workspace, expand_inputs([str(tmp_path / "photos")]), LIMITS, NOW)
        people = a_person(db, "Ada"), a_person(db, "Bob")
        yield Place(workspace, db, tuple(sorted(found.image_ids)), *people)


def test_masks_of_people_become_a_release_with_all_that_is_known_of_them(place: Place) -> None:
    campaign = place.campaign()
    events = some_events((0, None), (3, "a"), (9, "b"))
    lease = a_lease(place.db, campaign, place.ada)
    hand_in(place.db, lease, A, BRUSHED, events=events, exhaustive=True)
    place.annotate(campaign, images=3)
    release = place.publish(campaign)
    assert release is not None
    assert (release.kind, release.images, release.masks) == ("annotation", 4, 2)
    assert release.models == ("model-1",)
    run_id = f"annotation-{campaign.campaign_id}-0001"
    assert (release.runs, release.commit_id, release.created_at) == ((run_id,), run_id, at(100))
    settings = json.loads(release.configs[run_id])
    assert (settings["campaign"], settings["stage"]) == ("birds", "manual")
    first, second = sorted(place.rows(release), key=lambda row: str(row["decoder"] or "none"))
    assert {
        name: first[name]
        for name in ("image_id", "stage", "annotator_id", "active_seconds", "made", "decoder")
    } == {
        "image_id": lease.task.image.image_id,
        "stage": "manual",
        "annotator_id": place.ada,
        "active_seconds": 3.0,
        "made": "new",
        "decoder": "browser",
    }
    assert (first["bbox_x"], first["bbox_y"], first["bbox_w"], first["bbox_h"]) == (2, 3, 7, 5)
    assert (first["area"], first["predicted_iou"], first["point_coords"]) == (48, 0.8, [[4.5, 5]])
    assert (first["counts"], first["reviewer_id"]) == (A.rle.counts, None)
    assert json.loads(str(first["prompts"]))[0]["label"] == 0
    assert (second["predicted_iou"], second["decoder"], second["point_coords"]) == (1.0, None, [])
    assert second["active_seconds"] == 6.0
    statuses = place.statuses(release)
    assert statuses[lease.task.image.image_id] == ("masked", 2, True, None, None)
    assert sum(status[2] is False for status in statuses.values()) == 3


def test_a_release_of_people_passes_every_audit(place: Place) -> None:
    campaign = place.campaign()
    place.annotate(campaign, A, BRUSHED)
    release = publish_campaign(place.workspace, place.db, "birds", now=NOW, gate=audit)
    assert release is not None
    report = verify_release(place.workspace, release)
    assert (report.problem_count, report.masks, report.images) == (0, 8, 4)
    with ReleaseReader.of(place.workspace, release) as reader:
        image = reader[place.image_ids[0]]
        assert [mask.rle for mask in image.masks] == [A.rle, BRUSHED.rle]
        assert image.origins[0].annotator_id == place.ada


def test_what_is_published_is_published_once(place: Place) -> None:
    campaign = place.campaign()
    assert place.publish(campaign) is None
    place.annotate(campaign, A, images=1)
    first = place.publish(campaign)
    assert place.publish(campaign, 200) is None
    place.annotate(campaign, BRUSHED, images=2)
    second = place.publish(campaign, 300)
    assert first is not None
    assert second is not None
    assert second.runs == (first.commit_id, f"annotation-{campaign.campaign_id}-0002")
    assert [release.masks for release in list_releases(place.workspace)] == [1, 3]
    assert len(place.statuses(second)) == 3


def test_only_what_was_accepted_is_published(place: Place) -> None:
    campaign = place.campaign(review=True)
    reviewer = a_person(place.db, "Rev", "reviewer")
    place.annotate(campaign, A, BRUSHED)

    def say(*verdicts: Verdict) -> None:
        lease = lease_review(place.db, campaign.campaign_id, reviewer, now=NOW)
        assert isinstance(lease, Lease)
        judge(place.db, lease.key, str(uuid.uuid4()), verdicts, now=NOW)

    accept_b = Verdict(object_id="b", kind="accept")
    assert place.publish(campaign) is None
    say(Verdict(object_id="a", kind="accept"), accept_b)
    fixed = box(2, 3, 11, 9)
    say(Verdict(object_id="a", kind="fix", rle=fixed), accept_b)
    say(Verdict(object_id="a", kind="reject", reason="no bird"), accept_b)
    release = place.publish(campaign)
    rows = place.rows(release)
    assert len(rows) == 4
    assert {row["reviewer_id"] for row in rows} == {reviewer}
    assert sorted((str(row["counts"]), row["predicted_iou"]) for row in rows) == sorted(
        [(A.rle.counts, 0.8), (fixed.counts, 1.0), *[(BRUSHED.rle.counts, 1.0)] * 2]
    )


def test_proposals_are_kept_corrected_or_gone(place: Place) -> None:
    campaign = place.campaign(stage="semi")
    proposals = [
        replace(A, object_id=f"p-{i}", rle=box(i * 8, 2, i * 8 + 6, 20), predicted_iou=0.91)
        for i in range(3)
    ]
    first = place.image_ids[0]
    assert set_proposals(place.db, campaign.campaign_id, first, proposals)
    corrected = replace(proposals[1], rle=box(8, 2, 15, 20), predicted_iou=0.7, decoder="server")
    lease = a_lease(place.db, campaign, place.ada)
    hand_in(place.db, lease, proposals[0], corrected, BRUSHED, deleted=("p-2",))
    rows = place.rows(place.publish(campaign))
    assert sorted((str(row["made"]), row["predicted_iou"], row["decoder"]) for row in rows) == [
        ("corrected", 0.7, "server"),
        ("kept", 0.91, "browser"),
        ("new", 1.0, None),
    ]
    assert {row["stage"] for row in rows} == {"semi"}


def test_skipped_images_are_recorded_with_the_reason(place: Place) -> None:
    campaign = place.campaign()
    lease = a_lease(place.db, campaign, place.ada)
    skip(place.db, lease.key, "too dark", now=NOW)
    place.annotate(campaign, A, images=1)
    statuses = place.statuses(place.publish(campaign))
    skipped = lease.task.image.image_id
    assert statuses[skipped] == ("skipped", 0, None, "annotator-skipped", "too dark")
    assert len(statuses) == 2


def test_of_several_people_the_one_who_agrees_best_speaks(place: Place) -> None:
    campaign = place.campaign(people=3)
    cleo = a_person(place.db, "Cleo")
    alone, near, nearer = box(0, 0, 5, 5), box(10, 5, 20, 15), box(10, 5, 20, 16)
    masks = {place.ada: alone, place.bob: near, cleo: nearer}
    for number, (person, rle) in enumerate(masks.items()):
        assert place.publish(campaign) is None, "not all have had their say"
        lease = a_lease(place.db, campaign, person)
        hand_in(place.db, lease, replace(A, rle=rle), now=at(number))
    # Bob and Cleo agree; Bob was earlier.
    rows = place.rows(place.publish(campaign))
    assert [(row["annotator_id"], row["counts"]) for row in rows] == [(place.bob, near.counts)]


def test_who_skipped_does_not_speak(place: Place) -> None:
    campaign = place.campaign(people=2)
    skip(place.db, a_lease(place.db, campaign, place.ada).key, "dark", now=NOW)
    hand_in(place.db, a_lease(place.db, campaign, place.bob), A)
    assert [row["annotator_id"] for row in place.rows(place.publish(campaign))] == [place.bob]


def test_a_closed_campaign_publishes_images_that_not_everybody_has_done(place: Place) -> None:
    campaign = place.campaign(people=2)
    hand_in(place.db, a_lease(place.db, campaign, place.ada), A)
    assert place.publish(campaign) is None
    close_campaign(place.db, campaign.campaign_id, now=NOW)
    release = place.publish(campaign)
    assert len(place.rows(release)) == 1
    assert len(place.statuses(release)) == 1, "what nobody did is not in it"


def test_masks_of_people_stand_beside_those_of_the_automatic_stage(place: Place) -> None:
    [run] = plan_runs(place.workspace, place.image_ids, RECIPE, 10, NOW)
    write_pending(place.workspace, run)
    automatic = commit_run(place.workspace, run)
    campaign = place.campaign()
    place.annotate(campaign, A)
    release = place.publish(campaign)
    assert release is not None
    assert release.parent == automatic.name
    assert release.masks == automatic.masks + 4
    assert {row["stage"] for row in place.rows(release)} == {"auto", "manual"}
    assert verify_release(place.workspace, release).problem_count == 0
    assert {row["made"] for row in place.rows(automatic)} == {None}


@pytest.mark.parametrize("step", ["keep_run", "write_shard", "commit_run", "note_release"])
def test_a_publication_that_was_killed_before_any_step_is_completed_once(
    place: Place, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    campaign = place.campaign()
    place.annotate(campaign, A, images=2)

    def die(*args: object, **named: object) -> object:
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(release_module, step, die)
        with pytest.raises(KeyboardInterrupt):
            place.publish(campaign, 100)
    # More was accepted meanwhile: that is another publication.
    place.annotate(campaign, BRUSHED, images=1)
    place.publish(campaign, 999)
    releases = list_releases(place.workspace)
    assert [(r.name, r.masks, r.created_at) for r in releases] == [
        ("r1", 2, at(100)),
        ("r2", 3, at(999)),
    ]
    assert place.publish(campaign, 1000) is None
    assert verify_release(place.workspace, releases[-1]).problem_count == 0


def test_processes_that_publish_at_once_make_one_release(place: Place) -> None:
    campaign = place.campaign()
    place.annotate(campaign, A)
    root, database = place.workspace.address, database_url(Path(place.workspace.address).parent)

    def publish(number: int) -> Release | None:
        with Workspace.open(root) as workspace, open_database(database) as db:
            return publish_campaign(workspace, db, campaign.campaign_id, now=at(number))

    with ThreadPoolExecutor(3) as pool:
        found = [release for release in pool.map(publish, range(3)) if release is not None]
    assert [release.masks for release in list_releases(place.workspace)] == [4]
    assert {release.name for release in found} == {"r1"}


def test_what_the_gate_refused_waits_for_a_person(place: Place) -> None:
    campaign = place.campaign()
    place.annotate(campaign, A)

    def refuse(workspace: Workspace, staged: object) -> object:
        report = audit(workspace, staged, GateConfig())  # type: ignore[arg-type]
        [first, *rest] = report.checks
        return replace(report, checks=(replace(first, passed=False), *rest))

    def publish(accepted: str | None) -> Release | None:
        return publish_campaign(
            place.workspace,
            place.db,
            "birds",
            now=NOW,
            gate=refuse,  # type: ignore[arg-type]
            accepted=accepted,
            note="first birds",
        )

    with pytest.raises(RefusedError):
        publish(None)
    assert list_releases(place.workspace) == []
    release = publish("looked at them")
    assert release is not None
    assert (release.accepted, release.note, release.masks) == ("looked at them", "first birds", 4)


def test_a_refused_publication_is_a_run_that_can_be_published_by_its_id(place: Place) -> None:
    campaign = place.campaign()
    place.annotate(campaign, A)
    release = place.publish(campaign)
    assert release is not None
    run = load_run(place.workspace.store, release.runs[0])
    assert (run.kind, run.stage) == ("annotation", "manual")
    assert publish_run(place.workspace, run.run_id) == release


def test_a_database_that_is_older_than_the_data_set_is_refused(
    place: Place, tmp_path: Path
) -> None:
    campaign = place.campaign()
    place.annotate(campaign, A, images=1)
    (tmp_path / "old").mkdir()
    with (
        closing(sqlite3.connect(tmp_path / "annotation.db")) as source,
        closing(sqlite3.connect(tmp_path / "old" / "annotation.db")) as backup,
    ):
        source.backup(backup)
    place.annotate(campaign, A, images=1)
    place.publish(campaign)
    with (
        open_database(database_url(tmp_path / "old")) as old,
        pytest.raises(WorkspaceError, match="newer backup"),
    ):
        publish_campaign(place.workspace, old, campaign.campaign_id, now=NOW)


def test_equal_work_gives_equal_shards(place: Place) -> None:
    campaign = place.campaign()
    place.annotate(campaign, A, BRUSHED)
    release = place.publish(campaign)
    assert release is not None
    store, run = place.workspace.store, load_run(place.workspace.store, release.runs[0])
    data = store.get(run.shards[0].key)
    (Path(place.workspace.address) / run.shards[0].key).unlink()
    plan = PublicationPlan(
        campaign=campaign, number=1, image_ids=run.shards[0].image_ids, planned_at=at(100)
    )
    assert run_of(plan).shards == run.shards
    folded = folded_images(place.db, plan, run.shards[0].image_ids)
    assert write_shard(store, run.shards[0], folded, run.provenance)
    assert store.get(run.shards[0].key) == data
