"""The figures of a campaign as values and as JSON; `engine.annotation.figures` computes them.

figures.total.seconds_per_mask_median, figures.by_annotator["ada"].made, figures.to_json()
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime

from engine.annotation.records import Campaign

__all__ = [
    "Agreement",
    "CampaignFigures",
    "FigureRow",
    "Histogram",
    "PairAgreement",
    "Throughput",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureRow:
    """Figures of some of a campaign's work; None where there is nothing to say.

    Attributes:
        tasks: submitted.
        images: of these tasks.
        skipped: tasks that were skipped.
        masks: handed in.
        active_seconds: of the people.
        seconds_per_mask_median, seconds_per_mask_mean: of new and corrected masks.
        seconds_per_mask_all_in: `active_seconds` for each of all masks.
        clicks_per_mask_median, clicks_per_mask_mean: of new and corrected masks.
        strokes_per_mask_mean: likewise.
        masks_per_image_mean: per task.
        made: masks by how they came to be; `deleted` are proposals.
        kept_share, corrected_share, deleted_share: of all proposals.
        verdicts: of reviewers, on all submissions, not only the newest.
        returned: submissions that reviewers sent back.
        exhaustive: tasks where nothing is left to annotate.
        browser_share: of the masks that a decoder answered for, those of the browser's.
    """

    tasks: int = 0
    images: int = 0
    skipped: int = 0
    masks: int = 0
    active_seconds: float | None = None
    seconds_per_mask_median: float | None = None
    seconds_per_mask_mean: float | None = None
    seconds_per_mask_all_in: float | None = None
    clicks_per_mask_median: float | None = None
    clicks_per_mask_mean: float | None = None
    strokes_per_mask_mean: float | None = None
    masks_per_image_mean: float | None = None
    made: Mapping[str, int] = field(default_factory=dict)
    kept_share: float | None = None
    corrected_share: float | None = None
    deleted_share: float | None = None
    verdicts: Mapping[str, int] = field(default_factory=dict)
    returned: int = 0
    exhaustive: int = 0
    browser_share: float | None = None


@dataclass(frozen=True, slots=True)
class Histogram:
    """`counts[i]` values lie in ``[edges[i], edges[i + 1])``."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairAgreement:
    """How well two people agree over `pairs` images; see `engine.annotation.reviews.agreement`."""

    annotators: tuple[str, str]
    pairs: int
    mean_iou: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How well people agree on the images that several have annotated.

    Attributes:
        images: their number.
        pairs: of two people on one image.
        mean_iou: over the pairs.
        share_above_75, share_above_90: of the pairs.
    """

    images: int
    pairs: int
    mean_iou: float
    share_above_75: float
    share_above_90: float
    by_pair: tuple[PairAgreement, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """What was handed in from `start` on, for one span of time."""

    start: datetime
    tasks: int
    masks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignFigures:
    """All figures of a campaign.

    Attributes:
        by_annotator: by their names.
        by_day: by the day of the submission, UTC, in order.
        span_seconds: of `throughput`.
        throughput: from the first submission to the last, without gaps.
        agreement: None: no image has two annotators.
    """

    campaign: Campaign
    made_at: datetime
    total: FigureRow
    by_annotator: Mapping[str, FigureRow]
    by_day: Mapping[str, FigureRow]
    seconds_histogram: Histogram
    clicks_histogram: Histogram
    span_seconds: int
    throughput: tuple[Throughput, ...]
    agreement: Agreement | None

    def to_json(self) -> str:
        """Return what ``GET /api/campaigns/{id}/figures`` answers."""
        one = self.campaign
        model = {"model": one.model, "model_id": one.model_id}
        said = {
            "campaign": {"id": one.campaign_id, "name": one.name, "stage": one.stage, **model},
            "made_at": self.made_at.isoformat(),
            "total": asdict(self.total),
            "by_annotator": [
                {"annotator": name, **asdict(row)} for name, row in self.by_annotator.items()
            ],
            "by_model": [{**model, **asdict(self.total)}],
            "by_day": [{"day": day, **asdict(row)} for day, row in self.by_day.items()],
            "seconds_histogram": asdict(self.seconds_histogram),
            "clicks_histogram": asdict(self.clicks_histogram),
            "span_seconds": self.span_seconds,
            "throughput": [
                {**asdict(span), "start": span.start.isoformat()} for span in self.throughput
            ],
            "agreement": None if self.agreement is None else asdict(self.agreement),
        }
        return json.dumps(said)
