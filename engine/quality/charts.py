"""Small charts as inline SVG, coloured by the page's style sheet (classes bar, axis, tick, heat).

bar_chart(statistics.relative_size.rebinned(40), "Relative mask size", "masks")
heat_map(statistics.centres, "Mask centres")
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from engine.quality.statistics import Distribution

__all__ = ["bar_chart", "heat_map", "number"]

_WIDTH, _HEIGHT = 360, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 10, 18, 24
_TICKS = 6
_LEVELS = 8


def number(value: float) -> str:
    """Write a number for reading: 12,345 or 0.873, never more digits than it needs."""
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3f}".rstrip("0").rstrip(".")


def bar_chart(distribution: Distribution, title: str, of_what: str) -> str:
    """Draw a histogram, with its median marked.

    Args:
        distribution: some 20 to 50 bins of equal width.
        title: what the values are, for readers who do not see the chart.
        of_what: what is counted, e.g. ``"masks"``.

    Returns:
        An ``<svg>`` element.
    """
    total, peak = distribution.total, max(distribution.counts)
    if total == 0:
        return _svg(f"{title}: no values", _text(_WIDTH / 2, _HEIGHT / 2, "no values", "middle"))
    summary = (
        f"{title} of {number(total)} {of_what}: median {number(distribution.median)}, "
        f"mean {number(distribution.mean)}, from {number(distribution.minimum)} "
        f"to {number(distribution.maximum)}"
    )
    return _svg(
        summary,
        _share_axis(peak / total),
        *_bars(distribution, of_what),
        _value_axis(distribution),
        _median_mark(distribution),
    )


def heat_map(cells: Sequence[Sequence[int]], title: str) -> str:
    """Draw counts over a square as a map: stronger is more, linear from 0 to the largest.

    Args:
        cells: rows, top first, of counts.
        title: what is counted, for readers who do not see the map.

    Returns:
        An ``<svg>`` element; one path per level, so that it stays small.
    """
    rows, columns = len(cells), len(cells[0])
    peak = max(max(row) for row in cells)
    levels: list[list[str]] = [[] for _ in range(_LEVELS + 1)]
    for y, row in enumerate(cells):
        for x, count in enumerate(row):
            levels[-(-count * _LEVELS // max(1, peak))].append(f"M{x} {y}h1v1h-1z")
    paths = [
        f'<path class="heat" fill-opacity="{level / _LEVELS:g}" d="{"".join(squares)}"/>'
        for level, squares in enumerate(levels)
        if level and squares
    ]
    label = escape(f"{title}; the fullest of {rows * columns} cells has {number(peak)}")
    return (
        f'<svg class="chart map" viewBox="0 0 {columns} {rows}" shape-rendering="crispEdges" '
        f'role="img" aria-label="{label}">{"".join(paths)}</svg>'
    )


def _bars(distribution: Distribution, of_what: str) -> list[str]:
    total, peak = distribution.total, max(distribution.counts)
    width = (_WIDTH - _LEFT - _RIGHT) / len(distribution.counts)
    gap = min(1.0, width * 0.15)
    bars = []
    for i, count in enumerate(distribution.counts):
        if count == 0:
            continue
        height = max(0.75, (_HEIGHT - _TOP - _BOTTOM) * count / peak)
        lower, upper = distribution.edges[i], distribution.edges[i + 1]
        between = (
            number(lower)
            if lower.is_integer() and upper == lower + 1
            else f"{number(lower)} to {number(upper)}"
        )
        bars.append(
            f'<rect class="bar" x="{_LEFT + i * width + gap / 2:.2f}" '
            f'y="{_HEIGHT - _BOTTOM - height:.2f}" width="{width - gap:.2f}" '
            f'height="{height:.2f}"><title>{between}: {number(count)} of {number(total)} '
            f"{escape(of_what)} ({count / total:.1%})</title></rect>"
        )
    return bars


def _share_axis(peak: float) -> str:
    """Two lines across, at round shares of all values."""
    step = max(
        digit * power
        for power in (0.0001, 0.001, 0.01, 0.1)
        for digit in (1, 2, 2.5, 5)
        if 2 * digit * power <= max(peak, 0.0002)
    )
    parts = []
    for share in (step, 2 * step):
        if share <= peak:
            y = _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share / peak
            parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
            parts.append(_text(_LEFT - 6, y + 3.5, f"{share * 100:.3g}%", "end"))
    return "".join(parts)


def _value_axis(distribution: Distribution) -> str:
    low, high = distribution.edges[0], distribution.edges[-1]
    width = distribution.edges[1] - low
    # Ticks at bin edges, every k-th of a round k, counted from zero.
    first, last = round(low / width), round(high / width)
    k = next(k for k in (1, 2, 5, 10, 20, 50) if (last - first) / k <= _TICKS)
    parts = [f'<path class="axis" d="M{_LEFT} {_HEIGHT - _BOTTOM}H{_WIDTH - _RIGHT}"/>']
    for i in range(-(-first // k) * k, last + 1, k):
        x = _x(distribution, i * width)
        parts.append(f'<path class="axis" d="M{x:.1f} {_HEIGHT - _BOTTOM}v4"/>')
        parts.append(_text(x, _HEIGHT - 6, number(round(i * width, 9)), "middle"))
    return "".join(parts)


def _median_mark(distribution: Distribution) -> str:
    x = min(max(_x(distribution, distribution.median), _LEFT), _WIDTH - _RIGHT)
    right = x > (_LEFT + _WIDTH - _RIGHT) / 2
    label = f"median {number(distribution.median)}"
    return f'<path class="median" d="M{x:.1f} {_TOP - 12}V{_HEIGHT - _BOTTOM}"/>' + _text(
        x + (-5 if right else 5), _TOP - 4, label, "end" if right else "start", "strong"
    )


def _x(distribution: Distribution, value: float) -> float:
    low, high = distribution.edges[0], distribution.edges[-1]
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (value - low) / (high - low)


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _svg(label: str, *parts: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
