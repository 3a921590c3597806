"""A whole campaign gets proposals, through kills, broken photos and people who were faster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.annotation.campaigns import open_campaign
from engine.annotation.database import Database
from engine.annotation.prefill import Candidate, PrefillConfig
from engine.annotation.prefilling import (
    PrefillOutcome,
    PrefillSource,
    prefill_campaign,
    prefill_prefix,
)
from engine.annotation.proposals import proposals_of
from engine.annotation.records import BoxPrompt, Campaign, CampaignImage, CampaignSpec, Stage
from engine.automatic import Segmenter
from engine.errors import BadInputError
from engine.images import ImageLimits, content_id, encode_png
from engine.objects import LocalStore
from model import ImageEmbedding, Prompts, ScoredPrompts
from tests.annotation.annotation_builders import HEIGHT, NOW, WIDTH, a_lease, a_mask, a_person

CONFIG = PrefillConfig(min_iou=0.5, done_iou=0.8, min_agreement=0.0)


class NoModel:
    """A segmenter that nobody asks: the source knows the masks."""

    def encode(self, image_HWC3: NDArray[np.uint8]) -> ImageEmbedding:
        raise NotImplementedError

    def score(self, embedding: ImageEmbedding, prompts: Prompts) -> ScoredPrompts:
        raise NotImplementedError

    def draw(self, scored: ScoredPrompts, chosen: object) -> object:
        raise NotImplementedError


class StoppedError(Exception):
    """Stands for a kill: nothing after it runs."""


@dataclass
class GreyLevels:
    """Finds two masks in every photo, as sure as the photo is bright; counts the photos."""

    stop_after: int = 10**9
    seen: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        return "grey"

    def settings(self) -> str:
        return '{"masks":2}'

    def candidates(
        self, segmenter: Segmenter, image_HWC3: NDArray[np.uint8]
    ) -> Sequence[Candidate]:
        if len(self.seen) == self.stop_after:
            raise StoppedError
        level = int(image_HWC3[0, 0, 0])
        self.seen.append(level)
        sure = level / 100
        return [
            Candidate(rle=a_mask(), predicted_iou=sure, box_xyxy=(5, 5, 20, 15), score=0.75),
            Candidate(rle=a_mask(30, 20, 50, 30), predicted_iou=sure - 0.1),
        ]


def photos(folder: Path, levels: Sequence[int]) -> tuple[CampaignImage, ...]:
    images = []
    for level in levels:
        data = encode_png(np.full((HEIGHT, WIDTH, 3), level, dtype=np.uint8))
        path = folder / f"{level}.png"
        path.write_bytes(data)
        image_id = content_id(data)[0]
        images.append(CampaignImage(image_id=image_id, width=WIDTH, height=HEIGHT, uri=str(path)))
    return tuple(images)


def semi_campaign(db: Database, images: Sequence[CampaignImage], stage: Stage = "semi") -> Campaign:
    spec = CampaignSpec(
        name="semi", stage=stage, images=tuple(images), model="m1", model_id="model-1"
    )
    return open_campaign(db, spec, now=NOW)


def fill(
    store: LocalStore,
    db: Database,
    campaign: Campaign,
    source: GreyLevels,
    config: PrefillConfig = CONFIG,
) -> PrefillOutcome:
    return prefill_campaign(
        store,
        db,
        campaign,
        NoModel(),  # type: ignore[arg-type]  # its answers are never looked at
        PrefillSource(model_id="model-1", source=source, config=config),
        limits=ImageLimits(),
    )


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "workspace")


def test_every_image_gets_its_proposals_and_a_record_of_their_source_and_thresholds(
    db: Database, store: LocalStore, tmp_path: Path
) -> None:
    images = photos(tmp_path, [85, 75, 40])
    campaign = semi_campaign(db, images)
    source = GreyLevels()
    outcome = fill(store, db, campaign, source)
    assert (outcome.images, outcome.filled, outcome.proposals, outcome.done) == (3, 3, 4, 1)
    sure, unsure, nothing = (
        proposals_of(db, campaign.campaign_id, image.image_id) for image in images
    )
    assert [one.predicted_iou for one in sure] == pytest.approx([0.85, 0.75])
    assert [one.accepted for one in sure] == [True, None]
    assert [one.accepted for one in unsure] == [None, None]
    assert sure[0].prompts == (BoxPrompt(5, 5, 20, 15),)
    assert sure[1].prompts == ()
    assert [one.object_id for one in sure] == ["proposal-1", "proposal-2"]
    assert nothing == ()
    asked = PrefillSource(model_id="model-1", source=source, config=CONFIG)
    prefix = prefill_prefix(campaign.campaign_id, asked)
    record = json.loads(store.get(f"{prefix}{images[0].image_id}.json"))
    assert record["thresholds"]["min_iou"] == CONFIG.min_iou
    assert (record["source"], record["source_settings"]) == ("grey", {"masks": 2})
    assert record["proposals"][0]["source"] == "grey"
    assert record["proposals"][0]["score"] == 0.75


def test_a_stopped_run_goes_on_with_the_images_that_are_left(
    db: Database, store: LocalStore, tmp_path: Path
) -> None:
    campaign = semi_campaign(db, photos(tmp_path, [60, 70, 80, 90]))
    with pytest.raises(StoppedError):
        fill(store, db, campaign, GreyLevels(stop_after=2))
    rest = GreyLevels()
    outcome = fill(store, db, campaign, rest)
    assert rest.seen == [80, 90]
    assert (outcome.before, outcome.filled) == (2, 2)
    again = GreyLevels()
    assert fill(store, db, campaign, again).filled == 0
    assert again.seen == []


def test_a_kill_before_the_record_is_written_repeats_that_image_alone(
    db: Database, store: LocalStore, tmp_path: Path
) -> None:
    images = photos(tmp_path, [60, 70])
    campaign = semi_campaign(db, images)
    fill(store, db, campaign, GreyLevels())
    before = proposals_of(db, campaign.campaign_id, images[1].image_id)
    asked = PrefillSource(model_id="model-1", source=GreyLevels(), config=CONFIG)
    prefix = prefill_prefix(campaign.campaign_id, asked)
    store.delete(f"{prefix}{images[1].image_id}.json")
    again = GreyLevels()
    fill(store, db, campaign, again)
    assert again.seen == [70]
    assert proposals_of(db, campaign.campaign_id, images[1].image_id) == before


def test_other_thresholds_start_over(db: Database, store: LocalStore, tmp_path: Path) -> None:
    images = photos(tmp_path, [85])
    campaign = semi_campaign(db, images)
    fill(store, db, campaign, GreyLevels())
    strict = replace(CONFIG, min_iou=0.8)
    assert fill(store, db, campaign, GreyLevels(), strict).proposals == 1
    assert len(proposals_of(db, campaign.campaign_id, images[0].image_id)) == 1


def test_an_image_that_somebody_has_begun_keeps_what_they_see(
    db: Database, store: LocalStore, tmp_path: Path
) -> None:
    images = photos(tmp_path, [60, 70])
    campaign = semi_campaign(db, images)
    person = a_person(db)
    begun = a_lease(db, campaign, person).task.image.image_id
    outcome = fill(store, db, campaign, GreyLevels())
    assert (outcome.begun, outcome.filled) == (1, 1)
    assert proposals_of(db, campaign.campaign_id, begun) == ()


def test_a_photo_that_is_gone_is_told_and_tried_again_by_the_next_call(
    db: Database, store: LocalStore, tmp_path: Path
) -> None:
    images = photos(tmp_path, [60, 70])
    campaign = semi_campaign(db, images)
    path = Path(images[0].uri)
    data = path.read_bytes()
    path.unlink()
    outcome = fill(store, db, campaign, GreyLevels())
    assert [(one.uri, one.reason) for one in outcome.skipped] == [(str(path), "not-found")]
    path.write_bytes(encode_png(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)))
    assert [one.reason for one in fill(store, db, campaign, GreyLevels()).skipped] == ["changed"]
    path.write_bytes(data)
    outcome = fill(store, db, campaign, GreyLevels())
    assert (outcome.filled, outcome.before, outcome.skipped) == (1, 1, ())


def test_a_campaign_of_another_stage_or_model_is_refused(
    db: Database, store: LocalStore, tmp_path: Path
) -> None:
    campaign = semi_campaign(db, photos(tmp_path, [60]), stage="manual")
    with pytest.raises(BadInputError, match="stage manual"):
        fill(store, db, campaign, GreyLevels())
    with pytest.raises(BadInputError, match="model-2"):
        fill(store, db, replace(campaign, stage="semi", model_id="model-2"), GreyLevels())


_KILLED = """
import os, signal, sys
from pathlib import Path
from engine.annotation.campaigns import campaign
from engine.annotation.database import open_database
from engine.objects import LocalStore
from tests.annotation.test_prefilling import GreyLevels, fill

class Killed(GreyLevels):
    def candidates(self, segmenter, image):
        if len(self.seen) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().candidates(segmenter, image)

url, schema, folder = sys.argv[1:]
with open_database(url, schema=schema) as db:
    fill(LocalStore(Path(folder)), db, campaign(db, "semi"), Killed())
"""


def test_nothing_is_lost_or_done_twice_after_kill_9(
    db: Database, database_address: tuple[str, str], store: LocalStore, tmp_path: Path
) -> None:
    images = photos(tmp_path, [60, 70, 80])
    campaign = semi_campaign(db, images)
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, *database_address, store.address],
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert killed.returncode == -signal.SIGKILL
    rest = GreyLevels()
    outcome = fill(store, db, campaign, rest)
    assert rest.seen == [80]
    assert (outcome.before, outcome.filled) == (2, 1)
    assert all(proposals_of(db, campaign.campaign_id, image.image_id) for image in images)
