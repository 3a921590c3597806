"""SQLite files get their write-ahead mode, whoever else wants it at the same moment."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier

import pytest

from engine.write_ahead import use_write_ahead_log


def test_the_mode_sticks_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    use_write_ahead_log(path, busy_s=5)
    use_write_ahead_log(path, busy_s=5)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_many_may_switch_at_once(tmp_path: Path) -> None:
    rivals, files = 12, 25
    starts_together = Barrier(rivals, timeout=60)

    def switch(_: int) -> None:
        for number in range(files):
            starts_together.wait()
            use_write_ahead_log(tmp_path / f"{number}.db", busy_s=30)

    with ThreadPoolExecutor(rivals) as pool:
        list(pool.map(switch, range(rivals)))


def test_a_file_that_stays_busy_is_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("CREATE TABLE t (x)")
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            use_write_ahead_log(path, busy_s=0.2)


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        use_write_ahead_log(path, busy_s=5)
