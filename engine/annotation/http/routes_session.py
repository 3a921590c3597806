"""Signing in and out: an invite link's token for a session, and back."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request, Response

from engine.annotation.annotators import close_session, open_session
from engine.annotation.http.answers import Me, SignIn
from engine.annotation.http.bodies import JsonRoute
from engine.annotation.http.context import Context, ServiceContext
from engine.annotation.http.security import (
    Signed,
    check_rate,
    end_cookie,
    session_of,
    set_cookie,
)
from engine.annotation.records import Annotator

__all__ = ["router"]

router = APIRouter(prefix="/api", tags=["session"], route_class=JsonRoute)


@router.post("/session")
def sign_in(request: Request, response: Response, body: SignIn, context: Context) -> Me:
    """Exchange the token of an invite link for a session, which comes as a cookie.

    No session: this is where sessions come from. Failed attempts are limited by address.
    """
    address = request.client.host if request.client else "-"
    check_rate(context.rates.sign_in.take(address, time.monotonic()))
    session = open_session(context.database, body.token, now=context.clock())
    context.rates.sign_in.give_back(address)
    set_cookie(response, session, context)
    return _me(session.annotator, context)


@router.delete("/session", status_code=204)
def sign_out(request: Request, response: Response, context: Context) -> None:
    """End the session and take its cookie back.

    No session: one that is over already can be ended again.
    """
    session_id = session_of(request)
    if session_id is not None:
        close_session(context.database, session_id)
    end_cookie(response, context)


@router.get("/me")
async def who_am_i(me: Signed, context: Context) -> Me:
    """Say who the session belongs to."""
    return _me(me, context)


def _me(annotator: Annotator, context: ServiceContext) -> Me:
    return Me(name=annotator.name, role=annotator.role, service=context.database.database_id)
