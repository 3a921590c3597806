"""What a client of the annotation service raises: the errors that the service itself raised.

raise refusal(response, "POST /api/tasks/{id}/submit")      # e.g. a LeaseLostError
"""

from __future__ import annotations

import httpx

from engine.annotation.errors import (
    DraftConflictError,
    LeaseLostError,
    NotAllowedError,
    NotSignedInError,
    UnknownCampaignError,
    UnknownTaskError,
)
from engine.errors import EngineError, TerminalError, TransientError

__all__ = ["RefusedCallError", "ServiceAnswerError", "UnreachableError", "refusal"]


class UnreachableError(TransientError):
    """Nobody answers at the service's address, or not in time."""


class ServiceAnswerError(TerminalError):
    """The service answered something that cannot be read; is it another version?"""


class RefusedCallError(TerminalError):
    """The service refused a call.

    Attributes:
        status: of HTTP.
        code: the service's own, e.g. ``"invalid_mask"``.
    """

    def __init__(self, message: str, status: int, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


_BY_CODE: dict[str, type[EngineError]] = {
    "lease_lost": LeaseLostError,
    "not_allowed": NotAllowedError,
    "no_session": NotSignedInError,
    "bad_token": NotSignedInError,
    "revoked": NotSignedInError,
    "unknown_task": UnknownTaskError,
    "unknown_campaign": UnknownCampaignError,
}


def refusal(answer: httpx.Response, route: str) -> EngineError:
    """Return the error that an answer other than 2xx stands for."""
    try:
        value = answer.json()
        code, message = str(value["code"]), str(value["message"])
    except (ValueError, KeyError, TypeError):
        said = answer.text[:200] or answer.reason_phrase
        return RefusedCallError(f"{route}: {answer.status_code} {said}", answer.status_code, "")
    if code == "draft_conflict":
        return DraftConflictError(message, int(value.get("version", 0)), None)
    if code in _BY_CODE:
        return _BY_CODE[code](message)
    return RefusedCallError(f"{route}: {message} ({code})", answer.status_code, code)
