"""Submissions: the finished masks of a task, handed in once, however often they are sent.

    receipt = submit(db, lease.key, Submission(submission_id=str(uuid4()), ...), now=now)

The id is the client's: whoever does not hear the answer sends the same again and gets the same
receipt, also after the lease is over. The masks are checked before they are taken: all of them
are, or none.
"""

from __future__ import annotations

import math
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from engine.annotation.campaigns import campaign
from engine.annotation.database import Database
from engine.annotation.drafts import draft_of, put_draft
from engine.annotation.errors import BadSubmissionError, UnknownTaskError
from engine.annotation.events import (
    active_seconds_by_object,
    check_events,
    events_in,
    log_events,
    require_events,
)
from engine.annotation.leases import end_lease, locked_task, require_lease
from engine.annotation.payloads import prompts_to_json
from engine.annotation.proposals import check_masks, proposals_of_image
from engine.annotation.records import (
    DraftContent,
    FinishedTask,
    JudgedSubmission,
    LeaseKey,
    LoggedEvent,
    Made,
    MaskObject,
    Receipt,
    Submission,
    TaskState,
)
from engine.annotation.submitted import load_submissions
from engine.annotation.tables import (
    CampaignImageRow,
    CampaignRow,
    SubmissionRow,
    SubmittedObjectRow,
    TaskRow,
)
from engine.errors import BadInputError
from engine.masks import mask_iou

__all__ = ["check_uuid", "finished_tasks", "submission", "submit"]

_AT_ONCE = 64
_CLICKS, _STROKES = frozenset({"click", "box"}), frozenset({"stroke"})


@dataclass(frozen=True, slots=True)
class _Made:
    """A mask, or a deleted proposal, and how it came to be."""

    mask: MaskObject
    made: Made


def submit(db: Database, key: LeaseKey, handed_in: Submission, *, now: datetime) -> Receipt:
    """Take the finished masks of a task; it is then done, or waits for a review.

    Returns:
        What became of it; the same again for the same submission.

    Raises:
        LeaseLostError: the task is another's, and this submission was not taken before.
        MissingEventsError: events up to `last_seq` are neither in the log nor in the submission.
        BadSubmissionError: masks that do not fit the image or the proposals, or an id that
            another task's submission has.
        UnknownTaskError: there is no such task.
        BadInputError: an id or an event that is none.
    """
    check_uuid("submission id", handed_in.submission_id)
    check_events(handed_in.page_id, handed_in.events)
    with db.reading() as session:
        if (receipt := _taken(session, key, handed_in)) is not None:
            return receipt
        height, width, proposals = _expected(session, key)
    # Masks are decoded before the database's one writer is asked for its turn.
    objects = _judge_objects(handed_in, proposals, height, width)
    with db.writing() as session:
        row = locked_task(session, key.task_id)
        if (receipt := _taken(session, key, handed_in)) is not None:
            return receipt
        require_lease(row, key, "leased")
        log_events(session, key, handed_in.page_id, handed_in.events, now)
        require_events(session, key, handed_in.page_id, handed_in.last_seq)
        _store(session, row, handed_in, objects, now)
        receipt = _taken(session, key, handed_in)
    if receipt is None:
        raise UnknownTaskError(f"submission {handed_in.submission_id} was not stored")
    return receipt


def submission(db: Database, submission_id: str) -> JudgedSubmission:
    """Return a submission with what a reviewer said of it.

    Raises:
        BadInputError: there is none.
    """
    with db.reading() as session:
        row = session.get(SubmissionRow, submission_id)
        if row is None:
            raise BadInputError(f"there is no submission {submission_id!r}")
        return load_submissions(session, [row])[0]


def finished_tasks(db: Database, campaign_id: str) -> Iterator[FinishedTask]:
    """Yield a campaign's submissions, oldest first; memory does not grow with them.

    Raises:
        UnknownCampaignError: there is no such campaign.
    """
    value = campaign(db, campaign_id)
    with db.reading() as session:
        ids = session.scalars(
            select(SubmissionRow.submission_id)
            .join(TaskRow, TaskRow.task_id == SubmissionRow.task_id)
            .where(TaskRow.campaign_id == value.campaign_id)
            .order_by(SubmissionRow.submitted_at, SubmissionRow.task_id, SubmissionRow.round)
        ).all()
    for start in range(0, len(ids), _AT_ONCE):
        with db.reading() as session:
            rows = session.execute(
                select(SubmissionRow, TaskRow)
                .join(TaskRow, TaskRow.task_id == SubmissionRow.task_id)
                .where(SubmissionRow.submission_id.in_(ids[start : start + _AT_ONCE]))
                .order_by(SubmissionRow.submitted_at, SubmissionRow.task_id, SubmissionRow.round)
            ).all()
            judged = load_submissions(session, [row for row, _ in rows])
            finished = [
                FinishedTask(
                    campaign=value,
                    image_id=task.image_id,
                    submission=found,
                    current=task.submission_id == row.submission_id,
                    state=cast(TaskState, task.state),
                )
                for (row, task), found in zip(rows, judged, strict=True)
            ]
        yield from finished


def check_uuid(what: str, text: str) -> None:
    """Check an id that a client drew at random.

    Raises:
        BadInputError: it is no UUID in its usual form.
    """
    try:
        is_one = str(uuid.UUID(text)) == text
    except ValueError:
        is_one = False
    if not is_one:
        raise BadInputError(f"got the {what} {text[:80]!r}; expected a UUID in lower case")


def _taken(session: Session, key: LeaseKey, handed_in: Submission) -> Receipt | None:
    """Return the receipt of a submission that was taken before; None: it was not."""
    row = session.get(SubmissionRow, handed_in.submission_id)
    if row is None:
        return None
    if (row.task_id, row.annotator_id) != (key.task_id, key.annotator_id):
        raise BadSubmissionError(
            f"submission {row.submission_id} is another task's; draw a new id for each"
        )
    query = (
        select(SubmittedObjectRow.made, func.count())
        .where(SubmittedObjectRow.submission_id == row.submission_id)
        .group_by(SubmittedObjectRow.made)
    )
    counts = dict(session.execute(query).tuples().all())
    return Receipt(
        submission_id=row.submission_id,
        task_id=row.task_id,
        annotator_id=row.annotator_id,
        state=cast(TaskState, row.state),
        kept=counts.get("kept", 0),
        corrected=counts.get("corrected", 0),
        new=counts.get("new", 0),
        deleted=counts.get("deleted", 0),
        active_seconds=row.active_seconds,
        submitted_at=row.submitted_at,
    )


def _expected(session: Session, key: LeaseKey) -> tuple[int, int, Mapping[str, MaskObject]]:
    """Return the image's height and width, and its proposals by id: they do not change any more."""
    row = session.get(TaskRow, key.task_id) if 0 < key.task_id < 2**31 else None
    if row is None:
        raise UnknownTaskError(f"there is no task {key.task_id}")
    image = session.get_one(CampaignImageRow, (row.campaign_id, row.image_id))
    require_lease(row, key, "leased")
    proposals = {item.object_id: item for item in proposals_of_image(session, image)}
    return image.height, image.width, proposals


def _judge_objects(
    handed_in: Submission, proposals: Mapping[str, MaskObject], height: int, width: int
) -> list[_Made]:
    """Check the masks; say of each, and of each deleted proposal, how it came to be."""
    check_masks(handed_in.objects, height, width)
    ids, deleted = {item.object_id for item in handed_in.objects}, set(handed_in.deleted)
    if both := sorted(ids & deleted):
        raise BadSubmissionError(f"got {both[:3]} both as objects and as deleted")
    if missing := sorted(proposals.keys() - ids - deleted):
        raise BadSubmissionError(
            f"got nothing about the proposals {missing[:3]}; expected each of the image's "
            f"{len(proposals)} among the objects or the deleted ones"
        )
    made = []
    for item in handed_in.objects:
        proposal = proposals.get(item.object_id)
        if item.proposal and proposal is None:
            raise BadSubmissionError(f"object {item.object_id}: the image has no such proposal")
        if item.predicted_iou is not None and not math.isfinite(item.predicted_iou):
            raise BadSubmissionError(f"object {item.object_id}: the predicted IoU is no number")
        made.append(_Made(item, _how(item, proposal)))
    # Objects that were made and deleted again are in the event log only.
    gone = [_Made(proposals[i], "deleted") for i in proposals if i in deleted]
    return made + gone


def _how(item: MaskObject, proposal: MaskObject | None) -> Made:
    if proposal is None:
        return "new"
    if item.rle == proposal.rle:
        return "kept"
    # Other writers spell the same mask differently.
    return "kept" if mask_iou([item.rle], [proposal.rle])[0, 0] == 1.0 else "corrected"


def _store(
    session: Session,
    row: TaskRow,
    handed_in: Submission,
    objects: Sequence[_Made],
    now: datetime,
) -> None:
    """Write the submission and let the task go on."""
    annotator_id = str(row.annotator_id)
    needs_review = session.get_one(CampaignRow, row.campaign_id).review
    end_lease(row, "submitted" if needs_review else "accepted", now)
    events = events_in(session, row.task_id, annotator_id)
    seconds = active_seconds_by_object(events)
    row.round += 1
    row.submission_id = handed_in.submission_id
    session.add(
        SubmissionRow(
            submission_id=handed_in.submission_id,
            task_id=row.task_id,
            annotator_id=annotator_id,
            round=row.round,
            page_id=handed_in.page_id,
            last_seq=handed_in.last_seq,
            exhaustive=handed_in.exhaustive,
            active_seconds=seconds.total,
            unattributed_seconds=seconds.unattributed,
            state=row.state,
            submitted_at=now,
        )
    )
    session.flush()
    if objects:
        session.execute(insert(SubmittedObjectRow), _rows(handed_in, objects, events))
    if draft_of(session, row.task_id, annotator_id) is not None:
        # What was in it is now here. Its version must not be given out a second time.
        put_draft(session, row.task_id, annotator_id, DraftContent(), now)


def _rows(
    handed_in: Submission, objects: Sequence[_Made], events: Sequence[LoggedEvent]
) -> list[dict[str, object]]:
    seconds = active_seconds_by_object(events).by_object
    clicks = Counter(e.event.object_id for e in events if e.event.kind in _CLICKS)
    strokes = Counter(e.event.object_id for e in events if e.event.kind in _STROKES)
    return [
        {
            "submission_id": handed_in.submission_id,
            "object_id": item.mask.object_id,
            "position": position,
            "made": item.made,
            "counts": item.mask.rle.counts,
            "predicted_iou": item.mask.predicted_iou,
            "prompts": prompts_to_json(item.mask.prompts),
            "decoder": item.mask.decoder,
            "accepted": item.mask.accepted,
            "active_seconds": seconds.get(item.mask.object_id, 0.0),
            "clicks": clicks[item.mask.object_id],
            "strokes": strokes[item.mask.object_id],
        }
        for position, item in enumerate(objects)
    ]
