"""What a training tells: lines for programs, TensorBoard events, and a picture of the curve.

>>> with TrainingLog(folder, start=500) as log:
...     log.add(LogEntry(550, "train", {"total": 1.2, "miou_trusted": 0.4}))
>>> draw_learning_curve(read_log(folder), folder / CURVE)

``training.jsonl`` has one object per line; a training that continues from a checkpoint first cuts
off what the killed one had logged after it, so the file is that of an undisturbed training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from engine.closing import Closing
from engine.errors import BadInputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch.utils.tensorboard import SummaryWriter

__all__ = [
    "CURVE",
    "LOG",
    "TENSORBOARD",
    "LogEntry",
    "TrainingLog",
    "draw_learning_curve",
    "parse_log",
    "read_log",
]

LOG = "training.jsonl"
CURVE = "learning_curve.png"
TENSORBOARD = "tensorboard"

_SIZE_INCHES = (11, 4.2)
_DOTS_PER_INCH = 100


@dataclass(frozen=True, slots=True)
class LogEntry:
    """Some figures of one moment.

    Attributes:
        step: optimiser steps done.
        kind: of the training steps since the last entry, or measured on held-out images.
        values: by name.
    """

    step: int
    kind: Literal["train", "evaluation"]
    values: Mapping[str, float]


class TrainingLog(Closing):
    """Writes the log of a training; close it, or use it as a context manager."""

    def __init__(self, folder: Path, start: int = 0) -> None:
        """Open the log.

        Args:
            folder: of the training.
            start: the step that training continues from; later entries are removed.
        """
        # Deferred: it takes a second, and only who trains needs it.
        from torch.utils.tensorboard import SummaryWriter

        kept = [entry for entry in read_log(folder) if entry.step <= start]
        partial = folder / f"{LOG}.partial"
        partial.write_text("".join(_to_line(entry) for entry in kept))
        partial.replace(folder / LOG)
        self._lines = (folder / LOG).open("a")
        # TensorBoard then leaves out what the killed training had written of later steps.
        purge = start + 1 if start else None
        self._events: SummaryWriter = SummaryWriter(str(folder / TENSORBOARD), purge_step=purge)

    def add(self, entry: LogEntry) -> None:
        """Write an entry; it is in the files when this returns."""
        self._lines.write(_to_line(entry))
        self._lines.flush()
        for name, value in entry.values.items():
            self._events.add_scalar(f"{entry.kind}/{name}", value, entry.step)
        self._events.flush()

    def close(self) -> None:
        """Close the files."""
        self._lines.close()
        self._events.close()


def read_log(folder: Path) -> list[LogEntry]:
    """Return the entries of a training's log; a line that was cut short by a kill is left out.

    Raises:
        BadInputError: a file that is no such log.
    """
    path = folder / LOG
    return parse_log(path.read_text(), str(path)) if path.exists() else []


def parse_log(text: str, where: str) -> list[LogEntry]:
    """Return the entries in a log's text; a line that was cut short by a kill is left out.

    Raises:
        BadInputError: a text that is no such log; the message says `where`.
    """
    try:
        return [_from_line(line) for line in text.split("\n")[:-1] if line]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{where} is not the log of a training: {error!r}") from error


def draw_learning_curve(entries: Sequence[LogEntry], path: Path) -> None:
    """Draw losses and mIoU over the steps as a PNG."""
    from matplotlib.figure import Figure  # deferred: it takes a second

    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    losses, mious = figure.subplots(1, 2)
    names = list(dict.fromkeys(name for entry in entries for name in entry.values))
    _draw(losses, entries, [n for n in names if n in ("total", "mask", "iou_head")], "loss")
    _draw(mious, entries, [n for n in names if n.startswith("miou")], "mIoU")
    mious.set_ylim(0, 1)
    figure.savefig(path, dpi=_DOTS_PER_INCH)


def _draw(axes: Axes, entries: Sequence[LogEntry], names: Sequence[str], title: str) -> None:
    for kind, style in (("train", "-"), ("evaluation", "o--")):
        for name in names:
            points = [
                (e.step, e.values[name]) for e in entries if e.kind == kind and name in e.values
            ]
            if points:
                label = name.replace("_", " ").replace("miou", "mIoU")
                label += ", held out" if kind == "evaluation" else ""
                axes.plot(*zip(*points, strict=True), style, label=label, markersize=3.5)
    axes.set_xlabel("step")
    axes.locator_params(axis="x", integer=True)
    axes.set_title(title)
    axes.grid(alpha=0.3)
    if axes.get_lines():
        axes.legend(fontsize="small")


def _to_line(entry: LogEntry) -> str:
    fields = {"step": entry.step, "kind": entry.kind, **entry.values}
    return json.dumps(fields) + "\n"


def _from_line(line: str) -> LogEntry:
    fields = json.loads(line)
    return LogEntry(int(fields.pop("step")), fields.pop("kind"), fields)
