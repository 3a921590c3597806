"""How long calls took, by route: what the simulation says of the service.

book = LatencyBook()
client = AnnotationClient.join(address, on_call=book.add)
book.routes()[0].p95_ms, book.api_p95_ms()
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from engine.annotation.client_connection import Call

__all__ = ["DECODE_ROUTE", "LatencyBook", "RouteLatency"]

DECODE_ROUTE = "POST /api/tasks/{id}/decode"


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteLatency:
    """The calls of one route; times are of those that were answered with 2xx.

    Attributes:
        calls: answered with 2xx.
        failed: answered otherwise, or not at all; most of them were repeated.
        failures: how often which status, or ``"none"``.
    """

    route: str
    calls: int
    failed: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    slowest_ms: float | None
    failures: Mapping[str, int]


class LatencyBook:
    """Collects calls; threads may share it."""

    def __init__(self) -> None:
        """Begin empty."""
        self._calls: list[Call] = []

    def add(self, call: Call) -> None:
        """Note a call."""
        self._calls.append(call)  # one bytecode: threads need no lock

    def routes(self) -> tuple[RouteLatency, ...]:
        """Summarise route by route, the most called first."""
        by_route: dict[str, list[Call]] = defaultdict(list)
        for call in self._calls:
            by_route[call.route].append(call)
        routes = [_summary(route, calls) for route, calls in by_route.items()]
        return tuple(sorted(routes, key=lambda route: (-route.calls, route.route)))

    def api(self) -> RouteLatency:
        """Summarise all calls but decodes."""
        return _summary(
            "all but decodes", [call for call in self._calls if call.route != DECODE_ROUTE]
        )


def _summary(route: str, calls: Iterable[Call]) -> RouteLatency:
    calls = list(calls)
    good = [call.seconds * 1000 for call in calls if _is_good(call)]
    failures = Counter(str(call.status or "none") for call in calls if not _is_good(call))
    p50, p95, p99, slowest = (
        np.percentile(good, [50, 95, 99, 100]).round(2).tolist() if good else [None] * 4
    )
    return RouteLatency(
        route=route,
        calls=len(good),
        failed=len(calls) - len(good),
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        slowest_ms=slowest,
        failures=dict(failures),
    )


def _is_good(call: Call) -> bool:
    return call.status is not None and 200 <= call.status < 300
