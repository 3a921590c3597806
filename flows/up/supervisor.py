"""Processes that are kept alive: started, looked after, started again, ended in order.

    with Supervisor(logs, mark=workspace_id, say=print) as parts:
        parts.start(PartSpec(name="worker-1", kind="worker", module="prefect", ...))
        while not stopped.wait(1.0):
            parts.look()                                # once a second

A part that ends is started again, later each time; five short lives in a row end everything, since
what fails five times fails a sixth time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from engine.closing import Closing
from engine.config import child_environment, current_time
from engine.errors import EngineError
from flows.up.child import RUN_SECONDS, Kind
from flows.up.processes import MARK, end_processes, marked, process_id
from flows.up.state_file import PartState

__all__ = ["PartEndedError", "PartSpec", "Supervisor"]

_SHORT_LIFE_SECONDS = 60.0
_MOST_SHORT_LIVES = 5
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 30.0
_STOP_SECONDS = 20.0
_LAST_LINES = 15
_TICK_SECONDS = 0.05


class PartEndedError(EngineError):
    """A part ends whenever it is started; its last lines are in the message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartSpec:
    """A process to keep alive.

    Attributes:
        name: for people, and of its log.
        kind: how it ends, see `flows.up.child`.
        module: that it runs, as ``python -m`` does.
        arguments: of the module.
        environment: variables that hold whatever this process's environment says.
    """

    name: str
    kind: Kind
    module: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]


class _Part:
    """A process and its past."""

    def __init__(self, spec: PartSpec, log: Path, mark: str) -> None:
        self.spec = spec
        self.log = log
        self.restarts = 0
        self.short_lives = 0
        self.next_start: float | None = None
        self._mark = mark
        self.start()

    def start(self) -> None:
        self.since: datetime = current_time()
        self.started = time.monotonic()
        self.next_start = None
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(  # noqa: S603  (this program itself)
                [
                    *(sys.executable, "-m", "flows.up.child"),
                    *(self._mark, self.spec.kind, str(self.log)),
                    *(self.spec.module, *self.spec.arguments),
                ],
                stdin=subprocess.PIPE,  # the leash
                stdout=out,
                stderr=out,
                env=child_environment(fixed={**self.spec.environment, MARK: self._mark}),
                start_new_session=True,  # Ctrl-C is for the supervisor, which ends them in order
            )

    def let_go(self) -> None:
        """Ask it to end."""
        if self.process.stdin is not None:
            self.process.stdin.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def state(self) -> PartState:
        is_running = self.process.poll() is None
        return PartState(
            name=self.spec.name,
            process=process_id(self.process.pid) if is_running else None,
            since=self.since,
            restarts=self.restarts,
        )

    def last_lines(self) -> str:
        with self.log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 16_384))
            lines = file.read().decode(errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-_LAST_LINES:])


class Supervisor(Closing):
    """The parts of one `up`. Not for threads: one loop looks after them."""

    def __init__(
        self,
        logs: Path,
        *,
        mark: str,
        say: Callable[[str], None],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Start nothing yet.

        Args:
            logs: folder for what the parts write.
            mark: of their environment.
            say: tells a person what happened.
            on_change: called after a part was started or has ended.
        """
        logs.mkdir(parents=True, exist_ok=True)
        self._logs = logs
        self._mark = mark
        self._say = say
        self._on_change = on_change
        self._parts: dict[str, _Part] = {}

    def start(self, spec: PartSpec) -> None:
        """Start a part."""
        self._parts[spec.name] = _Part(spec, self._logs / f"{spec.name}.log", self._mark)
        self._on_change()

    def states(self) -> tuple[PartState, ...]:
        """Say how the parts are."""
        return tuple(part.state() for part in self._parts.values())

    def look(self) -> None:
        """Start again what has ended, when its pause is over.

        Raises:
            PartEndedError: a part has had too many short lives.
        """
        for part in self._parts.values():
            if part.process.poll() is None:
                continue
            if part.next_start is None:
                self._bury(part)
            elif time.monotonic() >= part.next_start:
                part.let_go()
                part.restarts += 1
                part.start()
                self._on_change()

    def stop(self, kind: Kind, is_urgent: Callable[[], bool]) -> None:
        """End the parts of a kind, and wait for them; at once when it becomes urgent."""
        parts = [part for part in self._parts.values() if part.spec.kind == kind]
        for part in parts:
            part.let_go()
        deadline = time.monotonic() + _STOP_SECONDS
        deadline += RUN_SECONDS if kind == "worker" else 0
        for part in parts:
            while part.process.poll() is None:
                if is_urgent() or time.monotonic() > deadline:
                    part.kill()
                time.sleep(_TICK_SECONDS)
            del self._parts[part.spec.name]
        self._on_change()

    def close(self) -> None:
        """End at once whatever is left, and what the parts have started."""
        self.end_rest(0.0)

    def end_rest(self, seconds: float) -> None:
        """End whatever is left, and what the parts have started, after some patience."""
        for part in self._parts.values():
            part.let_go()
        end_processes(marked(self._mark), seconds)
        for part in self._parts.values():
            part.process.wait()
        self._parts.clear()

    def _bury(self, part: _Part) -> None:
        """Say that a part has ended, and when it is started again."""
        code = part.process.returncode
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        lived = time.monotonic() - part.started
        part.short_lives = part.short_lives + 1 if lived < _SHORT_LIFE_SECONDS else 1
        if part.short_lives >= _MOST_SHORT_LIVES:
            raise PartEndedError(
                f"{part.spec.name} {how}, {part.short_lives} times in a row; the end of its log, "
                f"{part.log}:\n{part.last_lines()}"
            )
        pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** (part.short_lives - 1))
        part.next_start = time.monotonic() + pause
        self._say(f"{part.spec.name} {how}; it is started again (log: {part.log})")
        self._on_change()
