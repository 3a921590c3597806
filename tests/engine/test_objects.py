from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.errors import BadInputError, WorkspaceError
from engine.objects import LocalStore, ObjectStore, file_uri


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return LocalStore(tmp_path / "store")


def test_an_object_comes_back(store: ObjectStore) -> None:
    assert store.put_if_absent("a/b.json", b"one")
    assert store.get("a/b.json") == b"one"
    assert store.exists("a/b.json")
    assert not store.exists("a")
    assert not store.exists("a/c.json")


def test_the_first_writer_wins(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(b"three")
    assert store.put_if_absent("key", b"one")
    assert not store.put_if_absent("key", b"two")
    assert not store.put_file_if_absent("key", tmp_path / "local")
    assert store.get("key") == b"one"


def test_of_many_writers_at_once_exactly_one_wins(store: ObjectStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        for number in range(20):
            key = f"race/{number}"
            bodies = [bytes([writer]) * 5000 for writer in range(8)]
            won = list(pool.map(lambda body, key=key: store.put_if_absent(key, body), bodies))
            assert sum(won) == 1
            assert store.get(key) == bodies[won.index(True)]


def test_a_stored_file_does_not_follow_its_source(store: ObjectStore, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.write_bytes(b"before")
    assert store.put_file_if_absent("x/y", local)
    local.write_bytes(b"after!")
    assert store.get("x/y") == b"before"


def test_keys_are_listed_by_prefix_ascending(store: ObjectStore) -> None:
    for key in ("b/2", "a-b", "a/1", "a/10", "a/2/x", "c"):
        store.put_if_absent(key, b"")
    assert list(store.list("")) == ["a-b", "a/1", "a/10", "a/2/x", "b/2", "c"]
    assert list(store.list("a/1")) == ["a/1", "a/10"]
    assert list(store.list("a")) == ["a-b", "a/1", "a/10", "a/2/x"]
    assert list(store.list("nothing/here")) == []


def test_an_opened_object_can_be_read_in_parts(store: ObjectStore) -> None:
    store.put_if_absent("key", b"0123456789")
    with store.open("key") as stream:
        stream.seek(-3, os.SEEK_END)
        assert stream.read() == b"789"


def test_a_missing_object_is_named(store: ObjectStore) -> None:
    with pytest.raises(WorkspaceError, match="absent is missing"):
        store.get("absent")


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/./b", ".writing-1", "a/.."])
def test_malformed_keys_are_refused(store: ObjectStore, key: str) -> None:
    with pytest.raises(BadInputError, match="object key"):
        store.put_if_absent(key, b"")


def test_a_killed_writer_leaves_nothing_that_shows(store: LocalStore) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from engine.objects import LocalStore\n"
        "def die(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.addaudithook(lambda event, _: die() if event == 'os.link' else None)\n"
        "LocalStore(Path(sys.argv[1])).put_if_absent('a/key', b'body')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(store.root)],
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    leftovers = [path.name for path in (store.root / "a").iterdir()]
    assert len(leftovers) == 1
    assert leftovers[0].startswith(".writing-")
    assert list(store.list("")) == []
    assert not store.exists("a/key")
    assert store.put_if_absent("a/key", b"body")
    assert list(store.list("a/")) == ["a/key"]


def test_a_finished_writer_leaves_only_the_object(store: LocalStore) -> None:
    store.put_if_absent("a/key", b"1")
    store.put_if_absent("a/key", b"2")
    assert [path.name for path in (store.root / "a").iterdir()] == ["key"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(WorkspaceError, match="check the folder's permissions"):
        LocalStore(tmp_path / "file" / "below").put_if_absent("a/b", b"")


def test_addresses_are_literal(store: LocalStore) -> None:
    assert file_uri(Path("/a b/c%20d")) == "file:///a b/c%20d"
    assert store.uri("k/l") == f"file://{store.root}/k/l"
    for folder in ("relative", "/a?b", "/a#b", "/a\nb"):
        with pytest.raises(BadInputError, match="choose another folder"):
            file_uri(Path(folder))
