"""Progress of a training: a bar with losses and mIoU on a terminal, quiet lines in a log."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.progress import TextColumn

from flows.commands.progress_bar import StandardErrorBar

if TYPE_CHECKING:
    from engine.learning.training_log import LogEntry


class TrainingBar(StandardErrorBar):
    """Shows a training on standard error; an `engine.learning` `TrainingListener`."""

    def __init__(self) -> None:
        super().__init__("training", TextColumn("{task.fields[figures]}"))
        self._steps = 0

    def begin(self, step: int, steps: int) -> None:
        """Show where training starts."""
        self._steps = steps
        if self._live:
            self._task = self._bar.add_task("", total=steps, completed=step, figures="")
        else:
            where = f"training goes on at step {step} of {steps}" if step else f"{steps} steps"
            print(where, file=sys.stderr, flush=True)

    def step(self, step: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bar.update(self._task, completed=step)

    def entry(self, entry: LogEntry) -> None:
        """Show figures: every one on the bar, on a quiet log those of measurements and some."""
        text = figures(entry.values)
        if entry.kind == "evaluation":
            text = f"held out: {text}"
        if self._live and self._task is not None:
            if entry.kind == "evaluation":
                self._console.print(f"step {entry.step:6}  {text}", highlight=False)
            else:
                self._bar.update(self._task, figures=text)
        elif self._line_is_due() or entry.kind == "evaluation":
            line = f"step {entry.step} of {self._steps}: {text}"
            print(line, file=sys.stderr, flush=True)


def figures(values: Mapping[str, float]) -> str:
    """Say in a line what is worth saying of logged values."""
    said = []
    if "total" in values:
        said.append(f"loss {values['total']:.3f}")
    said += [
        f"{'mIoU' + name.removeprefix('miou').replace('_', ' ')} {value:.3f}"
        for name, value in values.items()
        if name.startswith("miou")
    ]
    if "samples_per_second" in values:
        said.append(f"{values['samples_per_second']:.1f} samples/s")
        said.append(f"{values['waiting_share']:.0%} waiting for data")
    return ", ".join(said)
