"""Ports: one that is free, and who answers on it.

port = free_port("127.0.0.1", 4200, next_ports=20)
"""

from __future__ import annotations

import errno
import ipaddress
import socket

from engine.errors import BadInputError

__all__ = ["free_port", "is_loopback", "name_of_host"]


def free_port(host: str, first: int, *, next_ports: int, option: str) -> int:
    """Return a port that can be listened on.

    Args:
        host: a name or an address of this machine; ``0.0.0.0`` for all.
        first: what is tried first; 0: any.
        next_ports: how many ports after it are tried when it is taken.
        option: that names another port, for the message.

    Raises:
        BadInputError: none of them can be had.
    """
    for port in range(first, min(first + next_ports, 65_535) + 1):
        try:
            return _bound(host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise BadInputError(f"cannot listen on {host}:{port}: {error}") from error
    tried = f"port {first} is" if not next_ports else f"ports {first} to {first + next_ports} are"
    raise BadInputError(f"{tried} taken on {host}; name another with {option}")


def is_loopback(host: str | None) -> bool:
    """Return whether only this machine reaches a host."""
    if host in (None, "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def name_of_host(host: str, *, local: bool = False) -> str:
    """Return what a browser calls a host that is listened on.

    Args:
        host: ``0.0.0.0`` and ``::`` stand for all addresses of this machine.
        local: for programs on this machine, which need not go through its name.
    """
    if host in ("0.0.0.0", "::"):  # noqa: S104
        return "127.0.0.1" if local else socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _bound(host: str, port: int) -> int:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen(1)
        bound: int = probe.getsockname()[1]
        return bound
