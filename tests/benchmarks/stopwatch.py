"""Where time goes, measured at the seams: functions are wrapped, production code prints nothing.

    clock = Stopwatch()
    clock.wrap(sam, "encode", "encode")
    clock.wrap_everywhere(box_nms, "NMS")
    ...
    clock.spent["encode"].wall

A stage's time is its own: what it spends in another stage counts there alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any


@dataclass(slots=True)
class Spent:
    """What a stage took so far: seconds of wall time and of processor time, and calls."""

    wall: float = 0.0
    processor: float = 0.0
    calls: int = 0


class Stopwatch:
    """Collects the time of wrapped functions of one thread.

    Args:
        now: returns wall and processor time in seconds.
    """

    def __init__(self, now: Callable[[], tuple[float, float]] | None = None) -> None:
        self._now = now or (lambda: (time.perf_counter(), time.process_time()))
        self.spent: dict[str, Spent] = {}
        self._running: list[str] = []
        self._since = (0.0, 0.0)
        self._undo: list[Callable[[], None]] = []

    def wrap(self, owner: object, name: str, stage: str) -> None:
        """Count the calls of `owner.name` to a stage; `owner` is a module, an object or a class.

        Raises:
            AttributeError: there is no such function: the seam has moved.
        """
        function = getattr(owner, name)
        own = name in vars(owner)

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.start(stage)
            try:
                return function(*args, **kwargs)
            finally:
                self.stop()

        setattr(owner, name, timed)
        self._undo.append(
            (lambda: setattr(owner, name, function)) if own else (lambda: delattr(owner, name))
        )

    def wrap_everywhere(self, function: Callable[..., Any], stage: str) -> None:
        """Count the calls of a function to a stage in every module that has imported it."""
        for module in list(sys.modules.values()):
            names = [name for name, value in vars(module).items() if value is function]
            for name in names:
                self.wrap(module, name, stage)

    @contextmanager
    def stage(self, stage: str) -> Iterator[None]:
        """Count what happens inside to a stage."""
        self.start(stage)
        try:
            yield
        finally:
            self.stop()

    def start(self, stage: str) -> None:
        """Enter a stage."""
        self._account()
        spent = self.spent.setdefault(stage, Spent())
        spent.calls += self._running[-1:] != [stage]  # a stage that calls itself is one call
        self._running.append(stage)

    def stop(self) -> None:
        """Leave the stage entered last."""
        self._account()
        self._running.pop()

    def restore(self) -> None:
        """Unwrap everything."""
        while self._undo:
            self._undo.pop()()

    def _account(self) -> None:
        now = self._now()
        if self._running:
            spent = self.spent[self._running[-1]]
            spent.wall += now[0] - self._since[0]
            spent.processor += now[1] - self._since[1]
        self._since = now
