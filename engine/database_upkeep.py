"""Databases kept small and quick: free pages given back, statistics made anew.

    tidy_sqlite(workspace.local_folder / "annotation.db", "annotation database")
    tidy_postgresql(url, "maskwheel_annotation_0123", "annotation database")

Both may run while others read and write. What SQLite has to be alone for is left for another time
where it would win little or somebody is in the middle of something; nothing waits for long.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from sqlalchemy import NullPool, create_engine, make_url, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, OperationalError

from engine.errors import TransientError, WorkspaceError
from engine.upkeep import Freed

__all__ = ["tidy_postgresql", "tidy_sqlite"]

log = logging.getLogger(__name__)

# Rewriting a file keeps its writers waiting: only where it gives back a fifth, and a megabyte.
_WORTH_SHARE, _WORTH_BYTES = 0.2, 1024 * 1024
# Less than writers wait for each other.
_BUSY_SECONDS = 10
_LOCK_TIMEOUT = "SET lock_timeout = '5s'"


def tidy_sqlite(path: Path, what: str, *, dry_run: bool = False) -> Freed | None:
    """Give a file's free pages back and bring its statistics up to date.

    Args:
        path: of the database.
        what: its name, for people.
        dry_run: only say what would be given back.

    Returns:
        None where there is no such file.

    Raises:
        TransientError: somebody is writing for long.
        WorkspaceError: the file is damaged, or no database.
    """
    if not path.is_file():
        return None
    wal = path.with_name(f"{path.name}-wal")
    try:
        with closing(
            sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
        ) as connection:
            free, whole = _free_bytes(connection), path.stat().st_size
            is_worth_it = free >= _WORTH_BYTES and free >= _WORTH_SHARE * whole
            waiting = wal.stat().st_size if wal.is_file() else 0
            if dry_run:
                return Freed(what=what, size_bytes=free * is_worth_it + waiting)
            # Statistics of all tables, from a bounded look at each.
            connection.execute("PRAGMA analysis_limit=1000")
            connection.execute("ANALYZE")
            if is_worth_it:
                connection.execute("VACUUM")
            (is_busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError as error:
        if "locked" in str(error) or "busy" in str(error):
            raise TransientError(
                f"the {what} is in use: {error}; it is tidied next time"
            ) from error
        raise WorkspaceError(f"{path} cannot be tidied: {error}") from error
    except sqlite3.DatabaseError as error:
        raise WorkspaceError(f"{path} is damaged: {error}; restore it from a backup") from error
    given_back = max(0, whole - path.stat().st_size) + (0 if is_busy else waiting)
    note = "" if is_worth_it else f"{free:,} bytes are free in the file: too few to rewrite it"
    log.info("%s: %d bytes given back", path, given_back)
    return Freed(what=what, size_bytes=given_back, note=note)


def tidy_postgresql(
    url: str,
    schema: str | None,
    what: str,
    *,
    tables: Sequence[str] | None = None,
    dry_run: bool = False,
) -> Freed:
    """Vacuum and analyse tables of a schema, each by itself; nobody waits for it.

    Args:
        url: ``postgresql://user:password@host/name``.
        schema: of the tables; None: the one that the user's tables are in by default.
        what: its name, for people.
        tables: names; None: all of the schema.
        dry_run: only count the dead rows.

    Raises:
        TransientError: the server cannot be reached, or a table is locked.
        WorkspaceError: it refused otherwise.
    """
    address = make_url(url).set(drivername="postgresql+psycopg")
    # VACUUM cannot run inside a transaction.
    engine = create_engine(address, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    try:
        with engine.connect() as connection:
            found = _dead_rows(connection, schema, tables)
            dead = sum(rows for _, rows in found)
            if dry_run or not found:
                return Freed(what=what, objects=dead, note="dead rows" if dead else "")
            before = _size(connection, [name for name, _ in found])
            connection.exec_driver_sql(_LOCK_TIMEOUT)
            for name, _ in found:
                connection.exec_driver_sql(f"VACUUM (ANALYZE) {name}")
            after = _size(connection, [name for name, _ in found])
    except OperationalError as error:
        raise TransientError(
            f"the {what} cannot be tidied now: {_short(error)}; next time"
        ) from error
    except DBAPIError as error:
        raise WorkspaceError(f"the {what} cannot be tidied: {_short(error)}") from error
    finally:
        engine.dispose()
    return Freed(
        what=what,
        objects=dead,
        size_bytes=max(0, before - after),
        note="dead rows, whose room is used again",
    )


def _free_bytes(connection: sqlite3.Connection) -> int:
    (pages,) = connection.execute("PRAGMA freelist_count").fetchone()
    (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    return int(pages) * int(page_bytes)


def _dead_rows(
    connection: Connection, schema: str | None, tables: Sequence[str] | None
) -> list[tuple[str, int]]:
    """Return (quoted name, dead rows) of the tables, as far as the server has counted them."""
    query = text(
        "SELECT relname, format('%I.%I', schemaname, relname), n_dead_tup FROM pg_stat_user_tables "
        "WHERE schemaname = coalesce(:schema, current_schema()) ORDER BY relname"
    )
    rows = connection.execute(query, {"schema": schema}).all()
    return [(quoted, int(dead)) for name, quoted, dead in rows if tables is None or name in tables]


def _size(connection: Connection, names: Sequence[str]) -> int:
    query = text(
        "SELECT coalesce(sum(pg_total_relation_size(n::regclass)), 0) "
        "FROM unnest(CAST(:n AS text[])) n"
    )
    return int(connection.execute(query, {"n": list(names)}).scalar_one())


def _short(error: DBAPIError) -> str:
    return " ".join(str(error.orig).split())
