"""S3 through a proxy that breaks requests: nothing is lost, doubled, or short and yet accepted."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from engine.errors import MissingObjectError, TransientError, WorkspaceError
from engine.objects import Backoff, S3Store
from engine.objects.s3_client import s3_client
from tests.faults import Fault, FaultyProxy
from tests.servers import MOTO_PAGE, MOTO_PART_BYTES, S3Server

QUICK = Backoff(attempts=10, first_seconds=0.001, longest_seconds=0.01)
PART_BYTES = MOTO_PART_BYTES


@pytest.fixture
def server(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    for name, value in moto_server.environment().items():
        monkeypatch.setenv(name, value)
    return moto_server


@pytest.fixture(scope="module")
def one_proxy(moto_server: S3Server) -> Iterator[FaultyProxy]:
    # boto3 makes a client per address, which takes longer than most tests.
    with FaultyProxy(moto_server.endpoint, slow_seconds=0.02) as proxy:
        yield proxy


@pytest.fixture
def proxy(one_proxy: FaultyProxy) -> FaultyProxy:
    one_proxy.reset(seed=1)
    return one_proxy


@pytest.fixture
def direct(server: S3Server) -> S3Store:
    return S3Store(server.make_bucket(), "prefix", server.options)


@pytest.fixture
def store(direct: S3Store, proxy: FaultyProxy) -> S3Store:
    return through(direct, proxy)


def through(store: S3Store, proxy: FaultyProxy) -> S3Store:
    return replace(store, options=replace(store.options, endpoint=proxy.endpoint, backoff=QUICK))


def in_parts(store: S3Store) -> S3Store:
    options = replace(store.options, multipart_bytes=PART_BYTES, part_bytes=PART_BYTES)
    return replace(store, options=options)


BREAKS = [Fault.ANSWER_503, Fault.RESET, Fault.CUT_UPLOAD, Fault.LOST_REPLY]


@pytest.mark.parametrize("fault", BREAKS)
@pytest.mark.parametrize("times", [1, 3])
def test_a_write_survives(
    store: S3Store, direct: S3Store, proxy: FaultyProxy, fault: Fault, times: int
) -> None:
    body = os.urandom(200_000)
    proxy.next(fault, "PUT", times)
    assert store.put_if_absent("key", body)
    assert not store.put_if_absent("key", body)
    assert proxy.injected[fault] == times
    assert direct.get("key") == body


def test_a_lost_reply_does_not_make_anothers_object_ours(
    store: S3Store, direct: S3Store, proxy: FaultyProxy
) -> None:
    direct.put_if_absent("key", b"equal bytes")
    proxy.next(Fault.LOST_REPLY, "PUT", 2)
    assert not store.put_if_absent("key", b"equal bytes")


def test_a_lost_reply_is_recognised_though_the_question_for_it_fails_too(
    store: S3Store, proxy: FaultyProxy
) -> None:
    proxy.next(Fault.LOST_REPLY, "PUT")
    proxy.next(Fault.RESET, "HEAD", 2)
    assert store.put_if_absent("key", b"1")


def test_an_object_that_vanishes_between_refusal_and_question_is_written(
    store: S3Store, direct: S3Store, proxy: FaultyProxy
) -> None:
    proxy.refuse(412, "PreconditionFailed", "PUT")
    assert store.put_if_absent("key", b"1")
    assert direct.get("key") == b"1"


def test_a_conflict_between_writers_is_tried_again(store: S3Store, proxy: FaultyProxy) -> None:
    proxy.refuse(409, "ConditionalRequestConflict", "PUT", 2)
    assert store.put_if_absent("key", b"1")


@pytest.mark.parametrize("fault", BREAKS)
@pytest.mark.parametrize("step", ["begin", "send", "join", "drop"])
def test_every_step_of_an_upload_in_parts_survives(
    store: S3Store, direct: S3Store, proxy: FaultyProxy, tmp_path: Path, fault: Fault, step: str
) -> None:
    body = os.urandom(2 * PART_BYTES + 100)
    (tmp_path / "file").write_bytes(body)
    store = in_parts(store)
    assert store.put_file_if_absent("first", tmp_path / "file")  # so that the server is known
    if step == "join":
        proxy.next(None, "POST")
    proxy.next(fault, {"send": "PUT", "drop": "DELETE"}.get(step, "POST"), 2)
    if step == "drop":
        proxy.refuse(403, "AccessDenied", "PUT")
        with pytest.raises(WorkspaceError, match="forbids"):
            store.put_file_if_absent("key", tmp_path / "file")
    assert store.put_file_if_absent("key", tmp_path / "file")
    assert proxy.injected[fault] == 2
    assert direct.get("key") == body
    unfinished = list(direct._uploads())
    # A beginning whose answer is lost leaves an upload that nobody knows of.
    unknown = step == "begin" and fault in (Fault.LOST_REPLY, Fault.CUT_UPLOAD)
    assert len(unfinished) == (2 if unknown else 0)
    assert direct.remove_unfinished(datetime.now(UTC) + timedelta(minutes=5)) == len(unfinished)
    assert not list(direct._uploads())


def test_an_upload_in_parts_begins_again_after_a_conflict(
    store: S3Store, direct: S3Store, proxy: FaultyProxy, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(bytes(PART_BYTES + 1))
    store = in_parts(store)
    assert store.put_file_if_absent("first", tmp_path / "file")  # so that the server is known
    proxy.next(None, "POST")
    proxy.refuse(409, "ConditionalRequestConflict", "POST")
    assert store.put_file_if_absent("key", tmp_path / "file")
    assert direct.stat("key") is not None
    assert not list(direct._uploads())


def test_an_upload_that_fails_leaves_nothing(
    store: S3Store, direct: S3Store, proxy: FaultyProxy, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(bytes(PART_BYTES + 1))
    store = in_parts(store)
    assert store.put_file_if_absent("first", tmp_path / "file")
    proxy.refuse(403, "AccessDenied", "PUT")
    with pytest.raises(WorkspaceError, match="forbids"):
        store.put_file_if_absent("key", tmp_path / "file")
    assert not list(direct._uploads())
    assert list(direct.list("")) == ["first"]


@pytest.mark.parametrize("fault", [Fault.ANSWER_503, Fault.RESET, Fault.LOST_REPLY])
def test_a_read_survives(store: S3Store, direct: S3Store, proxy: FaultyProxy, fault: Fault) -> None:
    direct.put_if_absent("key", b"body")
    proxy.next(fault, "GET", 3)
    assert store.get("key") == b"body"
    proxy.next(fault, "GET", 3)
    with store.open("key") as stream:
        assert stream.read() == b"body"
    proxy.next(fault, "HEAD", 3)
    assert store.exists("key")
    proxy.next(fault, "GET", 3)
    assert list(store.list("")) == ["key"]
    proxy.next(fault, "DELETE", 3)
    store.delete("key")
    assert not direct.exists("key")
    assert proxy.injected[fault] == 15


@pytest.mark.parametrize("seed", range(4))
def test_a_cut_read_goes_on_where_it_broke(
    store: S3Store, direct: S3Store, proxy: FaultyProxy, seed: int
) -> None:
    body = os.urandom(3_000_000)
    direct.put_if_absent("key", body)
    proxy.reset(seed=seed)
    proxy.next(Fault.CUT_DOWNLOAD, "GET", 3)
    assert store.get("key") == body
    ranges = [request.headers.get("range") for request in proxy.requests]
    assert ranges[0] is None
    starts = [int((one or "").removeprefix("bytes=").partition("-")[0]) for one in ranges[1:]]
    assert len(starts) == 3
    assert starts == sorted(starts)
    assert starts[-1] > 0
    assert all("if-match" in request.headers for request in proxy.requests[1:])


@pytest.mark.parametrize("seed", range(3))
def test_a_cut_open_object_reads_like_an_uncut_one(
    store: S3Store, direct: S3Store, proxy: FaultyProxy, seed: int
) -> None:
    body = os.urandom(2_000_000)
    direct.put_if_absent("key", body)
    proxy.reset(seed=seed, rate=0.5)
    with store.open("key") as stream:
        pieces = list(iter(lambda: stream.read(100_000), b""))
        stream.seek(5)
        assert stream.read(700_000) == body[5:700_005]
    assert b"".join(pieces) == body
    assert proxy.injected.total() > 0


def test_a_cut_listing_is_never_a_shorter_one(
    store: S3Store, direct: S3Store, proxy: FaultyProxy
) -> None:
    keys = [f"{number:03}" for number in range(2 * MOTO_PAGE + 1)]
    for key in keys:
        direct.put_if_absent(key, b"")
    for seed in range(8):
        proxy.reset(seed=seed)
        proxy.next(Fault.CUT_DOWNLOAD, "GET", 4)
        assert list(store.list("")) == keys
        assert len(proxy.requests) == 4 + 3


def test_an_answer_cut_to_nothing_is_not_an_empty_listing(
    store: S3Store, direct: S3Store, proxy: FaultyProxy
) -> None:
    direct.put_if_absent("key", b"")
    proxy.share = 0.0
    proxy.next(Fault.CUT_DOWNLOAD, "GET", 2)
    assert list(store.list("")) == ["key"]


def test_retries_end(store: S3Store, proxy: FaultyProxy) -> None:
    acts: dict[str, Callable[[], object]] = {
        "PUT": lambda: store.put_if_absent("key", b"1"),
        "HEAD": lambda: store.exists("key"),
        "GET": lambda: store.get("key"),
        "DELETE": lambda: store.delete("key"),
    }
    for method, act in acts.items():
        before = len(proxy.requests)
        proxy.next(Fault.ANSWER_503, method, 100)
        with pytest.raises(TransientError, match=r"in 10 attempts.*run the command again"):
            act()
        assert len(proxy.requests) - before == 10
        proxy.pause()


def test_a_server_that_is_down_is_named(direct: S3Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
    backoff = replace(QUICK, attempts=2)
    store = replace(direct, options=replace(direct.options, endpoint=endpoint, backoff=backoff))
    with pytest.raises(TransientError, match=f"check that {endpoint} can be reached"):
        store.get("key")


def test_a_server_that_stays_silent_is_asked_again(server: S3Server, direct: S3Store) -> None:
    with FaultyProxy(server.endpoint, slow_seconds=2.0) as proxy:
        store = through(direct, proxy)
        store = replace(store, options=replace(store.options, read_seconds=0.5))
        proxy.next(Fault.SLOW, "PUT")
        assert store.put_if_absent("key", b"1")
        assert len(proxy.requests) > 1
    assert direct.get("key") == b"1"


REFUSALS = [
    (403, "AccessDenied", "forbids it.*s3:ListBucket"),
    (403, "InvalidAccessKeyId", "set AWS_ACCESS_KEY_ID"),
    (403, "SignatureDoesNotMatch", "set AWS_ACCESS_KEY_ID"),
    (400, "ExpiredToken", "sign in"),
    (403, "RequestTimeTooSkewed", "clock is wrong"),
    (404, "NoSuchBucket", "has no such bucket; create it"),
    (400, "AuthorizationHeaderMalformed", "set AWS_REGION"),
    (400, "InvalidRequest", "answered: .*InvalidRequest"),
]


@pytest.mark.parametrize(("status", "code", "message"), REFUSALS)
def test_a_refusal_says_what_to_do_and_is_not_tried_again(
    store: S3Store, proxy: FaultyProxy, status: int, code: str, message: str
) -> None:
    for act in (
        lambda: store.get("key"),
        lambda: store.open("key"),
        lambda: store.put_if_absent("key", b""),
        lambda: list(store.list("")),
        lambda: store.delete("key"),
    ):
        proxy.refuse(status, code)
        before = len(proxy.requests)
        with pytest.raises(WorkspaceError, match=message) as caught:
            act()
        assert not isinstance(caught.value, MissingObjectError)
        assert len(proxy.requests) == before + 1


@pytest.mark.parametrize("code", ["SlowDown", "RequestTimeout", "InternalError", "BadDigest"])
def test_passing_refusals_are_tried_again(store: S3Store, proxy: FaultyProxy, code: str) -> None:
    proxy.refuse(400, code, times=2)
    assert store.put_if_absent("key", b"1")
    proxy.refuse(429, code, times=2)
    assert store.get("key") == b"1"


def test_a_server_without_conditional_writes_is_refused(server: S3Server, direct: S3Store) -> None:
    with (
        FaultyProxy(server.endpoint, strip=("if-none-match",)) as proxy,
        pytest.raises(WorkspaceError, match=r"If-None-Match.*use AWS S3, Ceph"),
    ):
        through(direct, proxy).check()


def test_a_server_that_knows_no_conditional_writes_is_refused(
    store: S3Store, proxy: FaultyProxy
) -> None:
    proxy.refuse(501, "NotImplemented", "PUT")
    with pytest.raises(WorkspaceError, match=r"If-None-Match.*use AWS S3, Ceph"):
        store.check()
    assert len(proxy.requests) == 1


class JoinsBlindly(FaultyProxy):
    """A server that knows the condition for single writes only."""

    def _forwarded(self, method: str, name: str) -> bool:
        return not (method == "POST" and name == "if-none-match")


def test_a_server_that_joins_parts_blindly_gets_files_in_one_piece(
    server: S3Server, direct: S3Store, tmp_path: Path
) -> None:
    body = os.urandom(PART_BYTES + 1)
    (tmp_path / "file").write_bytes(body)
    with JoinsBlindly(server.endpoint) as proxy:
        store = in_parts(through(direct, proxy))
        assert store.put_file_if_absent("a/key", tmp_path / "file")
        assert store.put_file_if_absent("a/key2", tmp_path / "file")
        assert not store.put_file_if_absent("a/key", tmp_path / "file")
        assert sum(request.method == "POST" for request in proxy.requests) == 2  # one probe
    assert direct.get("a/key") == body
    assert list(direct.list("")) == ["a/key", "a/key2"]


def test_a_server_without_ranges_is_refused(server: S3Server, direct: S3Store) -> None:
    direct.put_if_absent("large", bytes(1_000_000))
    with FaultyProxy(server.endpoint, strip=("range",)) as proxy:
        store = through(direct, proxy)
        with store.open("large") as stream:
            assert stream.read() == bytes(1_000_000)  # it came whole
        proxy.next(Fault.CUT_DOWNLOAD, "GET")
        with pytest.raises(WorkspaceError, match="answers range requests"):
            store.get("large")


def test_an_object_that_changes_under_a_reader_is_an_error(direct: S3Store) -> None:
    direct.put_if_absent("key", os.urandom(500_000))
    client = s3_client(direct.options)
    with direct.open("key") as stream:
        stream.read(10)
        client.put_object(Bucket=direct.bucket, Key="prefix/key", Body=os.urandom(500_000))
        stream.seek(200_000)
        with pytest.raises(WorkspaceError, match="rewritten while it was read"):
            stream.read(10)


def test_a_damaged_object_is_an_error(direct: S3Store) -> None:
    s3_client(direct.options).put_object(
        Bucket=direct.bucket,
        Key="prefix/key",
        Body=b"other bytes",
        Metadata={"maskwheel-sha256": "0" * 64},
    )
    with pytest.raises(WorkspaceError, match=r"is damaged.*backup"):
        direct.get("key")


def storm(store: S3Store, direct: S3Store, proxy: FaultyProxy, folder: Path) -> None:
    bodies = [os.urandom(10_000 * number) for number in range(10)]
    for number, body in enumerate(bodies):
        (folder / str(number)).write_bytes(body)

    def work(task: int) -> bool:
        number = task % 10  # three tasks for each key
        if task % 2:
            created = store.put_if_absent(f"{number}", bodies[number])
        else:
            created = store.put_file_if_absent(f"{number}", folder / str(number))
        with store.open(f"{number}") as stream:
            assert stream.read(10) == bodies[number][:10]
        assert store.get(f"{number}") == bodies[number]
        assert list(store.list(f"{number}")) == [f"{number}"]
        return created

    proxy.reset(seed=1, rate=0.3)
    for fault in Fault:  # one of each for sure; threads decide what chance meets
        uploading = fault in (Fault.CUT_UPLOAD, Fault.LOST_REPLY)
        proxy.next(fault, "PUT" if uploading else "GET")
    with ThreadPoolExecutor(4) as pool:
        created = list(pool.map(work, random.Random(1).sample(range(30), 30)))  # noqa: S311
    assert all(proxy.injected[fault] for fault in Fault)
    assert sum(created) == 10
    assert list(direct.list("")) == [f"{number}" for number in range(10)]
    assert all(direct.get(f"{number}") == body for number, body in enumerate(bodies))


def test_a_storm_loses_nothing(
    store: S3Store, direct: S3Store, proxy: FaultyProxy, tmp_path: Path
) -> None:
    storm(store, direct, proxy, tmp_path)


@pytest.mark.slow
def test_a_storm_before_ceph_loses_nothing(
    ceph_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ceph_server.environment().items():
        monkeypatch.setenv(name, value)
    direct = S3Store(ceph_server.make_bucket(), "prefix", ceph_server.options)
    with FaultyProxy(ceph_server.endpoint, slow_seconds=0.02) as proxy:
        storm(through(direct, proxy), direct, proxy, tmp_path)


@pytest.mark.slow
def test_ceph_refuses_strangers_and_says_so(
    ceph_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in replace(ceph_server, secret_key="wrong").environment().items():  # noqa: S106
        monkeypatch.setenv(name, value)
    # Options that no other test has: a client keeps the credentials that it began with.
    store = S3Store("any", options=replace(ceph_server.options, read_seconds=59.0))
    with pytest.raises(WorkspaceError, match="set AWS_ACCESS_KEY_ID"):
        store.put_if_absent("key", b"")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ceph_server.secret_key)
    store = S3Store("no-such-bucket", options=replace(ceph_server.options, read_seconds=58.0))
    for act in (lambda: store.get("key"), lambda: list(store.list("")), store.check):
        with pytest.raises(WorkspaceError, match="has no such bucket; create it"):
            act()
