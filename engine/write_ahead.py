"""SQLite's write-ahead mode: readers and the one writer do not wait for each other."""

from __future__ import annotations

import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path

__all__ = ["use_write_ahead_log"]


def use_write_ahead_log(path: Path, *, busy_s: float) -> None:
    """Put a SQLite file in write-ahead mode, making it where there is none. The mode sticks to it.

    Where the file system has no shared memory SQLite keeps its rollback journal.

    Args:
        path: of the file; its folder exists.
        busy_s: how long others may keep it busy, in seconds.

    Raises:
        sqlite3.OperationalError: they kept it longer, or it cannot be opened.
        sqlite3.DatabaseError: it is no database.
    """
    deadline = time.monotonic() + busy_s
    while True:
        try:
            with closing(sqlite3.connect(path, timeout=busy_s)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            # Of two that switch at once SQLite refuses one without waiting: they would wait for
            # each other.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(random.uniform(0.005, 0.05))  # noqa: S311  (spreads rivals; no secret)
