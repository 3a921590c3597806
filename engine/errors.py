"""The engine's errors, in one tree.

EngineError
├── TransientError        the same call may succeed later (busy, a lost connection): retry
├── PartlyDoneError       some of the work is done and kept; the same call again does the rest
│   └── RefusedError      the work is done and kept, but an audit refused it: a person decides
└── TerminalError         the same call will fail again: stop and tell the user
    ├── BadInputError     what was handed in is wrong: a path, a list, an option
    ├── ImageError        one image cannot be used; carries the reason that the run records
    ├── InvalidMaskError  an RLE that is malformed or does not fit its image
    └── WorkspaceError    the workspace is damaged, from another version or not writable
        └── MissingObjectError  an object, or a file, that should be there and is not
"""

from __future__ import annotations


class EngineError(Exception):
    """Root of every error that the engine raises on purpose."""


class TransientError(EngineError):
    """The same call may succeed later; callers retry with a back-off."""


class PartlyDoneError(EngineError):
    """Some of the work is done and kept; the same call again does the rest."""


class RefusedError(PartlyDoneError):
    """The work is done and kept, but an audit refused to publish it: a person decides.

    Attributes:
        commit_ids: what was refused; its reports lie beside it.
    """

    def __init__(self, message: str, commit_ids: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.commit_ids = commit_ids


class TerminalError(EngineError):
    """The same call will fail again; callers stop and say why."""


class BadInputError(TerminalError):
    """An argument, path or list that cannot be used as given."""


class ImageError(TerminalError):
    """One image cannot be used.

    Attributes:
        reason: short machine-readable cause, e.g. ``"truncated"`` or ``"too-large"``; runs count by
            it.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class InvalidMaskError(TerminalError):
    """An RLE that is malformed or does not fit the image that it is said to belong to."""


class WorkspaceError(TerminalError):
    """The workspace is damaged, was written by another version, or cannot be written to."""


class MissingObjectError(WorkspaceError):
    """There is no object, or no file, at an address that should have one."""
