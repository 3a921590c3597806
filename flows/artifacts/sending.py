"""Sending something to the Prefect UI, without making the work depend on it.

    attempt("table audit", lambda: create_table_artifact(...))

The truth is in the workspace; a page that is missing in the UI is a pity, a run that fails for it
would be a fault.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from uuid import UUID

__all__ = ["artifact_id", "artifact_key", "attempt", "unreachable"]

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")


def unreachable() -> tuple[type[Exception], ...]:
    """Return what Prefect's client raises, after its own retries, when the server is away."""
    from httpx import HTTPError
    from prefect.exceptions import PrefectException

    return HTTPError, PrefectException, OSError, RuntimeError


def attempt(what: str, send: Callable[[], Answer]) -> Answer | None:
    """Return what `send` returns; a warning and None where the server could not be reached.

    Args:
        what: is shown, for the warning.
        send: creates or updates an artifact.
    """
    try:
        return send()
    except unreachable() as error:
        log.warning("cannot show %s in the Prefect UI: %r; the work goes on", what, error)
        return None


def artifact_key(*parts: str) -> str:
    """Return a key of lower-case letters, digits and dashes, the only ones that Prefect takes.

    >>> artifact_key("annotation", "Birds & Bees")
    'annotation-birds-bees'
    """
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-") or "artifact"


def artifact_id(artifact: UUID | Coroutine[Any, Any, UUID]) -> UUID:
    """Narrow what Prefect's sync-or-async functions say they return.

    Raises:
        TypeError: it was called from asynchronous code.
    """
    if not isinstance(artifact, UUID):
        raise TypeError(f"expected an artifact's id from synchronous code; got {artifact!r}")
    return artifact
