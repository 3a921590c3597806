"""Text from outside that goes into the database: what PostgreSQL can hold, and not too long.

check_id("page id", page_id)
check_text("reason", reason, most=2000)
"""

from __future__ import annotations

import re

from engine.errors import BadInputError

__all__ = ["MAX_REASON", "check_id", "check_text"]

MAX_REASON = 2000
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def check_id(what: str, text: str) -> None:
    """Check an id that a client made.

    Raises:
        BadInputError: it is empty, too long or has other characters than letters, digits, ``._-``.
    """
    if not _ID.fullmatch(text):
        raise BadInputError(
            f"got the {what} {text[:80]!r}; expected letters, digits and '._-', at most 64"
        )


def check_text(what: str, text: str, most: int) -> None:
    """Check a text that a person wrote.

    Raises:
        BadInputError: it is too long, or is no text: NUL characters, halves of surrogate pairs.
    """
    if len(text) > most:
        raise BadInputError(f"got a {what} of {len(text)} characters; expected at most {most}")
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise BadInputError(f"got a {what} with characters that are no text: {text[:80]!r}")
