"""The catalog in a real PostgreSQL: workspaces in one database, lost connections, addresses."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from engine.dataset.catalog import Workspace
from engine.errors import BadInputError, TransientError
from tests.dataset.catalog_places import image_rows, main_ids

psycopg = pytest.importorskip("psycopg")


@pytest.fixture
def database(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MASKWHEEL_DATABASE_URL", postgres_url)
    return postgres_url


def test_workspaces_in_one_database_are_kept_apart(database: str, tmp_path: Path) -> None:
    with Workspace.open(tmp_path / "birds") as birds, Workspace.open(tmp_path / "fish") as fish:
        birds.append_rows("images", image_rows(1), "c1")
        fish.append_rows("images", image_rows(2), "c1")
        assert (main_ids(birds), main_ids(fish)) == ([1], [2])
        fish.forget()
    with psycopg.connect(database) as connection:
        names = connection.execute("select distinct catalog_name from iceberg_tables").fetchall()
    assert names == [(birds.workspace_id,)]
    assert not list(tmp_path.glob("*/catalog.db"))


def test_a_workspace_moves_between_sqlite_and_postgresql_by_a_setting(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = ["", database, "", database]
    for number, url in enumerate(places):
        monkeypatch.setenv("MASKWHEEL_DATABASE_URL", url)
        with Workspace.open(tmp_path / "work") as workspace:
            workspace.append_rows("images", image_rows(number), f"c{number}")
            assert main_ids(workspace) == list(range(number + 1))


def test_connections_that_the_server_ends_are_opened_again(database: str, tmp_path: Path) -> None:
    with Workspace.open(tmp_path / "work") as workspace:
        for number in range(3):
            workspace.append_rows("images", image_rows(number), f"c{number}")
            with psycopg.connect(database, autocommit=True) as connection:
                connection.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where pid <> pg_backend_pid() and datname = current_database()"
                )
        assert main_ids(workspace) == [0, 1, 2]


@pytest.mark.parametrize("url", ["sqlite:///catalog.db", "mysql://me:secret@host/name", "secret"])
def test_an_address_of_another_database_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("MASKWHEEL_DATABASE_URL", url)
    with pytest.raises(BadInputError, match="expected postgresql://") as caught:
        Workspace.open(tmp_path / "work")
    assert "secret" not in str(caught.value)


def test_a_database_that_cannot_be_reached_is_named_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:  # bound, but nobody listens
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        url = f"postgresql://me:secret@127.0.0.1:{port}/name"
        monkeypatch.setenv("MASKWHEEL_DATABASE_URL", url)
        with pytest.raises(TransientError, match="cannot be reached") as caught:
            Workspace.open(tmp_path / "work")
    assert str(port) in str(caught.value)
    assert "secret" not in str(caught.value)
