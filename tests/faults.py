"""Faults between a client and an HTTP server: a proxy on loopback that breaks some requests.

    with FaultyProxy(server.endpoint, seed=7, rate=0.2) as proxy:
        environment = server.environment(proxy.endpoint)      # set these; then work as usual
        ...
        proxy.pause()                                         # clean from here on (to verify)
    assert all(proxy.injected[fault] for fault in Fault)      # a Counter

or one at a time:

    with FaultyProxy(server.endpoint) as proxy:               # reset() makes it as new
        proxy.next(Fault.LOST_REPLY, "PUT")                   # to the next request of this method
        store.put_if_absent("key", b"1")
        proxy.refuse(403, "AccessDenied", "PUT")              # an answer of S3's
        proxy.requests                                        # what came, and what was done to it

`strip` takes headers off every request, for servers that do not know them.
`rate` is the share of requests that meet a fault; which, and where a body is cut, comes from
`seed` and the order in which requests arrive. Never more than `most_in_a_row` requests for one
method and path meet faults one after the other, so a client that tries once more gets through.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from types import TracebackType
from typing import BinaryIO, Self
from urllib.parse import urlsplit

__all__ = ["Fault", "FaultyProxy", "SeenRequest"]


class Fault(StrEnum):
    """What can happen to a request."""

    ANSWER_503 = "503, the server never sees it"
    RESET = "connection reset, the server never sees it"
    CUT_UPLOAD = "connection reset in the middle of the request's body, for both sides"
    LOST_REPLY = "the server does it, the connection is reset instead of an answer"
    CUT_DOWNLOAD = "the answer's body ends early, now by a reset, now as if it were whole"
    SLOW = "it waits for `slow_seconds` on its way"


_NO_ANSWER = (Fault.ANSWER_503, Fault.RESET, Fault.LOST_REPLY, Fault.SLOW)
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """A request that came, and what was done to it.

    Attributes:
        method: "GET".
        target: path and query, as sent.
        headers: by lower-case name.
        fault: None: it went through, or was refused as planned.
    """

    method: str
    target: str
    headers: dict[str, str]
    fault: Fault | None


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: int
    code: str

    def encode(self, method: str) -> bytes:
        body = f"<Error><Code>{self.code}</Code><Message>a test</Message></Error>"
        head = f"HTTP/1.1 {self.status} {self.code}\r\nContent-Type: text/xml\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        return (head + ("" if method == "HEAD" else body)).encode()


_SLOW_DOWN = _Refusal(503, "SlowDown")


@dataclass(frozen=True, slots=True)
class _Message:
    first_line: str
    headers: list[tuple[str, str]]
    body: bytes
    until_close: bool = False

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")

    def encode(self) -> bytes:
        lines = [self.first_line, *(f"{key}: {value}" for key, value in self.headers)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


class FaultyProxy:
    """An HTTP/1.1 proxy in threads of this process; use it as a context manager.

    Attributes:
        endpoint: its address, ``http://127.0.0.1:port``.
        injected: how often each fault was injected.
        requests: every request, in order of arrival.
        share: how much of a body goes through before a cut, 0 to 1; None: by chance.
    """

    def __init__(
        self,
        server: str,
        *,
        seed: int = 0,
        rate: float = 0.0,
        faults: tuple[Fault, ...] = tuple(Fault),
        slow_seconds: float = 0.05,
        most_in_a_row: int = 4,
        strip: tuple[str, ...] = (),
    ) -> None:
        address = urlsplit(server)
        if address.hostname is None or address.port is None:
            raise ValueError(f"got {server!r}; expected http://host:port")
        self._server = (address.hostname, address.port)
        self._random = random.Random(seed)  # noqa: S311  (no secret)
        self._rate, self._faults = rate, faults
        self._slow_seconds, self._most_in_a_row = slow_seconds, most_in_a_row
        self._strip = strip
        self._planned: list[tuple[Fault | _Refusal | None, str]] = []
        self._in_a_row: Counter[tuple[str, str]] = Counter()
        self.injected: Counter[Fault] = Counter()
        self.requests: list[SeenRequest] = []
        self.share: float | None = None
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._closing = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            threads = list(self._threads)
        for thread in threads:
            thread.join(timeout=30)

    def next(self, fault: Fault | None, method: str = "", times: int = 1) -> None:
        """Plan a fault for the next requests (of a method), before any by chance.

        None lets one through.
        """
        with self._lock:
            self._planned.extend([(fault, method)] * times)

    def refuse(self, status: int, code: str, method: str = "", times: int = 1) -> None:
        """Plan an answer of S3's for the next requests (of a method)."""
        with self._lock:
            self._planned.extend([(_Refusal(status, code), method)] * times)

    def reset(self, *, seed: int = 0, rate: float = 0.0) -> None:
        """Begin again, as if new: no plans, nothing seen."""
        with self._lock:
            self._random = random.Random(seed)  # noqa: S311  (no secret)
            self._rate, self.share = rate, None
            self._planned.clear()
            self._in_a_row.clear()
            self.injected.clear()
            self.requests.clear()

    def pause(self) -> None:
        """Let everything through from here on."""
        with self._lock:
            self._rate = 0.0
            self._planned.clear()

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, connection)

    def _serve(self, client: socket.socket) -> None:
        """Pass the requests of one connection on, until one side ends it."""
        with (
            suppress(OSError, EOFError),
            self._tracked(client),
            socket.create_connection(self._server) as server,
            self._tracked(server),
            client.makefile("rb") as requests,
            server.makefile("rb") as answers,
        ):
            while not self._closing and self._exchange(client, requests, server, answers):
                pass

    def _exchange(
        self,
        client: socket.socket,
        requests: BinaryIO,
        server: socket.socket,
        answers: BinaryIO,
    ) -> bool:
        """Serve one request; return whether the connections can be used again."""
        request = _read_message(requests, client)
        method = request.first_line.split(" ")[0]
        fault, share = self._choose(request)
        if fault is Fault.ANSWER_503:
            fault = _SLOW_DOWN
        if isinstance(fault, _Refusal):
            client.sendall(fault.encode(method))
            return True
        if fault is Fault.RESET:
            return _reset(client)
        if fault is Fault.CUT_UPLOAD:
            data = request.encode()
            server.sendall(data[: len(data) - len(request.body) + int(share * len(request.body))])
            return _reset(client, server)
        if fault is Fault.SLOW:
            time.sleep(self._slow_seconds)
        kept = [pair for pair in request.headers if self._forwarded(method, pair[0].lower())]
        server.sendall(replace(request, headers=kept).encode())
        answer = _read_message(answers, None, to=method)
        if fault is Fault.LOST_REPLY:
            return _reset(client, server)
        data = answer.encode()
        if fault is Fault.CUT_DOWNLOAD:
            client.sendall(data[: len(data) - len(answer.body) + int(share * len(answer.body))])
            return _reset(client) if share < 0.5 else False
        client.sendall(data)
        ends = "close" in (request.header("connection"), answer.header("connection").lower())
        return not (ends or answer.until_close)

    def _forwarded(self, method: str, name: str) -> bool:
        """Whether a header goes on to the server; for subclasses."""
        return name not in self._strip

    def _choose(self, request: _Message) -> tuple[Fault | _Refusal | None, float]:
        """Return the request's fault, and which share of a body goes through before a cut."""
        method, target, _ = request.first_line.split(" ", 2)
        possible = list(_NO_ANSWER)
        possible += [Fault.CUT_UPLOAD] * bool(request.body) + [Fault.CUT_DOWNLOAD] * (
            method == "GET"
        )
        with self._lock:
            fault: Fault | _Refusal | None = None
            of_methods = (
                place for place, plan in enumerate(self._planned) if plan[1] in ("", method)
            )
            if (place := next(of_methods, None)) is not None:
                fault = self._planned.pop(place)[0]
            elif self._random.random() < self._rate:
                usable = [one for one in possible if one in self._faults]
                if usable and self._in_a_row[method, target] < self._most_in_a_row:
                    fault = self._random.choice(usable)
            share = self._random.random() if self.share is None else self.share
            self._in_a_row[method, target] = self._in_a_row[method, target] + 1 if fault else 0
            known = fault if isinstance(fault, Fault) else None
            self.injected.update([known] if known else [])
            headers = {name.lower(): value for name, value in request.headers}
            self.requests.append(SeenRequest(method, target, headers, known))
        return fault, share

    @contextmanager
    def _tracked(self, connection: socket.socket) -> Iterator[None]:
        with self._lock:
            self._open.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()


def _read_message(
    stream: BinaryIO, client: socket.socket | None, to: str | None = None
) -> _Message:
    """Read a request, or the answer to a method; EOFError when the other side has ended."""
    first_line = _read_line(stream)
    headers = []
    while line := _read_line(stream):
        name, _, value = line.partition(":")
        headers.append((name, value.strip()))
    message = _Message(first_line, headers, b"")
    if client is not None and message.header("expect"):
        # Answered here, so that a server's "continue" is not taken for its answer.
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        headers = [(name, value) for name, value in headers if name.lower() != "expect"]
    if to is not None and (to == "HEAD" or first_line.split(" ")[1] in ("204", "304")):
        return message
    if "chunked" in message.header("transfer-encoding").lower():
        return _Message(first_line, headers, _read_chunks(stream))
    if length := message.header("content-length"):
        return _Message(first_line, headers, _read_exactly(stream, int(length)))
    if to is not None:
        return _Message(first_line, headers, stream.read(), until_close=True)
    return _Message(first_line, headers, b"")


def _read_chunks(stream: BinaryIO) -> bytes:
    """Return a chunked body as it was sent, with its lengths."""
    body = b""
    while True:
        line = stream.readline()
        size = int(line.split(b";")[0], 16)
        body += line + _read_exactly(stream, size)
        if size == 0:
            while (trailer := stream.readline()) not in (b"\r\n", b""):
                body += trailer
            return body + b"\r\n"
        body += _read_exactly(stream, 2)


def _read_line(stream: BinaryIO) -> str:
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    return line.decode("latin-1").rstrip("\r\n")


def _read_exactly(stream: BinaryIO, length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return data


def _reset(*connections: socket.socket) -> bool:
    for connection in connections:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    return False
