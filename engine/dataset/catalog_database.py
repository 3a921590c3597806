"""The SQL database behind a workspace's tables: SQLite by default, or PostgreSQL.

    catalog = open_catalog(store, workspace_id, folder, database_url=None)   # folder/catalog.db
    table = retry("load table masks", lambda: catalog.load_table(("dataset", "masks")))

The database is an index that can be made again from the workspace; see engine.dataset.commit_log.
"""

from __future__ import annotations

import logging
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pyiceberg.exceptions import CommitFailedException
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, OperationalError

from engine.dataset.table_catalog import TableCatalog
from engine.errors import BadInputError, TransientError, WorkspaceError
from engine.objects import ObjectStore
from engine.write_ahead import use_write_ahead_log

__all__ = ["CATALOG_FILE", "CATALOG_TABLES", "back_off", "open_catalog", "retry"]

CATALOG_FILE = "catalog.db"
CATALOG_TABLES = ("iceberg_namespace_properties", "iceberg_tables")
"""What pyiceberg calls its tables."""

log = logging.getLogger(__name__)

_BUSY_SECONDS = 30
_ATTEMPTS = 30
_SQLITE_NAME = "maskwheel"
# Classes of SQLSTATE that company causes, or a server that restarts: lost connections, rolled back
# transactions, no resources, an operator.
_PASSING_STATES = ("08", "40", "53", "57P")

T = TypeVar("T")


def open_catalog(
    store: ObjectStore, workspace_id: str, folder: Path, database_url: str | None
) -> TableCatalog:
    """Open the catalog of a workspace, creating it in the database if absent.

    Args:
        store: the workspace's objects.
        workspace_id: keeps workspaces in one PostgreSQL database apart.
        folder: where SQLite's file is, if there is no `database_url`.
        database_url: ``postgresql://user:password@host/name``; None or empty: SQLite.

    Raises:
        WorkspaceError: a database that cannot be opened, or is something else.
        BadInputError: an address that is not PostgreSQL's.
        TransientError: the database stayed busy or cannot be reached.
    """
    if not database_url:
        return retry("open the catalog", lambda: _open_sqlite(store, folder / CATALOG_FILE))
    url = _postgres_url(database_url)
    return retry("open the catalog", lambda: _open_postgres(store, workspace_id, url))


def retry(what: str, attempt: Callable[[], T]) -> T:
    """Return what `attempt` returns, trying again while others are first or the database is busy.

    Raises:
        TransientError: every attempt failed so.
        WorkspaceError: the database failed otherwise.
    """
    for number in range(_ATTEMPTS):
        try:
            return attempt()
        except CommitFailedException as error:
            last: Exception = error
        except (DatabaseError, sqlite3.OperationalError) as error:
            if not _is_passing(error):
                raise WorkspaceError(f"the catalog failed to {what}: {_short(error)}") from error
            last = error
        log.debug("%s: attempt %d failed: %s", what, number + 1, last)
        back_off(number)
    reason = (
        "other processes were first" if isinstance(last, CommitFailedException) else _short(last)
    )
    raise TransientError(
        f"could not {what} in {_ATTEMPTS} attempts: {reason}; run the command again"
    ) from last


def back_off(attempt: int) -> None:
    """Sleep before the next attempt: longer each time, and differently from rivals."""
    ceiling = min(0.02 * 2**attempt, 2.0)
    time.sleep(random.uniform(ceiling / 4, ceiling))  # noqa: S311  (spreads rivals; no secret)


def _open_sqlite(store: ObjectStore, path: Path) -> TableCatalog:
    address = URL.create("sqlite", database=str(path), query={"timeout": str(_BUSY_SECONDS)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        use_write_ahead_log(path, busy_s=_BUSY_SECONDS)
        return TableCatalog(_SQLITE_NAME, store, address.render_as_string(hide_password=False))
    except OSError as error:
        raise WorkspaceError(f"{path} cannot be opened: {error}") from error
    except (OperationalError, sqlite3.OperationalError) as error:
        if _is_passing(error):
            raise
        raise WorkspaceError(f"{path} cannot be opened: {_short(error)}") from error
    except (DatabaseError, sqlite3.DatabaseError) as error:
        raise WorkspaceError(
            f"{path} is not a catalog ({_short(error)}); remove it, and it is made again from the "
            "workspace"
        ) from error


def _postgres_url(text: str) -> URL:
    try:
        url = make_url(text)
    except ArgumentError:
        raise BadInputError(
            "MASKWHEEL_DATABASE_URL is no address; expected postgresql://user:password@host/name"
        ) from None
    if url.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise BadInputError(
            f"MASKWHEEL_DATABASE_URL names a {url.drivername} database; expected "
            "postgresql://user:password@host/name, or nothing: then it is SQLite"
        )
    return url.set(drivername="postgresql+psycopg")


def _open_postgres(store: ObjectStore, workspace_id: str, url: URL) -> TableCatalog:
    try:
        return TableCatalog(workspace_id, store, url.render_as_string(hide_password=False))
    except ModuleNotFoundError as error:
        raise BadInputError(
            f"PostgreSQL needs the package psycopg ({error}): pip install 'psycopg[binary]'"
        ) from error
    except OperationalError as error:
        if _sql_state(error) is not None:
            raise
        raise TransientError(
            f"the catalog's database {url} cannot be reached: {_short(error)}"
        ) from error


def _is_passing(error: Exception) -> bool:
    """Whether the error is one of company or of a server that restarts."""
    text = str(error)
    # SQLite's locks; and both databases' "create table" when another process was first.
    if "locked" in text or "busy" in text or "already exists" in text:
        return True
    if not isinstance(error, DBAPIError) or isinstance(error.orig, sqlite3.Error):
        return False
    state = _sql_state(error)
    if state is None:  # the connection failed before the server said anything
        return isinstance(error, OperationalError)
    return state.startswith(_PASSING_STATES)


def _sql_state(error: DBAPIError) -> str | None:
    state: str | None = getattr(error.orig, "sqlstate", None)
    return state


def _short(error: Exception) -> str:
    """The database's own words, without the statement that SQLAlchemy adds."""
    origin = error.orig if isinstance(error, DBAPIError) else error
    return " ".join(str(origin).split())
