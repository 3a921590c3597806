"""A workspace in a bucket: only the database is on the machine, and each machine has its own."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.dataset.catalog import Workspace, is_workspace
from engine.dataset.table_io import TableIO
from engine.errors import BadInputError, WorkspaceError
from engine.objects import open_store
from tests.dataset.catalog_places import ids_at, image_rows, main_ids


@pytest.fixture
def address(s3_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MASKWHEEL_LOCAL_FOLDER", str(tmp_path / "here"))
    monkeypatch.chdir(tmp_path)
    return f"{s3_address}/team/birds"


def test_a_workspace_in_a_bucket_is_published_to_as_in_a_folder(
    address: str, tmp_path: Path
) -> None:
    with Workspace.open(f"{address}/") as workspace:
        assert (workspace.address, workspace.name) == (address, "birds")
        assert workspace.local_folder == tmp_path / "here" / workspace.workspace_id
        images = workspace.append_rows("images", image_rows(1), "c1")
        # A shard that a worker wrote becomes part of a table where it is.
        buffer = io.BytesIO()
        pq.write_table(image_rows(2, 3), buffer)
        workspace.store.put_if_absent("runs/a/masks-00000.parquet", buffer.getvalue())
        uri = workspace.store.uri("runs/a/masks-00000.parquet")
        staged = workspace.stage("images", "run-a", images, [uri], "run-a")
        assert workspace.stage("images", "run-a", images, [uri], "run-a") == staged
        assert ids_at(workspace, staged) == [1, 2, 3]
        workspace.set_main("images", staged)
        workspace.tag("images", "r1", staged)
        workspace.drop_branch("images", "run-a")
        filtered = workspace.table("images").scan("image_id = 2", selected_fields=("uri",))
        assert filtered.to_arrow().to_pylist() == [{"uri": "/photos/2.png"}]
    files = [path.name for path in (tmp_path / "here").rglob("*") if path.is_file()]
    assert set(files) <= {"catalog.db", "catalog.db-shm", "catalog.db-wal"}


def test_a_second_machine_learns_the_tables_and_both_commit(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Workspace.open(address) as here:
        here.append_rows("images", image_rows(1), "c1")
        monkeypatch.setenv("MASKWHEEL_LOCAL_FOLDER", str(tmp_path / "there"))
        with Workspace.open(address, create=False) as there:
            assert there.local_folder.parent == tmp_path / "there"
            there.append_rows("images", image_rows(2), "c2")
            here.append_rows("images", image_rows(3), "c3")
            assert main_ids(here) == main_ids(there) == [1, 2, 3]


def test_a_prefix_that_holds_something_else_is_refused(address: str) -> None:
    open_store(address).put_if_absent("thesis.tex", b"x")
    with pytest.raises(WorkspaceError, match=r"it holds thesis\.tex"):
        Workspace.open(address)
    with pytest.raises(WorkspaceError, match="holds no workspace"):
        Workspace.open(f"{address}/empty", create=False)
    assert not is_workspace(address)


def test_a_copied_prefix_is_refused(address: str) -> None:
    Workspace.open(address).close()
    record = open_store(address).get("workspace.json")
    open_store(f"{address}-copy").put_if_absent("workspace.json", record)
    with pytest.raises(WorkspaceError, match="was made in"):
        Workspace.open(f"{address}-copy")


def test_a_writer_that_fails_or_is_forgotten_leaves_no_object(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store = open_store(address)
    tables = TableIO(store)

    def fail() -> None:
        with tables.new_output(store.uri("a")).create() as stream:
            stream.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    forgotten = tables.new_output(store.uri("b")).create()
    forgotten.write(b"half")
    del forgotten
    assert list(store.list("")) == []
    with tables.new_output(store.uri("c")).create() as stream:
        stream.write(b"whole")
    assert store.get("c") == b"whole"
    assert len(tables.new_input(store.uri("c"))) == 5
    assert tables.new_output(store.uri("c")).exists()
    with pytest.raises(FileExistsError), tables.new_output(store.uri("c")).create() as stream:
        stream.write(b"other")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []


def test_a_missing_object_is_a_missing_file_to_iceberg(address: str) -> None:
    store = open_store(address)
    tables = TableIO(store)
    with pytest.raises(FileNotFoundError):
        tables.new_input(store.uri("absent")).open()
    assert not tables.new_input(store.uri("absent")).exists()
    tables.delete(store.uri("absent"))


@pytest.mark.parametrize(
    "typo",
    ["s3:/bucket/birds", "s3//bucket/birds", "s3:bucket", "S3://bucket/b", "gs://b/c", "s3://"],
)
def test_an_address_that_is_none_is_explained_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typo: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInputError, match=r"expected (a folder or )?s3://bucket"):
        Workspace.open(typo)
    assert list(tmp_path.iterdir()) == []
