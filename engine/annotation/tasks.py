"""Tasks: one image for one person; leased, worked on, given back or skipped.

    lease = lease_next(db, campaign_id, annotator_id, now=now)       # or NothingToDo, with why
    heartbeat(db, lease.key, now=now)                                # every half of lease.seconds

What a person gets next: what they are working on; what came back to them; the next image that
nobody has; an image that somebody left. Never an image that they have, or had, in another slot.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import ColumnElement, and_, exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from engine.annotation.annotators import lock_annotator
from engine.annotation.campaigns import campaign_of_row, image_of_row
from engine.annotation.database import Database
from engine.annotation.drafts import draft_of, put_draft
from engine.annotation.errors import UnknownCampaignError, UnknownTaskError
from engine.annotation.leases import LEASE_SECONDS, check_seconds, end_lease, held_task, take
from engine.annotation.proposals import proposals_of_image
from engine.annotation.records import (
    CampaignImage,
    Lease,
    LeaseKey,
    NothingReason,
    NothingToDo,
    Task,
    TaskState,
)
from engine.annotation.submitted import returned_because
from engine.annotation.tables import CampaignImageRow, CampaignRow, SubmissionRow, TaskRow
from engine.annotation.texts import MAX_REASON, check_text
from engine.errors import BadInputError

__all__ = [
    "campaign_row",
    "give_back",
    "heartbeat",
    "lease_next",
    "lease_of",
    "skip",
    "task",
    "tasks_by_state",
    "upcoming",
]

_MOST_UPCOMING, _MOST_FINISHED = 50, 500


def lease_next(
    db: Database,
    campaign_id: str,
    annotator_id: str,
    *,
    now: datetime,
    seconds: int = LEASE_SECONDS,
    finished: Collection[int] = (),
) -> Lease | NothingToDo:
    """Give a person their next task; the one that they are working on, if there is one.

    Then the lease is a new one, and the tab that had the task before loses it.

    Args:
        db: the database.
        campaign_id: of which campaign.
        annotator_id: who asks.
        now: UTC.
        seconds: how long the lease is.
        finished: tasks that the person has finished, but could not hand in yet: they are not
            given, and their leases go on.

    Raises:
        UnknownCampaignError: there is no such campaign.
        NotAllowedError: the person was revoked.
        BadInputError: nobody has this id, or a lease of no useful length.
    """
    check_seconds(seconds)
    if len(finished) > _MOST_FINISHED or not all(0 < number < 2**31 for number in finished):
        raise BadInputError(f"got {len(finished)} finished tasks; expected {_MOST_FINISHED} ids")
    with db.writing() as session:
        lock_annotator(session, annotator_id)
        campaign = campaign_row(session, campaign_id)
        _keep(session, annotator_id, finished, now + timedelta(seconds=seconds))
        is_due = TaskRow.task_id.not_in(finished)
        for condition in _preferences(campaign, annotator_id, now):
            due = and_(condition, is_due)
            row = take(session, due, "leased", annotator_id, now=now, seconds=seconds)
            if row is not None:
                _inherit_draft(session, row, now)
                return lease_of(session, row, seconds)
        return _nothing(session, campaign)


def upcoming(
    db: Database, campaign_id: str, annotator_id: str, n: int, *, now: datetime
) -> tuple[CampaignImage, ...]:
    """Return the images that `lease_next` would give after the present one, if nobody else asked.

    Raises:
        UnknownCampaignError: there is no such campaign.
        BadInputError: a number below 0 or above 50.
    """
    if not 0 <= n <= _MOST_UPCOMING:
        raise BadInputError(f"got {n} images to look ahead; expected 0 to {_MOST_UPCOMING}")
    found: dict[int, CampaignImage] = {}
    with db.reading() as session:
        campaign = campaign_row(session, campaign_id)
        _, *preferences = _preferences(campaign, annotator_id, now)
        for condition in preferences:
            if len(found) >= n:
                break
            query = (
                select(CampaignImageRow)
                .join(TaskRow, _is_its_image())
                .where(condition, CampaignImageRow.image_id.not_in(found))
                .order_by(TaskRow.position, TaskRow.slot)
                # An image comes once for each of its slots.
                .limit((n - len(found)) * campaign.annotators_per_image)
            )
            images = (image_of_row(row) for row in session.scalars(query))
            found |= {image.image_id: image for image in images}
    return tuple(found.values())[:n]


def task(db: Database, task_id: int, annotator_id: str) -> Task:
    """Return a task as it is now, with the draft of the person who asks.

    Raises:
        UnknownTaskError: there is no such task.
    """
    with db.reading() as session:
        row = session.get(TaskRow, task_id) if 0 < task_id < 2**31 else None
        if row is None:
            raise UnknownTaskError(f"there is no task {task_id}")
        return _task(session, row, annotator_id)


def heartbeat(
    db: Database, key: LeaseKey, *, now: datetime, seconds: int = LEASE_SECONDS
) -> datetime:
    """Keep a task; return until when. Works for reviews as well.

    Raises:
        LeaseLostError: the task is another's.
        UnknownTaskError: there is no such task.
        BadInputError: a lease of no useful length.
    """
    check_seconds(seconds)
    with db.writing() as session:
        row = held_task(session, key, "leased", "reviewing")
        row.lease_expires_at = now + timedelta(seconds=seconds)
        return row.lease_expires_at


def give_back(db: Database, key: LeaseKey, *, now: datetime) -> None:
    """Stop working on a task: others may take it at once. The draft stays with the person.

    Raises:
        LeaseLostError: the task is another's.
        UnknownTaskError: there is no such task.
    """
    with db.writing() as session:
        row = held_task(session, key, "leased", "reviewing")
        if row.state == "reviewing":
            end_lease(row, "submitted", now)
        elif row.round:
            end_lease(row, "returned", now)
        else:
            end_lease(row, "open", now)
            row.annotator_id = None


def skip(db: Database, key: LeaseKey, reason: str, *, now: datetime) -> None:
    """Leave a task undone for good, and say why.

    Raises:
        LeaseLostError: the task is another's.
        UnknownTaskError: there is no such task.
        BadInputError: there is no reason, or one that is too long.
    """
    reason = reason.strip()
    if not reason:
        raise BadInputError("got no reason; expected why the image cannot be annotated")
    check_text("reason", reason, MAX_REASON)
    with db.writing() as session:
        row = held_task(session, key, "leased")
        end_lease(row, "skipped", now)
        row.skip_reason = reason


def campaign_row(session: Session, campaign_id: str) -> CampaignRow:
    """Return a campaign.

    Raises:
        UnknownCampaignError: there is none with this id.
    """
    row = session.get(CampaignRow, campaign_id)
    if row is None:
        raise UnknownCampaignError(f"there is no campaign {campaign_id!r}")
    return row


def tasks_by_state(session: Session, campaign_id: str) -> dict[str, int]:
    """Return how many tasks of a campaign are in each state that one is in."""
    query = (
        select(TaskRow.state, func.count())
        .where(TaskRow.campaign_id == campaign_id)
        .group_by(TaskRow.state)
    )
    return dict(session.execute(query).tuples().all())


def lease_of(session: Session, row: TaskRow, seconds: int) -> Lease:
    """Return the lease that was just taken."""
    if row.lease_id is None or row.leased_by is None or row.lease_expires_at is None:
        raise BadInputError(f"task {row.task_id} is not leased")
    return Lease(
        task=_task(session, row, row.leased_by),
        key=LeaseKey(task_id=row.task_id, annotator_id=row.leased_by, lease_id=row.lease_id),
        seconds=seconds,
        expires_at=row.lease_expires_at,
    )


def _preferences(
    campaign: CampaignRow, annotator_id: str, now: datetime
) -> Iterator[ColumnElement[bool]]:
    """Yield conditions of the tasks that a person may get, best first.

    One by one they are answered by an index; a single query of all would have to sort every task.
    """
    state, mine = TaskRow.state, TaskRow.annotator_id == annotator_id
    of_campaign = TaskRow.campaign_id == campaign.campaign_id
    yield and_(of_campaign, state == "leased", TaskRow.leased_by == annotator_id)
    if campaign.closed_at is not None:
        return
    other = aliased(TaskRow)
    not_in_another_slot = ~exists().where(
        other.campaign_id == TaskRow.campaign_id,
        other.image_id == TaskRow.image_id,
        other.annotator_id == annotator_id,
        other.task_id != TaskRow.task_id,
    )
    # After its annotator was revoked a returned task is anybody's.
    anybodys = and_(TaskRow.annotator_id.is_(None), not_in_another_slot)
    yield and_(of_campaign, state == "returned", or_(mine, anybodys))
    yield and_(of_campaign, state == "open", not_in_another_slot)
    # What came back to somebody stays theirs, also while they pause.
    is_left = and_(TaskRow.lease_expires_at <= now, TaskRow.round == 0)
    yield and_(of_campaign, state == "leased", is_left, not_in_another_slot)


def _keep(session: Session, annotator_id: str, task_ids: Collection[int], until: datetime) -> None:
    """Let leases that a person has go on."""
    if task_ids:
        session.execute(
            update(TaskRow)
            .where(
                TaskRow.task_id.in_(task_ids),
                TaskRow.state == "leased",
                TaskRow.leased_by == annotator_id,
            )
            .values(lease_expires_at=until)
        )


def _nothing(session: Session, campaign: CampaignRow) -> NothingToDo:
    if campaign.closed_at is not None:
        return NothingToDo(reason="closed", message="This campaign is closed.")
    reason, message = _why_nothing(tasks_by_state(session, campaign.campaign_id))
    return NothingToDo(reason=reason, message=message)


def _why_nothing(counts: dict[str, int]) -> tuple[NothingReason, str]:
    if not counts:
        return "no-images", "This campaign has no images yet."
    if "pending" in counts:
        return "all-leased", "The model is preparing more images; they come in a few minutes."
    if counts.keys() & {"leased", "returned"}:
        return "all-leased", "Others are working on what is left; it may come back to you."
    if "open" in counts:
        return "all-leased", "What is left is for others: you have annotated these images already."
    if counts.keys() & {"submitted", "reviewing"}:
        return "needs-review", "Everything is annotated; some of it waits for a review."
    return "all-done", "Every image of this campaign is done."


def _inherit_draft(session: Session, row: TaskRow, now: datetime) -> None:
    """Let whoever takes over a returned task go on from what came back to the person before."""
    if not row.round or row.annotator_id is None or row.submission_id is None:
        return
    if draft_of(session, row.task_id, row.annotator_id) is not None:
        return
    submission = session.get_one(SubmissionRow, row.submission_id)
    before = draft_of(session, row.task_id, submission.annotator_id)
    if before is not None:
        put_draft(session, row.task_id, row.annotator_id, before.content, now)


def _task(session: Session, row: TaskRow, annotator_id: str) -> Task:
    campaign = session.get_one(CampaignRow, row.campaign_id)
    image = session.get_one(CampaignImageRow, (row.campaign_id, row.image_id))
    return Task(
        task_id=row.task_id,
        campaign=campaign_of_row(campaign),
        image=image_of_row(image),
        slot=row.slot,
        state=cast(TaskState, row.state),
        annotator_id=row.annotator_id,
        round=row.round,
        proposals=proposals_of_image(session, image),
        draft=draft_of(session, row.task_id, annotator_id),
        returned=returned_because(session, row, image),
        skip_reason=row.skip_reason,
    )


def _is_its_image() -> ColumnElement[bool]:
    return and_(
        CampaignImageRow.campaign_id == TaskRow.campaign_id,
        CampaignImageRow.image_id == TaskRow.image_id,
    )
