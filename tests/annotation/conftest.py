"""The annotation database on SQLite and on PostgreSQL: every test that takes `db` runs on both."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.annotation.database import Database, database_url, open_database
from tests.postgres import PostgresServer

_schemas = itertools.count()


@pytest.fixture(scope="session")
def shared_postgres(postgres_server: PostgresServer) -> str:
    """Return a PostgreSQL database in which tests have schemas of their own."""
    return postgres_server.make_database()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_address(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Return the address of an empty database, and a schema: for processes that open it too."""
    if request.param == "sqlite":
        return database_url(tmp_path), "unused"
    return request.getfixturevalue("shared_postgres"), f"test_{next(_schemas)}"


@pytest.fixture
def db(database_address: tuple[str, str]) -> Iterator[Database]:
    """Return an empty annotation database."""
    url, schema = database_address
    with open_database(url, schema=schema) as database:
        yield database
