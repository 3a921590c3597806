"""The annotation database: a SQLite file by default, or PostgreSQL.

    with open_database(database_url(folder)) as db:
        with db.writing() as session: ...        # one transaction; committed means kept

SQLite runs in WAL mode with synchronous=FULL: what a call has returned survives a kill and a power
cut. It has one writer at a time, so the threads of a process queue for it here, in turns, rather
than poll the file. PostgreSQL's tables are in a schema of their own.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from sqlalchemy import URL, Engine, Insert, create_engine, event, make_url, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DBAPIError,
    IntegrityError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as NoConnectionError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from engine.annotation.migrations import migrate
from engine.annotation.tables import Base, PropertyRow
from engine.closing import Closing
from engine.errors import BadInputError, EngineError, TransientError, WorkspaceError
from engine.write_ahead import use_write_ahead_log

__all__ = ["Database", "database_url", "insert_new", "open_database"]

FILE_NAME = "annotation.db"
_BUSY_SECONDS = 30
_CONNECTIONS, _MORE_CONNECTIONS = 8, 56
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
# Classes of SQLSTATE that company causes, or a server that restarts: lost connections, rolled back
# transactions, no resources, locks that cannot be had, an operator.
_PASSING_STATES = ("08", "40", "53", "55P", "57P")


class Database(Closing):
    """An open annotation database, to be shared by threads; close it, or use it in a `with` block.

    Attributes:
        is_postgresql: whether it is a server; else it is a file.
        database_id: 32 hex digits, drawn when it was made: clients know it again by them.
    """

    def __init__(self, engine: Engine) -> None:
        self.is_postgresql = engine.dialect.name == "postgresql"
        self.database_id = ""
        self._engine = engine
        # SQLite's readers see one state anyway.
        isolation = {"isolation_level": "REPEATABLE READ"} if self.is_postgresql else {}
        self._readers = engine.execution_options(**isolation)
        self._writers = engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")
        self._turn = nullcontext() if self.is_postgresql else threading.Lock()

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Give a session whose queries all see one state; what it changes is thrown away.

        Raises:
            TransientError: the database is busy or cannot be reached.
            WorkspaceError: it failed otherwise.
        """
        with _plain_errors(), Session(self._readers) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Give a session that is committed at the end of the block, or thrown away by an error.

        Raises:
            TransientError: the database is busy or cannot be reached; nothing has changed, or the
                connection was lost while it answered.
            WorkspaceError: it failed otherwise.
        """
        with _plain_errors(), self._turn, Session(self._writers) as session, session.begin():
            yield session


def insert_new(session: Session, table: type[Base]) -> Insert:
    """Return an INSERT that leaves rows alone which are there already, by any unique rule."""
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


def database_url(folder: Path) -> str:
    """Return the address of the SQLite file that belongs in a folder."""
    return URL.create("sqlite", database=str(folder.absolute() / FILE_NAME)).render_as_string()


def open_database(url: str, *, schema: str = "maskwheel_annotation") -> Database:
    """Open the annotation database, creating it or bringing it up to date.

    Any number of processes may open, and create, the same one at once.

    Args:
        url: ``sqlite:////folder/annotation.db`` or ``postgresql://user:password@host/name``.
        schema: where in PostgreSQL its tables are; each workspace has one.

    Raises:
        BadInputError: an address or a schema that cannot be used.
        WorkspaceError: a database that cannot be opened, is damaged, or of a newer version.
        TransientError: it is busy or cannot be reached.
    """
    if not _SCHEMA.fullmatch(schema):
        raise BadInputError(
            f"got the schema {schema!r}; expected lower-case letters, digits and '_', at most 63"
        )
    address = _address(url)
    engine = _postgres(address, schema) if address.database and _is_server(address) else None
    engine = engine or _sqlite(address)
    database = Database(engine)
    try:
        with _plain_errors(), database._turn, database._writers.begin() as connection:
            if database.is_postgresql:
                _own_schema(connection, schema)
            migrate(connection)
            query = select(PropertyRow.value).where(PropertyRow.name == "database_id")
            database.database_id = connection.scalars(query).one()
    except BaseException:
        database.close()
        raise
    return database


def _address(url: str) -> URL:
    try:
        address = make_url(url)
    except ArgumentError:
        raise BadInputError(
            "the annotation database's address is none; expected postgresql://user:password@host/"
            "name or sqlite:////folder/annotation.db"
        ) from None
    if not _is_server(address) and address.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise BadInputError(
            f"got a {address.drivername} database; expected postgresql:// or sqlite://"
        )
    if not address.database or address.database == ":memory:":
        raise BadInputError(f"got {address}; expected an address with a database's name, or a file")
    return address


def _is_server(address: URL) -> bool:
    return address.drivername in ("postgresql", "postgres", "postgresql+psycopg")


def _sqlite(address: URL) -> Engine:
    path = Path(address.database or "")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkspaceError(f"{path} cannot be made: {error}") from error
    with _plain_errors():
        use_write_ahead_log(path, busy_s=_BUSY_SECONDS)
    engine = create_engine(
        address.set(drivername="sqlite+pysqlite"),
        connect_args={"timeout": _BUSY_SECONDS},
        pool_size=_CONNECTIONS,
        max_overflow=_MORE_CONNECTIONS,
    )

    @event.listens_for(engine, "connect")
    def configure(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        # Transactions begin where we say so, below; the driver would begin them late.
        connection.isolation_level = None
        for pragma in ("synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads and then writes would fail if another had written in between:
        # writers say at once what they are.
        options = connection.get_execution_options()
        connection.exec_driver_sql(options.get("sqlite_begin", "BEGIN"))

    return engine


def _postgres(address: URL, schema: str) -> Engine:
    try:
        engine = create_engine(
            address.set(drivername="postgresql+psycopg"),
            pool_size=_CONNECTIONS,
            max_overflow=_MORE_CONNECTIONS,
            pool_pre_ping=True,
        )
    except ModuleNotFoundError as error:
        raise BadInputError(
            f"PostgreSQL needs the package psycopg ({error}): pip install 'psycopg[binary]'"
        ) from error

    @event.listens_for(engine, "connect")
    def configure(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        cursor.execute(f'SET search_path TO "{schema}"')
        cursor.close()
        connection.commit()

    return engine


def _own_schema(connection: Connection, schema: str) -> None:
    # Processes that open a new database at once take turns; the lock ends with the transaction.
    connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": schema}
    )
    connection.exec_driver_sql(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn the database's errors into the engine's; broken rules of ours stay what they are."""
    try:
        yield
    except (EngineError, IntegrityError):
        raise
    except NoConnectionError as error:
        raise TransientError("the annotation database has no connection left; again") from error
    except (DatabaseError, OperationalError, sqlite3.Error) as error:
        message = _short(error)
        if _is_passing(error):
            raise TransientError(f"the annotation database is busy: {message}") from error
        raise WorkspaceError(f"the annotation database failed: {message}") from error


def _is_passing(error: Exception) -> bool:
    if not isinstance(error, DBAPIError) or isinstance(error.orig, sqlite3.Error):
        return any(word in str(error) for word in ("locked", "busy"))
    state: str | None = getattr(error.orig, "sqlstate", None)
    if state is None:  # the connection failed before the server said anything
        return isinstance(error, OperationalError)
    return state.startswith(_PASSING_STATES)


def _short(error: Exception) -> str:
    """The database's own words, without the statement that SQLAlchemy adds."""
    origin = error.orig if isinstance(error, DBAPIError) else error
    return " ".join(str(origin).split())
