"""Tables and figures of releases on the terminal: `console().print(table("release", "masks"))`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["NUMBER", "console", "size", "table"]

_PIPE_COLUMNS = 200
NUMBER = ">"
"""A column whose header begins with this is aligned to the right."""


def console() -> Console:
    """Return where tables go; they keep their full width in files and pipes."""
    import sys

    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS, highlight=False)


def table(*headers: str) -> Table:
    """Return a table without lines."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for header in headers:
        is_number = header.startswith(NUMBER)
        made.add_column(header.removeprefix(NUMBER), justify="right" if is_number else "left")
    return made


def size(size_bytes: int) -> str:
    """Return a length for people: ``"12.3 MB"``."""
    amount = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"
