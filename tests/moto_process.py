"""A moto server that does one request at a time, as if it were atomic; see servers.py.

    python -m tests.moto_process        # prints its port, and ends with its standard input

moto looks whether a key is taken and writes it afterwards, so two conditional writes at the same
instant would both succeed. It also takes uploads that were cut. Real servers do neither.
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

__all__ = ["main"]


class OneAtATime:
    """A WSGI application around moto's."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application
        self._lock = threading.Lock()

    def __call__(self, request: dict[str, Any], answer: Callable[..., Any]) -> Iterable[bytes]:
        length = int(request.get("CONTENT_LENGTH") or 0)
        body = request["wsgi.input"].read(length)
        if len(body) < length:
            answer("400 Bad Request", [("Content-Type", "application/xml")])
            return [b"<Error><Code>IncompleteBody</Code><Message>cut</Message></Error>"]
        request["wsgi.input"] = io.BytesIO(body)
        with self._lock:
            return list(self._application(request, answer))


class QuietHandler(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:
        """Write nothing."""


def main() -> None:
    application = OneAtATime(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=QuietHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.port, flush=True)
    sys.stdin.read()
    server.shutdown()


if __name__ == "__main__":
    main()
