"""What every `ObjectStore` does: a folder, moto, and (slow) a Ceph gateway."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import BadInputError, MissingObjectError
from engine.objects import LocalStore, ObjectStore, S3Store, open_store
from tests.servers import MOTO_PART_BYTES, S3Server

SERVERS = [
    "folder",
    "moto",
    pytest.param("ceph", marks=pytest.mark.slow),
]
PART_BYTES = 5 * 1024 * 1024  # Ceph's least


@pytest.fixture(params=SERVERS)
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ObjectStore:
    if request.param == "folder":
        return open_store(tmp_path / "store")
    server: S3Server = request.getfixturevalue(f"{request.param}_server")
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return open_store(f"s3://{server.make_bucket()}/some/prefix")


def test_an_object_comes_back(store: ObjectStore) -> None:
    before = datetime.now(UTC)
    assert store.put_if_absent("a/b.json", b"one")
    assert store.get("a/b.json") == b"one"
    assert store.exists("a/b.json")
    assert not store.exists("a")
    assert not store.exists("a/c.json")
    found = store.stat("a/b.json")
    assert found is not None
    assert (found.key, found.size_bytes) == ("a/b.json", 3)
    assert found.modified_at.utcoffset() == timedelta(0)
    assert abs(found.modified_at - before) < timedelta(minutes=5)
    assert store.stat("a") is None


def test_an_empty_object_comes_back(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "nothing").touch()
    assert store.put_if_absent("a", b"")
    assert store.put_file_if_absent("b", tmp_path / "nothing")
    assert store.get("a") == store.get("b") == b""
    with store.open("a") as stream:
        assert stream.read() == b""
        assert stream.seek(0, os.SEEK_END) == 0
    assert [item.size_bytes for item in store.objects("")] == [0, 0]


def test_the_first_writer_wins(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(b"three")
    assert store.put_if_absent("key", b"one")
    assert not store.put_if_absent("key", b"two")
    assert not store.put_if_absent("key", b"one")
    assert not store.put_file_if_absent("key", tmp_path / "local")
    assert store.get("key") == b"one"


def test_of_many_writers_at_once_exactly_one_wins(store: ObjectStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        for number in range(5):
            key = f"race/{number}"
            bodies = [bytes([writer]) * 5000 for writer in range(8)]
            won = list(pool.map(lambda body, key=key: store.put_if_absent(key, body), bodies))
            assert sum(won) == 1
            assert store.get(key) == bodies[won.index(True)]


def test_of_many_equal_writers_exactly_one_wins(store: ObjectStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda _: store.put_if_absent("race", b"same"), range(8)))
    assert sum(won) == 1


def test_a_stored_file_does_not_follow_its_source(store: ObjectStore, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.write_bytes(b"before")
    assert store.put_file_if_absent("x/y", local)
    local.write_bytes(b"after!")
    assert store.get("x/y") == b"before"


def test_keys_are_listed_by_prefix_ascending(store: ObjectStore) -> None:
    keys = ["a-b", "a/1", "a/10", "a/2/x", "a/é", "a/\uffee", "a/\U0001f600", "b/2", "c"]
    for key in reversed(keys):
        store.put_if_absent(key, key.encode())
    assert list(store.list("")) == keys
    assert list(store.list("a/1")) == ["a/1", "a/10"]
    assert list(store.list("a")) == keys[:7]
    assert list(store.list("a/")) == keys[1:7]
    assert list(store.list("nothing/here")) == []
    for prefix in ("a//", "../", "/", "./"):
        assert list(store.list(prefix)) == []
    sizes = {item.key: item.size_bytes for item in store.objects("")}
    assert sizes == {key: len(key.encode()) for key in keys}


def test_listings_do_not_reach_into_neighbours(store: ObjectStore) -> None:
    neighbour = open_store(f"{store.address}-2")
    neighbour.put_if_absent("key", b"2")
    store.put_if_absent("key", b"1")
    assert list(store.list("")) == ["key"]
    assert list(neighbour.list("")) == ["key"]
    assert store.get("key") == b"1"


def test_an_opened_object_can_be_read_in_parts(store: ObjectStore) -> None:
    body = os.urandom(300_001)
    store.put_if_absent("key", body)
    with store.open("key") as stream:
        stream.seek(-3, os.SEEK_END)
        assert stream.read() == body[-3:]
        assert stream.read() == stream.read(1) == b""
        assert stream.seek(5) == stream.tell() == 5
        assert stream.read(0) == b""
        assert stream.read(10) == body[5:15]
        assert stream.seek(100_000, os.SEEK_CUR) == 100_015
        assert stream.read(1000) == body[100_015:101_015]
        stream.seek(0)
        assert b"".join(iter(lambda: stream.read(7777), b"")) == body
        stream.seek(len(body) + 10)
        assert stream.read() == b""
    with pytest.raises(ValueError, match="closed"):
        stream.read(1)


def test_an_opened_object_is_a_file_like_any_other(store: ObjectStore) -> None:
    text = "".join(f"line {number} é\n" for number in range(20_000))
    store.put_if_absent("lines", text.encode())
    with store.open("lines") as stream, io.TextIOWrapper(stream, encoding="utf-8") as lines:
        assert sum(1 for _ in lines) == 20_000
    with store.open("lines") as stream:
        assert stream.readable()
        assert stream.seekable()
        assert not stream.writable()
        assert stream.readline() == b"line 0 \xc3\xa9\n"
        assert stream.readline() == b"line 1 \xc3\xa9\n"
        with pytest.raises((ValueError, OSError)):
            stream.seek(-1)


def test_any_reading_of_an_open_object_equals_reading_its_bytes(store: ObjectStore) -> None:
    body = os.urandom(400_000)
    store.put_if_absent("key", body)
    step = st.tuples(
        st.sampled_from([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END]),
        st.integers(-450_000, 450_000),
        st.integers(0, 250_000) | st.just(-1),
    )

    @settings(max_examples=15)
    @given(st.lists(step, max_size=6))
    def agree(steps: list[tuple[int, int, int]]) -> None:
        with store.open("key") as stream, io.BytesIO(body) as model:
            for whence, offset, size in steps:
                bases = {os.SEEK_SET: 0, os.SEEK_CUR: model.tell(), os.SEEK_END: len(body)}
                if bases[whence] + offset >= 0:
                    assert stream.seek(offset, whence) == model.seek(offset, whence)
                assert stream.read(size) == model.read(size)

    agree()


def test_a_missing_object_is_named(store: ObjectStore) -> None:
    with pytest.raises(MissingObjectError, match="absent is missing"):
        store.get("absent")
    with pytest.raises(MissingObjectError, match="absent is missing"):
        store.open("absent")


MALFORMED = ["", "/a", "a/", "a//b", "../a", "a/./b", ".writing-1", "a/..", "a\nb", "\x7f"]


@pytest.mark.parametrize("key", [*MALFORMED, "x" * 256, "/".join(["x" * 100] * 10), "\udc80"])
def test_malformed_keys_are_refused(store: ObjectStore, key: str, tmp_path: Path) -> None:
    for act in (store.get, store.open, store.exists, store.stat, store.delete, store.link):
        with pytest.raises(BadInputError, match="object key"):
            act(key)
    with pytest.raises(BadInputError, match="object key"):
        store.put_if_absent(key, b"")
    with pytest.raises(BadInputError, match="object key"):
        store.put_file_if_absent(key, tmp_path / "no such file")
    assert list(store.list("")) == []


KEYS = st.text(
    st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("/ +%&=?#'\"\\~*:;,@é"),
    min_size=1,
    max_size=40,
)


def test_every_key_that_is_taken_comes_back(store: ObjectStore) -> None:
    @settings(max_examples=25)
    @given(KEYS)
    def round_trip(key: str) -> None:
        place = f"{uuid.uuid4().hex}/"  # some keys are others' folders
        body = key.encode()
        try:
            assert store.put_if_absent(place + key, body)
        except BadInputError:
            return
        assert store.get(place + key) == body
        assert list(store.list(place)) == [place + key]
        assert list(store.list(place + key)) == [place + key]
        assert not store.put_if_absent(place + key, b"")
        store.delete(place + key)
        assert not store.exists(place + key)

    round_trip()


def test_a_deleted_object_is_gone_and_may_be_written_again(store: ObjectStore) -> None:
    store.put_if_absent("a/key", b"1")
    store.put_if_absent("a/key2", b"2")
    store.delete("a/key")
    store.delete("a/key")
    store.delete("never/there")
    assert list(store.list("")) == ["a/key2"]
    assert store.put_if_absent("a/key", b"3")
    assert store.get("a/key") == b"3"


def test_a_link_can_be_opened_by_anyone(store: ObjectStore) -> None:
    store.put_if_absent("a b/ü.txt", b"hello")
    link = store.link("a b/ü.txt", seconds=60)
    assert link.startswith("file://") or "X-Amz-Algorithm=AWS4-HMAC-SHA256" in link
    with urllib.request.urlopen(link) as answer:  # noqa: S310  (our own link)
        assert answer.read() == b"hello"
    for seconds in (0, -1, 8 * 24 * 3600):
        with pytest.raises(BadInputError, match="seconds"):
            store.link("a", seconds)


def test_a_store_knows_its_address(store: ObjectStore) -> None:
    store.put_if_absent("a/key", b"1")
    again = open_store(store.address)
    assert again.address == store.address
    assert again.get("a/key") == b"1"
    assert store.uri("a/key").endswith(f"{store.address}/a/key")


def test_a_checked_store_holds_nothing_more(store: ObjectStore) -> None:
    store.check()
    store.check()
    assert list(store.list("")) == []


def test_many_may_check_a_store_at_once(store: ObjectStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        for check in [pool.submit(store.check) for _ in range(24)]:
            check.result()
    assert list(store.list("")) == []


def test_a_large_file_goes_up_whole_and_once(
    store: ObjectStore, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    size = MOTO_PART_BYTES if "moto" in request.node.name else PART_BYTES
    if isinstance(store, S3Store):
        options = replace(store.options, multipart_bytes=size, part_bytes=size)
        store = replace(store, options=options)
    body = os.urandom(2 * size + 1)
    local = tmp_path / "large"
    local.write_bytes(body)
    with ThreadPoolExecutor(3) as pool:
        won = list(pool.map(lambda _: store.put_file_if_absent("large", local), range(3)))
    assert sum(won) == 1
    assert not store.put_file_if_absent("large", local)
    assert store.get("large") == body
    assert list(store.list("")) == ["large"]
    assert store.remove_unfinished(datetime.now(UTC) + timedelta(minutes=5)) == 0


def _work(store: ObjectStore, number: int) -> bool:
    return store.put_if_absent(f"race/{number % 3}", store.get("seed") + bytes([number]))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_share_a_store(store: ObjectStore, method: str) -> None:
    store.put_if_absent("seed", b"seed")  # so that a fork inherits an open connection
    with multiprocessing.get_context(method).Pool(3) as pool:
        won = pool.starmap(_work, [(store, number) for number in range(12)])
    assert sum(won) == 3
    assert store.get("seed") == b"seed"
    assert len(list(store.list("race/"))) == 3


def test_stores_can_be_pickled(store: ObjectStore) -> None:
    store.put_if_absent("key", b"1")
    assert pickle.loads(pickle.dumps(store)).get("key") == b"1"  # noqa: S301  (our own bytes)


def test_a_folder_and_a_bucket_are_told_apart(tmp_path: Path) -> None:
    assert isinstance(open_store(tmp_path), LocalStore)
    assert isinstance(open_store("s3://bucket/x"), S3Store)
