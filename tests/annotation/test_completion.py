"""A campaign is complete once: one caller hears it, whoever hands in the last task."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine.annotation.campaigns import add_images
from engine.annotation.completion import note_completion, tell_completion
from engine.annotation.database import Database
from engine.annotation.records import Lease, Verdict
from engine.annotation.reviews import judge, lease_review
from engine.annotation.tasks import skip
from engine.announcements import Announcement, CampaignCompleted
from tests.annotation.annotation_builders import (
    NOW,
    a_campaign,
    a_lease,
    a_mask,
    a_person,
    an_image,
    an_object,
    at,
    hand_in,
)
from tests.annotation.service import running_service


def test_the_last_finished_task_completes_a_campaign_and_only_one_caller_is_told(
    db: Database,
) -> None:
    campaign, ada = a_campaign(db, images=2), a_person(db)
    heard: list[Announcement] = []
    first = a_lease(db, campaign, ada)
    hand_in(db, first, an_object("a"), an_object("b", a_mask(30, 20, 50, 35)))
    tell_completion(db, first.key.task_id, heard.append, "/birds", now=NOW)
    assert heard == []
    last = a_lease(db, campaign, ada)
    skip(db, last.key, "blurred", now=NOW)
    for _ in range(2):  # a request that is sent twice
        tell_completion(db, last.key.task_id, heard.append, "/birds", now=NOW)
    told = CampaignCompleted(
        workspace="/birds",
        campaign="birds",
        campaign_id=campaign.campaign_id,
        stage="manual",
        images=2,
        masks=2,
    )
    assert heard == [told]


def test_a_campaign_with_review_is_complete_when_the_last_review_accepts(db: Database) -> None:
    campaign = a_campaign(db, images=1, review=True)
    lease = a_lease(db, campaign, a_person(db))
    hand_in(db, lease, an_object("a"))
    assert note_completion(db, lease.key.task_id, now=NOW) is None
    reviewer = a_person(db, "Bob", "reviewer")
    review = lease_review(db, campaign.campaign_id, reviewer, now=NOW)
    assert isinstance(review, Lease)
    judge(db, review.key, str(uuid.uuid4()), [Verdict(object_id="a", kind="accept")], now=NOW)
    done = note_completion(db, lease.key.task_id, now=NOW)
    assert done is not None
    assert done.masks == 1


def test_added_images_make_it_incomplete_and_it_is_told_again(db: Database) -> None:
    campaign, ada = a_campaign(db, images=1), a_person(db)
    lease = a_lease(db, campaign, ada)
    hand_in(db, lease, an_object("a"))
    assert note_completion(db, lease.key.task_id, now=NOW) is not None
    add_images(db, campaign.campaign_id, [an_image(900)], now=at(10))
    assert note_completion(db, lease.key.task_id, now=at(10)) is None
    other = a_lease(db, campaign, ada, at(20))
    hand_in(db, other, an_object("a"), now=at(20))
    assert note_completion(db, other.key.task_id, now=at(20)) is not None


def test_of_people_who_finish_at_once_one_is_told(db: Database) -> None:
    campaign = a_campaign(db, images=8)
    leases = [a_lease(db, campaign, a_person(db, f"person {i}")) for i in range(8)]

    def finish(lease: Lease) -> bool:
        hand_in(db, lease, an_object("a"))
        return note_completion(db, lease.key.task_id, now=NOW) is not None

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(finish, leases))
    assert sum(told) == 1


def test_the_service_announces_a_campaign_whose_last_image_is_skipped(tmp_path: Path) -> None:
    with running_service(tmp_path, images=2) as service, service.client("ada") as ada:
        for _ in range(2):
            assert "announced" not in (tmp_path / "service.log").read_text()
            path = f"/api/campaigns/{service.campaign.campaign_id}/next"
            lease = ada.post(path).raise_for_status().json()
            headers = {"X-Lease": lease["lease_id"]}
            task = f"/api/tasks/{lease['task']['id']}"
            ada.post(f"{task}/skip", json={"reason": "dark"}, headers=headers).raise_for_status()
        [line] = [
            x for x in (tmp_path / "service.log").read_text().splitlines() if "announced" in x
        ]
        assert f"CampaignCompleted(workspace={str(tmp_path)!r}, campaign='test'" in line


def test_a_task_that_is_none_completes_nothing(db: Database) -> None:
    assert note_completion(db, 77, now=NOW) is None
