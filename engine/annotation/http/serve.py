"""Listening: an address, a socket, and the server until it is told to stop.

    listener = listen("127.0.0.1", 8765, next_ports=20)
    run(create_app(context), listener)                       # until Ctrl-C or SIGTERM

One process serves all: SQLite has one writer anyway, embeddings are made beside it, and requests
take milliseconds. On Ctrl-C or SIGTERM requests that are under way are answered, leases stay: who
works on a task goes on when the service is there again.
"""

from __future__ import annotations

import errno
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from engine.closing import Closing
from engine.errors import BadInputError

__all__ = ["Certificate", "Listener", "listen", "run"]

log = logging.getLogger(__name__)

_WAITING_CONNECTIONS = 1024
_STOP_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files for https, in PEM."""

    certificate: Path
    key: Path


class Listener(Closing):
    """A bound socket that already takes connections; they wait until the server runs.

    Attributes:
        host: as asked for.
        port: as bound.
    """

    def __init__(self, host: str, bound: socket.socket) -> None:
        self.host = host
        self.port: int = bound.getsockname()[1]
        self.socket = bound

    def url(self, scheme: str) -> str:
        """Return the address for a browser on this machine, or on others if it listens to them."""
        name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(  # noqa: S104
            self.host, self.host
        )
        return f"{scheme}://{f'[{name}]' if ':' in name else name}:{self.port}"

    def close(self) -> None:
        """Stop listening."""
        self.socket.close()


def listen(host: str, port: int, next_ports: int = 0) -> Listener:
    """Bind a TCP port.

    Args:
        host: a name or an address of this machine; ``0.0.0.0`` for all.
        port: 0 takes any that is free.
        next_ports: how many ports after it are tried when it is taken.

    Raises:
        BadInputError: none of them can be had.
    """
    for candidate in range(port, min(port + next_ports, 65_535) + 1):
        try:
            return Listener(host, _bound(host, candidate))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise BadInputError(f"cannot listen on {host}:{candidate}: {error}") from error
            log.info("port %d is taken", candidate)
    tried = f"port {port} is" if not next_ports else f"ports {port} to {port + next_ports} are"
    raise BadInputError(f"{tried} taken on {host}; name another with --port, or 0 for any")


def run(
    app: FastAPI,
    listener: Listener,
    *,
    certificate: Certificate | None = None,
    behind_proxy: bool = False,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGINT or SIGTERM, then answer what is under way and return.

    Args:
        app: as `create_app` makes it.
        listener: where; closed at the end.
        certificate: serve https with it.
        behind_proxy: believe the headers of a proxy on this machine about who asks.
        on_ready: called right before the first request is taken.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,  # `shield` writes one, without queries
        server_header=False,
        proxy_headers=behind_proxy,
        timeout_graceful_shutdown=_STOP_SECONDS,
        ssl_certfile=certificate.certificate if certificate else None,
        ssl_keyfile=certificate.key if certificate else None,
        lifespan="on",
    )
    with listener, _stopped_by_signals():
        on_ready()
        uvicorn.Server(config).run(sockets=[listener.socket])


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(_WAITING_CONNECTIONS)
    except BaseException:
        bound.close()
        raise
    return bound


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Let a signal end the server and nothing else: uvicorn raises it again when it has stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ignore(number: int, frame: FrameType | None) -> None:
        log.info("stopped by %s", signal.Signals(number).name)

    before = {number: signal.signal(number, ignore) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
