"""Reviews: a second person accepts, fixes or rejects each mask of a submission.

    lease = lease_review(db, campaign_id, reviewer_id, now=now)     # lease.submission
    judge(db, lease.key, str(uuid4()), [Verdict(object_id="a", kind="reject", reason="...")], ...)

Nobody reviews a task that they annotated, in whatever round. One rejected mask, or a word that
masks are missing, returns the task to its annotator, with the reasons, the accepted masks and the
fixes in the draft.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from itertools import combinations
from typing import cast

from sqlalchemy import and_, insert
from sqlalchemy.orm import Session

from engine.annotation.annotators import lock_annotator
from engine.annotation.campaigns import campaign, reviewable_by
from engine.annotation.database import Database
from engine.annotation.drafts import put_draft
from engine.annotation.errors import BadSubmissionError, NotAllowedError
from engine.annotation.leases import (
    LEASE_SECONDS,
    check_seconds,
    end_lease,
    locked_task,
    require_lease,
    take,
)
from engine.annotation.proposals import check_mask
from engine.annotation.records import (
    DraftContent,
    ImageAgreement,
    JudgedSubmission,
    Judgement,
    Lease,
    LeaseKey,
    MaskObject,
    NothingReason,
    NothingToDo,
    TaskState,
    Verdict,
)
from engine.annotation.submissions import check_uuid, finished_tasks
from engine.annotation.submitted import load_submissions
from engine.annotation.tables import (
    AnnotatorRow,
    CampaignRow,
    ReviewRow,
    SubmissionRow,
    TaskRow,
    VerdictRow,
)
from engine.annotation.tasks import campaign_row, lease_of, tasks_by_state
from engine.annotation.texts import MAX_REASON, check_text
from engine.masks import mask_iou
from engine.records import Rle

__all__ = ["agreement", "judge", "lease_review", "pair_agreement"]


def lease_review(
    db: Database,
    campaign_id: str,
    annotator_id: str,
    *,
    now: datetime,
    seconds: int = LEASE_SECONDS,
) -> Lease | NothingToDo:
    """Give a reviewer the next submission to judge; the one that they are judging, if there is one.

    Also of a closed campaign.

    Raises:
        NotAllowedError: the person is no reviewer, or was revoked.
        UnknownCampaignError: there is no such campaign.
        BadInputError: nobody has this id, or a lease of no useful length.
    """
    check_seconds(seconds)
    with db.writing() as session:
        person = lock_annotator(session, annotator_id)
        if not person.may("reviewer"):
            raise NotAllowedError(f"{person.name} is no reviewer; an admin can invite one")
        row = campaign_row(session, campaign_id)
        of_campaign = TaskRow.campaign_id == campaign_id
        for condition in (
            and_(of_campaign, TaskRow.state == "reviewing", TaskRow.leased_by == annotator_id),
            and_(of_campaign, reviewable_by(annotator_id, now)),
        ):
            task = take(session, condition, "reviewing", annotator_id, now=now, seconds=seconds)
            if task is not None:
                return _with_submission(session, lease_of(session, task, seconds), task)
        return _nothing(session, row)


def judge(
    db: Database,
    key: LeaseKey,
    review_id: str,
    verdicts: Sequence[Verdict],
    *,
    now: datetime,
    reason: str = "",
    incomplete: bool = False,
) -> Judgement:
    """Take a reviewer's verdicts: the task is then done, or goes back to its annotator.

    Args:
        db: the database.
        key: of the review's lease.
        review_id: a UUID of the client: handed in again it is the same review.
        verdicts: one for each mask of the submission.
        now: UTC.
        reason: about the whole image.
        incomplete: masks are missing: the task goes back though no mask is rejected.

    Raises:
        LeaseLostError: the review is another's, and this one was not taken before.
        BadSubmissionError: verdicts that do not fit the submission, or an id of another review.
        UnknownTaskError: there is no such task.
        BadInputError: an id that is none, or a reason that is too long.
    """
    check_uuid("review id", review_id)
    for text in (reason, *(verdict.reason for verdict in verdicts)):
        check_text("reason", text, MAX_REASON)
    with db.writing() as session:
        task = locked_task(session, key.task_id)
        if (judged := _judged(session, key, review_id)) is not None:
            return judged
        require_lease(task, key, "reviewing")
        submission = _submission_of(session, task)
        _check(submission, verdicts)
        is_returned = incomplete or any(verdict.kind == "reject" for verdict in verdicts)
        state = "returned" if is_returned else "accepted"
        review = ReviewRow(
            review_id=review_id,
            submission_id=submission.submission_id,
            task_id=task.task_id,
            reviewer_id=key.annotator_id,
            state=state,
            incomplete=incomplete,
            reason=reason,
            judged_at=now,
        )
        session.add(review)
        session.flush()
        if verdicts:
            session.execute(insert(VerdictRow), _rows(review_id, verdicts))
        end_lease(task, state, now)
        if is_returned:
            _return(session, task, submission, verdicts, now)
        return _judgement(review)


def agreement(db: Database, campaign_id: str) -> tuple[ImageAgreement, ...]:
    """Return how well people agree on each image that at least two have annotated, by image id.

    Tasks that were returned or skipped do not count.

    Raises:
        UnknownCampaignError: there is no such campaign.
    """
    by_image = defaultdict[int, list[JudgedSubmission]](list)
    if campaign(db, campaign_id).annotators_per_image == 1:
        return ()
    for task in finished_tasks(db, campaign_id):
        if task.current and task.state in ("submitted", "reviewing", "accepted"):
            by_image[task.image_id].append(task.submission)
    return tuple(
        ImageAgreement(
            image_id=image_id,
            pairs=tuple(
                (one.annotator_id, other.annotator_id, pair_agreement(_final(one), _final(other)))
                for one, other in combinations(
                    sorted(submissions, key=lambda item: item.annotator_id), 2
                )
            ),
        )
        for image_id, submissions in sorted(by_image.items())
        if len(submissions) > 1
    )


def pair_agreement(a: Sequence[Rle], b: Sequence[Rle]) -> float:
    """Return the mean, over all masks of two people, of the best IoU with a mask of the other.

    Symmetric, 0 to 1; a mask that the other does not have counts 0; 1 where neither has any.
    """
    if not a and not b:
        return 1.0
    if not a or not b:
        return 0.0
    iou_AB = mask_iou(a, b)
    best = float(iou_AB.max(axis=1).sum()) + float(iou_AB.max(axis=0).sum())
    return best / (len(a) + len(b))


def _final(submission: JudgedSubmission) -> list[Rle]:
    return [item.final for item in submission.objects]


def _with_submission(session: Session, lease: Lease, task: TaskRow) -> Lease:
    return replace(lease, submission=_submission_of(session, task))


def _submission_of(session: Session, task: TaskRow) -> JudgedSubmission:
    row = session.get_one(SubmissionRow, task.submission_id)
    return load_submissions(session, [row])[0]


def _judged(session: Session, key: LeaseKey, review_id: str) -> Judgement | None:
    """Return what a review that was taken before came to; None: it was not."""
    row = session.get(ReviewRow, review_id)
    if row is None:
        return None
    if (row.task_id, row.reviewer_id) != (key.task_id, key.annotator_id):
        raise BadSubmissionError(f"review {review_id} is another task's; draw a new id for each")
    return _judgement(row)


def _judgement(row: ReviewRow) -> Judgement:
    return Judgement(review_id=row.review_id, task_id=row.task_id, state=cast(TaskState, row.state))


def _check(submission: JudgedSubmission, verdicts: Sequence[Verdict]) -> None:
    """Check that there is one verdict for each mask, and a mask of the image for each fix."""
    masks = {item.mask.object_id: item.mask.rle for item in submission.objects}
    named = [verdict.object_id for verdict in verdicts]
    if sorted(named) != sorted(masks):
        wrong = sorted(set(named) ^ set(masks)) or sorted({i for i in named if named.count(i) > 1})
        raise BadSubmissionError(
            f"expected one verdict for each of the {len(masks)} masks, got {len(named)}; see "
            f"{wrong[:3]}"
        )
    for verdict in verdicts:
        if (verdict.rle is not None) != (verdict.kind == "fix"):
            raise BadSubmissionError(
                f"object {verdict.object_id}: a fix has a mask of its own, other verdicts have none"
            )
        if verdict.rle is not None:
            size = masks[verdict.object_id]
            check_mask(verdict.object_id, verdict.rle, size.height, size.width)


def _rows(review_id: str, verdicts: Sequence[Verdict]) -> list[dict[str, object]]:
    return [
        {
            "review_id": review_id,
            "object_id": verdict.object_id,
            "kind": verdict.kind,
            "reason": verdict.reason,
            "counts": None if verdict.rle is None else verdict.rle.counts,
        }
        for verdict in verdicts
    ]


def _return(
    session: Session,
    task: TaskRow,
    submission: JudgedSubmission,
    verdicts: Sequence[Verdict],
    now: datetime,
) -> None:
    """Give a task back: its annotator, or whoever takes it over, goes on from what there is."""
    fixed = {verdict.object_id: verdict.rle for verdict in verdicts}

    def with_fix(mask: MaskObject) -> MaskObject:
        return replace(mask, rle=fixed[mask.object_id] or mask.rle)

    content = DraftContent(
        objects=tuple(with_fix(item.mask) for item in submission.objects),
        deleted=tuple(item.mask.object_id for item in submission.deleted),
        exhaustive=submission.exhaustive,
    )
    put_draft(session, task.task_id, submission.annotator_id, content, now)
    person = session.get_one(AnnotatorRow, submission.annotator_id)
    task.annotator_id = None if person.revoked_at is not None else person.annotator_id


def _nothing(session: Session, row: CampaignRow) -> NothingToDo:
    reason, message = _why_nothing(row, tasks_by_state(session, row.campaign_id))
    return NothingToDo(reason=reason, message=message)


def _why_nothing(row: CampaignRow, counts: dict[str, int]) -> tuple[NothingReason, str]:
    if not counts:
        return "no-images", "This campaign has no images yet."
    if not row.review:
        return "all-done", "This campaign has no review."
    if "submitted" in counts:
        return "own-work", "All that waits for a review is your own work: another person judges it."
    if "reviewing" in counts:
        return "all-leased", "Other reviewers have all that waits for a review."
    if counts.keys() & {"pending", "open", "leased", "returned"}:
        return "all-leased", "Nothing waits for a review; people are still annotating."
    return "all-done", "Every image of this campaign is done."
