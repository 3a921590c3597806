"""A store as pyarrow sees it."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import FileSelector, FileType

from engine.errors import BadInputError
from engine.objects import ObjectStore, arrow_filesystem, open_store

TABLE = pa.table({"image_id": list(range(5000)), "area": [7.5] * 5000})


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return open_store(tmp_path / "a store")
    return open_store(f"{request.getfixturevalue('s3_address')}/a prefix")


def test_parquet_files_are_written_once_and_read_in_part(store: ObjectStore) -> None:
    files, path = arrow_filesystem(store), store.uri("t/one.parquet")
    pq.write_table(TABLE, path, filesystem=files, row_group_size=500)
    assert list(store.list("")) == ["t/one.parquet"]
    assert pq.read_table(path, filesystem=files).equals(TABLE)
    with files.open_input_file(path) as stream:
        part = pq.ParquetFile(stream, pre_buffer=True).read_row_group(3, columns=["image_id"])
    assert part["image_id"].to_pylist() == list(range(1500, 2000))
    with pytest.raises(FileExistsError, match="written once"):
        pq.write_table(TABLE, path, filesystem=files)
    assert pq.read_table(path, filesystem=files).equals(TABLE)


def test_a_data_set_is_found_by_its_folder(store: ObjectStore) -> None:
    files = arrow_filesystem(store)
    for name in ("a/1.parquet", "a/b/2.parquet"):
        pq.write_table(TABLE, store.uri(f"t/{name}"), filesystem=files)
    store.put_if_absent("other/readme", b"")
    found = ds.dataset(store.uri("t"), filesystem=files, format="parquet")
    assert found.count_rows() == 10_000
    assert (
        found.filter(ds.field("image_id") < 3).to_table()["image_id"].to_pylist() == [0, 1, 2] * 2
    )


def test_an_exception_publishes_nothing(store: ObjectStore) -> None:
    files, path = arrow_filesystem(store), store.uri("t/one.parquet")

    def fail(writer: pq.ParquetWriter) -> None:
        writer.write_table(TABLE)
        raise RuntimeError("the disk of a worker is full")

    with (
        pytest.raises(RuntimeError, match="full"),
        pq.ParquetWriter(path, TABLE.schema, filesystem=files) as writer,
    ):
        fail(writer)

    def fail_here() -> None:
        with files.open_output_stream(path) as stream:
            stream.write(b"half of it")
            raise RuntimeError("the disk of a worker is full")

    with pytest.raises(RuntimeError, match="full"):
        fail_here()
    assert list(store.list("")) == []
    with pytest.raises(ZeroDivisionError):
        ds.write_dataset(
            (pa.record_batch([[1 // n]], names=["a"]) for n in (1, 1, 0)),
            store.uri("t"),
            schema=pa.schema([("a", pa.int64())]),
            filesystem=files,
            format="parquet",
        )
    assert list(store.list("")) == []
    pq.write_table(TABLE, path, filesystem=files)
    assert list(store.list("")) == ["t/one.parquet"]


def test_a_stream_that_is_dropped_publishes_nothing(store: ObjectStore) -> None:
    stream = arrow_filesystem(store).open_output_stream(store.uri("key"))
    stream.write(b"half of it")
    del stream
    assert list(store.list("")) == []


def test_a_file_can_be_written_while_another_error_is_handled(store: ObjectStore) -> None:
    files = arrow_filesystem(store)
    try:
        raise RuntimeError("first")
    except RuntimeError:
        with files.open_output_stream(store.uri("report")) as stream:
            stream.write(b"it failed")
    assert store.get("report") == b"it failed"


def test_large_files_wait_on_disk(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    body = os.urandom(1000) * 9000
    before = set(tmp_path.iterdir())
    with arrow_filesystem(store).open_output_stream(store.uri("large")) as stream:
        for start in range(0, len(body), 3_000_000):
            stream.write(body[start : start + 3_000_000])
        assert stream.tell() == len(body)
    assert store.get("large") == body
    assert {path.name for path in set(tmp_path.iterdir()) - before} <= {"a store"}


def test_what_is_there_is_told_from_what_is_not(store: ObjectStore) -> None:
    files = arrow_filesystem(store)
    for key in ("a/b/1", "a/b/2", "a/3", "a-4"):
        store.put_if_absent(key, key.encode())
    paths = [store.uri(key) for key in ("a/3", "a/b", "a", "nothing", "a/b/1")]
    infos = files.get_file_info([*paths, store.uri("x").removesuffix("/x")])
    kinds = [FileType.File, FileType.Directory, FileType.Directory, FileType.NotFound]
    assert [info.type for info in infos] == [*kinds, FileType.File, FileType.Directory]
    assert (infos[0].path, infos[0].size) == (paths[0], 3)
    assert infos[0].mtime is not None
    below = files.get_file_info(FileSelector(store.uri("a")))
    assert sorted(info.path for info in below) == [store.uri("a/3"), store.uri("a/b")]
    whole = files.get_file_info(FileSelector(store.uri("x").removesuffix("/x"), recursive=True))
    names = ["a", "a-4", "a/3", "a/b", "a/b/1", "a/b/2"]
    assert sorted(info.path for info in whole) == [store.uri(name) for name in names]
    assert files.get_file_info(FileSelector(store.uri("no"), allow_not_found=True)) == []
    for act in (files.open_input_file, files.open_input_stream, files.delete_file):
        with pytest.raises(FileNotFoundError):
            act(store.uri("nothing"))
    with pytest.raises(FileNotFoundError):
        files.get_file_info(FileSelector(store.uri("no")))


def test_an_object_can_be_deleted_and_nothing_else_changed(store: ObjectStore) -> None:
    files, path = arrow_filesystem(store), store.uri("a/key")
    store.put_if_absent("a/key", b"1")
    acts: tuple[Callable[[], object], ...] = (
        lambda: files.move(path, store.uri("b")),
        lambda: files.copy_file(path, store.uri("b")),
        lambda: files.delete_dir(store.uri("a")),
        lambda: files.open_append_stream(path),
    )
    for act in acts:
        with pytest.raises(NotImplementedError, match="written once"):
            act()
    files.create_dir(store.uri("c"))
    assert list(store.list("")) == ["a/key"]
    files.delete_file(path)
    assert list(store.list("")) == []


def test_other_places_can_be_read_and_not_written(store: ObjectStore, tmp_path: Path) -> None:
    files, elsewhere = arrow_filesystem(store), open_store(f"{store.address}-2")
    elsewhere.put_if_absent("key", b"1")
    with files.open_input_stream(elsewhere.uri("key")) as stream:
        assert stream.read() == b"1"
    infos = files.get_file_info([elsewhere.uri("key"), elsewhere.uri("no")])
    assert [info.type for info in infos] == [FileType.File, FileType.NotFound]
    for act in (files.open_output_stream, files.delete_file):
        with pytest.raises(FileNotFoundError, match="not below"):
            act(elsewhere.uri("key2"))
    with pytest.raises(BadInputError, match="object key"):
        files.open_output_stream(store.uri("x").removesuffix("x") + "../key").close()


def test_file_systems_of_one_store_are_equal_and_can_be_pickled(store: ObjectStore) -> None:
    files = arrow_filesystem(store)
    store.put_if_absent("key", b"1")
    again = pickle.loads(pickle.dumps(files))  # noqa: S301  (our own bytes)
    assert again == files == arrow_filesystem(open_store(store.address))
    assert files != arrow_filesystem(open_store(f"{store.address}-2"))
    with again.open_input_stream(store.uri("key")) as stream:
        assert stream.read() == b"1"
