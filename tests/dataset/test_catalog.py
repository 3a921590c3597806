from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.dataset.catalog import Workspace
from engine.dataset.schemas import TABLES, iceberg_schema
from engine.dataset.table_io import TableIO
from engine.errors import BadInputError, WorkspaceError
from tests.dataset.catalog_places import image_rows, main_ids


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "work") as workspace:
        yield workspace


def test_the_tables_keep_the_field_ids_of_the_schemas(workspace: Workspace) -> None:
    for name in TABLES:
        table = workspace.table(name)
        assert table.schema().as_struct() == iceberg_schema(name).as_struct()
        assert isinstance(table.io, TableIO)


@pytest.mark.parametrize("name", ["with space", "per%20cent", "umlaut ä", "plus+&=;"])
def test_unusual_folder_names_work(tmp_path: Path, name: str) -> None:
    with Workspace.open(tmp_path / name) as workspace:
        workspace.append_rows("images", image_rows(1), "c1")
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]
    with Workspace.open(tmp_path / name, create=False) as workspace:
        assert main_ids(workspace) == [1]


@pytest.mark.parametrize("name", ["what?", "a#b"])
def test_folder_names_that_addresses_cannot_hold_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInputError, match="choose another folder"):
        Workspace.open(tmp_path / name)


def test_a_moved_workspace_is_refused_and_named(tmp_path: Path) -> None:
    Workspace.open(tmp_path / "old").close()
    shutil.move(tmp_path / "old", tmp_path / "new")
    with pytest.raises(WorkspaceError, match="move it back") as caught:
        Workspace.open(tmp_path / "new")
    assert str(tmp_path / "old") in str(caught.value)


def test_a_copied_workspace_is_refused(tmp_path: Path) -> None:
    Workspace.open(tmp_path / "old").close()
    shutil.copytree(tmp_path / "old", tmp_path / "copy")
    with pytest.raises(WorkspaceError, match="was made in"):
        Workspace.open(tmp_path / "copy")


def test_a_moved_workspace_opens_through_a_link_at_its_old_place(tmp_path: Path) -> None:
    with Workspace.open(tmp_path / "old") as workspace:
        workspace.append_rows("images", image_rows(1), "c1")
    shutil.move(tmp_path / "old", tmp_path / "new")
    (tmp_path / "old").symlink_to(tmp_path / "new")
    for path in (tmp_path / "old", tmp_path / "new"):
        with Workspace.open(path) as workspace:
            assert main_ids(workspace) == [1]


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(WorkspaceError, match=r"it holds thesis\.tex"):
        Workspace.open(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_hidden_files_do_not_make_a_folder_something_else(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_text("x")
    Workspace.open(tmp_path).close()


def test_a_file_is_refused_as_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(WorkspaceError, match="is a file"):
        Workspace.open(tmp_path / "file")
    with pytest.raises(WorkspaceError):
        Workspace.open(tmp_path / "file" / "below")


def test_nothing_is_created_when_only_asked_to_open(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="holds no workspace"):
        Workspace.open(tmp_path / "absent", create=False)
    assert not (tmp_path / "absent").exists()


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    Workspace.open(tmp_path / "work").close()
    record = tmp_path / "work" / "workspace.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"format": 99}))
    with pytest.raises(WorkspaceError, match="format 99"):
        Workspace.open(tmp_path / "work")


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1}', "\x00"])
def test_a_damaged_record_is_reported(tmp_path: Path, text: str) -> None:
    Workspace.open(tmp_path / "work").close()
    (tmp_path / "work" / "workspace.json").write_text(text)
    with pytest.raises(WorkspaceError, match="damaged"):
        Workspace.open(tmp_path / "work")


def test_a_file_that_is_no_catalog_is_reported(tmp_path: Path) -> None:
    Workspace.open(tmp_path / "work").close()
    for path in (tmp_path / "work").glob("catalog.db*"):
        path.unlink()
    (tmp_path / "work" / "catalog.db").write_bytes(b"not a database, but long enough " * 200)
    with pytest.raises(WorkspaceError, match="is not a catalog"):
        Workspace.open(tmp_path / "work")


def test_lost_table_metadata_is_reported(tmp_path: Path) -> None:
    Workspace.open(tmp_path / "work").close()
    shutil.rmtree(tmp_path / "work" / "tables" / "masks")
    with pytest.raises(WorkspaceError, match="masks has lost its metadata"):
        Workspace.open(tmp_path / "work")


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    # Permissions do not bind root: the attempt is made as another user where there is a choice.
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    root = str(Path(__file__).parents[2])
    code = (
        f"import os, sys; sys.path.insert(0, {root!r})\n"
        "from pathlib import Path\n"
        "from engine.dataset.catalog import Workspace\n"
        "from engine.errors import WorkspaceError\n"
        f"os.chdir({str(folder)!r})\n"
        "os.geteuid() or os.seteuid(65534)\n"
        "try: Workspace.open(Path('work').absolute())\n"
        "except WorkspaceError as error: print(error)\n"
    )
    for parent in (tmp_path, *tmp_path.parents):  # pytest's own folders, up to the system's
        if parent == Path(tempfile.gettempdir()):
            break
        parent.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "check the folder's permissions" in done.stdout, done.stderr


def test_the_catalog_waits_for_a_lock_instead_of_failing(workspace: Workspace) -> None:
    locker = sqlite3.connect(workspace.local_folder / "catalog.db", check_same_thread=False)
    locker.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(workspace.append_rows, "images", image_rows(1), "c1")
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.5)
        locker.rollback()
        locker.close()
        assert waiting.result(timeout=60) is not None
    assert main_ids(workspace) == [1]
