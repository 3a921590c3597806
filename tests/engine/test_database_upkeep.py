"""Databases are tidied while others use them, and what cannot be done now is left."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from engine import database_upkeep
from engine.database_upkeep import tidy_postgresql, tidy_sqlite
from engine.errors import TransientError, WorkspaceError


def database(path: Path, rows: int = 3000) -> sqlite3.Connection:
    """A database in WAL mode with a table of about 3 MB."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE masks (id INTEGER PRIMARY KEY, stage TEXT, counts TEXT)")
    connection.execute("CREATE INDEX by_stage ON masks (stage)")
    connection.executemany(
        "INSERT INTO masks VALUES (?, ?, ?)",
        [(i, "auto" if i % 10 else "manual", "x" * 1000) for i in range(rows)],
    )
    return connection


def test_free_pages_are_given_back_and_statistics_made(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(database(path)) as connection:
        connection.execute("DELETE FROM masks WHERE id >= 300")
        promised = tidy_sqlite(path, "database", dry_run=True)
        assert promised is not None
        assert promised.size_bytes > 2_000_000
        before = path.stat().st_size
        freed = tidy_sqlite(path, "database")
        assert freed is not None
        assert freed.size_bytes > 2_000_000
        assert path.stat().st_size < before
        assert connection.execute("SELECT count(*) FROM masks").fetchone() == (300,)
        assert connection.execute("SELECT count(*) FROM sqlite_stat1").fetchone() > (0,)
        again = tidy_sqlite(path, "database")
        assert again is not None
        assert "too few to rewrite it" in again.note


def test_a_dry_run_changes_nothing_and_no_file_is_made(tmp_path: Path) -> None:
    assert tidy_sqlite(tmp_path / "none.db", "database") is None
    assert not (tmp_path / "none.db").exists()
    path = tmp_path / "a.db"
    with closing(database(path, rows=10)) as connection:
        tidy_sqlite(path, "database", dry_run=True)
        tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
    assert ("sqlite_stat1",) not in tables


def test_a_database_that_somebody_writes_to_for_long_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_upkeep, "_BUSY_SECONDS", 0.05)
    path = tmp_path / "a.db"
    with closing(database(path)) as connection:
        connection.execute("DELETE FROM masks WHERE id >= 300")
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(TransientError, match="tidied next time"):
            tidy_sqlite(path, "database")
        connection.execute("ROLLBACK")
        assert tidy_sqlite(path, "database") is not None


def test_what_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"no database" * 1000)
    with pytest.raises(WorkspaceError, match="is damaged"):
        tidy_sqlite(tmp_path / "a.db", "database")


def test_postgresql_is_vacuumed_table_by_table_beside_an_open_transaction(
    postgres_url: str,
) -> None:
    engine = create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(text('CREATE SCHEMA "team a"'))
        connection.execute(text('CREATE TABLE "team a".masks AS SELECT generate_series(1, 2000)'))
        connection.execute(text("CREATE TABLE other AS SELECT generate_series(1, 10) AS id"))
    with engine.begin() as connection:
        connection.execute(text('DELETE FROM "team a".masks'))
    with engine.connect() as reader:
        reader.execute(text("SELECT count(*) FROM other"))
        freed = tidy_postgresql(postgres_url, "team a", "database")
    assert freed.what == "database"
    assert freed.note == "dead rows, whose room is used again"
    with engine.connect() as connection:
        vacuumed = connection.execute(
            text("SELECT relname, last_vacuum IS NOT NULL FROM pg_stat_user_tables ORDER BY 1")
        ).all()
    assert [tuple(row) for row in vacuumed] == [("masks", True), ("other", False)]
    engine.dispose()
    only = tidy_postgresql(postgres_url, None, "catalog", tables=["not there"], dry_run=True)
    assert (only.objects, only.size_bytes) == (0, 0)


def test_a_server_that_is_away_is_left_for_later(tmp_path: Path) -> None:
    url = f"postgresql://nobody@/none?host={tmp_path}"
    with pytest.raises(TransientError, match="cannot be tidied now"):
        tidy_postgresql(url, "s", "database")
