"""The figures of a campaign as a page of Markdown and as rows of a table, for reports.

figures_markdown(figures)       # begins with the name of the campaign
figure_rows(figures)[0]["s per mask"]
"""

from __future__ import annotations

from engine.annotation.figure_values import CampaignFigures, FigureRow, Histogram

__all__ = ["figure_rows", "figures_markdown"]

Cell = str | int | float | None
_BAR_LENGTH = 24


def figure_rows(figures: CampaignFigures) -> list[dict[str, Cell]]:
    """Return a row for the whole campaign, then one for each annotator, then one for each day."""
    return [
        _cells("all", figures.total),
        *(_cells(name, row) for name, row in figures.by_annotator.items()),
        *(_cells(day, row) for day, row in figures.by_day.items()),
    ]


def figures_markdown(figures: CampaignFigures) -> str:
    """Return a page: what a lead wants to know first, then how masks scatter."""
    one, total = figures.campaign, figures.total
    lines = [
        f"# {one.name}",
        "",
        f"Stage {one.stage}, model {one.model} (`{one.model_id}`); "
        f"{figures.made_at:%Y-%m-%d %H:%M} UTC.",
        "",
        f"- **{total.masks:,} masks** of {total.images:,} images in {total.tasks:,} tasks"
        + (f", {total.skipped:,} skipped" if total.skipped else ""),
    ]
    if total.seconds_per_mask_median is not None:
        lines.append(
            f"- **{total.seconds_per_mask_median:.1f} s per mask** that somebody worked on "
            f"(median; mean {total.seconds_per_mask_mean:.1f} s, "
            f"{total.clicks_per_mask_mean:.1f} clicks); {total.seconds_per_mask_all_in:.1f} s "
            "with looking and deleting"
        )
    if total.kept_share is not None:
        lines.append(
            f"- of the model's masks {total.kept_share:.0%} kept, {total.corrected_share:.0%} "
            f"corrected, {total.deleted_share:.0%} deleted"
        )
    if sum(total.verdicts.values()):
        said = ", ".join(f"{count:,} {kind}" for kind, count in total.verdicts.items())
        lines.append(f"- reviewers: {said}; {total.returned:,} submissions sent back")
    if figures.agreement is not None:
        found = figures.agreement
        lines.append(
            f"- agreement: mean IoU {found.mean_iou:.3f} of {found.pairs:,} pairs of people, "
            f"{found.share_above_75:.0%} above 0.75, {found.share_above_90:.0%} above 0.90"
        )
    lines += _histogram("Seconds per mask", figures.seconds_histogram)
    lines += _histogram("Clicks per mask", figures.clicks_histogram)
    return "\n".join(lines) + "\n"


def _cells(name: str, row: FigureRow) -> dict[str, Cell]:
    return {
        "who or when": name,
        "tasks": row.tasks,
        "skipped": row.skipped,
        "masks": row.masks,
        "masks per task": row.masks_per_image_mean,
        "s per mask": row.seconds_per_mask_median,
        "s per mask, all in": row.seconds_per_mask_all_in,
        "clicks per mask": row.clicks_per_mask_mean,
        **{kind: row.made.get(kind, 0) for kind in ("kept", "corrected", "new", "deleted")},
        "sent back": row.returned,
    }


def _histogram(title: str, histogram: Histogram) -> list[str]:
    most = max(histogram.counts, default=0)
    if not most:
        return []
    lines = ["", f"## {title}", "", "| from | masks | |", "|---:|---:|:---|"]
    last = max(place for place, count in enumerate(histogram.counts) if count)
    for edge, count in list(zip(histogram.edges, histogram.counts, strict=False))[: last + 1]:
        bar = "█" * round(count / most * _BAR_LENGTH)
        lines.append(f"| {edge:g} | {count:,} | {bar} |")
    return lines
