"""The application: routes, errors and what surrounds them.

    app = create_app(context)              # an ASGI application, for uvicorn

Everything below ``/api`` is JSON or bytes for programs; every other path is the page.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

from engine.annotation.http import (
    routes_annotators,
    routes_campaigns,
    routes_health,
    routes_images,
    routes_models,
    routes_session,
    routes_tasks,
)
from engine.annotation.http.answers import Error
from engine.annotation.http.context import ServiceContext
from engine.annotation.http.docs_page import docs_page
from engine.annotation.http.errors import ApiError, install
from engine.annotation.http.shield import Shield
from engine.annotation.http.static import StaticPage

__all__ = ["create_app"]

_DESCRIPTION = (
    "Campaigns of images to annotate, tasks that are leased, drafts, events, submissions, reviews. "
    "Sign in with the token of an invite link: POST /api/session; the session is a cookie. "
    "Requests that change something carry X-Maskwheel: 1. Errors are {code, message}."
)
_ERRORS = {
    400: "malformed",
    401: "no session",
    403: "not allowed",
    404: "not there",
    409: "somebody else was first",
    413: "too large",
    415: "not JSON",
    422: "invalid",
    429: "too many requests",
    503: "not ready yet; Retry-After says when to ask again",
}


def create_app(context: ServiceContext) -> FastAPI:
    """Return the application; it closes the context's resources when it ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(context.on_close)

    app = FastAPI(
        title="Maskwheel annotation service",
        description=_DESCRIPTION,
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        responses={
            status: {"model": Error, "description": text} for status, text in _ERRORS.items()
        },
    )
    app.state.context = context
    app.state.limiters = {}
    install(app)
    for module in (
        routes_session,
        routes_campaigns,
        routes_tasks,
        routes_images,
        routes_models,
        routes_annotators,
        routes_health,
    ):
        app.include_router(module.router)
    _add_documentation(app)
    _add_page(app, StaticPage(context.page_folder))
    app.add_middleware(Shield, rules=context.rules, limits=context.limits, secure=context.secure)
    return app


def _add_documentation(app: FastAPI) -> None:
    @app.get("/api/openapi.json", include_in_schema=False)
    async def openapi() -> dict[str, object]:
        """Return the OpenAPI document.

        No session: it is the same for every service of this version.
        """
        return app.openapi()

    @app.get("/api/docs", include_in_schema=False)
    async def docs() -> Response:
        """Return the OpenAPI document for people.

        No session: it is the same for every service of this version.
        """
        return Response(docs_page(app.openapi()), media_type="text/html")


def _add_page(app: FastAPI, page: StaticPage) -> None:
    @app.get("/{path:path}", include_in_schema=False)
    def page_file(path: str, request: Request) -> Response:
        """Return a file of the page, or index.html for its views.

        No session: this is the page that signs people in; it holds no data.
        """
        if path == "api" or path.startswith("api/"):
            raise ApiError(404, "not_found", "the API has no such path; see /api/docs")
        response = page.answer(path, request.headers)
        if response is None:
            raise ApiError(404, "not_found", "there is no such file")
        return response
