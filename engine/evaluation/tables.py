"""A report as tables: Markdown for documents, the same tables for a terminal, JSON for machines.

for table in report_tables(report):
print(markdown(table))
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from engine.evaluation.bootstrap import Estimate
from engine.evaluation.report import (
    CalibrationRow,
    Case,
    EvaluationReport,
    FigureRow,
    LookRow,
    PromptRow,
)

_NONE = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of texts.

    Attributes:
        title: what it shows.
        columns: their headings; the first `labels` of them name the row, the rest are figures.
        labels: how many columns name the row.
        rows: as many texts each as there are columns.
        note: how to read it.
    """

    title: str
    columns: tuple[str, ...]
    labels: int
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def report_tables(report: EvaluationReport) -> tuple[Table, ...]:
    """Lay a report out; parts without rows are left out."""
    tables = (
        _prompts(report),
        _sizes(report.prompts),
        _calibration(report.calibration),
        _looks(report.looks),
        *_figures(report.figures),
    )
    return tuple(table for table in tables if table.rows)


def markdown(table: Table) -> str:
    """Write a table in GitHub's Markdown, with its title and note."""
    rules = ["---"] * table.labels + ["---:"] * (len(table.columns) - table.labels)
    lines = [
        f"**{table.title}**",
        "",
        _line(table.columns),
        _line(rules),
        *(_line(row) for row in table.rows),
        "",
    ]
    if table.note:
        lines += [table.note, ""]
    return "\n".join(lines)


def report_markdown(report: EvaluationReport) -> str:
    """Write all tables, below a line that says which model and when."""
    head = f"Model {report.model} (`{report.model_id}`), {report.created_at[:10]}.\n"
    return "\n".join([head, *(markdown(table) for table in report_tables(report))])


def report_json(report: EvaluationReport) -> str:
    """Write a report for machines: its fields, as they are named in `EvaluationReport`."""
    return json.dumps(asdict(report), indent=2)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _prompts(report: EvaluationReport) -> Table:
    prompts = _ordered(row.prompt for row in report.prompts)
    ious = _ordered(f"NoC@{100 * row.iou:.0f}" for row in report.clicks)
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for row in report.prompts:
        found = cells.setdefault(_labels(row.case, row.first_click), {})
        found[row.prompt] = f"{_percent(row.trusted)} / {100 * row.oracle.mean:.1f}"
    for clicks in report.clicks:
        found = cells.setdefault(_labels(clicks.case, clicks.first_click), {})
        found[f"NoC@{100 * clicks.iou:.0f}"] = f"{clicks.clicks.mean:.2f} ({clicks.reached:.0%})"
    columns = (*prompts, *ious)
    return Table(
        title="Prompts: mIoU in %",
        columns=("data", "masks", "method", *columns),
        labels=3,
        rows=tuple(
            (*labels, *(found.get(column, _NONE) for column in columns))
            for labels, found in cells.items()
        ),
        note=_prompts_note(report),
    )


def _prompts_note(report: EvaluationReport) -> str:
    per_image = (
        f"at most {report.masks_per_image} masks of each image, drawn with seed {report.seed}"
        if report.masks_per_image
        else "all masks of each image"
    )
    note = (
        "Mean IoU of the trusted answer (highest predicted IoU) ± half the 95 % interval (images "
        f"resampled) / of the best answer; {per_image}."
    )
    if report.clicks:
        note += (
            " The first click lies where the mask is farthest from its border unless the row says "
            "random, later ones in the middle of the largest mistake. NoC@85: clicks until an IoU "
            f"of .85, {report.clicks[0].most} where it is never reached (share of masks that reach "
            "it)."
        )
    return note


def _sizes(rows: tuple[PromptRow, ...]) -> Table:
    chosen = [row for row in rows if row.prompt in ("1 click", "box")]
    return Table(
        title="Trusted mIoU in % by size",
        columns=("data", "masks", "method", "prompt", "small", "medium", "large"),
        labels=4,
        rows=tuple(
            (
                *_labels(row.case, row.first_click),
                row.prompt,
                *(_hundred(value) for value in (row.small, row.medium, row.large)),
            )
            for row in chosen
        ),
        note="Small: below 32² pixels, medium: below 96².",
    )


def _calibration(rows: tuple[CalibrationRow, ...]) -> Table:
    return Table(
        title="Calibration of predicted IoU",
        columns=("data", "masks", "method", "prompt", "answers", "error", "bias", "above 1"),
        labels=5,
        rows=tuple(
            (
                *_labels(row.case, row.first_click),
                row.prompt,
                row.answers,
                f"{row.calibration.error:.3f}",
                f"{row.calibration.bias:+.3f}",
                f"{row.calibration.above_one:.1%}",
            )
            for row in rows
        ),
        note=(
            "Error: expected calibration error over bins of equal count; bias: predicted minus "
            "measured."
        ),
    )


def _looks(rows: tuple[LookRow, ...]) -> Table:
    return Table(
        title="Other looks: mIoU in %, and the share of the clean score",
        columns=("data", "masks", "method", "look", "1 click", "oracle", "box"),
        labels=4,
        rows=tuple(
            (
                *_labels(row.case),
                row.look,
                _kept(row.trusted, row.kept_trusted),
                _kept(row.oracle, row.kept_oracle),
                _kept(row.box, row.kept_box),
            )
            for row in rows
        ),
    )


def _figures(rows: tuple[FigureRow, ...]) -> Iterator[Table]:
    for task in _ordered(row.task for row in rows):
        chosen = [row for row in rows if row.task == task]
        figures = _ordered(row.figure for row in chosen)
        cells: dict[tuple[str, str, str], dict[str, str]] = {}
        for row in chosen:
            found = cells.setdefault((row.data, str(row.images), row.method), {})
            found[row.figure] = _figure(row)
        yield Table(
            title=task.capitalize(),
            columns=("data", "images", "method", *figures),
            labels=3,
            rows=tuple(
                (*labels, *(found.get(figure, _NONE) for figure in figures))
                for labels, found in cells.items()
            ),
            note=(
                "± half the 95 % interval (images resampled)."
                if any(row.low is not None for row in chosen)
                else ""
            ),
        )


def _figure(row: FigureRow) -> str:
    digits = 1 if row.value > 1 else 3
    text = f"{row.value:.{digits}f}"
    if row.low is None or row.high is None:
        return text
    return f"{text} ± {(row.high - row.low) / 2:.{digits}f}"


def _labels(case: Case, first_click: str | None = None) -> tuple[str, str, str]:
    data = case.data if case.votes == 1 else f"{case.data}, votes ≥ {case.votes}"
    method = case.method if first_click in (None, "centre") else f"{case.method}, {first_click}"
    return data, f"{case.masks} of {case.images} images", method


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.mean:.1f} ± {50 * (estimate.high - estimate.low):.1f}"


def _hundred(value: float | None) -> str:
    return _NONE if value is None else f"{100 * value:.1f}"


def _kept(estimate: Estimate, share: float | None) -> str:
    return f"{100 * estimate.mean:.1f}" + ("" if share is None else f" ({share:.0%})")


def _ordered(values: Iterable[str]) -> tuple[str, ...]:
    """Each value once, in the order of their first appearance."""
    return tuple(dict.fromkeys(values))
