"""What a simulation found: what the people did, how good it is, how the service kept up.

report = summarise(outcomes, reviews, book, failures, plan, seconds)
report.masks_made, report.mean_iou, report.api.p95_ms
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from engine.annotation.client_values import AcknowledgedSubmission
from engine.annotation.simulation.annotator import TaskOutcome
from engine.annotation.simulation.latencies import LatencyBook, RouteLatency
from engine.annotation.simulation.reviewer import ReviewOutcome

__all__ = ["SimulationFailure", "SimulationReport", "summarise"]


@dataclass(frozen=True, slots=True)
class SimulationFailure:
    """Something that went wrong for one person.

    Attributes:
        ended: whether the person could not go on.
    """

    person: str
    message: str
    ended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationReport:
    """See the module; times of people are simulated, times of calls are real.

    Attributes:
        tasks_submitted: acknowledged by the service.
        tasks_given_back: begun when the time was up.
        tasks_skipped: images without known masks.
        masks: how many were ``"new"``, ``"kept"``, ``"corrected"``, ``"deleted"``, ``"given-up"``.
        overlooked: objects that nobody made a mask of because they were not seen.
        clicks_per_mask, strokes_per_mask: mean over new and corrected masks.
        seconds_per_mask: of them, and of kept ones.
        mean_iou: with the truth, of all masks that were handed in.
        verdicts: of reviewers.
        tasks_returned: sent back by reviewers.
        api: all calls but decodes.
        routes: calls by route.
        acknowledged: what the service said that it has.
        seconds: real, all in all.
    """

    annotators: int
    reviewers: int
    tasks_submitted: int
    tasks_given_back: int
    tasks_skipped: int
    masks: Mapping[str, int]
    overlooked: int
    clicks_per_mask: float | None
    strokes_per_mask: float | None
    seconds_per_mask: float | None
    seconds_per_mask_median: float | None
    mean_iou: float | None
    verdicts: Mapping[str, int]
    tasks_returned: int
    api: RouteLatency
    routes: tuple[RouteLatency, ...]
    failures: tuple[SimulationFailure, ...]
    acknowledged: tuple[AcknowledgedSubmission, ...]
    seconds: float

    @property
    def masks_made(self) -> int:
        """Masks that were handed in."""
        return sum(self.masks.get(made, 0) for made in ("new", "kept", "corrected"))


def summarise(
    *,
    annotators: int,
    reviewers: int,
    outcomes: Sequence[TaskOutcome],
    reviews: Sequence[ReviewOutcome],
    skipped: int,
    book: LatencyBook,
    failures: Sequence[SimulationFailure],
    seconds: float,
) -> SimulationReport:
    """Add up what the people did."""
    finished = [outcome for outcome in outcomes if outcome.acknowledged is not None]
    masks = [mask for outcome in finished for mask in outcome.masks]
    worked_on = [mask for mask in masks if mask.made in ("new", "corrected")]
    handed_in = [mask for mask in masks if mask.made in ("new", "corrected", "kept")]
    return SimulationReport(
        annotators=annotators,
        reviewers=reviewers,
        tasks_submitted=len(finished),
        tasks_given_back=len(outcomes) - len(finished),
        tasks_skipped=skipped,
        masks=dict(Counter(mask.made for mask in masks)),
        overlooked=sum(outcome.overlooked for outcome in finished),
        clicks_per_mask=_mean([mask.clicks for mask in worked_on]),
        strokes_per_mask=_mean([mask.strokes for mask in worked_on]),
        seconds_per_mask=_mean([mask.seconds for mask in handed_in]),
        seconds_per_mask_median=(
            round(median(mask.seconds for mask in handed_in), 3) if handed_in else None
        ),
        mean_iou=_mean([mask.iou for mask in handed_in]),
        verdicts={
            "accepted": sum(review.accepted for review in reviews),
            "fixed": sum(review.fixed for review in reviews),
            "rejected": sum(review.rejected for review in reviews),
        },
        tasks_returned=sum(review.state == "returned" for review in reviews),
        api=book.api(),
        routes=book.routes(),
        failures=tuple(failures),
        acknowledged=tuple(
            outcome.acknowledged for outcome in finished if outcome.acknowledged is not None
        ),
        seconds=round(seconds, 3),
    )


def _mean(values: Sequence[float]) -> float | None:
    return round(fmean(values), 4) if values else None
