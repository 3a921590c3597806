"""What surrounds every request: who may ask at all, how much, the headers, the access log.

    app.add_middleware(Shield, rules=OriginRules(), limits=BodyLimits(), secure=False)

Plain ASGI, because it is passed by every request: no task, no queue, no copy of the body.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.annotation.http.errors import error_response
from engine.annotation.http.limits import BodyLimits
from engine.annotation.http.origins import SAFE_METHODS, OriginRules, Refusal

__all__ = ["SECURITY_HEADERS", "Shield"]

log = logging.getLogger(__name__)
access_log = logging.getLogger("maskwheel.access")

# Threads in WebAssembly need the first three; the last are for those who find the page in a frame.
SECURITY_HEADERS = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; "
        "img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
        "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_HSTS = (b"strict-transport-security", b"max-age=31536000")


class Shield:
    """Middleware; the outermost of ours, so that refusals and failures carry the headers too."""

    def __init__(
        self, app: ASGIApp, rules: OriginRules, limits: BodyLimits, *, secure: bool
    ) -> None:
        self._app = app
        self._rules = rules
        self._limits = limits
        self._headers = [(name.encode(), text.encode()) for name, text in SECURITY_HEADERS.items()]
        if secure:
            self._headers.append(_HSTS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or say why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0

        async def guarded_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = self._completed(scope, message["headers"])
            await send(message)

        try:
            await self._answer(scope, receive, guarded_send)
        except Exception as error:
            log.exception("%s %s failed", scope["method"], _logged_path(scope))
            if status:
                raise  # too late for an answer: the server closes the connection
            failure = Refusal(500, "internal", "something went wrong; the service's log says what")
            log.debug("answered 500 for %r", error)
            await error_response(failure)(scope, receive, guarded_send)
        finally:
            milliseconds = (time.perf_counter() - started) * 1000
            client = scope.get("client") or ("-", 0)
            access_log.info(
                "%s %s %s %d %.1f ms",
                client[0],
                scope["method"],
                _logged_path(scope),
                status,
                milliseconds,
            )

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        path = scope["path"]
        refusal = self._rules.refusal(scope["method"], path, headers, scope["scheme"])
        refusal = refusal or self._refused_body(scope["method"], path, headers)
        if refusal is not None:
            await error_response(refusal)(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            # Answered as GET; the server sends no body to who asked with HEAD.
            scope = {**scope, "method": "GET"}
        await self._app(scope, self._counted(receive, self._limits.of(path)), send)

    def _refused_body(self, method: str, path: str, headers: Headers) -> Refusal | None:
        length = headers.get("content-length", "0")
        has_body = length != "0" or "transfer-encoding" in headers
        if not has_body:
            return None
        if not length.isascii() or not length.isdigit():
            return Refusal(400, "bad_request", "Content-Length is not a number")
        if int(length[:20]) > self._limits.of(path):
            return _too_large(self._limits.of(path))
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if path.startswith("/api") and method not in SAFE_METHODS:
            if media_type != "application/json":
                return Refusal(415, "not_json", "expected a body of Content-Type application/json")
            if headers.get("content-encoding", "identity") != "identity":
                return Refusal(415, "not_json", "compressed bodies are not read")
        return None

    def _counted(self, receive: Receive, limit: int) -> Receive:
        """Stop reading a body that turns out longer than allowed, whatever its header said."""
        total = 0

        async def counted() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > limit:
                raise HTTPException(413, _too_large(limit).message)
            return message

        return counted

    def _completed(
        self, scope: Scope, headers: Iterable[tuple[bytes, bytes]]
    ) -> list[tuple[bytes, bytes]]:
        given = list(headers)
        names = {name for name, _ in given}
        given += [header for header in self._headers if header[0] not in names]
        if b"cache-control" not in names:
            given.append((b"cache-control", b"no-store"))
        return given


def _too_large(limit: int) -> Refusal:
    return Refusal(413, "too_large", f"the body is larger than the limit of {limit:,} bytes")


def _logged_path(scope: Scope) -> str:
    """Return the path as it came: percent-encoded, so no line breaks; without the query."""
    return str(scope.get("raw_path", b"").decode("ascii", "replace"))
