"""JSON bodies, read the way that everything else here can rely on.

    router = APIRouter(route_class=JsonRoute)

orjson refuses NaN, infinities, broken UTF-8 and nesting without end; texts with NUL, which
PostgreSQL cannot hold, are refused here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute

__all__ = ["JsonRoute"]

_NUL = b"\\u0000"


class _JsonRequest(Request):
    async def json(self) -> object:
        body = await self.body()
        if _NUL in body:
            raise json.JSONDecodeError("NUL characters cannot be stored", "", body.find(_NUL))
        return orjson.loads(body)


class JsonRoute(APIRoute):
    """A route whose body is read by `_JsonRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[None, None, Response]]:
        """Return the handler that FastAPI made, given our request."""
        handler = super().get_route_handler()

        async def read(request: Request) -> Response:
            return await handler(_JsonRequest(request.scope, request.receive))

        return read
