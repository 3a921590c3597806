"""How a training tells Prefect how far it is: a progress bar, and a line in the log now and then.

with TrainingProgress("m3 on r7") as progress:
    train_candidate(workspace, planned, now=now, listener=progress)
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from time import monotonic
from types import TracebackType
from typing import Self

from engine.learning.training_log import LogEntry
from flows.artifacts.progress import Progress
from flows.commands.training_bar import figures

__all__ = ["TrainingProgress"]

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 20.0


class TrainingProgress:
    """Shows a training in the Prefect UI; an `engine.learning` `TrainingListener`."""

    def __init__(self, title: str) -> None:
        """Take what is trained; nothing is shown before training begins.

        Args:
            title: for people, e.g. ``"m3 on r7"``.
        """
        self._title = title
        self._stack = ExitStack()
        self._progress: Progress | None = None
        self._done = self._steps = 0
        self._said: float | None = None

    def __enter__(self) -> Self:
        """Wait for the training to begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Show where it ended."""
        self._stack.__exit__(kind, error, trace)

    def begin(self, step: int, steps: int) -> None:
        """Show where training starts."""
        self._steps = steps
        self._progress = self._stack.enter_context(
            Progress(steps, f"training {self._title}", unit="steps")
        )
        logger.info("training %s, %d steps%s", self._title, steps, f" from {step}" if step else "")
        self.step(step)

    def step(self, step: int) -> None:
        """Move the bar."""
        if self._progress is not None and step > self._done:
            self._progress.advance(step - self._done)
            self._done = step

    def entry(self, entry: LogEntry) -> None:
        """Say figures: measurements always, losses when nothing was said for a while."""
        now = monotonic()
        is_due = self._said is None or now - self._said >= _SECONDS_BETWEEN_LINES
        if entry.kind != "evaluation" and not is_due:
            return
        self._said = now
        what = "held out: " if entry.kind == "evaluation" else ""
        line = f"{what}{figures(entry.values)}"
        logger.info("step %d of %d: %s", entry.step, self._steps, line)
        if self._progress is not None:
            self._progress.advance(0, note=line)
