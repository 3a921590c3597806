"""A progress bar on a terminal, quiet lines in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

_LOG_EVERY_SECONDS = 30.0


class _ImagesPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.2f} images/s" if speed else "", style="progress.data.speed")


class StandardErrorBar:
    """A bar on standard error where that is a terminal; else a line now and then."""

    def __init__(self, title: str, *figures: ProgressColumn) -> None:
        """Take the text before the bar and the columns behind the count."""
        self._console = Console(stderr=True)
        self._live = self._console.is_terminal
        self._bar = Progress(
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            *figures,
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task: TaskID | None = None
        self._said = time.monotonic()

    def __enter__(self) -> Self:
        if self._live:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._bar.stop()

    def _line_is_due(self) -> bool:
        """Return whether a log has waited long enough for the next line, and begin to wait anew."""
        due = time.monotonic() - self._said > _LOG_EVERY_SECONDS
        if due:
            self._said = time.monotonic()
        return due


class ProgressBar(StandardErrorBar):
    """Shows a flow's stages on standard error; a `flows.progress.Listener`."""

    def __init__(self) -> None:
        super().__init__(
            "{task.description:>15}", _ImagesPerSecond(), TextColumn("{task.fields[masks]}")
        )
        self._title, self._total, self._done, self._masks = "", 0, 0, 0

    def __enter__(self) -> Self:
        super().__enter__()
        if self._live:
            self.stage("starting", None)
        return self

    def stage(self, title: str, total: int | None) -> None:
        """Begin a stage."""
        self._title, self._total, self._done, self._masks = title, total or 0, 0, 0
        self._said = time.monotonic()
        if self._live:
            if self._task is not None and self._bar.tasks[-1].total is None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(title, total=total, masks="")
        elif total:
            print(f"{title}: {total} images", file=sys.stderr, flush=True)

    def image(self, uri: str, masks: int) -> None:
        """Count an image."""
        self.images(1, masks)

    def images(self, count: int, masks: int) -> None:
        """Count many."""
        self._done += count
        self._masks += masks
        if self._live and self._task is not None:
            text = f"{self._masks} masks" if self._masks else ""
            self._bar.update(self._task, advance=count, masks=text)
        elif self._line_is_due():
            print(f"{self._title}: {self._done} of {self._total}", file=sys.stderr, flush=True)
