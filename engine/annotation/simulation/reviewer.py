"""A simulated reviewer: accepts, fixes or rejects what others made, knowing the truth.

    outcome = SimulatedReviewer(truth).review(client, lease, clock, pace)

SAM 2's verification step (section 5.1 of its paper) as a second person of the same campaign.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from engine.annotation.client_values import TaskLease
from engine.annotation.records import MaskObject, Verdict
from engine.annotation.simulation.timing import Pace, SimulatedClock
from engine.annotation.simulation.truth import Truth
from engine.errors import BadInputError
from engine.masks import mask_iou
from engine.records import Rle

__all__ = ["ReviewOutcome", "ReviewService", "SimulatedReviewer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewOutcome:
    """What a reviewer said of one submission."""

    task_id: str
    state: str
    accepted: int
    fixed: int
    rejected: int


class ReviewService(Protocol):
    """What a reviewer needs of the service; `AnnotationClient` is it."""

    def judge(self, lease: TaskLease, verdicts: Sequence[Verdict], *, reason: str = "") -> str:
        """Hand in a review."""
        ...


@dataclass(frozen=True, slots=True)
class SimulatedReviewer:
    """Judges by the truth that fits best, whoever drew it; sends nobody back twice.

    Attributes:
        truth: what people drew.
        accept_iou: good enough from this IoU on.
        fix_iou: worth correcting from this one on; below, the annotator does it again.
        sent_back: tasks that came to the annotator once; reviewers may share it.
    """

    truth: Truth
    accept_iou: float = 0.75
    fix_iou: float = 0.5
    sent_back: set[str] = field(default_factory=set)

    def review(
        self, client: ReviewService, lease: TaskLease, clock: SimulatedClock, pace: Pace
    ) -> ReviewOutcome:
        """Judge every mask of a submission and hand the review in.

        Raises:
            BadInputError: a task without a submission, or an image without known masks.
            TimeIsUpError: in the middle; the lease runs out, and somebody else gets the review.
        """
        if lease.submission is None:
            raise BadInputError(f"task {lease.task_id} has no submission to review")
        if lease.image.image_id not in self.truth:
            raise BadInputError(f"nobody knows the masks of image {lease.image.image_id}")
        drawn = self.truth.drawn_by_anybody(lease.image.image_id)
        clock.spend(pace.seconds("look"))
        verdicts = []
        for item in lease.submission.objects:
            clock.spend(pace.seconds("judge"))
            verdicts.append(self._judge(item.mask, drawn, lease.task_id in self.sent_back))
        kinds = [verdict.kind for verdict in verdicts]
        if "reject" in kinds:
            self.sent_back.add(lease.task_id)
        reason = "some masks show no object" if "reject" in kinds else ""
        return ReviewOutcome(
            task_id=lease.task_id,
            state=client.judge(lease, verdicts, reason=reason),
            accepted=kinds.count("accept"),
            fixed=kinds.count("fix"),
            rejected=kinds.count("reject"),
        )

    def _judge(self, mask: MaskObject, drawn: tuple[Rle, ...], was_back: bool) -> Verdict:
        (iou_T,) = mask_iou([mask.rle], drawn)
        best = int(iou_T.argmax())
        if iou_T[best] >= self.accept_iou:
            return Verdict(object_id=mask.object_id, kind="accept")
        if iou_T[best] >= self.fix_iou or was_back:
            return Verdict(object_id=mask.object_id, kind="fix", rle=drawn[best])
        return Verdict(object_id=mask.object_id, kind="reject", reason="shows no object")
