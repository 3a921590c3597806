"""Leases: everybody gets a task, nobody gets another's, and nobody gets one image twice."""

from __future__ import annotations

import pytest

from engine.annotation.annotators import revoke
from engine.annotation.campaigns import add_images, campaign_state, close_campaign, reopen_campaign
from engine.annotation.database import Database
from engine.annotation.drafts import save_draft
from engine.annotation.errors import (
    LeaseLostError,
    NotAllowedError,
    UnknownCampaignError,
    UnknownTaskError,
)
from engine.annotation.records import DraftContent, Lease, LeaseKey
from engine.annotation.tasks import (
    give_back,
    heartbeat,
    lease_next,
    skip,
    task,
    upcoming,
)
from engine.errors import BadInputError
from tests.annotation.annotation_builders import (
    NOW,
    a_campaign,
    a_lease,
    a_person,
    an_image,
    an_object,
    at,
    hand_in,
    nothing,
)


def test_tasks_are_given_out_in_the_campaigns_order(db: Database) -> None:
    campaign, ada = a_campaign(db), a_person(db)
    seen = []
    for _ in range(3):
        lease = a_lease(db, campaign, ada)
        seen.append(lease.task.image.image_id)
        hand_in(db, lease, an_object("a"))
    assert seen == [101, 102, 103]
    assert nothing(db, campaign, ada) == "all-done"


def test_two_people_never_work_on_the_same_task(db: Database) -> None:
    campaign = a_campaign(db, images=2)
    ada, bob, cleo = (a_person(db, name) for name in ("Ada", "Bob", "Cleo"))
    first, second = a_lease(db, campaign, ada), a_lease(db, campaign, bob)
    assert first.task.task_id != second.task.task_id
    assert nothing(db, campaign, cleo) == "all-leased"


def test_asking_again_gives_the_same_task_and_the_older_tab_loses_it(db: Database) -> None:
    campaign, ada = a_campaign(db), a_person(db)
    old_tab = a_lease(db, campaign, ada)
    new_tab = a_lease(db, campaign, ada)
    assert new_tab.task.task_id == old_tab.task.task_id
    assert new_tab.key != old_tab.key
    with pytest.raises(LeaseLostError):
        heartbeat(db, old_tab.key, now=NOW)
    assert heartbeat(db, new_tab.key, now=at(60)) == at(180)


def test_a_lease_that_is_over_goes_to_another_and_is_lost(db: Database) -> None:
    campaign = a_campaign(db, images=1)
    ada, bob = a_person(db, "Ada"), a_person(db, "Bob")
    hers = a_lease(db, campaign, ada)
    assert nothing(db, campaign, bob, at(119)) == "all-leased"
    his = a_lease(db, campaign, bob, at(120))
    assert his.task.task_id == hers.task.task_id
    assert his.task.annotator_id == bob
    for work in (
        lambda: heartbeat(db, hers.key, now=at(121)),
        lambda: save_draft(db, hers.key, 0, DraftContent(), now=at(121)),
        lambda: hand_in(db, hers, an_object("a"), now=at(121)),
        lambda: skip(db, hers.key, "blurred", now=at(121)),
        lambda: give_back(db, hers.key, now=at(121)),
    ):
        with pytest.raises(LeaseLostError, match="not yours any more"):
            work()


def test_who_comes_back_late_goes_on_if_nobody_took_the_task(db: Database) -> None:
    campaign, ada = a_campaign(db, images=1), a_person(db)
    lease = a_lease(db, campaign, ada)
    assert heartbeat(db, lease.key, now=at(3600)) == at(3720)
    assert hand_in(db, lease, an_object("a"), now=at(9999)).state == "accepted"


def test_a_heartbeat_keeps_the_task(db: Database) -> None:
    campaign = a_campaign(db, images=1)
    ada, bob = a_person(db, "Ada"), a_person(db, "Bob")
    lease = a_lease(db, campaign, ada)
    heartbeat(db, lease.key, now=at(100))
    assert nothing(db, campaign, bob, at(219)) == "all-leased"


def test_new_images_come_before_those_that_somebody_left(db: Database) -> None:
    campaign = a_campaign(db, images=2)
    ada, bob = a_person(db, "Ada"), a_person(db, "Bob")
    left = a_lease(db, campaign, ada)
    assert a_lease(db, campaign, bob, at(500)).task.image.image_id == 102
    # She comes back, and goes on with hers.
    assert a_lease(db, campaign, ada, at(600)).task.task_id == left.task.task_id


def test_nobody_gets_an_image_twice(db: Database) -> None:
    campaign = a_campaign(db, images=1, annotators_per_image=2)
    ada, bob = a_person(db, "Ada"), a_person(db, "Bob")
    hers = a_lease(db, campaign, ada)
    hand_in(db, hers, an_object("a"))
    assert nothing(db, campaign, ada) == "all-leased"
    his = a_lease(db, campaign, bob)
    assert his.task.image == hers.task.image
    assert his.task.task_id != hers.task.task_id
    # Not either when he leaves it for good.
    assert nothing(db, campaign, ada, at(1000)) == "all-leased"
    hand_in(db, his, an_object("a"), now=at(1001))
    assert nothing(db, campaign, ada) == "all-done"


def test_a_task_that_is_given_back_is_anybodys(db: Database) -> None:
    campaign = a_campaign(db, images=1)
    ada, bob = a_person(db, "Ada"), a_person(db, "Bob")
    lease = a_lease(db, campaign, ada)
    save_draft(db, lease.key, 0, DraftContent(objects=(an_object("a"),)), now=NOW)
    give_back(db, lease.key, now=NOW)
    his = a_lease(db, campaign, bob)
    assert his.task.task_id == lease.task.task_id
    assert his.task.draft is None, "her draft is not his"
    give_back(db, his.key, now=NOW)
    draft = a_lease(db, campaign, ada).task.draft
    assert draft is not None
    assert draft.content.objects == (an_object("a"),)


def test_a_skipped_task_is_done_and_says_why(db: Database) -> None:
    campaign, ada = a_campaign(db, images=1), a_person(db)
    lease = a_lease(db, campaign, ada)
    skip(db, lease.key, "  too dark ", now=NOW)
    found = task(db, lease.task.task_id, ada)
    assert (found.state, found.skip_reason) == ("skipped", "too dark")
    assert nothing(db, campaign, ada) == "all-done"
    state = campaign_state(db, campaign.campaign_id, now=NOW, annotator_id=ada)
    assert (state.state, state.tasks.skipped, state.mine_skipped) == ("complete", 1, 1)


@pytest.mark.parametrize("reason", ["", "  ", "x" * 2001, "a\x00b", "\ud800"])
def test_a_skip_needs_a_reason_that_is_text(db: Database, reason: str) -> None:
    lease = a_lease(db, a_campaign(db), a_person(db))
    with pytest.raises(BadInputError, match="reason"):
        skip(db, lease.key, reason, now=NOW)


def test_a_closed_campaign_gives_out_nothing_but_takes_what_is_being_made(db: Database) -> None:
    campaign = a_campaign(db)
    ada, bob = a_person(db, "Ada"), a_person(db, "Bob")
    lease = a_lease(db, campaign, ada)
    closed = close_campaign(db, campaign.campaign_id, now=at(10))
    assert close_campaign(db, campaign.campaign_id, now=at(20)) == closed
    assert nothing(db, campaign, bob) == "closed"
    again = a_lease(db, campaign, ada)
    assert again.task.task_id == lease.task.task_id
    hand_in(db, again, an_object("a"))
    assert nothing(db, campaign, ada) == "closed"
    assert campaign_state(db, campaign.campaign_id, now=NOW).state == "closed"
    reopen_campaign(db, campaign.campaign_id)
    assert a_lease(db, campaign, bob).task.image.image_id == 102


def test_a_campaign_without_images_says_so_and_takes_more(db: Database) -> None:
    campaign, ada = a_campaign(db, images=0), a_person(db)
    assert nothing(db, campaign, ada) == "no-images"
    images = [an_image(7), an_image(8)]
    assert add_images(db, campaign.campaign_id, images, now=NOW) == 2
    assert add_images(db, campaign.campaign_id, [an_image(8), an_image(9)], now=NOW) == 1
    assert [i.image_id for i in upcoming(db, campaign.campaign_id, ada, 5, now=NOW)] == [7, 8, 9]


def test_what_comes_next_is_known_before_it_is_leased(db: Database) -> None:
    campaign = a_campaign(db, images=4, annotators_per_image=2)
    ada, bob = a_person(db, "Ada"), a_person(db, "Bob")

    def coming(person: str, n: int = 2) -> list[int]:
        found = upcoming(db, campaign.campaign_id, person, n, now=NOW)
        return [image.image_id for image in found]

    assert coming(ada) == [101, 102]
    lease = a_lease(db, campaign, ada)
    assert coming(ada) == [102, 103]
    assert coming(bob) == [101, 102]
    assert coming(ada, 9) == [102, 103, 104]
    assert coming(ada, 0) == []
    hand_in(db, lease, an_object("a"))
    assert a_lease(db, campaign, ada).task.image.image_id == 102
    with pytest.raises(BadInputError, match="look ahead"):
        coming(ada, 51)


def test_revoked_people_get_nothing_and_lose_what_they_had(db: Database) -> None:
    campaign = a_campaign(db, images=1)
    ada, bob = a_person(db, "Ada"), a_person(db, "Bob")
    lease = a_lease(db, campaign, ada)
    revoke(db, ada, now=NOW)
    with pytest.raises(LeaseLostError):
        heartbeat(db, lease.key, now=NOW)
    with pytest.raises(NotAllowedError, match="revoked"):
        lease_next(db, campaign.campaign_id, ada, now=NOW)
    assert a_lease(db, campaign, bob).task.task_id == lease.task.task_id


def test_a_lease_opens_nothing_for_another_person_or_task(db: Database) -> None:
    campaign = a_campaign(db)
    ada, bob = a_person(db, "Ada"), a_person(db, "Bob")
    hers, his = a_lease(db, campaign, ada), a_lease(db, campaign, bob)
    for key in (
        LeaseKey(task_id=hers.key.task_id, annotator_id=bob, lease_id=hers.key.lease_id),
        LeaseKey(task_id=his.key.task_id, annotator_id=ada, lease_id=hers.key.lease_id),
        LeaseKey(task_id=hers.key.task_id, annotator_id=ada, lease_id=""),
        LeaseKey(task_id=hers.key.task_id, annotator_id=ada, lease_id="\ud800\x00"),
    ):
        with pytest.raises(LeaseLostError):
            heartbeat(db, key, now=NOW)


@pytest.mark.parametrize("task_id", [-1, 0, 999, 2**31, 2**70])
def test_unknown_tasks_are_named(db: Database, task_id: int) -> None:
    ada = a_person(db)
    with pytest.raises(UnknownTaskError):
        task(db, task_id, ada)
    with pytest.raises(UnknownTaskError):
        heartbeat(db, LeaseKey(task_id=task_id, annotator_id=ada, lease_id="x"), now=NOW)


def test_unknown_campaigns_people_and_lengths_are_refused(db: Database) -> None:
    campaign, ada = a_campaign(db), a_person(db)
    with pytest.raises(UnknownCampaignError, match="no campaign 'fish'"):
        lease_next(db, "fish", ada, now=NOW)
    with pytest.raises(BadInputError, match="never invited"):
        lease_next(db, campaign.campaign_id, "nobody", now=NOW)
    with pytest.raises(BadInputError, match="lease of 0 s"):
        lease_next(db, campaign.campaign_id, ada, now=NOW, seconds=0)


def test_each_task_is_counted_once(db: Database) -> None:
    campaign = a_campaign(db, images=5)
    ada, bob = a_person(db, "Ada"), a_person(db, "Bob")
    hand_in(db, a_lease(db, campaign, ada), an_object("a"), an_object("b"))
    skip(db, a_lease(db, campaign, ada).key, "blurred", now=NOW)
    a_lease(db, campaign, ada, at(1000))
    a_lease(db, campaign, bob, at(0))
    state = campaign_state(db, campaign.campaign_id, now=at(1000), annotator_id=ada)
    tasks = state.tasks
    assert (tasks.total, tasks.open, tasks.leased) == (5, 2, 1), "Bob's lease is over"
    assert (tasks.accepted, tasks.skipped, tasks.submitted, tasks.returned) == (1, 1, 0, 0)
    assert (state.state, state.masks, state.mine_done, state.reviewable) == ("open", 2, 1, 0)


def test_what_a_page_has_finished_but_not_handed_in_is_not_given_again(db: Database) -> None:
    campaign = a_campaign(db, images=3)
    ada, bob = a_person(db, "Ada"), a_person(db, "Bob")
    first = a_lease(db, campaign, ada)
    held = first.task.task_id
    second = lease_next(db, campaign.campaign_id, ada, now=at(100), finished=[held])
    assert isinstance(second, Lease)
    assert second.task.image.image_id == 102
    # Its lease went on: nobody else gets it, and it can be handed in as it was.
    assert a_lease(db, campaign, bob, at(219)).task.image.image_id == 103
    assert hand_in(db, first, an_object("a"), now=at(219)).task_id == held
    assert heartbeat(db, second.key, now=at(219)) == at(339)


def test_tasks_that_others_have_are_not_kept_by_saying_that_they_are_finished(
    db: Database,
) -> None:
    campaign = a_campaign(db, images=1)
    ada, bob = a_person(db, "Ada"), a_person(db, "Bob")
    lease = a_lease(db, campaign, ada)
    task_id = lease.task.task_id
    lease_next(db, campaign.campaign_id, bob, now=at(100), finished=[task_id])
    assert a_lease(db, campaign, bob, at(120)).task.task_id == task_id
    with pytest.raises(BadInputError, match="finished"):
        lease_next(db, campaign.campaign_id, ada, now=NOW, finished=[2**70])
