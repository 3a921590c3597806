"""The log of what people did: events are added, once each, and never changed.

    append_events(db, key, page_id, events, now=now)
    active_seconds_by_object(events_of(db, task_id)).by_object

Active seconds are the gaps between a person's events on a task, each counted as at most 10 s, and
given to the object of the later event: whoever goes for a coffee costs the mask 10 s, not 600.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice, pairwise

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import Session

from engine.annotation.database import Database, insert_new
from engine.annotation.errors import LeaseLostError, MissingEventsError
from engine.annotation.leases import held_task
from engine.annotation.records import ActiveSeconds, Event, LeaseKey, LoggedEvent
from engine.annotation.tables import EventRow
from engine.annotation.texts import check_id, check_text
from engine.errors import BadInputError

__all__ = [
    "LONGEST_GAP_MS",
    "active_seconds_by_object",
    "append_events",
    "check_events",
    "events_in",
    "events_of",
    "log_events",
    "require_events",
]

LONGEST_GAP_MS = 10_000

_MAX_SEQ = 10_000_000
_MAX_AT_MS = 2**53
_MAX_DATA = 1_000_000
_NAMED = 20


def append_events(
    db: Database, key: LeaseKey, page_id: str, events: Sequence[Event], *, now: datetime
) -> int:
    """Add events to the log; those that it has already, by page and `seq`, are passed over.

    Also events that were stored before the lease ended may be sent again.

    Returns:
        Number of events that were new.

    Raises:
        LeaseLostError: the task is another's, or was handed in, and an event is new.
        UnknownTaskError: there is no such task.
        BadInputError: an event that is none.
    """
    check_events(page_id, events)
    if not events:
        return 0
    with db.writing() as session:
        try:
            held_task(session, key, "leased", "reviewing")
        except LeaseLostError:
            stored = _seqs(session, key, page_id, 1)
            if any(event.seq not in stored for event in events):
                raise
            return 0
        return log_events(session, key, page_id, events, now)


def events_of(
    db: Database, task_id: int, annotator_id: str | None = None
) -> tuple[LoggedEvent, ...]:
    """Return the events of a task, of one person or of all, by person, time, page and `seq`."""
    with db.reading() as session:
        return events_in(session, task_id, annotator_id)


def active_seconds_by_object(events: Iterable[LoggedEvent]) -> ActiveSeconds:
    """Return the time that events tell of; their order, and repetitions, make no difference.

    Args:
        events: of one task. The time between events of different people is nobody's.
    """
    unique = {(e.annotator_id, e.page_id, e.event.seq): e for e in events}
    by_person = defaultdict[str, list[LoggedEvent]](list)
    for event in unique.values():
        by_person[event.annotator_id].append(event)
    objects = defaultdict[str, int](int)
    nobodys = 0
    for own in by_person.values():
        own.sort(key=lambda e: (e.event.at_ms, e.page_id, e.event.seq))
        for earlier, later in pairwise(own):
            gap = min(later.event.at_ms - earlier.event.at_ms, LONGEST_GAP_MS)
            if later.event.object_id is None:
                nobodys += gap
            else:
                objects[later.event.object_id] += gap
    return ActiveSeconds(
        total=(sum(objects.values()) + nobodys) / 1000,
        by_object={object_id: ms / 1000 for object_id, ms in sorted(objects.items())},
        unattributed=nobodys / 1000,
    )


def check_events(page_id: str, events: Sequence[Event]) -> None:
    """Check events that a client sent.

    Raises:
        BadInputError: a number out of bounds, or a text that is none.
    """
    check_id("page id", page_id)
    for event in events:
        if not 1 <= event.seq <= _MAX_SEQ or not 0 <= event.at_ms <= _MAX_AT_MS:
            raise BadInputError(
                f"got an event with seq {event.seq} at {event.at_ms} ms; expected a seq from 1 to "
                f"{_MAX_SEQ} and milliseconds since 1970"
            )
        if not 1 <= len(event.kind) <= 32:
            raise BadInputError(f"got the event kind {event.kind[:80]!r}; expected 1 to 32 letters")
        check_text("event kind", event.kind, 32)
        check_text("event's data", event.data, _MAX_DATA)
        if event.object_id is not None:
            check_id("object id", event.object_id)


def events_in(
    session: Session, task_id: int, annotator_id: str | None = None
) -> tuple[LoggedEvent, ...]:
    """Return the events of a task, of one person or of all, by person, time, page and `seq`."""
    query = (
        select(EventRow)
        .where(EventRow.task_id == task_id)
        .order_by(EventRow.annotator_id, EventRow.at_ms, EventRow.page_id, EventRow.seq)
    )
    if annotator_id is not None:
        query = query.where(EventRow.annotator_id == annotator_id)
    return tuple(
        LoggedEvent(
            annotator_id=row.annotator_id,
            page_id=row.page_id,
            event=Event(
                seq=row.seq,
                at_ms=row.at_ms,
                kind=row.kind,
                object_id=row.object_id,
                data=row.data,
            ),
        )
        for row in session.scalars(query)
    )


def log_events(
    session: Session, key: LeaseKey, page_id: str, events: Sequence[Event], now: datetime
) -> int:
    """Add events that were checked; return how many were new."""
    stored = _seqs(session, key, page_id, min((event.seq for event in events), default=1))
    new = {event.seq: event for event in reversed(events) if event.seq not in stored}
    if not new:
        return 0
    session.execute(
        insert_new(session, EventRow),
        [
            {
                "task_id": key.task_id,
                "annotator_id": key.annotator_id,
                "page_id": page_id,
                "seq": event.seq,
                "at_ms": event.at_ms,
                "kind": event.kind,
                "object_id": event.object_id,
                "data": event.data,
                "received_at": now,
            }
            for event in new.values()
        ],
    )
    return len(new)


def require_events(session: Session, key: LeaseKey, page_id: str, last_seq: int) -> None:
    """Check that the log has a page's events from 1 to `last_seq`.

    Raises:
        MissingEventsError: it does not.
        BadInputError: a `last_seq` that is none.
    """
    if not 0 <= last_seq <= _MAX_SEQ:
        raise BadInputError(f"got the last seq {last_seq}; expected 0 to {_MAX_SEQ}")
    query = select(func.count()).where(_of_page(key, page_id), EventRow.seq <= last_seq)
    present = session.scalar(query) or 0
    if present == last_seq:
        return
    stored = _seqs(session, key, page_id, 1)
    missing = tuple(islice((s for s in range(1, last_seq + 1) if s not in stored), _NAMED))
    raise MissingEventsError(
        f"{last_seq - present} of the page's {last_seq} events are missing, first number "
        f"{missing[0]}; send them, then hand the task in again",
        missing,
    )


def _seqs(session: Session, key: LeaseKey, page_id: str, first: int) -> set[int]:
    query = select(EventRow.seq).where(_of_page(key, page_id), EventRow.seq >= first)
    return set(session.scalars(query))


def _of_page(key: LeaseKey, page_id: str) -> ColumnElement[bool]:
    return and_(
        EventRow.task_id == key.task_id,
        EventRow.annotator_id == key.annotator_id,
        EventRow.page_id == page_id,
    )
