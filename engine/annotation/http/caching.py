"""ETags and Cache-Control: what a client has already is not sent again.

if is_known(etag, request.headers):
return not_modified({"ETag": etag, "Cache-Control": IMMUTABLE})
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response

__all__ = ["IMMUTABLE", "PRIVATE_IMMUTABLE", "REVALIDATE", "is_known", "not_modified"]

# "private": a proxy that several people share must not keep what needs a session.
PRIVATE_IMMUTABLE = "private, max-age=31536000, immutable"
IMMUTABLE = "public, max-age=31536000, immutable"
REVALIDATE = "no-cache"


def is_known(etag: str, headers: Mapping[str, str]) -> bool:
    """Whether If-None-Match names the ETag (or is ``*``)."""
    asked = headers.get("if-none-match")
    if asked is None:
        return False
    names = [name.strip().removeprefix("W/") for name in asked.split(",")]
    return etag in names or "*" in names


def not_modified(headers: Mapping[str, str]) -> Response:
    """Return a 304 with the headers that the full answer would have."""
    return Response(status_code=304, headers=dict(headers))
