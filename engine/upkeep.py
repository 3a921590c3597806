"""What tidying up gave back, as a value.

Freed(what="embeddings of m1", objects=1200, size_bytes=3_400_000_000)
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Freed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Freed:
    """Something that was tidied up, or would be.

    Attributes:
        what: what it was, for people.
        objects: how many objects, files or rows are gone.
        size_bytes: the room that they took.
        note: what else there is to say.
    """

    what: str
    objects: int = 0
    size_bytes: int = 0
    note: str = ""
