"""The commit log decides, databases follow: lost, new, old or killed ones lose no commit."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from engine.dataset.catalog import Workspace, commit_history
from engine.dataset.catalog_rebuild import rebuild_catalog
from engine.dataset.commit_log import CommitLog, state_number
from engine.dataset.schemas import TABLE_PROPERTIES, TABLES, iceberg_schema
from engine.dataset.table_catalog import TableCatalog
from engine.dataset.workspace_record import claim_workspace
from engine.errors import WorkspaceError
from tests.dataset.catalog_places import ids_at, image_rows, main_ids


class _Killed(BaseException):
    """Stands for a kill: nothing in the engine catches it."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "work"


@pytest.fixture
def workspace(folder: Path) -> Iterator[Workspace]:
    with Workspace.open(folder) as workspace:
        yield workspace


def forget_database(folder: Path) -> None:
    for path in folder.glob("catalog.db*"):
        path.unlink()


def plain_catalog(folder: Path) -> SqlCatalog:
    """What another program, or an older version of this one, opens."""
    warehouse = f"file://{folder}/tables"
    return SqlCatalog("maskwheel", uri=f"sqlite:///{folder}/catalog.db", warehouse=warehouse)


def test_a_lost_database_is_made_again_with_everything(folder: Path) -> None:
    with Workspace.open(folder) as workspace:
        first = workspace.append_rows("images", image_rows(1), "c1")
        staged = workspace.stage("images", "run-a", first, image_rows(2), "run-a")
    forget_database(folder)
    with Workspace.open(folder) as workspace:
        assert main_ids(workspace) == [1]
        assert workspace.branches("images") == {"run-a": staged}
        workspace.append_rows("images", image_rows(3), "c3")
        assert main_ids(workspace) == [1, 3]


def test_a_database_from_a_backup_catches_up(folder: Path, tmp_path: Path) -> None:
    with Workspace.open(folder) as workspace:
        workspace.append_rows("images", image_rows(1), "c1")
    shutil.copy(folder / "catalog.db", tmp_path / "backup")
    with Workspace.open(folder) as workspace:
        for number in range(2, 30):  # so many that the metadata of the backup's state is gone
            workspace.append_rows("images", image_rows(number), f"c{number}")
    forget_database(folder)
    shutil.copy(tmp_path / "backup", folder / "catalog.db")
    with Workspace.open(folder) as workspace:
        workspace.append_rows("images", image_rows(30), "c30")
        assert main_ids(workspace) == list(range(1, 31))


def test_metadata_stays_small(folder: Path) -> None:
    with Workspace.open(folder) as workspace:
        for number in range(30):
            workspace.append_rows("images", image_rows(number), f"c{number}")
        states = list(folder.glob("tables/images/metadata/*.metadata.json"))
        assert len(states) == 1 + int(TABLE_PROPERTIES["write.metadata.previous-versions-max"])
        log = list(folder.glob("tables/images/commits/*"))
        assert len(log) == 31
        assert sum(path.stat().st_size for path in log) < 31 * 100
        table = workspace.table("images")
        assert len(list(folder.glob("tables/images/metadata/*.avro"))) == 2 * len(table.snapshots())


def test_a_commit_that_is_killed_before_the_log_never_happened(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: object) -> bool:
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(CommitLog, "claim", killed)
        with pytest.raises(_Killed):
            workspace.append_rows("images", image_rows(1), "c1")
    assert main_ids(workspace) == []
    workspace.append_rows("images", image_rows(1), "c1")
    assert main_ids(workspace) == [1]


def test_a_commit_that_is_killed_after_the_log_has_happened(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: object) -> None:
        raise _Killed

    with Workspace.open(folder) as workspace, monkeypatch.context() as patch:
        patch.setattr(TableCatalog, "_point_to", killed)
        with pytest.raises(_Killed):
            workspace.append_rows("images", image_rows(1), "c1")
    with Workspace.open(folder) as workspace:
        assert main_ids(workspace) == [1]
        workspace.append_rows("images", image_rows(1), "c1")
        assert main_ids(workspace) == [1]
    with closing(plain_catalog(folder)) as catalog:  # the database has followed
        assert catalog.load_table(("dataset", "images")).scan().to_arrow().num_rows == 1


def test_of_two_databases_one_commit_is_first_and_the_other_builds_on_it(
    folder: Path, tmp_path: Path
) -> None:
    # Two machines share the folder; each has a database of its own.
    mine = Workspace.open(folder)
    other = TableCatalog("maskwheel", mine.store, f"sqlite:///{tmp_path}/other.db")
    theirs = Workspace(claim_workspace(folder, create=False), tmp_path, other)
    turns: list[int] = []

    def rows(base: Table) -> pa.Table:
        if not turns:
            theirs.append_rows("images", image_rows(7), "theirs")
        turns.append(base.scan().to_arrow().num_rows)
        return image_rows(8)

    with mine, theirs:
        mine.append_rows("images", rows, "mine")
        assert turns == [0, 1]
        for number in range(10, 16):
            (mine if number % 2 else theirs).append_rows("images", image_rows(number), f"{number}")
        assert main_ids(mine) == main_ids(theirs) == [7, 8, *range(10, 16)]
        assert theirs.stage("images", "b", None, image_rows(1), "b") == mine.branches("images")["b"]


def make_format_1(folder: Path) -> None:
    """Make a workspace as version 0.1 did: no commit log, no id."""
    folder.mkdir()
    record = {"format": 1, "root": str(folder)}
    (folder / "workspace.json").write_text(json.dumps(record))
    with closing(plain_catalog(folder)) as catalog:
        catalog.create_namespace("dataset")
        for name in TABLES:
            schema = iceberg_schema(name, first_version=True)
            mapping = {"schema.name-mapping.default": schema.name_mapping.model_dump_json()}
            catalog.create_table(
                ("dataset", name),
                schema,
                location=f"file://{folder}/tables/{name}",
                properties={**TABLE_PROPERTIES, **mapping},
            )
        table = catalog.load_table(("dataset", "images"))
        table.append(image_rows(1), snapshot_properties={"commit-id": "c1"})
        table.append(image_rows(2), snapshot_properties={"commit-id": "c2"})


def test_a_workspace_of_format_1_opens_and_goes_on(folder: Path) -> None:
    make_format_1(folder)
    with Workspace.open(folder) as workspace:
        assert main_ids(workspace) == [1, 2]
        workspace.append_rows("images", image_rows(2), "c2")
        workspace.append_rows("images", image_rows(3), "c3")
        commits = [commit.commit_id for commit in commit_history(workspace.table("images"))]
        assert commits == ["c1", "c2", "c3"]
        assert len(workspace.workspace_id) == 32
    forget_database(folder)
    with Workspace.open(folder) as workspace:
        assert main_ids(workspace) == [1, 2, 3]


def test_a_backup_from_before_there_was_a_log_catches_up(folder: Path, tmp_path: Path) -> None:
    make_format_1(folder)
    shutil.copy(folder / "catalog.db", tmp_path / "backup")
    with closing(plain_catalog(folder)) as catalog:
        catalog.load_table(("dataset", "images")).append(image_rows(3))
    with Workspace.open(folder) as workspace:
        workspace.append_rows("images", image_rows(4), "c4")
    forget_database(folder)
    shutil.copy(tmp_path / "backup", folder / "catalog.db")
    with Workspace.open(folder) as workspace:
        assert main_ids(workspace) == [1, 2, 3, 4]
        workspace.append_rows("images", image_rows(5), "c5")
        assert main_ids(workspace) == [1, 2, 3, 4, 5]


def test_what_another_program_commits_through_the_database_is_kept(
    folder: Path, workspace: Workspace
) -> None:
    workspace.append_rows("images", image_rows(1), "c1")
    shutil.copy(folder / "catalog.db", folder / "backup.db")
    with closing(plain_catalog(folder)) as catalog:
        table = catalog.load_table(("dataset", "images"))
        table.append(image_rows(2))
        table.append(image_rows(3))
    assert main_ids(workspace) == [1, 2, 3]
    workspace.append_rows("images", image_rows(4), "c4")
    with closing(plain_catalog(folder)) as catalog:
        assert catalog.load_table(("dataset", "images")).scan().to_arrow().num_rows == 4
    # Every state is in the log: one that knows only the first finds the way to the last.
    forget_database(folder)
    shutil.move(folder / "backup.db", folder / "catalog.db")
    with Workspace.open(folder) as again:
        assert main_ids(again) == [1, 2, 3, 4]


def test_a_database_that_contradicts_the_log_is_refused(folder: Path, workspace: Workspace) -> None:
    workspace.append_rows("images", image_rows(1), "c1")
    location = workspace.table("images").metadata_location
    name = f"{state_number(location):05d}-00000000-0000-0000-0000-000000000000.metadata.json"
    other = f"{location.rpartition('/')[0]}/{name}"
    shutil.copy(location.removeprefix("file://"), other.removeprefix("file://"))
    with closing(sqlite3.connect(folder / "catalog.db")) as database, database:
        database.execute(
            "update iceberg_tables set metadata_location = ? where table_name = 'images'", (other,)
        )
    with pytest.raises(WorkspaceError, match="another program wrote"):
        workspace.table("images")


def test_lost_tables_are_refused_then_found_again(folder: Path) -> None:
    with Workspace.open(folder) as workspace:
        first = workspace.append_rows("images", image_rows(1), "c1")
        second = workspace.append_rows("images", image_rows(2), "c2")
        workspace.tag("images", "r1", first or 0)
        snapshots = {"images": first}
        workspace.store.put_if_absent(
            "releases/r1.json", json.dumps({"snapshots": snapshots}).encode()
        )
    assert rebuild_catalog(folder) == {}
    forget_database(folder)
    shutil.rmtree(folder / "tables" / "images" / "commits")
    # A commit that lost its race and was killed: its metadata is newest, its manifests are gone.
    newest = max(folder.glob("tables/images/metadata/*.metadata.json"))
    text = newest.read_text().replace(f"snap-{second}", "snap-gone")
    (newest.parent / newest.name.replace(newest.name[:5], "00009")).write_text(text)
    with pytest.raises(WorkspaceError, match="--rebuild-catalog"):
        Workspace.open(folder)
    assert rebuild_catalog(folder) == {"images": 4}
    with Workspace.open(folder) as workspace:
        assert main_ids(workspace) == [1, 2]
        assert ids_at(workspace, workspace.table("images").refs()["r1"].snapshot_id) == [1]
        workspace.append_rows("images", image_rows(2), "c2")
        assert main_ids(workspace) == [1, 2]


def test_tables_whose_metadata_no_longer_has_a_release_are_not_made_up(folder: Path) -> None:
    with Workspace.open(folder) as workspace:
        workspace.append_rows("images", image_rows(1), "c1")
        record = json.dumps({"snapshots": {"images": 12345}}).encode()
        workspace.store.put_if_absent("releases/r1.json", record)
    shutil.rmtree(folder / "tables" / "images" / "commits")
    with pytest.raises(WorkspaceError, match="restore tables/images/metadata from a backup"):
        rebuild_catalog(folder)


def test_forgetting_a_workspace_leaves_it_whole(folder: Path) -> None:
    with Workspace.open(folder) as workspace:
        workspace.append_rows("images", image_rows(1), "c1")
        workspace.forget()
    with closing(plain_catalog(folder)) as catalog:
        assert not catalog.table_exists(("dataset", "images"))
    with Workspace.open(folder, create=False) as workspace:
        assert main_ids(workspace) == [1]
