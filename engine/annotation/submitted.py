"""What was handed in, and what was said of it, as the database has it.

judged = load_submissions(session, rows)            # in the rows' order
returned = returned_because(session, task_row, image_row)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.annotation.payloads import prompts_from_json
from engine.annotation.records import (
    DecoderKind,
    JudgedSubmission,
    Made,
    MaskObject,
    Returned,
    SubmittedObject,
    Verdict,
    VerdictKind,
)
from engine.annotation.tables import (
    AnnotatorRow,
    CampaignImageRow,
    ReviewRow,
    SubmissionRow,
    SubmittedObjectRow,
    TaskRow,
    VerdictRow,
)
from engine.records import Rle

__all__ = ["load_submissions", "returned_because"]


def load_submissions(session: Session, rows: Sequence[SubmissionRow]) -> list[JudgedSubmission]:
    """Return submissions with their masks and the verdicts on them, in the order of `rows`."""
    ids = [row.submission_id for row in rows]
    sizes, verdicts = _sizes(session, ids), _verdicts(session, ids)
    objects = defaultdict[str, list[SubmittedObject]](list)
    query = (
        select(SubmittedObjectRow)
        .where(SubmittedObjectRow.submission_id.in_(ids))
        .order_by(SubmittedObjectRow.submission_id, SubmittedObjectRow.position)
    )
    for item in session.scalars(query):
        verdict = verdicts.get((item.submission_id, item.object_id))
        found = _object(item, sizes[item.submission_id], verdict)
        objects[item.submission_id].append(found)
    reviewers = _reviewers(session, ids)
    people = session.execute(
        select(AnnotatorRow.annotator_id, AnnotatorRow.name).where(
            AnnotatorRow.annotator_id.in_({row.annotator_id for row in rows})
        )
    )
    names = dict(people.tuples().all())
    return [
        _submission(
            row,
            names[row.annotator_id],
            reviewers.get(row.submission_id),
            objects[row.submission_id],
        )
        for row in rows
    ]


def returned_because(session: Session, row: TaskRow, image: CampaignImageRow) -> Returned | None:
    """Return why a task came back; None: it did not."""
    if row.submission_id is None:
        return None
    review = session.scalar(
        select(ReviewRow).where(
            ReviewRow.submission_id == row.submission_id, ReviewRow.state == "returned"
        )
    )
    if review is None:
        return None
    verdicts = session.scalars(
        select(VerdictRow)
        .where(VerdictRow.review_id == review.review_id)
        .order_by(VerdictRow.object_id)
    )
    return Returned(
        reason=review.reason,
        verdicts=tuple(
            Verdict(
                object_id=verdict.object_id,
                kind=cast(VerdictKind, verdict.kind),
                reason=verdict.reason,
                rle=_fixed(verdict, (image.height, image.width)),
            )
            for verdict in verdicts
        ),
        judged_at=review.judged_at,
    )


def _sizes(session: Session, ids: Sequence[str]) -> Mapping[str, tuple[int, int]]:
    """Return (height, width) of the image of each submission."""
    query = (
        select(SubmissionRow.submission_id, CampaignImageRow.height, CampaignImageRow.width)
        .join(TaskRow, TaskRow.task_id == SubmissionRow.task_id)
        .join(
            CampaignImageRow,
            (CampaignImageRow.campaign_id == TaskRow.campaign_id)
            & (CampaignImageRow.image_id == TaskRow.image_id),
        )
        .where(SubmissionRow.submission_id.in_(ids))
    )
    rows = session.execute(query)
    return {submission_id: (height, width) for submission_id, height, width in rows}


def _verdicts(session: Session, ids: Sequence[str]) -> Mapping[tuple[str, str], VerdictRow]:
    query = (
        select(ReviewRow.submission_id, VerdictRow)
        .join(VerdictRow, VerdictRow.review_id == ReviewRow.review_id)
        .where(ReviewRow.submission_id.in_(ids))
    )
    return {(of, verdict.object_id): verdict for of, verdict in session.execute(query)}


def _reviewers(session: Session, ids: Sequence[str]) -> Mapping[str, str]:
    query = select(ReviewRow.submission_id, ReviewRow.reviewer_id).where(
        ReviewRow.submission_id.in_(ids)
    )
    return dict(session.execute(query).tuples().all())


def _submission(
    row: SubmissionRow,
    annotator: str,
    reviewer_id: str | None,
    objects: Sequence[SubmittedObject],
) -> JudgedSubmission:
    return JudgedSubmission(
        submission_id=row.submission_id,
        task_id=row.task_id,
        annotator_id=row.annotator_id,
        annotator=annotator,
        round=row.round,
        submitted_at=row.submitted_at,
        exhaustive=row.exhaustive,
        active_seconds=row.active_seconds,
        unattributed_seconds=row.unattributed_seconds,
        objects=tuple(item for item in objects if item.made != "deleted"),
        deleted=tuple(item for item in objects if item.made == "deleted"),
        reviewer_id=reviewer_id,
    )


def _object(
    row: SubmittedObjectRow, size_HW: tuple[int, int], verdict: VerdictRow | None
) -> SubmittedObject:
    height, width = size_HW
    mask = MaskObject(
        object_id=row.object_id,
        rle=Rle(height, width, row.counts),
        proposal=row.made != "new",
        predicted_iou=row.predicted_iou,
        prompts=prompts_from_json(row.prompts),
        decoder=cast(DecoderKind | None, row.decoder),
        accepted=row.accepted,
    )
    return SubmittedObject(
        mask=mask,
        made=cast(Made, row.made),
        active_seconds=row.active_seconds,
        clicks=row.clicks,
        strokes=row.strokes,
        verdict=None if verdict is None else cast(VerdictKind, verdict.kind),
        fixed=None if verdict is None else _fixed(verdict, size_HW),
    )


def _fixed(verdict: VerdictRow, size_HW: tuple[int, int]) -> Rle | None:
    return None if verdict.counts is None else Rle(*size_HW, verdict.counts)
