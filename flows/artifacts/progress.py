"""Progress of a stage in the Prefect UI, at next to no cost.

    with Progress(len(shards), "masking", unit="shards") as progress:
        for outcome in outcomes:
            progress.advance(note=f"{masks:,} masks")

An update is a call to the server: there is one every few seconds however fast the work is, and
while the server is slow or away, when Prefect's client tries again for a minute, fewer still.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Self
from uuid import UUID

from flows.artifacts.sending import artifact_id, unreachable
from flows.artifacts.texts import duration, escaped

__all__ = ["Progress"]

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_UPDATES = 3.0
_REST = 10.0  # times what the last update took: updates never take more than a tenth of the time
_ALL = 100.0


class Progress:
    """A progress bar in the Prefect UI; its description says what was done of how much.

    It belongs to the run that it is made in, and is no task: make it in a flow.
    """

    def __init__(
        self,
        total: int,
        description: str,
        *,
        unit: str = "shards",
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Begin.

        Args:
            total: steps to do; 0 is done at once.
            description: what is done, e.g. ``"masking"``.
            unit: of a step, plural.
            clock: in seconds.
        """
        self._total = total
        self._description = description
        self._unit = unit
        self._done = 0
        self._note = ""
        self._artifact: UUID | None = None
        self._reachable = True
        self._clock = clock
        self._began = self._next_update = clock()

    def __enter__(self) -> Self:
        """Show the empty bar."""
        self._send()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Show where it ended."""
        self._send()

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count steps; tell the server if it has not heard for a while.

        Args:
            steps: done since the last call.
            note: what else to say, e.g. ``"1,204 masks"``; stays until another is given.
        """
        self._done += steps
        self._note = note or self._note
        if self._clock() >= self._next_update:
            self._send()

    def _percent(self) -> float:
        return round(_ALL * min(1.0, self._done / self._total), 1) if self._total else _ALL

    def _said(self) -> str:
        parts = [f"{self._description}: {self._done:,} of {self._total:,} {self._unit}"]
        if self._note:
            parts.append(self._note)
        passed = self._clock() - self._began
        if 0 < self._done < self._total:
            left = passed / self._done * (self._total - self._done)
            parts.append(f"about {duration(left)} left")
        elif self._done:
            parts.append(f"in {duration(passed)}")
        return escaped(", ".join(parts))

    def _send(self) -> None:
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        began = self._clock()
        percent = self._percent()
        try:
            if self._artifact is None:
                self._artifact = artifact_id(
                    create_progress_artifact(progress=percent, description=self._said())
                )
            else:
                update_progress_artifact(self._artifact, progress=percent, description=self._said())
        except unreachable() as error:
            if self._reachable:
                log.warning(
                    "cannot show the progress of %s in the Prefect UI: %r; the work goes on",
                    self._description,
                    error,
                )
            self._reachable = False
        else:
            self._reachable = True
        now = self._clock()
        self._next_update = now + max(_SECONDS_BETWEEN_UPDATES, _REST * (now - began))
