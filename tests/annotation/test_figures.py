"""The figures of a campaign: what masks cost, what became of proposals, how people agree."""

from __future__ import annotations

import csv
import io
import json
import uuid

import pytest

from engine.annotation.database import Database
from engine.annotation.errors import UnknownCampaignError
from engine.annotation.figures import campaign_figures, masks_csv
from engine.annotation.figures_markdown import figure_rows, figures_markdown
from engine.annotation.leases import LEASE_SECONDS
from engine.annotation.proposals import set_proposals
from engine.annotation.records import Event, Lease, Verdict
from engine.annotation.reviews import judge, lease_review
from engine.annotation.tasks import skip
from tests.annotation.annotation_builders import (
    a_campaign,
    a_lease,
    a_mask,
    a_person,
    an_object,
    at,
    hand_in,
    some_events,
)


def test_a_campaign_without_work_has_empty_figures(db: Database) -> None:
    figures = campaign_figures(db, a_campaign(db).name, now=at(5))
    assert figures.total.tasks == figures.total.masks == 0
    assert figures.total.seconds_per_mask_median is None
    assert figures.agreement is None
    assert not figures.throughput
    assert json.loads(figures.to_json())["by_annotator"] == []


def test_a_campaign_that_is_not_there_has_no_figures(db: Database) -> None:
    with pytest.raises(UnknownCampaignError):
        campaign_figures(db, "whales", now=at(0))


def test_seconds_and_clicks_are_of_masks_that_somebody_worked_on(db: Database) -> None:
    campaign = a_campaign(db)
    ada = a_person(db)
    first = a_lease(db, campaign, ada)
    proposal = an_object("p", a_mask(30, 20, 40, 30), proposal=True)
    second_image = 102
    assert set_proposals(db, campaign.campaign_id, second_image, [proposal])
    events = some_events((0, None), (3, "a"), (5, "a"), (6, "b"))
    hand_in(db, first, an_object("a"), an_object("b", a_mask(25, 5, 30, 9)), events=events)
    second = a_lease(db, campaign, ada, at(10))
    looked = [Event(seq=1, at_ms=int(at(20).timestamp() * 1000), kind="select", object_id="p")]
    hand_in(db, second, proposal, events=looked, now=at(30))
    total = campaign_figures(db, campaign.campaign_id, now=at(60)).total
    assert (total.tasks, total.images, total.masks) == (2, 2, 3)
    assert total.made == {"kept": 1, "corrected": 0, "new": 2, "deleted": 0}
    assert total.active_seconds == pytest.approx(6)
    assert total.seconds_per_mask_mean == pytest.approx((5 + 1) / 2)  # the kept one is not in it
    assert total.seconds_per_mask_all_in == pytest.approx(6 / 3)
    assert total.clicks_per_mask_mean == pytest.approx(1.5)
    assert total.masks_per_image_mean == pytest.approx(1.5)
    assert total.kept_share == 1.0
    assert total.browser_share == 1.0


def test_proposals_are_counted_by_what_became_of_them(db: Database) -> None:
    campaign = a_campaign(db, images=1)
    masks = {
        "kept": a_mask(0, 0, 9, 9),
        "moved": a_mask(20, 0, 29, 9),
        "gone": a_mask(40, 0, 49, 9),
    }
    proposals = [an_object(name, rle, proposal=True) for name, rle in masks.items()]
    set_proposals(db, campaign.campaign_id, 101, proposals)
    lease = a_lease(db, campaign, a_person(db))
    moved = an_object("moved", a_mask(21, 0, 30, 9), proposal=True)
    hand_in(db, lease, proposals[0], moved, an_object("new"), deleted=["gone"], exhaustive=True)
    total = campaign_figures(db, campaign.campaign_id, now=at(1)).total
    assert total.made == {"kept": 1, "corrected": 1, "new": 1, "deleted": 1}
    shares = (total.kept_share, total.corrected_share, total.deleted_share)
    assert shares == (0.3333, 0.3333, 0.3333)
    assert total.exhaustive == 1


def test_people_and_days_have_rows_of_their_own(db: Database) -> None:
    campaign = a_campaign(db)
    ada, ben = a_person(db, "Ada"), a_person(db, "Ben")
    hand_in(db, a_lease(db, campaign, ada), an_object("a"))
    lease = a_lease(db, campaign, ben, at(86_400))
    hand_in(db, lease, an_object("b"), an_object("c"), now=at(86_400))
    lease = a_lease(db, campaign, ben, at(86_500))
    skip(db, lease.key, "blurred", now=at(86_500))
    figures = campaign_figures(db, campaign.campaign_id, now=at(90_000))
    assert {name: row.masks for name, row in figures.by_annotator.items()} == {"Ada": 1, "Ben": 2}
    assert {day: row.masks for day, row in figures.by_day.items()} == {
        "2026-03-01": 1,
        "2026-03-02": 2,
    }
    assert figures.by_annotator["Ben"].skipped == figures.total.skipped == 1
    assert sum(span.masks for span in figures.throughput) == 3
    assert figures.throughput[0].start <= at(0) < figures.throughput[1].start
    assert (figures.throughput[-1].tasks, figures.throughput[-1].masks) == (1, 2)


def test_histograms_hold_every_mask_however_long_it_took(db: Database) -> None:
    campaign = a_campaign(db, images=1)
    clicks = [(float(second), "slow") for second in range(0, 400, 9)]
    lease = a_lease(db, campaign, a_person(db))
    hand_in(db, lease, an_object("slow"), an_object("quick"), events=some_events(*clicks))
    figures = campaign_figures(db, campaign.campaign_id, now=at(500))
    for histogram in (figures.seconds_histogram, figures.clicks_histogram):
        assert sum(histogram.counts) == 2
        assert len(histogram.edges) == len(histogram.counts) + 1
        assert list(histogram.edges) == sorted(histogram.edges)
        assert (histogram.counts[0], histogram.counts[-1]) == (1, 1)
    assert figures.seconds_histogram.edges[-1] > 390


def test_verdicts_of_all_rounds_count_but_masks_of_the_newest_only(db: Database) -> None:
    campaign = a_campaign(db, images=1, review=True)
    ada, rita = a_person(db, "Ada"), a_person(db, "Rita", "reviewer")

    def review(kind: str, seconds: float) -> None:
        lease = lease_review(db, campaign.campaign_id, rita, now=at(seconds), seconds=LEASE_SECONDS)
        assert isinstance(lease, Lease)
        verdict = Verdict(object_id="a", kind=kind, reason="")  # type: ignore[arg-type]
        judge(db, lease.key, str(uuid.uuid4()), [verdict], now=at(seconds))

    hand_in(db, a_lease(db, campaign, ada), an_object("a"), now=at(1))
    review("reject", 2)
    returned = campaign_figures(db, campaign.campaign_id, now=at(2)).total
    assert (returned.returned, returned.verdicts["rejected"]) == (1, 1)
    hand_in(db, a_lease(db, campaign, ada, at(3)), an_object("a", a_mask(1, 1, 9, 9)), now=at(4))
    review("accept", 5)
    total = campaign_figures(db, campaign.campaign_id, now=at(6)).total
    assert total.masks == 1
    assert total.returned == 1
    assert total.verdicts == {"accepted": 1, "fixed": 0, "rejected": 1}


def test_agreement_is_between_people_on_the_same_image(db: Database) -> None:
    campaign = a_campaign(db, images=2, annotators_per_image=2)
    for name, shift in (("Ada", 0), ("Ben", 5)):
        person = a_person(db, name)
        for task in range(2):
            lease = a_lease(db, campaign, person, at(task))
            x = 5 + shift * task
            hand_in(db, lease, an_object("a", a_mask(x, 5, x + 15, 15)), now=at(task))
    found = campaign_figures(db, campaign.campaign_id, now=at(9)).agreement
    assert found is not None
    assert (found.images, found.pairs) == (2, 2)
    assert found.mean_iou == pytest.approx((1 + 10 / 20) / 2)
    assert found.share_above_75 == found.share_above_90 == 0.5
    (pair,) = found.by_pair
    assert pair.annotators == ("Ada", "Ben")


def test_the_json_has_what_the_page_reads(db: Database) -> None:
    campaign = a_campaign(db)
    hand_in(db, a_lease(db, campaign, a_person(db)), an_object("a"))
    said = json.loads(campaign_figures(db, campaign.campaign_id, now=at(1)).to_json())
    assert said["campaign"] == {
        "id": campaign.campaign_id,
        "name": "birds",
        "stage": "manual",
        "model": "m1",
        "model_id": "model-1",
    }
    assert said["by_model"][0]["model_id"] == "model-1"
    assert said["by_annotator"][0]["annotator"] == "Ada"
    assert said["total"]["made"]["new"] == 1
    assert set(said) >= {"made_at", "by_day", "seconds_histogram", "clicks_histogram", "agreement"}


def test_the_csv_has_a_line_for_every_mask_and_no_formula(db: Database) -> None:
    campaign = a_campaign(db, images=1)
    set_proposals(db, campaign.campaign_id, 101, [an_object("p", proposal=True)])
    lease = a_lease(db, campaign, a_person(db, '=HYPERLINK("x")'))
    hand_in(db, lease, an_object("a"), deleted=["p"])
    lines = list(csv.DictReader(io.StringIO(masks_csv(db, campaign.campaign_id))))
    assert [(line["object_id"], line["made"]) for line in lines] == [("a", "new"), ("p", "deleted")]
    assert lines[0]["annotator"] == '\'=HYPERLINK("x")'
    assert lines[0]["image"] == "101"


def test_the_page_of_markdown_says_what_a_lead_wants_to_know(db: Database) -> None:
    campaign = a_campaign(db, images=1, annotators_per_image=2)
    set_proposals(db, campaign.campaign_id, 101, [an_object("p", proposal=True)])
    for name in ("Ada", "Ben"):
        lease = a_lease(db, campaign, a_person(db, name))
        events = some_events((0, "a"), (3, "a"), (8, "a"))
        hand_in(db, lease, an_object("a", a_mask(30, 5, 40, 15)), deleted=["p"], events=events)
    figures = campaign_figures(db, campaign.campaign_id, now=at(1))
    page = figures_markdown(figures)
    assert "**2 masks** of 1 images in 2 tasks" in page
    assert "**8.0 s per mask**" in page
    assert "0% kept, 0% corrected, 100% deleted" in page
    assert "mean IoU 1.000 of 1 pairs" in page
    assert "| 8 | 2 | ████████████████████████ |" in page
    rows = figure_rows(figures)
    assert [row["who or when"] for row in rows] == ["all", "Ada", "Ben", "2026-03-01"]
    assert rows[0]["clicks per mask"] == 3
