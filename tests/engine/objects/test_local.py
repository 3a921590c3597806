"""What is special to folders; what every store does is in test_store_behaviour.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from engine.errors import BadInputError, MissingObjectError, WorkspaceError
from engine.objects import LocalStore, file_uri

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from engine.objects import LocalStore
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(lambda event, _: die() if event == 'os.link' else None)
LocalStore(Path(sys.argv[1])).put_if_absent('a/key', b'body')
"""


def test_a_killed_writer_leaves_nothing_that_shows(store: LocalStore) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WRITER, str(store.root)], cwd=REPOSITORY, check=False
    )
    assert done.returncode == -signal.SIGKILL
    leftovers = [path.name for path in (store.root / "a").iterdir()]
    assert len(leftovers) == 1
    assert leftovers[0].startswith(".writing-")
    assert list(store.list("")) == []
    assert not store.exists("a/key")
    assert store.put_if_absent("a/key", b"body")
    assert list(store.list("a/")) == ["a/key"]


def test_what_killed_writers_left_is_removed_when_it_is_old(store: LocalStore) -> None:
    store.put_if_absent("a/key", b"body")
    left = store.root / "a" / ".writing-0123"
    left.write_bytes(b"half")
    now = datetime.now(UTC)
    os.utime(left, (time.time() - 7200,) * 2)
    (store.root / ".writing-young").touch()
    assert store.remove_unfinished(now - timedelta(hours=1)) == 1
    assert not left.exists()
    assert (store.root / ".writing-young").exists()
    assert list(store.list("")) == ["a/key"]


def test_a_finished_writer_leaves_only_the_object(store: LocalStore) -> None:
    store.put_if_absent("a/key", b"1")
    store.put_if_absent("a/key", b"2")
    assert [path.name for path in (store.root / "a").iterdir()] == ["key"]


def test_a_check_leaves_nothing(store: LocalStore) -> None:
    store.check()
    assert list(store.root.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    store = LocalStore(tmp_path / "file" / "below")
    with pytest.raises(WorkspaceError, match="check the folder's permissions"):
        store.put_if_absent("a/b", b"")
    with pytest.raises(WorkspaceError, match="check the folder's permissions"):
        store.check()


def test_below_an_object_there_is_nothing(store: LocalStore) -> None:
    store.put_if_absent("a", b"")
    with pytest.raises(MissingObjectError):
        store.get("a/b")
    store.delete("a/b")
    assert store.stat("a/b") is None
    assert list(store.list("a/b")) == []


def test_links_to_folders_are_not_followed(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "photo").touch()
    store.put_if_absent("a/key", b"")
    (store.root / "a" / "link").symlink_to(tmp_path / "outside")
    (store.root / "a" / "loop").symlink_to(store.root)
    assert list(store.list("")) == ["a/key"]


def test_a_folder_that_cannot_be_listed_is_named(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(WorkspaceError, match="cannot be listed"):
        list(store.list(""))


def test_addresses_are_literal(store: LocalStore) -> None:
    assert file_uri(Path("/a b/c%20d")) == "file:///a b/c%20d"
    assert store.uri("k/l") == f"file://{store.root}/k/l"
    assert store.link("k l") == f"file://{store.root}/k%20l"
    for folder in ("relative", "/a?b", "/a#b", "/a\nb"):
        with pytest.raises(BadInputError, match="choose another folder"):
            file_uri(Path(folder))
