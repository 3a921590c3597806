"""How long a simulated annotator takes for what they do, and the clock that they live by.

    pace, clock = Pace(Timing(), random), SimulatedClock(start_ms=1_700_000_000_000)
    clock.spend(pace.seconds("first_click"))

The times are sums of the operators of the keystroke-level model (Card, Moran and Newell, CACM
23(7), 1980): M 1.35 s to make up one's mind, P 1.1 s to point with a mouse, B 0.1 s for a press or
release of its button, K 0.2 s for a key, and D = 0.9 s per segment + 0.16 s per cm to draw. They
agree with what was measured of annotators: 1.75 s for each of four clicks in a row (Papadopoulos et
al., 2017), 2.4 s for the first point on an object and 0.9 s for one more (Bearman et al., 2016).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np

from engine.errors import BadInputError, EngineError

__all__ = ["Action", "Pace", "SimulatedClock", "TimeIsUpError", "Timing"]

Action = Literal[
    "look", "search", "first_click", "click", "box", "cycle", "commit", "keep", "select", "undo",
    "delete", "judge", "submit",
]  # fmt: skip

_M, _P, _B, _K = 1.35, 1.1, 0.1, 0.2
_SEGMENT, _CENTIMETRE = 0.9, 0.16


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Mean seconds of each thing that an annotator does, and how they scatter.

    Attributes:
        look: see what a new image shows: four decisions.
        search: find the next object: one decision.
        first_click: point at it and press; the decision is `search`'s.
        click: look at the answer, point at what is wrong, press.
        box: point at a corner, press, drag to the other one, release; again without the decision.
        cycle: look at the other candidates and press a key.
        commit: press Enter.
        keep: decide that a pre-filled mask is right: annotators verified boxes in 1.6 s each
            (Papadopoulos et al., 2016).
        select: point at a mask and press.
        undo: see that the last step made it worse and press two keys.
        delete: decide that a mask shows nothing, select it and press a key.
        judge: as `keep`, of another person's mask, and point at the verdict.
        submit: look over the whole image once more and press two keys.
        segment: a straight piece of a brush or eraser stroke, without its length.
        centimetre: of a stroke's length.
        px_per_cm: pixels of the image in a centimetre of the screen: 38 at 96 dpi, shown 1:1.
        spread: sigma of the lognormal scatter of single actions; times of people are skewed to the
            right, with a standard deviation of about a third of their mean.
        spread_of_people: sigma of the lognormal factor by which one person is slower than another.
    """

    look: float = 4 * _M
    search: float = _M
    first_click: float = _P + 2 * _B
    click: float = _M + _P + 2 * _B
    box: float = _P + _B + _P + _B
    cycle: float = _M + _K
    commit: float = _K
    keep: float = _M + _K
    select: float = _P + 2 * _B
    undo: float = _M + 2 * _K
    delete: float = _M + _P + 2 * _B + _K
    judge: float = _M + _P + 2 * _B
    submit: float = 2 * _M + 2 * _K
    segment: float = _SEGMENT
    centimetre: float = _CENTIMETRE
    px_per_cm: float = 38.0
    spread: float = 0.35
    spread_of_people: float = 0.25

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0) or (name == "px_per_cm" and value == 0):
                raise BadInputError(f"the timing's {name} must be 0 or more seconds; got {value}")


class Pace:
    """One person's times: the same seed gives the same seconds in the same order.

    Attributes:
        timing: mean times.
        slowness: of this person; 1 is usual.
    """

    def __init__(
        self, timing: Timing, random: np.random.Generator, slowness: float | None = None
    ) -> None:
        """Begin.

        Args:
            timing: mean times.
            random: scatters them.
            slowness: how much slower this person is than others; None: drawn.
        """
        self.timing = timing
        self.slowness = slowness or _scatter(random, timing.spread_of_people)
        self._random = random

    def seconds(self, action: Action) -> float:
        """Draw how long an action takes this time."""
        mean: float = getattr(self.timing, action)
        return mean * self.slowness * _scatter(self._random, self.timing.spread)

    def stroke_seconds(self, pieces: int, length_px: float) -> float:
        """Draw how long a stroke takes: decide, point at its beginning, draw."""
        timing = self.timing
        drawing = timing.segment * pieces + timing.centimetre * length_px / timing.px_per_cm
        return (timing.click + drawing) * self.slowness * _scatter(self._random, timing.spread)


def _scatter(random: np.random.Generator, sigma: float) -> float:
    """Draw a lognormal factor whose mean is 1."""
    return math.exp(random.normal(-(sigma**2) / 2, sigma))


class TimeIsUpError(EngineError):
    """A simulated person's working time is over."""


class SimulatedClock:
    """A person's time: it passes by what they do, and by what they wait for.

    With speed 1 a second of it takes a second, with speed 10 a tenth. With speed 0 nobody sleeps
    and waiting for the service takes no simulated time, so that a seed gives the same times again.

    Attributes:
        speed: simulated seconds per second; 0: as fast as possible.
        seconds: simulated seconds since the start.
    """

    def __init__(
        self,
        start_ms: int,
        speed: float = 0.0,
        working_seconds: float = math.inf,
        stop: threading.Event | None = None,
    ) -> None:
        """Begin at a time of day.

        Args:
            start_ms: milliseconds since 1970.
            speed: see the class.
            working_seconds: simulated seconds after which the time is up.
            stop: when set, the time is up at once.

        Raises:
            BadInputError: a negative speed.
        """
        if not (math.isfinite(speed) and speed >= 0):
            raise BadInputError(f"expected a speed of 0 or more, got {speed}")
        self.speed = speed
        self.seconds = 0.0
        self._start_ms = start_ms
        self._working_seconds = working_seconds
        self._stop = stop or threading.Event()

    @property
    def now_ms(self) -> int:
        """Milliseconds since 1970 on this person's clock."""
        return self._start_ms + round(self.seconds * 1000)

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return self._stop.is_set() or self.seconds >= self._working_seconds

    def spend(self, seconds: float) -> None:
        """Let the time that an action takes pass.

        Raises:
            TimeIsUpError: when it is.
        """
        if self.speed > 0:
            self._stop.wait(seconds / self.speed)
        self.seconds += seconds
        if self.is_over:
            raise TimeIsUpError(f"the time is up after {self.seconds:.0f} simulated seconds")

    def idle(self, seconds: float, real_seconds: float) -> None:
        """Wait for others: simulated seconds, or at speed 0 real ones; TimeIsUpError as `spend`."""
        if self.speed == 0:
            self._stop.wait(real_seconds)
        self.spend(seconds)

    @contextmanager
    def waiting(self, measure: Callable[[], float] = time.perf_counter) -> Iterator[None]:
        """Count the time inside the block as time that the person sat and waited."""
        begun = measure()
        yield
        if self.speed > 0:
            self.seconds += measure() - begun
