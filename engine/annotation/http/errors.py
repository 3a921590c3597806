"""Errors as JSON: ``{"code", "message"}`` and a status, whatever raised them.

    app.add_exception_handler(LeaseLostError, ...)     # see `install`

Messages of the engine's errors are for people and say what to do next. Those about the workspace
or the machine stay in the log: a client is told that the service failed, not where its files are.
"""

from __future__ import annotations

import logging

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from engine.annotation.errors import (
    BadSubmissionError,
    BadTokenError,
    DraftConflictError,
    LeaseLostError,
    MissingEventsError,
    NotAllowedError,
    NotSignedInError,
    RevokedError,
    UnknownCampaignError,
    UnknownTaskError,
)
from engine.annotation.http.convert import draft_value
from engine.annotation.http.origins import Refusal
from engine.errors import BadInputError, EngineError, ImageError, InvalidMaskError, TransientError

__all__ = ["ApiError", "error_response", "install"]

log = logging.getLogger(__name__)

_CODES = {
    400: "bad_request",
    401: "no_session",
    403: "not_allowed",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    429: "too_many_requests",
}
_SHOWN_PROBLEMS = 3


class ApiError(EngineError):
    """An answer other than 2xx that only HTTP knows.

    Attributes:
        refusal: status, code and message.
        headers: to send along.
        extra: further members of the JSON object.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: dict[str, str] | None = None,
        extra: dict[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.refusal = Refusal(status, code, message)
        self.headers = headers or {}
        self.extra = extra or {}


def error_response(
    refusal: Refusal,
    headers: dict[str, str] | None = None,
    extra: dict[str, object] | None = None,
) -> Response:
    """Return the response for a refusal."""
    values = {"code": refusal.code, "message": refusal.message, **(extra or {})}
    return Response(
        orjson.dumps(values), refusal.status, headers=headers, media_type="application/json"
    )


def install(app: FastAPI) -> None:
    """Answer every error that handlers raise."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(EngineError, _engine)


async def _invalid(request: Request, error: Exception) -> Response:
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    # The input itself is not repeated: it may be large, and it may be a token.
    said = [
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
        for problem in problems[:_SHOWN_PROBLEMS]
    ]
    if len(problems) > _SHOWN_PROBLEMS:
        said.append(f"and {len(problems) - _SHOWN_PROBLEMS} more")
    return error_response(Refusal(422, "invalid", "; ".join(said)))


async def _http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    code = _CODES.get(error.status_code, "refused")
    headers = dict(error.headers or {})
    return error_response(Refusal(error.status_code, code, str(error.detail)), headers)


async def _engine(request: Request, error: Exception) -> Response:
    if isinstance(error, ApiError):
        return error_response(error.refusal, error.headers, error.extra)
    if isinstance(error, TransientError):
        log.warning("%s: %s", request.url.path, error)
        busy = Refusal(503, "busy", "the service is busy; try again in a moment")
        return error_response(busy, {"Retry-After": "2"})
    if isinstance(error, ImageError):
        return _image_error(error)
    if isinstance(error, DraftConflictError):
        return error_response(_refusal(409, "draft_conflict", error), None, _saved_draft(error))
    if isinstance(error, MissingEventsError):
        missing: dict[str, object] = {"missing": list(error.missing)}
        return error_response(_refusal(409, "missing_events", error), None, missing)
    for kind, status, code in _PLAIN_ERRORS:
        if isinstance(error, kind):
            return error_response(_refusal(status, code, error))
    raise error


def _refusal(status: int, code: str, error: Exception) -> Refusal:
    return Refusal(status, code, str(error))


def _image_error(error: ImageError) -> Response:
    headers = {"Retry-After": "5"} if error.reason == "unreachable" else None
    status = 503 if error.reason == "unreachable" else 404
    refusal = _refusal(status, "image_unusable", error)
    return error_response(refusal, headers, {"reason": error.reason})


def _saved_draft(error: DraftConflictError) -> dict[str, object]:
    draft = draft_value(error.draft) if error.draft else None
    return {"version": error.version, "draft": draft.model_dump(mode="json") if draft else None}


# The first that fits counts.
_PLAIN_ERRORS: tuple[tuple[type[EngineError], int, str], ...] = (
    (BadTokenError, 401, "bad_token"),
    (RevokedError, 401, "revoked"),
    (NotSignedInError, 401, "no_session"),
    (NotAllowedError, 403, "not_allowed"),
    (LeaseLostError, 409, "lease_lost"),
    (UnknownTaskError, 404, "unknown_task"),
    (UnknownCampaignError, 404, "unknown_campaign"),
    (InvalidMaskError, 422, "invalid_mask"),
    (BadSubmissionError, 422, "bad_submission"),
    (BadInputError, 422, "invalid"),
)
