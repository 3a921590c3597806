"""Who asks: sessions in a cookie, roles, rates.

    @router.get("/campaigns")
    def list_campaigns(context: Context, me: Signed) -> list[CampaignValue]: ...

A route that asks for `Signed`, `Reviewing` or `Leading` is closed to everybody else. Routes that
ask for none of them say why in their docstring, with the words "No session:".
"""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from engine.annotation.annotators import whoami
from engine.annotation.errors import NotAllowedError, NotSignedInError
from engine.annotation.http.context import Context, ServiceContext
from engine.annotation.http.errors import ApiError
from engine.annotation.records import Annotator, Role, SignedIn

__all__ = [
    "COOKIE",
    "Leading",
    "Reviewing",
    "Signed",
    "check_rate",
    "end_cookie",
    "session_of",
    "set_cookie",
    "signed_in",
]

COOKIE = "maskwheel_session"
_MAX_SESSION_CHARACTERS = 200


async def signed_in(request: Request, context: Context) -> Annotator:
    """Return who the session belongs to.

    Raises:
        NotSignedInError: there is no session, or it is over.
        ApiError: too many requests.
    """
    session_id = session_of(request)
    if session_id is None:
        raise NotSignedInError("no session; open your invite link")
    check_rate(context.rates.session.take(session_id, time.monotonic()))
    return await run_in_threadpool(whoami, context.database, session_id, now=context.clock())


def session_of(request: Request) -> str | None:
    """Return the session's id that the browser sent."""
    session_id = request.cookies.get(COOKIE)
    return session_id if session_id and len(session_id) <= _MAX_SESSION_CHARACTERS else None


def check_rate(wait_seconds: float) -> None:
    """Refuse a request that comes too early.

    Raises:
        ApiError: 429, with Retry-After.
    """
    if wait_seconds > 0:
        raise ApiError(
            429,
            "too_many_requests",
            "too many requests; wait a moment",
            headers={"Retry-After": str(max(1, round(wait_seconds + 0.5)))},
        )


def set_cookie(response: Response, session: SignedIn, context: ServiceContext) -> None:
    """Hand the session to the browser: no script reads it, no other site sends it along."""
    lifetime = session.expires_at - context.clock()
    response.set_cookie(
        COOKIE,
        session.session_id,
        max_age=max(0, int(lifetime.total_seconds())),
        path="/api",
        secure=context.secure,
        httponly=True,
        samesite="strict",
    )


def end_cookie(response: Response, context: ServiceContext) -> None:
    """Take the session from the browser."""
    response.delete_cookie(
        COOKIE, path="/api", secure=context.secure, httponly=True, samesite="strict"
    )


def _require(role: Role, me: Annotator) -> Annotator:
    if not me.may(role):
        raise NotAllowedError(f"that takes the role {role}; yours is {me.role}")
    return me


async def _reviewing(me: Annotated[Annotator, Depends(signed_in)]) -> Annotator:
    return _require("reviewer", me)


async def _leading(me: Annotated[Annotator, Depends(signed_in)]) -> Annotator:
    return _require("admin", me)


Signed = Annotated[Annotator, Depends(signed_in)]
Reviewing = Annotated[Annotator, Depends(_reviewing)]
Leading = Annotated[Annotator, Depends(_leading)]
