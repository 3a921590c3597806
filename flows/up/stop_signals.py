"""Ctrl-C once: end in order. Twice: at once.

with StopSignals() as stop:
    while not stop.wait(1.0): ...
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

from engine.closing import Closing

__all__ = ["StopSignals"]

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class StopSignals(Closing):
    """Signals that ask this process to end; the main thread makes and closes it.

    Attributes:
        asked: whether one came.
        is_urgent: whether another one came.
    """

    def __init__(self) -> None:
        self.is_urgent = False
        self._event = threading.Event()
        self._before = {}
        for name in _NAMES:
            number = getattr(signal, name, None)
            # What is ignored stays ignored: `nohup` asks for that.
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)

    @property
    def asked(self) -> bool:
        """Whether somebody asked to end."""
        return self._event.is_set()

    def urgent(self) -> bool:
        """Return whether somebody asked twice."""
        return self.is_urgent

    def wait(self, seconds: float) -> bool:
        """Wait for somebody to ask, or for some seconds; return whether somebody did."""
        return self._event.wait(seconds)

    def close(self) -> None:
        """Let signals do what they did before."""
        while self._before:
            signal.signal(*self._before.popitem())

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.is_urgent = self._event.is_set()
        self._event.set()
