"""The event log takes each event once; active seconds follow from it alone."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.annotation.database import Database
from engine.annotation.errors import LeaseLostError
from engine.annotation.events import (
    LONGEST_GAP_MS,
    active_seconds_by_object,
    append_events,
    events_of,
)
from engine.annotation.records import ActiveSeconds, Event, LoggedEvent
from engine.errors import BadInputError
from tests.annotation.annotation_builders import (
    NOW,
    PAGE,
    a_campaign,
    a_lease,
    a_person,
    an_object,
    at,
    hand_in,
    some_events,
)


def logged(*events: Event, page: str = PAGE, person: str = "ada") -> list[LoggedEvent]:
    return [LoggedEvent(annotator_id=person, page_id=page, event=event) for event in events]


def test_events_are_taken_once_in_whatever_batches(db: Database) -> None:
    campaign, ada = a_campaign(db), a_person(db)
    lease = a_lease(db, campaign, ada)
    events = some_events((0, None), (1, "a"), (2, "a"), (3, "b"))
    assert append_events(db, lease.key, PAGE, events[:3], now=NOW) == 3
    assert append_events(db, lease.key, PAGE, events[:3], now=NOW) == 0
    assert append_events(db, lease.key, PAGE, [*events[2:], events[3]], now=NOW) == 1
    assert append_events(db, lease.key, PAGE, [], now=NOW) == 0
    assert events_of(db, lease.task.task_id) == tuple(logged(*events, person=ada))


def test_the_first_event_of_a_number_counts(db: Database) -> None:
    lease = a_lease(db, a_campaign(db), a_person(db))
    first, other = some_events((0, "a"))[0], some_events((5, "b"))[0]
    append_events(db, lease.key, PAGE, [first, other], now=NOW)
    append_events(db, lease.key, PAGE, [other], now=NOW)
    assert [e.event for e in events_of(db, lease.task.task_id)] == [first]


def test_pages_and_people_number_their_events_alone(db: Database) -> None:
    campaign = a_campaign(db, images=1)
    ada, bob = a_person(db, "Ada"), a_person(db, "Bob")
    hers = a_lease(db, campaign, ada)
    append_events(db, hers.key, "page-1", some_events((0, "a")), now=NOW)
    append_events(db, hers.key, "page-2", some_events((1, "a")), now=NOW)
    his = a_lease(db, campaign, bob, at(1000))
    append_events(db, his.key, "page-1", some_events((1000, "a")), now=at(1000))
    task_id = hers.task.task_id
    assert len(events_of(db, task_id)) == 3
    assert len(events_of(db, task_id, ada)) == 2
    assert [e.page_id for e in events_of(db, task_id, bob)] == ["page-1"]


def test_what_was_stored_may_come_again_after_the_lease_but_nothing_new(db: Database) -> None:
    lease = a_lease(db, a_campaign(db), a_person(db))
    events = some_events((0, "a"), (1, "a"), (2, "a"))
    append_events(db, lease.key, PAGE, events[:2], now=NOW)
    hand_in(db, lease, an_object("a"))
    assert append_events(db, lease.key, PAGE, events[:2], now=NOW) == 0
    with pytest.raises(LeaseLostError):
        append_events(db, lease.key, PAGE, events, now=NOW)


@pytest.mark.parametrize(
    "event",
    [
        Event(seq=0, at_ms=0, kind="click"),
        Event(seq=2**63, at_ms=0, kind="click"),
        Event(seq=1, at_ms=-1, kind="click"),
        Event(seq=1, at_ms=2**63, kind="click"),
        Event(seq=1, at_ms=0, kind=""),
        Event(seq=1, at_ms=0, kind="x" * 33),
        Event(seq=1, at_ms=0, kind="a\x00"),
        Event(seq=1, at_ms=0, kind="click", object_id="a b"),
        Event(seq=1, at_ms=0, kind="click", data="\ud800"),
        Event(seq=1, at_ms=0, kind="click", data="x" * 1_000_001),
    ],
)
def test_events_that_are_none_are_refused(db: Database, event: Event) -> None:
    lease = a_lease(db, a_campaign(db), a_person(db))
    with pytest.raises(BadInputError):
        append_events(db, lease.key, PAGE, [event], now=NOW)
    with pytest.raises(BadInputError, match="page id"):
        append_events(db, lease.key, "", some_events((0, "a")), now=NOW)


def test_a_gap_is_the_later_events_and_at_most_ten_seconds() -> None:
    events = some_events((0, None), (2, "a"), (3, "a"), (63, "b"), (64, None), (64.5, "b"))
    assert active_seconds_by_object(logged(*events)) == ActiveSeconds(
        total=14.5, by_object={"a": 3.0, "b": 10.5}, unattributed=1.0
    )


def test_no_event_and_one_event_take_no_time() -> None:
    assert active_seconds_by_object([]).total == 0
    assert active_seconds_by_object(logged(*some_events((5, "a")))).total == 0


def test_the_time_between_two_people_is_nobodys() -> None:
    hers, his = some_events((0, "a"), (1, "a")), some_events((4, "a"), (6, "a"))
    together = [*logged(*hers), *logged(*his, person="bob")]
    assert active_seconds_by_object(together).by_object == {"a": 3.0}


EVENTS = st.lists(
    st.tuples(st.integers(0, 60_000), st.sampled_from(["a", "b", "c", None]), st.integers(1, 3)),
    max_size=30,
).map(
    lambda found: [
        LoggedEvent(
            annotator_id="ada",
            page_id=f"page-{page}",
            event=Event(seq=seq, at_ms=at_ms, kind="click", object_id=object_id),
        )
        for seq, (at_ms, object_id, page) in enumerate(found, start=1)
    ]
)


@given(EVENTS)
def test_the_parts_add_up_to_the_total(events: list[LoggedEvent]) -> None:
    seconds = active_seconds_by_object(events)
    assert sum(seconds.by_object.values()) + seconds.unattributed == pytest.approx(seconds.total)
    assert seconds.total <= max(len(events) - 1, 0) * LONGEST_GAP_MS / 1000
    assert min([seconds.unattributed, *seconds.by_object.values()]) >= 0


@given(EVENTS, st.randoms(use_true_random=False))
def test_order_and_repetition_make_no_difference(
    events: list[LoggedEvent], random_order: random.Random
) -> None:
    again = [*events, *events[::2]]
    random_order.shuffle(again)
    assert active_seconds_by_object(again) == active_seconds_by_object(events)


@pytest.mark.parametrize(("size", "overlap"), [(1, 0), (3, 1), (4, 3), (50, 0)])
def test_batches_and_replays_make_no_difference_to_the_seconds(
    db: Database, size: int, overlap: int
) -> None:
    lease = a_lease(db, a_campaign(db), a_person(db))
    events = some_events(*((i * i * 0.3, "ab"[i % 2] if i % 5 else None) for i in range(20)))
    for start in range(0, len(events), size - overlap):
        append_events(db, lease.key, PAGE, events[start : start + size], now=NOW)
    stored = active_seconds_by_object(events_of(db, lease.task.task_id))
    assert stored == active_seconds_by_object(logged(*events, person=lease.key.annotator_id))
    assert stored.total > 20
