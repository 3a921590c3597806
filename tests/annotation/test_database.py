"""The database is made and brought up to date by whoever opens it, and loses nothing it took."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, inspect, select, text
from sqlalchemy.exc import IntegrityError

from engine.annotation.annotators import list_annotators
from engine.annotation.campaigns import campaign_images, list_campaigns
from engine.annotation.database import Database, database_url, open_database
from engine.annotation.migrations import VERSION_TABLE, migrate, newest_version, version_of
from engine.annotation.records import CampaignImage
from engine.annotation.tables import AnnotatorRow, Base, EventRow
from engine.errors import BadInputError, TransientError, WorkspaceError
from tests.annotation.annotation_builders import (
    NOW,
    a_campaign,
    a_lease,
    a_person,
    an_object,
    hand_in,
)

Address = tuple[str, str]

VERSION_1 = """
INSERT INTO annotators VALUES ('0123456789ab', 'Ada', 'admin', 'x', '2026-03-01 12:00:00', NULL);
INSERT INTO campaigns VALUES
  ('birds-1', 'birds', 'manual', 'm1', 'model-1', '', 1, FALSE, '{}', 0, 1,
   '2026-03-01 12:00:00', NULL);
INSERT INTO campaign_images VALUES ('birds-1', 101, 0, 60, 40, '/photos/101', NULL);
INSERT INTO tasks VALUES
  (1, 'birds-1', 101, 0, 0, 'open', NULL, 0, NULL, NULL, NULL, NULL, NULL, '2026-03-01 12:00:00');
"""


def as_version_1(address: Address) -> None:
    """Make a database of version 1, with data."""
    url, schema = address
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text(f'CREATE SCHEMA "{schema}"'))
            connection.execute(text(f'SET search_path TO "{schema}"'))
        migrate(connection, "0001")
        assert version_of(connection) == "0001"
        for statement in VERSION_1.strip().split(";\n"):
            connection.execute(text(statement.removesuffix(";")))
    engine.dispose()


def test_the_migrations_make_the_tables_that_the_code_expects(db: Database) -> None:
    with db.reading() as session:
        connection = session.connection()
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, Base.metadata) == []
        assert version_of(connection) == newest_version()


def test_a_database_of_version_1_keeps_its_data(database_address: Address) -> None:
    as_version_1(database_address)
    url, schema = database_address
    with open_database(url, schema=schema) as db:
        [ada], [campaign] = list_annotators(db), list_campaigns(db)
        assert (ada.name, ada.invited_at) == ("Ada", NOW)
        image = CampaignImage(image_id=101, width=60, height=40, uri="/photos/101")
        assert campaign_images(db, campaign.campaign_id) == (image,)
        lease = a_lease(db, campaign, ada.annotator_id)
        assert hand_in(db, lease, an_object("a")).objects == 1
        first_id = db.database_id
    with open_database(url, schema=schema) as db:
        assert db.database_id == first_id
        assert len(first_id) == 32


def test_a_database_of_a_newer_version_is_refused(database_address: Address) -> None:
    url, schema = database_address
    with open_database(url, schema=schema) as db, db.writing() as session:
        session.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0999'"))  # noqa: S608
    with pytest.raises(WorkspaceError, match=r"version 0999.*newer.*update maskwheel"):
        open_database(url, schema=schema)


def test_many_may_open_and_make_it_at_once(database_address: Address) -> None:
    url, schema = database_address
    starts_together = Barrier(6, timeout=60)

    def open_it(_: int) -> Database:
        starts_together.wait()
        return open_database(url, schema=schema)

    with ThreadPoolExecutor(6) as pool:
        opened = list(pool.map(open_it, range(6)))
    assert len({db.database_id for db in opened}) == 1
    a_person(opened[0])
    assert [len(list_annotators(db)) for db in opened] == [1] * 6
    for db in opened:
        db.close()


def test_schemas_keep_workspaces_in_one_server_apart(shared_postgres: str) -> None:
    with (
        open_database(shared_postgres, schema="birds_apart") as birds,
        open_database(shared_postgres, schema="fish_apart") as fish,
    ):
        a_person(birds, "Ada")
        assert list_annotators(fish) == ()
        assert birds.database_id != fish.database_id
        with fish.reading() as session:
            public = inspect(session.connection()).get_table_names(schema="public")
            assert public == []


def test_what_a_block_that_fails_wrote_is_gone(db: Database) -> None:
    def fail() -> None:
        with db.writing() as session:
            session.add(a_row("Ada"))
            session.flush()
            raise BadInputError("no")

    with pytest.raises(BadInputError):
        fail()
    assert list_annotators(db) == ()


def a_row(name: str) -> AnnotatorRow:
    return AnnotatorRow(
        annotator_id=name[:12], name=name, role="admin", token_sha256=name, invited_at=NOW
    )


def test_a_reader_sees_one_state_whatever_others_write(db: Database) -> None:
    a_person(db, "Ada")
    with db.reading() as session:
        assert len(session.scalars(select(AnnotatorRow.name)).all()) == 1
        a_person(db, "Bob")
        assert len(session.scalars(select(AnnotatorRow.name)).all()) == 1
    assert len(list_annotators(db)) == 2


def test_rows_of_nothing_are_refused_by_the_database_itself(db: Database) -> None:
    def add() -> None:
        with db.writing() as session:
            session.add(
                EventRow(
                    task_id=7,
                    annotator_id="nobody",
                    page_id="p",
                    seq=1,
                    at_ms=0,
                    kind="click",
                    data="{}",
                    received_at=NOW,
                )
            )

    with pytest.raises(IntegrityError):
        add()


def test_sqlite_keeps_what_it_took_through_a_power_cut(tmp_path: Path) -> None:
    with open_database(database_url(tmp_path)) as db, db.writing() as session:
        found = {
            name: session.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert found == {
        "journal_mode": "wal",
        "synchronous": 2,  # FULL
        "foreign_keys": 1,
        "busy_timeout": 30_000,
    }


def test_a_database_that_another_process_holds_is_busy_not_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.annotation.database._BUSY_SECONDS", 0.05)
    with open_database(database_url(tmp_path)) as db:
        other = sqlite3.connect(tmp_path / "annotation.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TransientError, match="busy: database is locked"):
            a_person(db)
        other.execute("ROLLBACK")
        other.close()
        a_person(db)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "address is none"),
        ("birds", "address is none"),
        ("mysql://host/name", "got a mysql database"),
        ("sqlite://", "file"),
        ("sqlite:///:memory:", "file"),
        ("postgresql://host", "database's name"),
    ],
)
def test_addresses_that_cannot_be_used_are_named(url: str, complaint: str) -> None:
    with pytest.raises(BadInputError, match=complaint):
        open_database(url)


def test_a_password_is_in_no_message() -> None:
    with pytest.raises(BadInputError) as error:
        open_database("postgresql://ada:secret@host")
    assert "secret" not in str(error.value)


def test_a_schema_is_a_name(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="schema"):
        open_database(database_url(tmp_path), schema='a"; DROP')


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "annotation.db"
    path.write_bytes(b"my diary, not a database" * 100)
    with pytest.raises(WorkspaceError, match="not a database"):
        open_database(database_url(tmp_path))
    assert path.read_bytes().startswith(b"my diary")


def test_a_server_that_is_not_there_may_be_there_later(tmp_path: Path) -> None:
    with pytest.raises(TransientError):
        open_database(f"postgresql://ada@/name?host={tmp_path}")


def test_leases_do_not_search_all_tasks(tmp_path: Path) -> None:
    with open_database(database_url(tmp_path)) as db:
        campaign = a_campaign(db, images=2)
        with db.reading() as session:
            plan = session.execute(
                text(
                    "EXPLAIN QUERY PLAN SELECT task_id FROM tasks WHERE campaign_id = :campaign "
                    "AND state = 'open' ORDER BY position, slot LIMIT 1"
                ),
                {"campaign": campaign.campaign_id},
            ).all()
    assert "tasks_in_order" in str(plan)
    assert "TEMP B-TREE" not in str(plan)
