"""Campaigns: opened once under a name, with images in an order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.annotation.campaigns import (
    add_images,
    campaign,
    campaign_images,
    campaign_state,
    find_campaign,
    find_image,
    list_campaigns,
    open_campaign,
)
from engine.annotation.database import Database
from engine.annotation.errors import UnknownCampaignError
from engine.annotation.records import CampaignImage, CampaignSpec
from engine.errors import BadInputError
from tests.annotation.annotation_builders import NOW, a_campaign, an_image, at

SPEC = CampaignSpec(
    name="Birds of 2026!",
    stage="semi",
    images=(
        CampaignImage(image_id=2**63 - 1, width=4000, height=3000, uri="s3://b/ü.jpg", score=0.25),
        CampaignImage(image_id=0, width=1, height=1),
    ),
    model="m7",
    model_id="0123456789abcdef",
    instructions="Wings too.",
    annotators_per_image=2,
    review=True,
    ordering='{"kind":"disagreement"}',
    seed=2**40,
)


def test_a_campaign_is_what_was_asked_for(db: Database) -> None:
    opened = open_campaign(db, SPEC, now=NOW)
    for name in (
        *("stage", "model", "model_id", "instructions", "annotators_per_image", "review"),
        *("ordering", "seed", "name"),
    ):
        assert getattr(opened, name) == getattr(SPEC, name)
    assert (opened.images, opened.opened_at, opened.closed_at) == (2, NOW, None)
    assert campaign_images(db, opened.campaign_id) == SPEC.images
    assert campaign_state(db, opened.campaign_id, now=NOW).tasks.total == 4
    assert campaign(db, SPEC.name) == campaign(db, opened.campaign_id) == opened


def test_campaign_ids_are_readable_and_never_the_same(db: Database) -> None:
    one = open_campaign(db, SPEC, now=NOW)
    other = open_campaign(db, replace(SPEC, name="birds of 2026"), now=NOW)
    assert one.campaign_id.startswith("birds-of-2026-")
    assert other.campaign_id.startswith("birds-of-2026-")
    assert one.campaign_id != other.campaign_id
    nameless = open_campaign(db, replace(SPEC, name="鳥"), now=NOW)
    assert nameless.campaign_id.startswith("campaign-")


def test_the_newest_campaign_is_listed_first(db: Database) -> None:
    old = open_campaign(db, SPEC, now=NOW)
    new = open_campaign(db, replace(SPEC, name="fish"), now=at(1))
    assert list_campaigns(db) == (new, old)


def test_a_name_is_taken_once(db: Database) -> None:
    first = a_campaign(db)
    with pytest.raises(BadInputError, match="already"):
        a_campaign(db)
    assert list_campaigns(db) == (first,)
    assert find_campaign(db, "fish") is None
    with pytest.raises(UnknownCampaignError, match="'fish'"):
        campaign(db, "fish")


def test_images_are_added_after_those_that_are_there(db: Database) -> None:
    opened = a_campaign(db, images=2, annotators_per_image=2)
    assert add_images(db, opened.campaign_id, [an_image(5), an_image(101)], now=NOW) == 1
    assert [i.image_id for i in campaign_images(db, opened.campaign_id)] == [101, 102, 5]
    assert campaign(db, opened.campaign_id).images == 3
    assert campaign_state(db, opened.campaign_id, now=NOW).tasks.open == 6


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"name": "  "}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"stage": "auto"}, "stage"),
        ({"annotators_per_image": 0}, "annotators per image"),
        ({"annotators_per_image": 21}, "annotators per image"),
        ({"images": (an_image(1), an_image(1))}, "twice"),
        ({"images": (CampaignImage(image_id=1, width=0, height=5),)}, "0 x 5"),
        ({"instructions": "a\x00b"}, "instructions"),
        ({"ordering": "at random"}, "no JSON"),
    ],
)
def test_a_campaign_that_makes_no_sense_is_refused(
    db: Database, change: dict[str, object], complaint: str
) -> None:
    with pytest.raises(BadInputError, match=complaint):
        open_campaign(db, replace(SPEC, **change), now=NOW)  # type: ignore[arg-type]
    assert list_campaigns(db) == ()


def test_an_image_is_found_whatever_its_campaign(db: Database) -> None:
    a_campaign(db, images=2)
    a_campaign(db, images=3, name="fish")
    assert find_image(db, 103) == an_image(103)
    assert find_image(db, 101) == an_image(101)
    assert find_image(db, 999) is None
