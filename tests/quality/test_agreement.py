"""A model's masks against people's: who is paired with whom, and the figures of that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.annotation.campaigns import campaign as campaign_of
from engine.annotation.campaigns import open_campaign
from engine.annotation.database import Database
from engine.annotation.opening import find_workspace_database, open_workspace_database
from engine.annotation.proposals import set_proposals
from engine.annotation.records import CampaignImage, CampaignSpec, MaskObject
from engine.annotation.release import publish_campaign
from engine.dataset.catalog import Workspace
from engine.dataset.ingest import load_images
from engine.dataset.releases import load_release
from engine.errors import BadInputError
from engine.masks import mask_iou
from engine.quality.agreement import (
    AgreementConfig,
    AgreementReport,
    ComparedImage,
    compare_masks,
    pair_masks,
)
from engine.quality.agreement_sources import proposed_pairs, released_pairs
from engine.quality.worst_pairs import worst_pairs_sheet
from engine.records import Rle
from tests.annotation.annotation_builders import a_lease, a_mask, a_person, an_object, at, hand_in
from tests.learning.wheel_builders import (
    HEIGHT,
    NOW,
    WIDTH,
    add_photos,
    publish_masks,
    small_discs,
    true_discs,
)

CONFIG = AgreementConfig()


def box(x0: int, y0: int, x1: int, y1: int) -> Rle:
    return a_mask(x0, y0, x1, y1, height=HEIGHT, width=WIDTH)


def compared(
    image_id: int, made: list[Rle], human: list[Rle], stage: str = "manual"
) -> ComparedImage:
    return ComparedImage(
        image_id=image_id,
        uri=f"/{image_id}.png",
        source="automatic",
        model_id="model-1",
        stage=stage,
        made=made,
        human=human,
    )


def test_masks_are_paired_one_to_one_the_best_overlap_first() -> None:
    human = [box(0, 0, 20, 20), box(0, 0, 20, 18)]
    made = [box(0, 0, 20, 19), box(0, 0, 20, 20), box(60, 0, 70, 10), box(0, 0, 9, 20)]
    iou_P, pairs = pair_masks(made, human, 0.5)
    assert pairs == [(1, 0), (0, 1)]
    assert iou_P == pytest.approx([1.0, 18 / 19])
    assert pair_masks([], human, 0.5) == ([], [])
    assert pair_masks(made, [], 0.5) == ([], [])


def test_the_figures_are_those_of_the_pairs_and_of_what_people_drew() -> None:
    report = compare_masks(
        [
            compared(1, [box(0, 0, 20, 20), box(40, 0, 50, 10)], [box(0, 0, 20, 20)]),
            compared(2, [box(0, 0, 20, 17)], [box(0, 0, 20, 20), box(30, 30, 50, 50)], "semi"),
            compared(3, [], [box(0, 0, 9, 9)]),
        ],
        CONFIG,
    )
    everything, manual, semi = report.rows
    assert (everything.stage, manual.stage, semi.stage) == ("all", "manual", "semi")
    assert (everything.images, everything.made, everything.human, everything.pairs) == (3, 3, 4, 2)
    assert everything.mean_iou is not None
    assert everything.mean_iou.mean == pytest.approx((1 + 0.85) / 2)
    assert 0.85 <= everything.mean_iou.low <= everything.mean_iou.mean <= everything.mean_iou.high
    assert everything.above_90 is not None
    assert everything.above_90.mean == 0.5
    assert everything.above_75 is not None
    assert everything.above_75.mean == 1
    assert everything.found is not None
    assert everything.found.mean == 0.5
    assert (semi.images, semi.pairs) == (1, 1)
    assert [pair.image_id for pair in report.worst] == [2, 1]
    assert [pair.iou for pair in report.worst] == pytest.approx([0.85, 1.0])


def test_without_a_pair_there_is_no_figure() -> None:
    (row, _) = compare_masks([compared(1, [box(0, 0, 5, 5)], [box(50, 50, 60, 60)])], CONFIG).rows
    assert (row.pairs, row.mean_iou, row.above_90) == (0, None, None)
    assert row.found is not None
    assert row.found.mean == 0
    assert compare_masks([], CONFIG) == AgreementReport(images=0, rows=(), worst=())


def test_wrong_settings_are_told() -> None:
    for wrong in ({"images": 0}, {"worst": -1}, {"same_object_iou": 1.0}):
        with pytest.raises(BadInputError, match="expected at least 1 image"):
            AgreementConfig(**wrong)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """Return eight photos; people's masks on six of them, a model's on all, twice."""
    with Workspace.open(tmp_path / "birds") as opened:
        add_photos(opened, tmp_path / "photos", 8)
        publish_masks(opened, small_discs, stage="auto", maker="old-model")
        six = [f"{n:03d}.png" for n in range(6)]
        publish_masks(opened, true_discs, stage="manual", names=six)
        publish_masks(opened, true_discs, stage="auto", maker="new-model")
        yield opened


def test_a_release_is_compared_model_by_model_where_it_has_both(workspace: Workspace) -> None:
    release = load_release(workspace, "latest")
    report = compare_masks(released_pairs(workspace, release, CONFIG), CONFIG)
    assert report.images == 6
    by_model = {row.model_id: row for row in report.rows if row.stage == "all"}
    assert set(by_model) == {"old-model", "new-model"}
    new, old = by_model["new-model"].mean_iou, by_model["old-model"].mean_iou
    assert new is not None
    assert old is not None
    assert (new.mean, by_model["new-model"].pairs) == (1.0, 12)
    true, small = true_discs("000.png"), small_discs("000.png")
    assert old.mean == pytest.approx(float(mask_iou([true[0].rle], [small[0].rle])[0, 0]), abs=0.06)
    assert {pair.model_id for pair in report.worst} == {"old-model"}
    sheet = worst_pairs_sheet(report.worst)
    assert sheet is not None
    assert sheet.caption.count("IoU 0.") == 6


def test_the_sample_is_bounded_seeded_and_of_images_with_both(workspace: Workspace) -> None:
    release = load_release(workspace, "latest")

    def sampled(seed: int) -> list[int]:
        config = AgreementConfig(images=3, seed=seed)
        pairs = released_pairs(workspace, release, config)
        return list(dict.fromkeys(pair.image_id for pair in pairs))

    assert len(sampled(0)) == 3
    assert sampled(0) == sampled(0)
    assert len({tuple(sampled(seed)) for seed in range(6)}) > 1
    first = load_release(workspace, "r1")
    assert list(released_pairs(workspace, first, CONFIG)) == []


def test_of_a_photo_that_was_masked_twice_the_newest_masks_count(workspace: Workspace) -> None:
    publish_masks(workspace, small_discs, stage="semi", names=["000.png"])
    release = publish_masks(workspace, true_discs, stage="semi", names=["000.png", "001.png"])
    report = compare_masks(released_pairs(workspace, release, CONFIG), CONFIG)
    row = next(r for r in report.rows if (r.model_id, r.stage) == ("new-model", "semi"))
    assert (row.images, row.human) == (2, 4)
    assert row.mean_iou is not None
    assert row.mean_iou.mean == 1


def test_proposals_are_compared_with_what_people_made_of_them(workspace: Workspace) -> None:
    assert find_workspace_database(workspace) is None
    with open_workspace_database(workspace) as db:
        campaign_id = semi_campaign(workspace, db)
        proposals = [an_object(name, box(*at_), proposal=True) for name, at_ in BOXES.items()]
        for image in load_images(workspace, ids(workspace)[:2]):
            assert set_proposals(db, campaign_id, image.image_id, proposals)
        annotate(db, campaign_id)
        release = publish_campaign(workspace, db, campaign_id, now=NOW)
        assert release is not None
        report = compare_masks(proposed_pairs(workspace, db, release, CONFIG), CONFIG)
        before = load_release(workspace, release.parent or "")
        assert list(proposed_pairs(workspace, db, before, CONFIG)) == []
    everything, semi = report.rows
    assert (everything.source, everything.model_id) == ("proposals", "model-1")
    assert semi.stage == "semi"
    assert (semi.images, semi.made, semi.human, semi.pairs) == (2, 4, 4, 2)
    assert semi.mean_iou is not None
    assert semi.mean_iou.mean == pytest.approx(0.9)
    again = find_workspace_database(workspace)
    assert again is not None
    again.close()


BOXES = {"kept": (0, 0, 20, 18), "deleted": (30, 30, 40, 40)}


def ids(workspace: Workspace) -> list[int]:
    rows = workspace.table("images").scan(selected_fields=("image_id",)).to_arrow()
    found: list[int] = np.sort(rows["image_id"].to_numpy()).tolist()
    return found


def semi_campaign(workspace: Workspace, db: Database) -> str:
    images = tuple(
        CampaignImage(image_id=image.image_id, width=WIDTH, height=HEIGHT, uri=image.uri)
        for image in load_images(workspace, ids(workspace)[:2])
    )
    spec = CampaignSpec(name="second", stage="semi", images=images, model="m1", model_id="model-1")
    return open_campaign(db, spec, now=NOW).campaign_id


def annotate(db: Database, campaign_id: str) -> None:
    """Make one proposal larger, delete the other, and add a new mask, on both images."""
    ada = a_person(db)
    for number in range(2):
        lease = a_lease(db, campaign_of(db, campaign_id), ada, at(number))
        corrected = MaskObject(object_id="kept", rle=box(0, 0, 20, 20), proposal=True)
        hand_in(
            db,
            lease,
            corrected,
            an_object("new", box(60, 5, 80, 15)),
            deleted=["deleted"],
            now=at(number),
        )
