"""Which images come next: those that nobody has, the doubtful first, always the same ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.annotation.campaigns import campaign, close_campaign
from engine.annotation.candidates import automatic_doubt, candidate_ids
from engine.annotation.choosing import ChoiceRequest, choose_images
from engine.annotation.database import Database, database_url, open_database
from engine.annotation.opening import (
    Arranged,
    CampaignRequest,
    open_chosen,
    open_workspace_database,
)
from engine.annotation.pending import give_out
from engine.annotation.release import publish_campaign
from engine.annotation.tasks import skip
from engine.dataset.catalog import Workspace
from engine.dataset.ingest import ingest
from engine.dataset.inputs import expand_inputs
from engine.dataset.runs import Recipe, commit_run, plan_runs
from engine.errors import BadInputError
from engine.images import ImageLimits
from engine.records import ModelVersion, SkippedImage
from model import Sam, build_sam
from tests.annotation.annotation_builders import NOW, a_lease, a_mask, a_person, an_object, hand_in
from tests.quality.release_builders import (
    id_of,
    rectangle,
    release_of,
    write_photos,
    write_shards,
)

NAMES = tuple(f"{number}.png" for number in range(6))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_photos(tmp_path / "photos", NAMES)
    return tmp_path / "photos"


@pytest.fixture
def workspace(tmp_path: Path, photos: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "workspace") as opened:
        ingest(opened, expand_inputs([str(photos)]), ImageLimits(), NOW)
        yield opened


@pytest.fixture
def db(workspace: Workspace) -> Iterator[Database]:
    with open_workspace_database(workspace) as database:
        yield database


def no_model() -> Sam:
    raise AssertionError("no model is needed")


def chosen(workspace: Workspace, db: Database, **request: object) -> list[str]:
    """Return the file names of the images that are chosen, in order."""
    wanted = ChoiceRequest(**request)  # type: ignore[arg-type]
    arranged = choose_images(workspace, db, wanted, no_model, limits=ImageLimits())
    return [Path(image.uri).name for image in arranged.images]


def opened(workspace: Workspace, db: Database, name: str, count: int) -> str:
    def choose(version: ModelVersion) -> Arranged:
        request = ChoiceRequest(images=count, order="listed")
        return choose_images(workspace, db, request, no_model, limits=ImageLimits())

    found = open_chosen(workspace, db, CampaignRequest(name=name), choose, NOW)
    assert found is not None
    give_out(db, found.campaign.campaign_id, now=NOW)
    return found.campaign.campaign_id


def left(workspace: Workspace, db: Database) -> list[str]:
    ids = set(candidate_ids(workspace, db).tolist())
    return [name for name in NAMES if id_of(workspace, name) in ids]


def test_images_of_campaigns_that_go_on_are_left_out_and_those_of_closed_ones_come_back(
    workspace: Workspace, db: Database
) -> None:
    first = opened(workspace, db, "first", 2)
    assert left(workspace, db) == list(NAMES[2:])
    assert chosen(workspace, db, images=2, order="listed") == ["2.png", "3.png"]
    close_campaign(db, first, now=NOW)
    assert left(workspace, db) == list(NAMES)


def test_what_people_worked_on_is_not_given_again_even_if_its_campaign_was_closed(
    workspace: Workspace, db: Database
) -> None:
    first = opened(workspace, db, "first", 4)
    ada = a_person(db)
    lease = a_lease(db, campaign(db, first), ada)
    hand_in(db, lease, an_object("a", a_mask(height=60, width=80)))
    skip(db, a_lease(db, campaign(db, first), ada).key, "blurred", now=NOW)
    a_lease(db, campaign(db, first), ada)  # at work on it
    close_campaign(db, first, now=NOW)
    assert left(workspace, db) == ["3.png", "4.png", "5.png"]


def test_a_release_tells_what_people_masked_where_the_database_is_a_new_one(
    workspace: Workspace, db: Database, tmp_path: Path
) -> None:
    first = opened(workspace, db, "first", 2)
    ada = a_person(db)
    for name in ("a", "b"):
        lease = a_lease(db, campaign(db, first), ada)
        hand_in(db, lease, an_object(name, a_mask(height=60, width=80)))
    publish_campaign(workspace, db, first, now=NOW)
    with open_database(database_url(tmp_path)) as new:
        assert left(workspace, new) == list(NAMES[2:])


def test_masks_of_people_in_the_newest_release_count_and_automatic_ones_do_not(
    workspace: Workspace, db: Database, photos: Path
) -> None:
    release_of(workspace, photos, {"0.png": [rectangle(1, 1, 9, 9)]})
    assert left(workspace, db) == list(NAMES)
    ids = [id_of(workspace, name) for name in ("1.png", "2.png")]
    by_people = plan_runs(
        workspace, ids, Recipe.of("human", {}), 2, NOW, kind="import", stage="manual"
    )[-1]
    write_shards(workspace, by_people, {"1.png": [rectangle(1, 1, 9, 9)], "2.png": []})
    commit_run(workspace, by_people)
    assert left(workspace, db) == ["0.png", "2.png", "3.png", "4.png", "5.png"]


def test_images_that_the_automatic_stage_was_unsure_of_are_drawn_first(
    workspace: Workspace, db: Database, photos: Path
) -> None:
    unusable = SkippedImage("3.png", "truncated", "cut short")
    ious = {"0.png": (0.9, 0.8), "1.png": (0.5, 0.4), "2.png": (0.7, 0.6), "4.png": ()}
    results = {
        name: [rectangle(1, 1, 9, 9, iou=iou) for iou in values] for name, values in ious.items()
    }
    release_of(workspace, photos, {**results, "3.png": unusable})
    doubt = automatic_doubt(workspace)
    assert {name: round(doubt[id_of(workspace, name)], 6) for name in ("0.png", "1.png")} == {
        "0.png": 0.15,
        "1.png": 0.55,
    }
    assert id_of(workspace, "4.png") not in doubt
    two = chosen(workspace, db, images=2, order="random", doubtful_first=True)
    assert sorted(two) == ["1.png", "2.png"]


def test_the_same_workspace_gives_the_same_choice_and_another_seed_another_one(
    workspace: Workspace, db: Database
) -> None:
    first = chosen(workspace, db, images=3, order="random", seed=1)
    assert len(first) == 3
    assert chosen(workspace, db, images=3, order="random", seed=1) == first
    others = [chosen(workspace, db, images=3, order="random", seed=seed) for seed in range(2, 6)]
    assert any(set(other) != set(first) for other in others)


def test_an_order_that_asks_the_model_looks_at_more_than_are_wanted_and_leaves_out_the_unreadable(
    workspace: Workspace, db: Database, photos: Path
) -> None:
    (photos / "5.png").write_bytes(b"not the photo that was ingested")
    seen: list[str] = []

    def look(images: int | None) -> Arranged:
        request = ChoiceRequest(images=images, order="diverse")
        return choose_images(
            workspace,
            db,
            request,
            lambda: build_sam("bundled"),
            limits=ImageLimits(),
            on_image=seen.append,
        )

    one = look(1)
    record = json.loads(one.ordering)
    assert (record["candidates"], record["looked_at"], len(seen)) == (6, 4, 4)
    assert record["config"]["strategy"] == "diverse"
    assert len(one.images) == 1
    assert one.images[0].score is not None
    everything = look(None)
    assert sorted(Path(image.uri).name for image in everything.images) == list(NAMES[:5])
    assert json.loads(everything.ordering)["unreadable"] == 1


def test_the_record_of_a_choice_stays_small_however_many_images_there_are(
    workspace: Workspace, db: Database
) -> None:
    arranged = choose_images(
        workspace, db, ChoiceRequest(order="random"), no_model, limits=ImageLimits()
    )
    assert len(arranged.images) == 6
    assert not any(str(image.image_id) in arranged.ordering for image in arranged.images)


def test_a_workspace_without_images_and_requests_that_make_no_sense_are_refused(
    tmp_path: Path,
) -> None:
    with (
        Workspace.open(tmp_path / "empty") as empty,
        open_workspace_database(empty) as db,
        pytest.raises(BadInputError, match="has no images yet"),
    ):
        candidate_ids(empty, db)
    with pytest.raises(BadInputError, match="0 images"):
        ChoiceRequest(images=0)
    with pytest.raises(BadInputError, match="unknown order 'best'"):
        ChoiceRequest(order="best")  # type: ignore[arg-type]
