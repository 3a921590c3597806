"""What masks cost and what became of them: the figures of a campaign, for its lead.

    figures = campaign_figures(db, "birds", now=current_time())
    figures.total.seconds_per_mask_median, figures.by_annotator, figures.to_json()

Counted are the newest submissions of all tasks, with all the time that was spent on these tasks.
Seconds and clicks per mask are those of masks that a person worked on, new and corrected ones, as
the paper gives them for its first two stages; `seconds_per_mask_all_in` shares everything, looking
and deleting too, among all masks.
"""

from __future__ import annotations

import csv
import io
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from statistics import fmean, median

from sqlalchemy import select

from engine.annotation.campaigns import campaign
from engine.annotation.database import Database
from engine.annotation.figure_values import (
    Agreement,
    CampaignFigures,
    FigureRow,
    Histogram,
    PairAgreement,
    Throughput,
)
from engine.annotation.records import Campaign, FinishedTask, Made, SubmittedObject
from engine.annotation.reviews import agreement
from engine.annotation.submissions import finished_tasks
from engine.annotation.tables import AnnotatorRow, TaskRow

__all__ = ["campaign_figures", "masks_csv"]

_SECONDS_EDGES = (0.0, 2, 4, 6, 8, 10, 12, 15, 20, 25, 30, 45, 60, 90, 120)
_CLICKS_EDGES = (*map(float, range(11)), 15.0, 20.0)
_MOST_SPANS = 60
_SPANS = tuple(
    timedelta(minutes=minutes) for minutes in (1, 5, 15, 60, 6 * 60, 24 * 60, 7 * 24 * 60)
)
_CSV_COLUMNS = (
    "task", "image", "annotator", "object_id", "made", "clicks", "strokes", "active_seconds",
    "model", "decoder", "verdict",
)  # fmt: skip


def campaign_figures(db: Database, campaign_id: str, *, now: datetime) -> CampaignFigures:
    """Add up the figures of a campaign, in one pass over its submissions.

    Raises:
        UnknownCampaignError: there is no such campaign.
    """
    found = campaign(db, campaign_id)
    total = _Tally()
    people, days = defaultdict[str, _Tally](_Tally), defaultdict[str, _Tally](_Tally)
    names: dict[str, str] = {}
    handed_in: list[tuple[datetime, int]] = []
    for task in finished_tasks(db, found.campaign_id):
        said = task.submission
        names[said.annotator_id] = said.annotator
        day = said.submitted_at.date().isoformat()
        for tally in (total, people[said.annotator], days[day]):
            tally.add(task)
        if task.current:
            handed_in.append((said.submitted_at, len(said.objects)))
    for name, day in _skipped(db, found.campaign_id):
        for tally in (total, people[name], days[day]):
            tally.skipped += 1
    span, throughput = _throughput(handed_in)
    return CampaignFigures(
        campaign=found,
        made_at=now,
        total=total.row(),
        by_annotator={name: people[name].row() for name in sorted(people)},
        by_day={day: days[day].row() for day in sorted(days)},
        seconds_histogram=_histogram(total.seconds, _SECONDS_EDGES),
        clicks_histogram=_histogram(total.clicks, _CLICKS_EDGES),
        span_seconds=round(span.total_seconds()),
        throughput=throughput,
        agreement=_agreement(db, found, names),
    )


def masks_csv(db: Database, campaign_id: str) -> str:
    """Return a CSV with a line for each mask, and each deleted proposal, of the newest submissions.

    Raises:
        UnknownCampaignError: there is no such campaign.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for task in finished_tasks(db, campaign_id):
        if task.current:
            said = task.submission
            writer.writerows(_csv_row(task, item) for item in (*said.objects, *said.deleted))
    return text.getvalue()


def _csv_row(task: FinishedTask, item: SubmittedObject) -> tuple[object, ...]:
    said = task.submission
    return (
        said.task_id,
        task.image_id,
        _as_text(said.annotator),
        _as_text(item.mask.object_id),
        item.made,
        item.clicks,
        item.strokes,
        round(item.active_seconds, 3),
        _as_text(task.campaign.model),
        item.mask.decoder or "",
        item.verdict or "",
    )


def _as_text(name: str) -> str:
    """Keep spreadsheets from taking a name for a formula."""
    return f"'{name}" if name[:1] in ("=", "+", "-", "@", "\t", "\r") else name


class _Tally:
    """Adds up what some submissions say."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.clicks: list[int] = []
        self.skipped = 0
        self._strokes: list[int] = []
        self._images: set[int] = set()
        self._made: Counter[Made] = Counter()
        self._verdicts: Counter[str] = Counter()
        self._decoders: Counter[str] = Counter()
        self._tasks = self._returned = self._exhaustive = 0
        self._active_seconds = 0.0

    def add(self, task: FinishedTask) -> None:
        """Add a submission; of one that was replaced only what reviewers said counts."""
        said = task.submission
        verdicts = [item.verdict for item in said.objects if item.verdict is not None]
        self._verdicts.update(verdicts)
        self._returned += not task.current or task.state == "returned"
        if not task.current:
            return
        self._tasks += 1
        self._images.add(task.image_id)
        self._exhaustive += said.exhaustive
        self._active_seconds += said.active_seconds
        for item in (*said.objects, *said.deleted):
            self._made[item.made] += 1
        for item in said.objects:
            if item.mask.decoder is not None:
                self._decoders[item.mask.decoder] += 1
            if item.made != "kept":
                self.seconds.append(item.active_seconds)
                self.clicks.append(item.clicks)
                self._strokes.append(item.strokes)

    def row(self) -> FigureRow:
        """Return the figures."""
        made = {kind: self._made[kind] for kind in ("kept", "corrected", "new", "deleted")}
        masks = made["kept"] + made["corrected"] + made["new"]
        proposals = made["kept"] + made["corrected"] + made["deleted"]
        return FigureRow(
            tasks=self._tasks,
            images=len(self._images),
            skipped=self.skipped,
            masks=masks,
            active_seconds=round(self._active_seconds, 3) if self._tasks else None,
            seconds_per_mask_median=_rounded(median, self.seconds),
            seconds_per_mask_mean=_rounded(fmean, self.seconds),
            seconds_per_mask_all_in=_share(self._active_seconds, masks),
            clicks_per_mask_median=_rounded(median, self.clicks),
            clicks_per_mask_mean=_rounded(fmean, self.clicks),
            strokes_per_mask_mean=_rounded(fmean, self._strokes),
            masks_per_image_mean=_share(masks, self._tasks),
            made=made,
            kept_share=_share(made["kept"], proposals),
            corrected_share=_share(made["corrected"], proposals),
            deleted_share=_share(made["deleted"], proposals),
            verdicts={
                "accepted": self._verdicts["accept"],
                "fixed": self._verdicts["fix"],
                "rejected": self._verdicts["reject"],
            },
            returned=self._returned,
            exhaustive=self._exhaustive,
            browser_share=_share(self._decoders["browser"], self._decoders.total()),
        )


def _skipped(db: Database, campaign_id: str) -> list[tuple[str, str]]:
    """Return who skipped tasks, and on which days."""
    query = (
        select(AnnotatorRow.name, TaskRow.changed_at)
        .join(AnnotatorRow, AnnotatorRow.annotator_id == TaskRow.annotator_id)
        .where(TaskRow.campaign_id == campaign_id, TaskRow.state == "skipped")
    )
    with db.reading() as session:
        return [(name, at.date().isoformat()) for name, at in session.execute(query)]


def _throughput(
    handed_in: Sequence[tuple[datetime, int]],
) -> tuple[timedelta, tuple[Throughput, ...]]:
    """Count submissions and their masks in spans of time, as short as a plot can show."""
    if not handed_in:
        return _SPANS[0], ()
    first, last = handed_in[0][0], handed_in[-1][0]
    span = next((s for s in _SPANS if (last - first) / s < _MOST_SPANS), _SPANS[-1])
    start = datetime.fromtimestamp(
        first.timestamp() // span.total_seconds() * span.total_seconds(), UTC
    )
    tasks, masks = Counter[int](), Counter[int]()
    for at, count in handed_in:
        tasks[(at - start) // span] += 1
        masks[(at - start) // span] += count
    return span, tuple(
        Throughput(start=start + place * span, tasks=tasks[place], masks=masks[place])
        for place in range((last - start) // span + 1)
    )


def _agreement(db: Database, found: Campaign, names: Mapping[str, str]) -> Agreement | None:
    images = agreement(db, found.campaign_id)
    if not images:
        return None
    by_pair = defaultdict[tuple[str, str], list[float]](list)
    for image in images:
        for one, other, iou in image.pairs:
            first, second = sorted((names[one], names[other]))
            by_pair[first, second].append(iou)
    ious = [iou for several in by_pair.values() for iou in several]
    return Agreement(
        images=len(images),
        pairs=len(ious),
        mean_iou=round(fmean(ious), 4),
        share_above_75=round(sum(iou > 0.75 for iou in ious) / len(ious), 4),
        share_above_90=round(sum(iou > 0.9 for iou in ious) / len(ious), 4),
        by_pair=tuple(
            PairAgreement(annotators=pair, pairs=len(some), mean_iou=round(fmean(some), 4))
            for pair, some in sorted(by_pair.items())
        ),
    )


def _histogram(values: Sequence[float], edges: Sequence[float]) -> Histogram:
    """Count values between edges; what lies beyond the last one widens the last bin."""
    top = max([*values, edges[-1]])
    edges = (*edges[:-1], edges[-1] if top < edges[-1] else float(int(top) + 1))
    counts = [0] * (len(edges) - 1)
    for value in values:
        counts[bisect_right(edges, value) - 1] += 1
    return Histogram(tuple(edges), tuple(counts))


def _rounded(average: Callable[[Sequence[float]], float], values: Sequence[float]) -> float | None:
    return round(average(values), 3) if values else None


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None
