r"""Text and figures as people read them, safe inside Markdown whatever they hold.

>>> escaped("<img src=x>|[a](b).jpg")
'\\<img src=x\\>\\|\\[a\\](b).jpg'
>>> readable(12345.678), readable(True), readable(None)
('12,346', 'yes', '-')
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from math import isfinite

__all__ = [
    "Cell",
    "code",
    "duration",
    "escaped",
    "in_cell",
    "markdown_table",
    "plain",
    "prose",
    "readable",
]

Cell = str | int | float | bool | datetime | None

_MAX_CHARACTERS = 300
_NOTHING = "-"
_APART = "\u2060"  # word joiner
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
# With these escaped, nothing is a tag, an entity, a link, emphasis, code or the end of a cell.
_MARKS = re.compile(r"([\\`*_\[\]<>#|~&@]|:(?=//))")


def plain(text: str, max_characters: int | None = _MAX_CHARACTERS) -> str:
    """Return text on one line, without control characters, not longer than a table can show."""
    line = _UNPRINTABLE.sub(" ", text.encode("utf-8", "replace").decode()).strip()
    if max_characters is None or len(line) <= max_characters:
        return line
    return f"{line[: max_characters - 1]}…"


def escaped(text: str, max_characters: int | None = _MAX_CHARACTERS) -> str:
    """Return `plain` text that Markdown shows as it is: names of files, messages, notes."""
    return _escaped(plain(text, max_characters))


def prose(text: str) -> str:
    """Return sentences in which only pairs of backticks mean something: code, as in docstrings."""
    parts = plain(text, None).split("`")
    if len(parts) % 2 == 0:
        return _escaped("`".join(parts))
    return "".join(
        code(part) if number % 2 else _escaped(part) for number, part in enumerate(parts)
    )


def _escaped(line: str) -> str:
    return _MARKS.sub(r"\\\1", line).replace("www.", "www\\.")


def code(text: str) -> str:
    """Return `plain` text in Markdown's type for code, not for tables: commands, addresses."""
    line = plain(text, None)
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    space = " " if line.startswith("`") or line.endswith("`") or not line else ""
    return f"{fence}{space}{line}{space}{fence}"


def in_cell(text: str) -> str:
    """Return `plain` text for a cell of Prefect's tables.

    Its new UI shows cells as they are, its old one as Markdown and HTML, so neither may be escaped;
    after a ``<``, and between ``]`` and ``(``, an invisible character keeps them apart.
    """
    return plain(text).replace("<", f"<{_APART}").replace("](", f"]{_APART}(")


def readable(value: Cell) -> str:
    """Write a value for reading: 12,345 or 0.873, yes or no, a date to the minute."""
    match value:
        case None:
            return _NOTHING
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return _number(value)
        case datetime():
            return f"{value:%Y-%m-%d %H:%M} UTC"
        case _:
            return plain(value)


def _number(value: float) -> str:
    if not isfinite(value):
        return _NOTHING
    if abs(value) >= 10_000 or value.is_integer():
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:,.1f}"
    return f"{value:.3g}" if abs(value) < 0.1 else f"{value:.3f}".rstrip("0").rstrip(".")


def duration(seconds: float) -> str:
    """Write a time span: 8.4 s, 3 min 20 s, 5 h 12 min, 2 d 4 h."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    for big, small, size, part in (("d", "h", 86_400, 3_600), ("h", "min", 3_600, 60)):
        if whole >= size:
            return f"{whole // size:,} {big} {whole % size // part} {small}"
    return f"{whole // 60} min {whole % 60} s"


def markdown_table(rows: Sequence[Mapping[str, Cell]]) -> str:
    """Write rows as a Markdown table; numbers stand right. Columns are those of the first row."""
    if not rows:
        return ""
    columns = list(rows[0])
    right = [all(isinstance(row.get(name), int | float) for row in rows) for name in columns]
    lines = [
        [escaped(name) for name in columns],
        ["---:" if numbers else "---" for numbers in right],
        *([escaped(readable(row.get(name))) for name in columns] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
