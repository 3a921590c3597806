"""A real HTTP server on loopback that serves one file, with the faults that a test asks for."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[["Exchange", int], None]
"""Answers a request; the number counts the requests of its path from 0."""


class Exchange(BaseHTTPRequestHandler):
    """One request; the tests' answers call its methods."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        site = self.site()
        with site.lock:
            number = site.requests[self.path]
            site.requests[self.path] += 1
            site.ranges.append(self.headers.get("Range"))
        site.answers[self.path](self, number)

    def site(self) -> Site:
        server = self.server
        assert isinstance(server, _Server)
        return server.site

    def send(self, body: bytes, status: int = 200, /, **headers: str) -> None:
        """Answer with a body; its length is told unless `headers` say otherwise."""
        headers.setdefault("Content_Length", str(len(body)))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def cut(self) -> None:
        """Close the connection without another word."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def send_range(self, body: bytes, etag: str, *, upto: int | None = None) -> None:
        """Answer as a server that knows ranges; after `upto` bytes the connection breaks."""
        start = 0
        if (asked := self.headers.get("Range")) and self.headers.get("If-Range") == etag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        rest = body[start:]
        headers = {"Content_Length": str(len(rest)), "ETag": etag, "Accept_Ranges": "bytes"}
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self.send(rest[:upto], 206 if start else 200, **headers)
        if upto is not None:
            self.cut()

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""


@dataclass
class Site:
    """What the server does, and what it was asked."""

    address: str
    answers: dict[str, Answer] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    ranges: list[str | None] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, path: str, answer: Answer) -> str:
        """Set the answer of a path; return its address."""
        self.answers[path] = answer
        return self.address + path


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    site: Site

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are part of the tests."""


@contextmanager
def http_site() -> Iterator[Site]:
    """Run the server."""
    with _Server(("127.0.0.1", 0), Exchange) as server:
        server.site = Site(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server.site
        finally:
            server.shutdown()
            thread.join()
