"""A report as pictures: mIoU over clicks with the baselines beside, and the reliability diagram.

for name, png in report_plots(report):
(folder / name).write_bytes(png)
"""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from engine.evaluation.report import CalibrationRow, EvaluationReport, PromptRow

_DPI = 150
_RELIABILITY_OF = ("1 click", "3 clicks", "box")
_COLOURS = ("#1f6feb", "#bc4c00", "#2da44e", "#8250df", "#6e7781")


def report_plots(report: EvaluationReport) -> Iterator[tuple[str, bytes]]:
    """Draw a report: (file name, PNG) for every set and level of agreement."""
    by_set: dict[tuple[str, int], list[PromptRow]] = defaultdict(list)
    for row in report.prompts:
        if row.first_click is not None:
            by_set[row.case.data, row.case.votes].append(row)
    for (data, votes), rows in by_set.items():
        if len({row.prompt for row in rows}) > 1:
            yield f"clicks-{_slug(data)}-votes-{votes}.png", clicks_plot(rows)
    diagrams: dict[tuple[str, int], list[CalibrationRow]] = defaultdict(list)
    for reliability in report.calibration:
        if reliability.answers == "trusted" and reliability.prompt in _RELIABILITY_OF:
            diagrams[reliability.case.data, reliability.case.votes].append(reliability)
    for (data, votes), reliabilities in diagrams.items():
        yield f"reliability-{_slug(data)}-votes-{votes}.png", reliability_plot(reliabilities)


def clicks_plot(rows: list[PromptRow]) -> bytes:
    """Draw mIoU over clicks: a line for each method with its interval, dotted its oracle.

    Args:
        rows: click prompts of one set and level of agreement; random first clicks are dashed.

    Returns:
        A PNG.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    colours = dict(zip(dict.fromkeys(row.case.method for row in rows), _COLOURS, strict=False))
    lines: dict[tuple[str, str | None], list[PromptRow]] = defaultdict(list)
    for row in rows:
        lines[row.case.method, row.first_click].append(row)
    for (method, first_click), line in lines.items():
        _clicks_line(axes, line, colours.get(method, _COLOURS[-1]), random=first_click == "random")
    case = rows[0].case
    axes.set_title(_title(case.data, case.votes, case.masks))
    axes.set_xlabel("clicks")
    axes.set_ylabel("mIoU, %")
    axes.set_xticks(sorted({_clicks_of(row) for row in rows}))
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    return _png(figure)


def _clicks_line(axes: Axes, line: list[PromptRow], colour: str, *, random: bool) -> None:
    clicks = [_clicks_of(row) for row in line]
    name = line[0].case.method + (", random" if random else "")
    means = [100 * row.trusted.mean for row in line]
    axes.plot(clicks, means, "o--" if random else "o-", color=colour, label=name, markersize=4)
    axes.fill_between(
        clicks,
        [100 * row.trusted.low for row in line],
        [100 * row.trusted.high for row in line],
        color=colour,
        alpha=0.15,
        linewidth=0,
    )
    if not random:
        oracle = [100 * row.oracle.mean for row in line]
        axes.plot(clicks, oracle, ":", color=colour, label=f"{name}, oracle")


def _clicks_of(row: PromptRow) -> int:
    return int(row.prompt.split()[0])


def reliability_plot(rows: list[CalibrationRow]) -> bytes:
    """Draw measured over predicted IoU: on the diagonal a prediction is what it says.

    Args:
        rows: trusted answers of one set and level of agreement, a line for each prompt.

    Returns:
        A PNG.
    """
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.add_subplot()
    most = max(1.0, *(part.predicted for row in rows for part in row.calibration.bins))
    axes.plot([0, 1], [0, 1], "--", color="#6e7781", linewidth=1)
    for place, row in enumerate(rows):
        _reliability_line(axes, row, _COLOURS[place % len(_COLOURS)])
    case = rows[0].case
    axes.set_title(_title(case.data, case.votes, case.masks))
    axes.set_xlabel("predicted IoU")
    axes.set_ylabel("measured IoU")
    axes.set_xlim(0, most)
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", framealpha=0.7, edgecolor="none")
    return _png(figure)


def _reliability_line(axes: Axes, row: CalibrationRow, colour: str) -> None:
    bins = row.calibration.bins
    random = ", random" if row.first_click == "random" else ""
    axes.plot(
        [part.predicted for part in bins],
        [part.measured for part in bins],
        "o-",
        color=colour,
        markersize=4,
        label=f"{row.prompt}{random}, error {row.calibration.error:.3f}",
    )


def _title(data: str, votes: int, masks: int) -> str:
    agreed = "" if votes == 1 else f", votes ≥ {votes}"
    return f"{data}{agreed}: {masks} masks"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "set"


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()
