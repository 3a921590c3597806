"""A second person judges; what they reject comes back with reasons; agreement is symmetric."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.annotation.annotators import revoke
from engine.annotation.campaigns import campaign_state
from engine.annotation.database import Database
from engine.annotation.drafts import save_draft
from engine.annotation.errors import BadSubmissionError, LeaseLostError, NotAllowedError
from engine.annotation.events import append_events, events_of
from engine.annotation.records import (
    Campaign,
    DraftContent,
    Judgement,
    Lease,
    NothingToDo,
    Verdict,
)
from engine.annotation.reviews import agreement, judge, lease_review, pair_agreement
from engine.annotation.submissions import finished_tasks, submission
from engine.annotation.tasks import give_back, heartbeat, skip
from engine.errors import BadInputError
from engine.records import Rle
from tests.annotation.annotation_builders import (
    NOW,
    PAGE,
    a_campaign,
    a_lease,
    a_mask,
    a_person,
    an_object,
    at,
    hand_in,
    nothing,
    some_events,
)

A, B = an_object("a"), an_object("b", a_mask(30, 5, 50, 30))
FIXED = a_mask(6, 6, 21, 16)


def a_review(db: Database, campaign: Campaign, person: str, seconds: float = 0) -> Lease:
    lease = lease_review(db, campaign.campaign_id, person, now=at(seconds))
    assert isinstance(lease, Lease), lease
    return lease


def no_review(db: Database, campaign: Campaign, person: str) -> str:
    found = lease_review(db, campaign.campaign_id, person, now=NOW)
    assert isinstance(found, NothingToDo), found
    return found.reason


def say(
    db: Database, lease: Lease, *verdicts: Verdict, reason: str = "", incomplete: bool = False
) -> Judgement:
    review_id = str(uuid.uuid4())
    return judge(db, lease.key, review_id, verdicts, now=NOW, reason=reason, incomplete=incomplete)


def accept(*ids: str) -> list[Verdict]:
    return [Verdict(object_id=i, kind="accept") for i in ids]


REJECT_B = Verdict(object_id="b", kind="reject", reason="two birds")


def test_accepted_masks_are_done(db: Database) -> None:
    campaign = a_campaign(db, images=1, review=True)
    ada, rev = a_person(db, "Ada"), a_person(db, "Rev", "reviewer")
    assert hand_in(db, a_lease(db, campaign, ada), A, B).state == "submitted"
    assert nothing(db, campaign, ada) == "needs-review"
    lease = a_review(db, campaign, rev)
    assert lease.submission is not None
    assert [item.mask for item in lease.submission.objects] == [A, B]
    assert lease.submission.annotator == "Ada"
    assert say(db, lease, *accept("a", "b")).state == "accepted"
    assert no_review(db, campaign, rev) == "all-done"
    assert campaign_state(db, campaign.campaign_id, now=NOW).state == "complete"


def test_a_fix_is_accepted_with_the_reviewers_mask(db: Database) -> None:
    campaign = a_campaign(db, images=1, review=True)
    ada, rev = a_person(db, "Ada"), a_person(db, "Rev", "reviewer")
    receipt = hand_in(db, a_lease(db, campaign, ada), A, B)
    fix = Verdict(object_id="a", kind="fix", rle=FIXED)
    assert say(db, a_review(db, campaign, rev), fix, *accept("b")).state == "accepted"
    a, b = submission(db, receipt.submission_id).objects
    assert (a.verdict, a.mask.rle, a.final) == ("fix", A.rle, FIXED)
    assert (b.verdict, b.final) == ("accept", B.rle)


def test_a_rejected_mask_returns_the_task_to_its_annotator_first(db: Database) -> None:
    campaign = a_campaign(db, images=3, review=True)
    ada, bob = a_person(db, "Ada"), a_person(db, "Bob")
    rev = a_person(db, "Rev", "reviewer")
    first = a_lease(db, campaign, ada)
    save_draft(db, first.key, 0, DraftContent(objects=(A,)), now=NOW)
    hand_in(db, first, A, B, exhaustive=True)
    fix = Verdict(object_id="a", kind="fix", rle=FIXED)
    judgement = say(db, a_review(db, campaign, rev), fix, REJECT_B, reason="look again")
    assert judgement.state == "returned"
    assert a_lease(db, campaign, bob).task.image.image_id == 102, "it is not his"
    again = a_lease(db, campaign, ada)
    assert again.task.task_id == first.task.task_id
    returned = again.task.returned
    assert returned is not None
    assert (returned.reason, returned.verdicts) == ("look again", (fix, REJECT_B))
    draft = again.task.draft
    assert draft is not None
    assert draft.version == 3, "the submission emptied version 1"
    assert draft.content.objects == (replace(A, rle=FIXED), B)
    assert draft.content.exhaustive
    receipt = hand_in(db, again, replace(A, rle=FIXED))
    assert submission(db, receipt.submission_id).round == 2
    assert a_review(db, campaign, rev).task.returned is None, "the new one is not judged yet"
    found = list(finished_tasks(db, campaign.campaign_id))
    assert [item.current for item in found] == [False, True]


def test_missing_masks_return_a_task_of_which_none_was_rejected(db: Database) -> None:
    campaign = a_campaign(db, images=1, review=True)
    ada, rev = a_person(db, "Ada"), a_person(db, "Rev", "reviewer")
    hand_in(db, a_lease(db, campaign, ada), A)
    lease = a_review(db, campaign, rev)
    assert say(db, lease, *accept("a"), reason="one more", incomplete=True).state == "returned"
    state = campaign_state(db, campaign.campaign_id, now=NOW, annotator_id=ada)
    assert (state.tasks.returned, state.mine_returned, state.mine_done) == (1, 1, 0)


def test_what_came_back_stays_its_annotators_while_they_pause(db: Database) -> None:
    campaign = a_campaign(db, images=1, review=True)
    ada, bob = a_person(db, "Ada"), a_person(db, "Bob")
    hand_in(db, a_lease(db, campaign, ada), A, B)
    say(db, a_review(db, campaign, a_person(db, "Rev", "reviewer")), *accept("a"), REJECT_B)
    again = a_lease(db, campaign, ada)
    assert nothing(db, campaign, bob, at(9999)) == "all-leased"
    state = campaign_state(db, campaign.campaign_id, now=at(9999))
    assert (state.tasks.returned, state.tasks.leased) == (1, 0)
    give_back(db, again.key, now=NOW)
    assert nothing(db, campaign, bob) == "all-leased"
    assert a_lease(db, campaign, ada).task.task_id == again.task.task_id


@pytest.mark.parametrize("when", ["before", "after", "at work on it", "before it is judged"])
def test_what_came_back_is_anybodys_after_its_annotator_was_revoked(
    db: Database, when: str
) -> None:
    campaign = a_campaign(db, images=1, review=True)
    ada, bob = a_person(db, "Ada"), a_person(db, "Bob")
    rev = a_person(db, "Rev", "reviewer")
    hand_in(db, a_lease(db, campaign, ada), A, B)
    if when == "before it is judged":
        revoke(db, ada, now=NOW)
    say(db, a_review(db, campaign, rev), *accept("a"), REJECT_B)
    if when == "at work on it":
        a_lease(db, campaign, ada)
    revoke(db, ada, now=NOW)
    his = a_lease(db, campaign, bob)
    assert his.task.draft is not None
    assert his.task.draft.content.objects == (A, B), "he goes on from what came back"
    assert his.task.returned is not None
    receipt = hand_in(db, his, A)
    assert submission(db, receipt.submission_id).annotator == "Bob"


def test_nobody_judges_a_task_that_they_annotated_in_any_round(db: Database) -> None:
    campaign = a_campaign(db, images=1, review=True)
    rev, max_ = a_person(db, "Rev", "reviewer"), a_person(db, "Max", "reviewer")
    hand_in(db, a_lease(db, campaign, rev), A, B)
    assert no_review(db, campaign, rev) == "own-work"
    state = campaign_state(db, campaign.campaign_id, now=NOW, annotator_id=rev)
    assert state.reviewable == 0
    assert campaign_state(db, campaign.campaign_id, now=NOW, annotator_id=max_).reviewable == 1
    say(db, a_review(db, campaign, max_), *accept("a"), REJECT_B)
    hand_in(db, a_lease(db, campaign, rev), A)
    assert no_review(db, campaign, rev) == "own-work"


def test_a_reviewer_who_took_over_a_returned_task_does_not_judge_it(db: Database) -> None:
    campaign = a_campaign(db, images=1, review=True)
    ada = a_person(db, "Ada")
    rev, max_ = a_person(db, "Rev", "reviewer"), a_person(db, "Max", "reviewer")
    hand_in(db, a_lease(db, campaign, ada), A, B)
    say(db, a_review(db, campaign, rev), *accept("a"), REJECT_B)
    revoke(db, ada, now=NOW)
    hand_in(db, a_lease(db, campaign, rev), A)
    assert no_review(db, campaign, rev) == "own-work"
    assert a_review(db, campaign, max_).task.annotator_id == rev


def test_reviewers_have_leases_of_their_own(db: Database) -> None:
    campaign = a_campaign(db, images=3, review=True)
    ada = a_person(db, "Ada")
    rev, max_ = a_person(db, "Rev", "reviewer"), a_person(db, "Max", "admin")
    for _ in range(2):
        hand_in(db, a_lease(db, campaign, ada), A)
    first = a_review(db, campaign, rev)
    assert a_review(db, campaign, max_).task.task_id != first.task.task_id
    own = a_lease(db, campaign, rev)
    again = a_review(db, campaign, rev)
    assert again.task.task_id == first.task.task_id, "annotating took no review away"
    heartbeat(db, own.key, now=NOW)
    with pytest.raises(LeaseLostError):
        heartbeat(db, first.key, now=NOW)
    taken = a_review(db, campaign, max_, 1000)
    assert taken.task.task_id != own.task.task_id
    give_back(db, again.key, now=NOW)
    assert campaign_state(db, campaign.campaign_id, now=NOW).tasks.submitted == 2


def test_a_review_that_was_left_goes_to_another_reviewer(db: Database) -> None:
    campaign = a_campaign(db, images=1, review=True)
    rev, max_ = a_person(db, "Rev", "reviewer"), a_person(db, "Max", "reviewer")
    hand_in(db, a_lease(db, campaign, a_person(db)), A)
    left = a_review(db, campaign, rev)
    assert no_review(db, campaign, max_) == "all-leased"
    taken = a_review(db, campaign, max_, 120)
    with pytest.raises(LeaseLostError):
        say(db, left, *accept("a"))
    assert say(db, taken, *accept("a")).state == "accepted"


def test_the_same_review_again_is_the_same_answer(db: Database) -> None:
    campaign = a_campaign(db, images=2, review=True)
    ada, rev = a_person(db, "Ada"), a_person(db, "Rev", "reviewer")
    for _ in range(2):
        hand_in(db, a_lease(db, campaign, ada), A)
    lease, review_id = a_review(db, campaign, rev), str(uuid.uuid4())
    judgement = judge(db, lease.key, review_id, accept("a"), now=NOW)
    assert judge(db, lease.key, review_id, accept("a"), now=at(99)) == judgement
    other = a_review(db, campaign, rev)
    with pytest.raises(BadSubmissionError, match="another task's"):
        judge(db, other.key, review_id, accept("a"), now=NOW)


@pytest.mark.parametrize(
    ("verdicts", "complaint"),
    [
        ([], "each of the 2 masks"),
        (accept("a"), "'b'"),
        (accept("a", "b", "c"), "'c'"),
        (accept("a", "a", "b"), "'a'"),
        ([*accept("a"), Verdict(object_id="b", kind="fix")], "mask of its own"),
        ([*accept("a"), Verdict(object_id="b", kind="accept", rle=FIXED)], "mask of its own"),
        ([*accept("a"), Verdict(object_id="b", kind="fix", rle=a_mask(width=61))], "40 x 61"),
        ([*accept("a"), Verdict(object_id="b", kind="fix", rle=a_mask(0, 0, 0, 0))], "empty"),
        ([*accept("a"), replace(REJECT_B, reason="x" * 2001)], "2001 characters"),
    ],
)
def test_verdicts_that_do_not_fit_are_refused(
    db: Database, verdicts: Sequence[Verdict], complaint: str
) -> None:
    campaign = a_campaign(db, images=1, review=True)
    hand_in(db, a_lease(db, campaign, a_person(db)), A, B)
    lease = a_review(db, campaign, a_person(db, "Rev", "reviewer"))
    with pytest.raises(BadInputError, match=complaint):
        say(db, lease, *verdicts)
    assert say(db, lease, *accept("a", "b")).state == "accepted"


def test_reviews_are_for_reviewers_and_of_campaigns_with_review(db: Database) -> None:
    plain = a_campaign(db, images=1)
    ada, rev = a_person(db, "Ada"), a_person(db, "Rev", "reviewer")
    with pytest.raises(NotAllowedError, match="no reviewer"):
        lease_review(db, plain.campaign_id, ada, now=NOW)
    assert no_review(db, plain, rev) == "all-done"
    assert no_review(db, a_campaign(db, images=0, name="empty", review=True), rev) == "no-images"
    reviewed = a_campaign(db, images=1, name="reviewed", review=True)
    assert no_review(db, reviewed, rev) == "all-leased"
    lease = a_lease(db, reviewed, ada)
    with pytest.raises(LeaseLostError):
        say(db, lease)


def test_a_reviewers_events_are_logged_and_cost_the_annotator_nothing(db: Database) -> None:
    campaign = a_campaign(db, images=1, review=True)
    ada, rev = a_person(db, "Ada"), a_person(db, "Rev", "reviewer")
    hand_in(db, a_lease(db, campaign, ada), A, events=some_events((0, None), (4, "a")))
    lease = a_review(db, campaign, rev)
    append_events(db, lease.key, PAGE, some_events((100, "a"), (109, "a")), now=NOW)
    say(db, lease, Verdict(object_id="a", kind="reject"))
    receipt = hand_in(db, a_lease(db, campaign, ada), A)
    assert submission(db, receipt.submission_id).objects[0].active_seconds == 4
    assert len(events_of(db, receipt.task_id)) == 4


def test_agreement_is_between_people_who_annotated_the_same_image(db: Database) -> None:
    campaign = a_campaign(db, images=3, annotators_per_image=2)
    ada, bob = a_person(db, "Ada"), a_person(db, "Bob")
    for image, his in enumerate(([A, B], [A], [A])):
        hand_in(db, a_lease(db, campaign, ada), A, B)
        lease = a_lease(db, campaign, bob)
        if image == 2:
            skip(db, lease.key, "dark", now=NOW)
        else:
            hand_in(db, lease, *his)
    first, second = agreement(db, campaign.campaign_id)
    people = tuple(sorted((ada, bob)))
    assert (first.image_id, first.pairs) == (101, ((*people, 1.0),))
    # Of three masks (two and one), two have a perfect partner and one has none.
    assert second.image_id == 102
    assert second.mean_iou == pytest.approx(2 / 3)
    assert agreement(db, a_campaign(db, name="alone").campaign_id) == ()


BOXES = st.builds(
    lambda x, y, w, h: a_mask(x, y, x + w, y + h),
    st.integers(0, 40),
    st.integers(0, 20),
    st.integers(1, 20),
    st.integers(1, 20),
)
MASKS = st.lists(BOXES, max_size=4)


@settings(max_examples=60)
@given(MASKS, MASKS)
def test_agreement_is_symmetric_and_at_most_one(a: list[Rle], b: list[Rle]) -> None:
    found = pair_agreement(a, b)
    assert 0 <= found <= 1
    assert pair_agreement(b, a) == pytest.approx(found)
    assert pair_agreement(a, a) == 1
