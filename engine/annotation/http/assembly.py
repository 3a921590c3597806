"""From what a user sets to a context that an application can be made of.

context = make_context(database, options, model=None, images=ImageLimits())
run(create_app(context), listener)
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from engine.annotation.database import Database
from engine.annotation.http.context import Model, Rates, ServiceContext
from engine.annotation.http.image_index import ImageIndex
from engine.annotation.http.image_shelf import ImageShelf
from engine.annotation.http.limits import BodyLimits
from engine.annotation.http.origins import OriginRules, host_name, is_loopback
from engine.annotation.http.static import folder_of_page
from engine.announcements import Announce
from engine.errors import BadInputError
from engine.images import ImageLimits

__all__ = ["ServiceOptions", "checked_public_url", "make_context"]


def _real_time() -> datetime:
    # Not `engine.config.current_time`, which may be fixed: leases and sessions have to end.
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceOptions:
    """How a service presents itself.

    Attributes:
        public_url: what links begin with; ``https://...`` makes cookies secure.
        host: what it listens on.
        allow_hosts: further names that it may be called by.
        work_folder: what of the service is on this machine: its database, its caches.
        lease_seconds: how long a task stays with a page that has gone silent.
        page_folder: the built page.
        limits: of bodies.
        rates: of requests.
        clock: UTC now.
        workspace: address of the data set that the images are of.
    """

    public_url: str
    host: str = "127.0.0.1"
    allow_hosts: Sequence[str] = ()
    work_folder: Path
    lease_seconds: int = 120
    page_folder: Path = field(default_factory=folder_of_page)
    limits: BodyLimits = field(default_factory=BodyLimits)
    rates: Rates = field(default_factory=Rates)
    clock: Callable[[], datetime] = _real_time
    workspace: str = ""


def make_context(
    database: Database,
    options: ServiceOptions,
    *,
    model: Model | None,
    image_limits: ImageLimits,
    announce: Announce | None = None,
    on_close: Callable[[], None] = lambda: None,
) -> ServiceContext:
    """Return the context of a service.

    Raises:
        BadInputError: a public address that is none.
    """
    public_url = checked_public_url(options.public_url)
    parts = urlsplit(public_url)
    return ServiceContext(
        database=database,
        images=ImageIndex(database),
        shelf=ImageShelf(image_limits),
        model=model,
        rules=OriginRules(
            hosts=frozenset(_own_names(options)), public_origin=f"{parts.scheme}://{parts.netloc}"
        ),
        clock=options.clock,
        page_folder=options.page_folder,
        public_url=public_url,
        work_folder=options.work_folder,
        secure=parts.scheme == "https",
        limits=options.limits,
        rates=options.rates,
        lease_seconds=options.lease_seconds,
        workspace=options.workspace,
        announce=announce,
        on_close=on_close,
    )


def checked_public_url(url: str) -> str:
    """Return an address that links can begin with, without a slash at its end.

    Raises:
        BadInputError: anything but ``http(s)://host[:port]``.
    """
    parts = urlsplit(url)
    if (
        parts.scheme not in ("http", "https")
        or host_name(parts.netloc) is None
        or parts.path not in ("", "/")
        or parts.query
        or parts.fragment
    ):
        raise BadInputError(f"got the public address {url!r}; expected https://name or http://name")
    return f"{parts.scheme}://{parts.netloc}".lower()


def _own_names(options: ServiceOptions) -> set[str]:
    """Return the names that the service goes by, besides localhost and addresses."""
    names = {options.host.lower(), *(name.lower().rstrip(".") for name in options.allow_hosts)}
    if not is_loopback(options.host):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    return names
