"""Submissions are checked as a whole, taken once, and say what became of each proposal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.annotation import submissions
from engine.annotation.campaigns import campaign_state
from engine.annotation.database import Database
from engine.annotation.errors import (
    BadSubmissionError,
    LeaseLostError,
    MissingEventsError,
    UnknownTaskError,
)
from engine.annotation.events import append_events, events_of
from engine.annotation.proposals import proposals_of, set_proposals
from engine.annotation.records import Campaign, Event, Lease, MaskObject, PointPrompt, Submission
from engine.annotation.submissions import finished_tasks, submission, submit
from engine.annotation.tasks import give_back, task
from engine.errors import BadInputError
from engine.masks import decode_mask
from engine.records import Rle
from tests.annotation.annotation_builders import (
    HEIGHT,
    NOW,
    PAGE,
    WIDTH,
    a_campaign,
    a_lease,
    a_mask,
    a_person,
    a_submission,
    an_object,
    at,
    hand_in,
    some_events,
)

PROPOSALS = tuple(
    MaskObject(
        object_id=f"p-{i}",
        rle=a_mask(i * 10, 5, i * 10 + 8, 30),
        proposal=True,
        predicted_iou=0.9 + i / 100,
        prompts=(PointPrompt(i * 10 + 4.0, 12.0, 1),),
        accepted=i == 0,
    )
    for i in range(3)
)


def with_proposals(db: Database) -> tuple[Campaign, Lease]:
    campaign = a_campaign(db)
    assert set_proposals(db, campaign.campaign_id, 101, PROPOSALS)
    return campaign, a_lease(db, campaign, a_person(db))


def test_proposals_come_with_the_task(db: Database) -> None:
    campaign, lease = with_proposals(db)
    assert lease.task.proposals == PROPOSALS
    assert proposals_of(db, campaign.campaign_id, 101) == PROPOSALS
    assert proposals_of(db, campaign.campaign_id, 102) == ()


def test_proposals_change_until_somebody_begins_the_image(db: Database) -> None:
    campaign = a_campaign(db, annotators_per_image=2)
    assert set_proposals(db, campaign.campaign_id, 101, PROPOSALS)
    assert set_proposals(db, campaign.campaign_id, 101, PROPOSALS[:1])
    assert proposals_of(db, campaign.campaign_id, 101) == PROPOSALS[:1]
    lease = a_lease(db, campaign, a_person(db))
    assert not set_proposals(db, campaign.campaign_id, 101, PROPOSALS)
    assert proposals_of(db, campaign.campaign_id, 101) == PROPOSALS[:1]
    give_back(db, lease.key, now=NOW)
    assert set_proposals(db, campaign.campaign_id, 101, ())
    assert proposals_of(db, campaign.campaign_id, 101) == ()


def test_proposals_of_another_size_or_image_are_refused(db: Database) -> None:
    campaign = a_campaign(db)
    wrong = an_object("p", a_mask(height=41))
    with pytest.raises(BadSubmissionError, match="the image has 40 x 60"):
        set_proposals(db, campaign.campaign_id, 101, [wrong])
    with pytest.raises(BadInputError, match="no image 999"):
        set_proposals(db, campaign.campaign_id, 999, [])


def test_each_object_says_how_it_came_to_be(db: Database) -> None:
    _, lease = with_proposals(db)
    corrected = replace(PROPOSALS[1], rle=a_mask(10, 5, 19, 30), decoder="server")
    receipt = hand_in(
        db, lease, PROPOSALS[0], corrected, an_object("n-1"), deleted=("p-2", "gone"), now=at(9)
    )
    assert (receipt.kept, receipt.corrected, receipt.new, receipt.deleted) == (1, 1, 1, 1)
    assert (receipt.objects, receipt.state, receipt.submitted_at) == (3, "accepted", at(9))
    stored = submission(db, receipt.submission_id)
    assert [(o.mask.object_id, o.made) for o in stored.objects] == [
        ("p-0", "kept"),
        ("p-1", "corrected"),
        ("n-1", "new"),
    ]
    assert stored.objects[0].mask == PROPOSALS[0]
    assert stored.objects[1].mask == corrected
    assert stored.objects[2].mask == an_object("n-1")
    assert [(o.mask, o.made) for o in stored.deleted] == [(PROPOSALS[2], "deleted")]
    assert (stored.annotator, stored.round, stored.exhaustive) == ("Ada", 1, False)


def test_a_kept_proposal_may_be_spelled_with_empty_runs(db: Database) -> None:
    campaign = a_campaign(db)
    plain = a_mask(0, 0, 1, 1)
    set_proposals(db, campaign.campaign_id, 101, [replace(PROPOSALS[0], rle=plain)])
    lease = a_lease(db, campaign, a_person(db))
    # 0 background, 1 mask, 0 background, 0 mask, the rest: the same mask, in other words.
    spelled = Rle(HEIGHT, WIDTH, "010O" + plain.counts[2:])
    assert (decode_mask(spelled) == decode_mask(plain)).all()
    assert spelled != plain
    assert hand_in(db, lease, replace(PROPOSALS[0], rle=spelled)).kept == 1


def test_the_same_submission_again_is_the_same_answer(db: Database) -> None:
    campaign, ada = a_campaign(db), a_person(db)
    lease = a_lease(db, campaign, ada)
    handed_in = a_submission(an_object("a"), events=some_events((0, "a"), (3, "a")))
    receipt = submit(db, lease.key, handed_in, now=at(5))
    assert submit(db, lease.key, handed_in, now=at(500)) == receipt
    a_lease(db, campaign, ada, at(600))
    assert submit(db, lease.key, handed_in, now=at(601)) == receipt
    changed = replace(handed_in, objects=())
    assert submit(db, lease.key, changed, now=at(602)) == receipt, "the first one counts"
    assert len(list(finished_tasks(db, campaign.campaign_id))) == 1


def test_another_submission_of_a_task_that_is_done_is_refused(db: Database) -> None:
    lease = a_lease(db, a_campaign(db), a_person(db))
    hand_in(db, lease, an_object("a"))
    with pytest.raises(LeaseLostError):
        hand_in(db, lease, an_object("a"))


def test_a_late_submission_is_refused_unless_it_was_taken_before(db: Database) -> None:
    campaign = a_campaign(db, images=2)
    ada, bob = a_person(db, "Ada"), a_person(db, "Bob")
    taken, late = a_submission(an_object("a")), a_submission(an_object("b"))
    first = a_lease(db, campaign, ada)
    receipt = submit(db, first.key, taken, now=NOW)
    second = a_lease(db, campaign, ada)
    his = a_lease(db, campaign, bob, at(500))
    assert his.task.task_id == second.task.task_id
    with pytest.raises(LeaseLostError):
        submit(db, second.key, late, now=at(501))
    assert submit(db, first.key, taken, now=at(501)) == receipt
    assert submit(db, his.key, a_submission(an_object("c")), now=at(502)).annotator_id == bob


def test_an_id_of_another_tasks_submission_is_refused(db: Database) -> None:
    campaign, ada = a_campaign(db), a_person(db)
    handed_in = a_submission(an_object("a"))
    submit(db, a_lease(db, campaign, ada).key, handed_in, now=NOW)
    lease = a_lease(db, campaign, ada)
    with pytest.raises(BadSubmissionError, match="another task's"):
        submit(db, lease.key, handed_in, now=NOW)
    assert task(db, lease.task.task_id, ada).state == "leased"


def test_nothing_on_an_image_is_an_answer(db: Database) -> None:
    lease = a_lease(db, a_campaign(db), a_person(db))
    receipt = hand_in(db, lease, exhaustive=True)
    assert receipt.objects == 0
    assert submission(db, receipt.submission_id).exhaustive


def test_time_clicks_and_strokes_are_the_event_logs(db: Database) -> None:
    lease = a_lease(db, a_campaign(db), a_person(db))
    events = [
        Event(seq=seq, at_ms=at_ms, kind=kind, object_id=object_id)
        for seq, (at_ms, kind, object_id) in enumerate(
            [
                (0, "open", None),
                (2_000, "click", "a"),
                (3_000, "box", "a"),
                (4_000, "stroke", "a"),
                (5_000, "undo", "a"),
                (65_000, "click", "b"),
                (65_500, "zoom", None),
            ],
            start=1,
        )
    ]
    assert append_events(db, lease.key, PAGE, events[:4], now=NOW) == 4
    handed_in = a_submission(an_object("a"), an_object("b", a_mask(30, 5, 40, 9)), events=events)
    receipt = submit(db, lease.key, handed_in, now=NOW)
    stored = submission(db, receipt.submission_id)
    assert [(o.active_seconds, o.clicks, o.strokes) for o in stored.objects] == [
        (5.0, 2, 1),
        (10.0, 1, 0),
    ]
    assert (stored.active_seconds, stored.unattributed_seconds) == (15.5, 0.5)
    assert receipt.active_seconds == 15.5
    assert len(events_of(db, lease.task.task_id)) == 7


def test_a_submission_waits_for_its_events(db: Database) -> None:
    lease = a_lease(db, a_campaign(db), a_person(db))
    events = some_events(*((i, "a") for i in range(60)))
    append_events(db, lease.key, PAGE, [*events[:10], *events[50:]], now=NOW)
    handed_in = a_submission(an_object("a"), events=[events[59]])
    with pytest.raises(MissingEventsError, match="40 of the page's 60") as missing:
        submit(db, lease.key, handed_in, now=NOW)
    assert missing.value.missing == tuple(range(11, 31))
    assert task(db, lease.task.task_id, lease.key.annotator_id).state == "leased"
    append_events(db, lease.key, PAGE, events[10:50], now=NOW)
    assert submit(db, lease.key, handed_in, now=NOW).objects == 1


def test_a_submission_that_was_refused_leaves_nothing_behind(db: Database) -> None:
    campaign = a_campaign(db)
    lease = a_lease(db, campaign, a_person(db))
    handed_in = replace(a_submission(an_object("a"), events=some_events((0, "a"))), last_seq=5)
    with pytest.raises(MissingEventsError):
        submit(db, lease.key, handed_in, now=NOW)
    assert events_of(db, lease.task.task_id) == ()
    assert list(finished_tasks(db, campaign.campaign_id)) == []


WRONG: list[tuple[str, Submission]] = [
    ("0 x 0", a_submission(an_object("a", Rle(0, 0, "0")))),
    ("60 x 40", a_submission(an_object("a", Rle(60, 40, "0")))),
    ("40 x 61", a_submission(an_object("a", a_mask(width=61)))),
    ("empty", a_submission(an_object("a", a_mask(0, 0, 0, 0)))),
    ("add up", a_submission(an_object("a", Rle(HEIGHT, WIDTH, "11")))),
    ("empty or hold", a_submission(an_object("a", Rle(HEIGHT, WIDTH, "")))),
    ("characters", a_submission(an_object("a", Rle(HEIGHT, WIDTH, "\x00\ud800")))),
    ("twice", a_submission(an_object("a"), an_object("a"))),
    ("object id", a_submission(an_object("a/b"))),
    ("object id", a_submission(an_object(""))),
    ("no such proposal", a_submission(an_object("x", proposal=True))),
    ("both as objects", a_submission(an_object("a"), deleted=("a",))),
    ("no number", a_submission(replace(an_object("a"), predicted_iou=float("nan")))),
    (
        "finite",
        a_submission(replace(an_object("a"), prompts=(PointPrompt(float("inf"), 0.0, 1),))),
    ),
    ("submission id", replace(a_submission(), submission_id="1")),
    ("submission id", replace(a_submission(), submission_id="A" * 32)),
    ("last seq", replace(a_submission(), last_seq=-1)),
    ("last seq", replace(a_submission(), last_seq=2**70)),
    ("page id", replace(a_submission(), page_id="")),
]


@pytest.mark.parametrize(("complaint", "handed_in"), WRONG)
def test_masks_and_ids_that_do_not_fit_are_refused(
    db: Database, complaint: str, handed_in: Submission
) -> None:
    campaign, ada = a_campaign(db), a_person(db)
    lease = a_lease(db, campaign, ada)
    with pytest.raises(BadInputError, match=complaint):
        submit(db, lease.key, handed_in, now=NOW)
    assert task(db, lease.task.task_id, ada).state == "leased"
    assert campaign_state(db, campaign.campaign_id, now=NOW).masks == 0


def test_every_proposal_needs_an_answer(db: Database) -> None:
    _, lease = with_proposals(db)
    with pytest.raises(BadSubmissionError, match=r"\['p-1', 'p-2'\].*the image's 3"):
        hand_in(db, lease, PROPOSALS[0])
    with pytest.raises(UnknownTaskError):
        submit(db, replace(lease.key, task_id=99), a_submission(), now=NOW)
    with pytest.raises(BadInputError, match="no submission"):
        submission(db, "nothing")


def test_figures_see_every_submission_oldest_first(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submissions, "_AT_ONCE", 2)
    campaign = a_campaign(db, images=6)
    ada = a_person(db)
    for i in range(5):
        hand_in(db, a_lease(db, campaign, ada), an_object("a"), now=at(i))
    found = list(finished_tasks(db, campaign.campaign_id))
    assert [item.image_id for item in found] == list(range(101, 106))
    assert {(item.current, item.state, item.campaign.model_id) for item in found} == {
        (True, "accepted", "model-1")
    }
