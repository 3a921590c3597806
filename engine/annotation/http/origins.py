"""Whose page is asking? Host names, origins and the browser's own word, against foreign pages.

    rules = OriginRules(hosts=frozenset({"annotate.example.org"}), public_origin=None)
    rules.refusal("POST", "/api/session", headers, scheme="http")     # None: fine

What it stops: a page of another site that lets its visitor's browser post here (the cookie is not
sent either), a page on another port of this machine, and DNS rebinding, where a foreign name
leads to this machine. An address instead of a name cannot be rebound, so addresses always pass.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["LOOPBACK_NAMES", "OriginRules", "Refusal", "host_name", "is_address", "is_loopback"]

LOOPBACK_NAMES = frozenset({"localhost"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
GUARD_HEADER = "x-maskwheel"
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not answered; becomes an error's JSON."""

    status: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class OriginRules:
    """Which hosts and origins the service goes by.

    Attributes:
        hosts: names it may be called by, besides ``localhost`` and plain addresses; lower case.
        public_origin: ``https://name`` that browsers see when a proxy stands in front.
    """

    hosts: frozenset[str] = field(default_factory=frozenset)
    public_origin: str | None = None

    def refusal(
        self, method: str, path: str, headers: Mapping[str, str], scheme: str
    ) -> Refusal | None:
        """Say why a request must not be answered; None if it may.

        Args:
            method: of HTTP.
            path: without the query.
            headers: by lower-case name.
            scheme: ``"http"`` or ``"https"``.
        """
        host = headers.get("host", "")
        if not self._knows(host):
            return Refusal(
                400,
                "unknown_host",
                "this service is not known by the host name of the request; start it with "
                "--allow-host NAME (or --public-url) for names other than localhost",
            )
        if not path.startswith("/api"):
            return None
        if method in SAFE_METHODS and headers.get("sec-fetch-mode") == "navigate":
            return None  # somebody follows a link to the documentation; nothing can read the answer
        if not self._is_own_page(headers, f"{scheme}://{host}"):
            return Refusal(403, "cross_site", "pages of other origins may not use this service")
        if method not in SAFE_METHODS and headers.get(GUARD_HEADER) != "1":
            return Refusal(403, "cross_site", "requests that change something need X-Maskwheel: 1")
        return None

    def _knows(self, host: str) -> bool:
        name = host_name(host)
        return name is not None and (
            is_address(name)
            or name in LOOPBACK_NAMES
            or name in self.hosts
            or name == host_name((self.public_origin or "").rpartition("/")[2])
        )

    def _is_own_page(self, headers: Mapping[str, str], own_origin: str) -> bool:
        # Browsers tell both and pages cannot change either. Programs tell none: they hold no
        # cookies of somebody else.
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return False
        origin = headers.get("origin")
        return origin is None or origin.lower() in (own_origin.lower(), self.public_origin)


def host_name(host: str) -> str | None:
    """Return a Host header's name or address in lower case, without its port; None if malformed."""
    found = _HOST.fullmatch(host)
    return found[1].strip("[]").rstrip(".").lower() if found else None


def is_address(name: str) -> bool:
    """Whether a host's name is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(name: str) -> bool:
    """Whether a host's name or address is this machine and nothing else."""
    return name in LOOPBACK_NAMES or (is_address(name) and ipaddress.ip_address(name).is_loopback)
