"""How much and how often a client may ask: sizes of bodies, rates of requests.

    rates = RateLimiter(per_second=100, burst=300)
    wait_seconds = rates.take("session", time.monotonic())         # 0.0: go on

Limits protect one process, so they live in its memory: a restart forgets them, and that is fine.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from dataclasses import dataclass

__all__ = ["BodyLimits", "RateLimiter"]

_KIB = 1024
_MIB = 1024 * _KIB
_TASK = r"/api/tasks/[^/]+"


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """The largest body that a route takes, in bytes.

    Attributes:
        work: of drafts and submissions. 500 intricate masks of a 24-megapixel photo are about 5 MB.
        events: of a batch of events.
        decode: of a prompt with the logits of the mask before: 512 x 512 float16 in base64.
        other: of everything else.
    """

    work: int = 32 * _MIB
    events: int = 2 * _MIB
    decode: int = 2 * _MIB
    other: int = 64 * _KIB

    def of(self, path: str) -> int:
        """Return the limit for a request's path."""
        for pattern, limit in (
            (rf"{_TASK}/(draft|submit|verdicts)", self.work),
            (rf"{_TASK}/events", self.events),
            (rf"{_TASK}/decode", self.decode),
        ):
            if re.fullmatch(pattern, path):
                return limit
        return self.other


class RateLimiter:
    """Token buckets by name: `burst` at once, then `per_second`. The oldest of many are forgotten.

    Threads may share one.
    """

    def __init__(self, per_second: float, burst: float, names: int = 10_000) -> None:
        self._per_second = per_second
        self._burst = burst
        self._names = names
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # level, at seconds
        self._lock = threading.Lock()

    def take(self, name: str, at_seconds: float) -> float:
        """Take one token.

        Args:
            name: whose bucket.
            at_seconds: of a monotonic clock.

        Returns:
            0.0, or the seconds until there is a token; then none was taken.
        """
        with self._lock:
            level, since = self._buckets.pop(name, (self._burst, at_seconds))
            level = min(self._burst, level + max(0.0, at_seconds - since) * self._per_second)
            missing = max(0.0, 1.0 - level)
            self._buckets[name] = (level if missing else level - 1.0, at_seconds)
            while len(self._buckets) > self._names:
                self._buckets.popitem(last=False)
        return missing / self._per_second

    def give_back(self, name: str) -> None:
        """Put a token back: what it was taken for does not count."""
        with self._lock:
            if name in self._buckets:
                level, since = self._buckets[name]
                self._buckets[name] = (min(self._burst, level + 1.0), since)
