"""The errors of annotation, in one tree below the engine's.

TransientError
TerminalError
├── LeaseLostError          the task has gone to another, or the same person's other tab
├── DraftConflictError      another version of the draft was saved; carries it
├── MissingEventsError      a submission's events are not all there; says which
├── NotSignedInError        no session, or one that is over
│   ├── BadTokenError       an invitation that is none, or was replaced
│   └── RevokedError        the person may not come in any more
├── NotAllowedError         the person may not do that
└── BadInputError
    ├── UnknownCampaignError
    ├── UnknownTaskError
    └── BadSubmissionError  masks, ids or verdicts that do not fit the task
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.errors import BadInputError, TerminalError

if TYPE_CHECKING:
    from engine.annotation.records import Draft

__all__ = [
    "BadSubmissionError",
    "BadTokenError",
    "DraftConflictError",
    "LeaseLostError",
    "MissingEventsError",
    "NotAllowedError",
    "NotSignedInError",
    "RevokedError",
    "UnknownCampaignError",
    "UnknownTaskError",
]


class LeaseLostError(TerminalError):
    """The lease is not the task's any more: ask for the next task."""


class DraftConflictError(TerminalError):
    """The draft was saved elsewhere since the client last read it.

    Attributes:
        version: of the saved one; 0: there is none.
        draft: the saved one.
    """

    def __init__(self, message: str, version: int, draft: Draft | None) -> None:
        super().__init__(message)
        self.version = version
        self.draft = draft


class MissingEventsError(TerminalError):
    """A submission names events that the log lacks: send them, then submit again.

    Attributes:
        missing: the first of them, by `seq`.
    """

    def __init__(self, message: str, missing: tuple[int, ...]) -> None:
        super().__init__(message)
        self.missing = missing


class NotSignedInError(TerminalError):
    """There is no such session, or it is over."""


class BadTokenError(NotSignedInError):
    """The invitation is none, or was replaced by another."""


class RevokedError(NotSignedInError):
    """The person may not come in any more."""


class NotAllowedError(TerminalError):
    """The person may not do that."""


class UnknownCampaignError(BadInputError):
    """There is no such campaign."""


class UnknownTaskError(BadInputError):
    """There is no such task."""


class BadSubmissionError(BadInputError):
    """Masks, ids or verdicts that do not fit the task."""
