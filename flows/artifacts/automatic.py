"""The fully automatic stage in the Prefect UI: what a run did, how fast, and how it looks.

    show_outcome(outcome, statuses, shards, workspace=workspace, model="m3")
    show_audit(load_reports(store, run_id))

One page tells it all; the lists that one searches in are tables.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np

from engine.dataset.audit_reports import GateReport
from engine.dataset.catalog import Workspace
from engine.dataset.releases import load_release
from engine.dataset.shards import ImageStatus
from engine.errors import EngineError
from engine.quality.small_pictures import SmallPicture, evenly, histogram, overlay_sheet
from engine.records import AutomaticOutcome, ShardOutcome, SkippedImage
from flows.artifacts.next_steps import command, next_steps
from flows.artifacts.pages import show_page
from flows.artifacts.pictures import picture
from flows.artifacts.tables import show_table
from flows.artifacts.texts import Cell, code, duration, escaped, markdown_table, readable
from flows.naming import counted

__all__ = ["show_audit", "show_outcome", "told", "worker_rows"]

log = logging.getLogger(__name__)

_SHEET_PHOTOS = 9
_EXAMPLES = 3
_WORKERS_ON_PAGE = 16


def show_outcome(
    outcome: AutomaticOutcome,
    statuses: Sequence[ImageStatus] = (),
    shards: Sequence[ShardOutcome] = (),
    *,
    workspace: str,
    model: str = "",
) -> None:
    """Leave what a run did: a page ``automatic-run``, and tables of skipped photos and workers.

    Args:
        outcome: the numbers.
        statuses: of the photos that were masked or skipped, for the pictures.
        shards: what the tasks did, for the speed of the workers.
        workspace: address.
        model: its name.
    """
    workers = worker_rows(shards)
    headline = f"{_headline(outcome)} in {duration(outcome.seconds)}"
    log.info("%s: %s is the newest release", headline, outcome.release or "none")
    log.info("next: maskwheel report -w %s", workspace)
    parts = [
        f"# {_headline(outcome)}",
        _sentence(outcome, workspace, model),
        _pictures(outcome, statuses, workspace),
        markdown_table(_figures(outcome, statuses)),
        _distribution(statuses),
        _skipped(outcome.skipped),
        _workers(workers),
        _next(outcome, workspace),
    ]
    page = "\n\n".join(part for part in parts if part) + "\n"
    show_page("automatic-run", page, escaped(headline))
    if outcome.skipped:
        show_table(
            "automatic-skipped",
            [{"photo": s.uri, "reason": s.reason, "message": s.message} for s in outcome.skipped],
            f"{counted(len(outcome.skipped), 'photo')} could not be used: {_reasons(outcome)}",
            rest=f"how many of each there are is in {command('report', workspace)}",
        )
    if workers:
        show_table("automatic-workers", workers, _speed(workers))


def show_audit(reports: Sequence[GateReport]) -> None:
    """Leave the last audit of a run as a table ``audit``."""
    for report in reports[-1:]:
        rows: list[dict[str, Cell]] = [
            {
                "check": check.name,
                "passed": "yes" if check.passed else "NO",
                "figure": check.figure,
                "limit": check.limit,
                "detail": check.detail,
            }
            for check in report.checks
        ]
        said = "passed" if report.passed else "**refused**"
        show_table(
            "audit",
            rows,
            f"{escaped(report.release)} {said}; {report.sampled_masks:,} masks of "
            f"{report.sampled_files:,} of {report.files:,} files read, run "
            f"{escaped(report.commit_id)}",
        )


def told(shard: ShardOutcome) -> str:
    """Say what became of a shard in a line of a log."""
    if not shard.wrote:
        return f"shard {shard.index} was there"
    skipped = f", {shard.skipped:,} skipped" if shard.skipped else ""
    return (
        f"shard {shard.index}: {counted(shard.images, 'photo')}, {counted(shard.masks, 'mask')}"
        f"{skipped} in {duration(shard.seconds)}, by {shard.worker}"
    )


def worker_rows(shards: Iterable[ShardOutcome]) -> list[dict[str, Cell]]:
    """Return a row for each worker that wrote shards, by name.

    Photos per second are over the time that a worker spent on its shards, so they add up to what
    the machines can do; waiting for work is not in it.
    """
    by_worker: dict[str, list[ShardOutcome]] = defaultdict(list)
    for shard in shards:
        if shard.wrote:
            by_worker[shard.worker].append(shard)
    rows: list[dict[str, Cell]] = []
    for worker, done in sorted(by_worker.items()):
        photos, seconds = sum(s.images for s in done), sum(s.seconds for s in done)
        rows.append(
            {
                "worker": worker,
                "shards": len(done),
                "photos": photos,
                "masks": sum(s.masks for s in done),
                "skipped": sum(s.skipped for s in done),
                "busy": duration(seconds),
                "photos per second": round(photos / seconds, 2) if seconds else None,
            }
        )
    return rows


def _headline(outcome: AutomaticOutcome) -> str:
    if not outcome.images_masked:
        return "Nothing new to mask"
    headline = f"{counted(outcome.images_masked, 'photo')}, {counted(outcome.masks, 'mask')}"
    return f"{headline}, {len(outcome.skipped):,} skipped" if outcome.skipped else headline


def _sentence(outcome: AutomaticOutcome, workspace: str, model: str) -> str:
    release = f"release **{escaped(outcome.release)}**" if outcome.release else "no release yet"
    by = f", masked by **{escaped(model)}**" if model else ""
    return f"In workspace {code(workspace)}: {release}{by}."


def _figures(outcome: AutomaticOutcome, statuses: Sequence[ImageStatus]) -> list[dict[str, Cell]]:
    unusable = sum(status.status == "skipped" for status in statuses)
    values: dict[str, Cell] = {
        "photos masked": outcome.images_masked,
        "masked before": outcome.images_listed - outcome.images_masked - unusable,
        "masks": outcome.masks,
        "masks per photo (median)": outcome.median_masks_per_image,
        "photos without a mask": outcome.images_without_masks,
        "duplicates": outcome.duplicates,
        "skipped": len(outcome.skipped),
        "time": duration(outcome.seconds),
        "photos per second": round(outcome.images_per_second, 2),
    }
    return [{"what": what, "value": readable(value)} for what, value in values.items() if value]


def _distribution(statuses: Sequence[ImageStatus]) -> str:
    counts = np.array([s.masks for s in statuses if s.status == "masked"], dtype=np.int64)
    if not counts.size:
        return ""
    return "## Masks per photo\n\n" + picture(histogram(counts, "Masks per photo", "photos"))


def _pictures(outcome: AutomaticOutcome, statuses: Sequence[ImageStatus], workspace: str) -> str:
    sheet = _sheet(outcome, statuses, workspace)
    if sheet is None:
        return ""
    return f"{picture(sheet)}\n\n*{escaped(sheet.caption, None)}*"


def _sheet(
    outcome: AutomaticOutcome, statuses: Sequence[ImageStatus], workspace: str
) -> SmallPicture | None:
    """Draw some of the run's photos; without pictures the page is still worth having."""
    chosen = evenly([s.image_id for s in statuses if s.masks], _SHEET_PHOTOS)
    if not chosen or outcome.release is None:
        return None
    try:
        with Workspace.open(workspace, create=False) as opened:
            release = load_release(opened, outcome.release)
            return overlay_sheet(opened, release, _SHEET_PHOTOS, image_ids=chosen)
    except EngineError as error:
        log.warning("no pictures of this run: %s", error)
        return None


def _skipped(skipped: Sequence[SkippedImage]) -> str:
    if not skipped:
        return ""
    lines = ["## Skipped", ""]
    for reason, group in _by_reason(skipped):
        examples = ", ".join(code(image.uri) for image in group[:_EXAMPLES])
        more = f" and {len(group) - _EXAMPLES:,} more" if len(group) > _EXAMPLES else ""
        lines.append(f"- **{len(group):,} {escaped(reason)}**: {examples}{more}")
    return "\n".join(lines)


def _by_reason(skipped: Sequence[SkippedImage]) -> list[tuple[str, list[SkippedImage]]]:
    """Group by reason, the most frequent first."""
    ordered = sorted(skipped, key=lambda image: (image.reason, image.uri))
    groups = [(reason, list(group)) for reason, group in groupby(ordered, lambda i: i.reason)]
    return sorted(groups, key=lambda item: -len(item[1]))


def _reasons(outcome: AutomaticOutcome) -> str:
    return ", ".join(
        f"{len(group):,} {escaped(reason)}" for reason, group in _by_reason(outcome.skipped)
    )


def _workers(rows: Sequence[dict[str, Cell]]) -> str:
    if not rows:
        return ""
    shown = "" if len(rows) > _WORKERS_ON_PAGE else f"\n\n{markdown_table(rows)}"
    return f"## {_speed(rows)}{shown}"


def _speed(rows: Sequence[dict[str, Cell]]) -> str:
    rate = sum(value for row in rows if isinstance(value := row["photos per second"], float))
    return f"{counted(len(rows), 'worker')}, {readable(round(rate, 2))} photos per second"


def _next(outcome: AutomaticOutcome, workspace: str) -> str:
    if outcome.release is None:
        return ""
    return next_steps(
        workspace,
        {
            "report": "a page with a gallery and the distributions",
            f"releases export {outcome.release} --format coco --to FOLDER": "for other tools",
            "annotate": "correct the masks, or add to them, in the browser",
        },
    )
