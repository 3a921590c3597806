"""Progress of work that is counted in one unit: a bar on a terminal, quiet lines in a log.

with CountBar("verifying", "rows") as bar:
    verify_release(workspace, release, on_rows=bar.update)
"""

from __future__ import annotations

import sys

from rich.progress import ProgressColumn, Task
from rich.text import Text

from flows.commands.progress_bar import StandardErrorBar


class _Speed(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        text = f"{speed:,.0f} {self._unit}/s" if speed else ""
        return Text(text, style="progress.data.speed")


class CountBar(StandardErrorBar):
    """Shows how far something is, on standard error."""

    def __init__(self, title: str, unit: str) -> None:
        """Take what is done, and the plural of what is counted."""
        super().__init__(title, _Speed(unit))
        self._title, self._unit = title, unit

    def update(self, done: int, total: int) -> None:
        """Show that `done` of `total` are done."""
        if self._live:
            if self._task is None:
                self._task = self._bar.add_task("", total=total)
            self._bar.update(self._task, completed=done, total=total)
        elif self._line_is_due():
            line = f"{self._title}: {done:,} of {total:,} {self._unit}"
            print(line, file=sys.stderr, flush=True)
