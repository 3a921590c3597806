"""One file over http or https, all of it or not at all.

    data = download("https://example.org/cat.jpg", max_bytes=10_000_000)

What passes is tried again, a bounded number of times and seconds: refused and reset connections,
time-outs, 408, 425, 429 and 5xx (waiting as long as ``Retry-After`` asks). A download that was cut
goes on where it broke when the server names the file's version by a strong ETag, and starts anew
when it does not. A body that is shorter than its ``Content-Length``, or a chunked one without its
end, never counts as whole. A server that sends neither cannot be held to anything; there the
image's decoder finds what is missing.

Proxies are taken from where the system keeps them (``HTTPS_PROXY``, ``NO_PROXY``).
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import (
    HTTPError,
    InvalidHeader,
    LocationValueError,
    MaxRetryError,
    ResponseError,
    SSLError,
)
from urllib3.util import Retry, Timeout, parse_url

from engine.errors import BadInputError, ImageError
from engine.image_formats import image_error

__all__ = ["Patience", "download"]

_CHUNK_BYTES = 256 * 1024
_PASSING_STATUSES = frozenset({408, 425, 429})
_FORBIDDEN_STATUSES = frozenset({401, 402, 403, 407, 451})
_GONE_STATUSES = frozenset({404, 410})
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a file is waited for.

    Attributes:
        tries: requests in a row that bring no new byte before the file counts as unreachable.
        connect_seconds: for one connection.
        silent_seconds: without a byte, while an answer is due.
        total_seconds: for the file, with all waiting.
        backoff_seconds: before the second try; doubles with each, and is spread by chance.
        redirects: followed at most.
    """

    tries: int = 4
    connect_seconds: float = 10.0
    silent_seconds: float = 30.0
    total_seconds: float = 120.0
    backoff_seconds: float = 0.5
    redirects: int = 5


class _PassingError(Exception):
    """A try that failed for a reason that may pass; `wait_seconds` as the server asked, or None."""

    def __init__(self, message: str, wait_seconds: float | None = None) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


@dataclass(slots=True)
class _Body:
    """What has arrived so far; `etag` names the version that the bytes are of."""

    data: bytearray = field(default_factory=bytearray)
    etag: str | None = None

    def restart(self) -> None:
        self.data.clear()
        self.etag = None


def download(
    url: str,
    max_bytes: int,
    patience: Patience = Patience(),
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> bytes:
    """Return a file's bytes.

    Args:
        url: ``http://`` or ``https://``.
        max_bytes: a larger file is refused, before it is read where its length is told.
        patience: how long to try.
        sleep: waits between tries.

    Raises:
        ImageError: ``"not-found"``, ``"forbidden"``, ``"too-large"``, ``"unreachable"`` (may pass)
            or ``"unreadable"``.
        BadInputError: not an address at all.
    """
    deadline = time.monotonic() + patience.total_seconds
    body = _Body()
    failed = 0
    while True:
        arrived = len(body.data)
        try:
            _fetch(url, body, max_bytes, patience, deadline)
        except _PassingError as error:
            if body.etag is None:
                body.restart()
            failed = 1 if len(body.data) > arrived else failed + 1
            wait = _wait_seconds(error, failed, patience)
            if failed >= patience.tries or time.monotonic() + wait > deadline:
                raise _unreachable(url, error, wait) from error
            sleep(wait)
        else:
            return bytes(body.data)


def _wait_seconds(error: _PassingError, failed: int, patience: Patience) -> float:
    spread = random.uniform(0.5, 1.0)  # noqa: S311  (keeps clients apart; no secret)
    backoff = patience.backoff_seconds * 2.0 ** (failed - 1) * spread
    return max(backoff, error.wait_seconds or 0.0)


def _unreachable(url: str, error: _PassingError, wait: float) -> ImageError:
    asked = "" if error.wait_seconds is None else f" and asks to wait {wait:.0f} s"
    return image_error(
        "unreachable", f"{url} cannot be had now: {error}{asked}; it is tried again by the next run"
    )


def _fetch(url: str, body: _Body, max_bytes: int, patience: Patience, deadline: float) -> None:
    """Make one request and add what it brings to the body; returns when the file is whole."""
    headers = {}
    if body.data and body.etag is not None:
        headers = {"Range": f"bytes={len(body.data)}-", "If-Range": body.etag}
    response = _request(url, headers, patience)
    try:
        _check_status(url, response, body)
        length = response.headers.get("Content-Length", "")
        if length.isdigit() and len(body.data) + int(length) > max_bytes:
            raise _too_large(url, max_bytes)
        # Not `stream`: it fills its buffer before it returns, however slowly the bytes come.
        while chunk := response.read1(_CHUNK_BYTES, decode_content=True):
            body.data += chunk
            if len(body.data) > max_bytes:
                raise _too_large(url, max_bytes)
            if time.monotonic() > deadline:
                raise _PassingError(f"{len(body.data):,} bytes came in {patience.total_seconds} s")
        if response.length_remaining:
            raise _PassingError(f"the file ended {response.length_remaining:,} bytes too early")
    except HTTPError as error:
        raise _PassingError(f"the download broke: {error}") from error
    finally:
        response.close()  # a connection whose answer was read to the end stays open for the next


def _request(url: str, headers: dict[str, str], patience: Patience) -> urllib3.BaseHTTPResponse:
    # Repeating is done above, where a cut body can go on; urllib3 only follows redirects.
    once = Retry(total=None, connect=0, read=0, status=0, other=0, redirect=patience.redirects)
    try:
        return _manager(os.getpid(), _proxy_of(url)).request(
            "GET",
            url,
            headers={**_headers(), **headers},
            retries=once,
            timeout=Timeout(connect=patience.connect_seconds, read=patience.silent_seconds),
            preload_content=False,
        )
    except MaxRetryError as error:
        if isinstance(error.reason, ResponseError):
            message = f"{url} redirects more than {patience.redirects} times; give its last address"
            raise image_error("unreadable", message) from error
        if isinstance(error.reason, SSLError):
            message = f"{url} cannot be had: its server is not who it says it is: {error.reason}"
            raise image_error("unreachable", message) from error
        raise _PassingError(f"no answer: {error.reason}") from error
    except (LocationValueError, UnicodeError) as error:
        raise BadInputError(f"got the address {url!r}, which is no URL: {error}") from error
    except HTTPError as error:
        raise _PassingError(f"no answer: {error}") from error


def _check_status(url: str, response: urllib3.BaseHTTPResponse, body: _Body) -> None:
    """Make the body ready for the answer's bytes, or raise what its status means."""
    status = response.status
    if status == 200:
        body.restart()
        etag = response.headers.get("ETag")
        if etag and etag.startswith('"') and not response.headers.get("Content-Encoding"):
            body.etag = etag
        return
    if status == 206 and body.data:
        begins = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if begins and int(begins[1]) == len(body.data):
            return
        body.restart()
        raise _PassingError("the server went on at another place than it was asked to")
    if status == 416 and body.data:
        body.restart()
        raise _PassingError("the server does not go on where the download broke")
    said = f"{url} answers {status} {response.reason or ''}".rstrip()
    if status in _PASSING_STATUSES or status >= 500:
        raise _PassingError(f"the server answers {status}", _retry_after(response))
    if status in _GONE_STATUSES:
        raise image_error("not-found", said)
    if status in _FORBIDDEN_STATUSES:
        raise image_error("forbidden", f"{said}; a signed address may have expired")
    raise image_error("unreadable", said)


def _retry_after(response: urllib3.BaseHTTPResponse) -> float | None:
    """Seconds that the server asks to wait, from a number or a date; None when it does not ask."""
    value = response.headers.get("Retry-After")
    try:
        return None if value is None else Retry().parse_retry_after(value)
    except InvalidHeader:
        return None


def _too_large(url: str, max_bytes: int) -> ImageError:
    return image_error("too-large", f"{url} is larger than the limit of {max_bytes:,} bytes")


def _proxy_of(url: str) -> str | None:
    """The system's proxy for an address; None: straight."""
    parts = parse_url(url)
    proxy = getproxies().get(parts.scheme or "")
    return None if proxy is None or (parts.host and proxy_bypass(parts.host)) else proxy


@lru_cache(maxsize=8)
def _manager(process_id: int, proxy: str | None) -> urllib3.PoolManager:
    """One pool of connections per process: a fork must not talk into its parent's sockets."""
    del process_id
    pools, connections = 16, 64
    if proxy is None:
        return urllib3.PoolManager(pools, maxsize=connections)
    return urllib3.ProxyManager(proxy, pools, maxsize=connections)


@lru_cache(maxsize=1)
def _headers() -> dict[str, str]:
    # A packed answer could not be resumed by range, and images do not get smaller.
    return {"User-Agent": f"maskwheel/{version('maskwheel')}", "Accept-Encoding": "identity"}
