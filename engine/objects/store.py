"""What every object store promises: immutable keys that are written once.

    created = store.put_if_absent("runs/r/run.json", b"{}")    # False: somebody was first

A key's existence is a checkpoint, so an object appears whole or not at all, and is never
rewritten.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from engine.errors import BadInputError

__all__ = [
    "TEMPORARY_PREFIX",
    "ObjectStore",
    "StoredObject",
    "check_key",
    "check_link_seconds",
    "temporary_name",
]

TEMPORARY_PREFIX = ".writing-"
_MAX_KEY_BYTES = 900  # S3 ends at 1,024, with the workspace's own prefix
_MAX_PART_BYTES = 255  # where file systems end
_MAX_LINK_SECONDS = 7 * 24 * 3600  # where S3's signatures end


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object of a listing.

    Attributes:
        key: its key in the store that listed it.
        size_bytes: its length.
        modified_at: when it was written, UTC, by the storage's clock.
    """

    key: str
    size_bytes: int
    modified_at: datetime


class ObjectStore(Protocol):
    """Write-once objects under slash-separated keys (``"runs/a/masks-00000.parquet"``).

    Stores can be pickled, and shared by threads and forked processes. Every method may raise
    TransientError (try again) and WorkspaceError (storage that cannot be used; MissingObjectError
    for an object that should be there and is not); a malformed key is a BadInputError.
    """

    @property
    def address(self) -> str:
        """Where the store is, as `open_store` takes it: a folder or ``s3://bucket/prefix``."""
        ...

    def check(self) -> None:
        """Raise WorkspaceError unless objects can be written once here; for new workspaces."""
        ...

    def get(self, key: str) -> bytes:
        """Return the object's bytes; MissingObjectError without such an object."""
        ...

    def open(self, key: str) -> BinaryIO:
        """Open the object for seekable reading; MissingObjectError without such an object."""
        ...

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write the object unless the key is taken; return whether this call created it."""
        ...

    def put_file_if_absent(self, key: str, local_path: Path) -> bool:
        """Copy a local file to the key unless it is taken; return whether this call did."""
        ...

    def exists(self, key: str) -> bool:
        """Return whether the object is there, whole."""
        ...

    def stat(self, key: str) -> StoredObject | None:
        """Return the object's size and time, or None without such an object."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that start with `prefix` (any string), ascending by code point."""
        ...

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """Yield what `list` does, with sizes and times."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object, for garbage collection only; nothing happens when it is absent."""
        ...

    def remove_unfinished(self, before: datetime) -> int:
        """Remove what killed writers left behind before a time; return how many pieces.

        A writer that is still at work loses its piece too: choose a time well before any.
        """
        ...

    def uri(self, key: str) -> str:
        """Return the address that other tools (Iceberg, DuckDB) open the object by."""
        ...

    def link(self, key: str, seconds: int = 3600) -> str:
        """Return an address that anyone can read the object at, for a while.

        Locally it is a ``file://`` address, for this machine and for ever.
        """
        ...


def temporary_name() -> str:
    """Draw a name for what is not finished or soon removed: no listing shows it, no two agree."""
    return f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"


def check_key(key: str) -> str:
    """Return the key when every store can hold it.

    Raises:
        BadInputError: a key that some store cannot hold.
    """
    parts = key.split("/")
    if any(part in ("", ".", "..") or part.startswith(TEMPORARY_PREFIX) for part in parts):
        raise BadInputError(
            f"got the object key {key!r}; expected names separated by single slashes"
        )
    try:
        longest = max(len(part.encode()) for part in parts)
        whole = len(key.encode())
    except UnicodeEncodeError:
        raise BadInputError(f"got the object key {key!r}; expected text that UTF-8 holds") from None
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in key):
        raise BadInputError(f"got the object key {key!r}; expected no control characters")
    if longest > _MAX_PART_BYTES or whole > _MAX_KEY_BYTES:
        raise BadInputError(
            f"got the object key {key[:40]!r}... of {whole} bytes; expected at most "
            f"{_MAX_KEY_BYTES}, and {_MAX_PART_BYTES} between slashes"
        )
    return key


def check_link_seconds(seconds: int) -> int:
    """Return for how long a link shall work.

    Raises:
        BadInputError: not between a second and a week.
    """
    if not 0 < seconds <= _MAX_LINK_SECONDS:
        raise BadInputError(
            f"got a link for {seconds} seconds; expected 1 to {_MAX_LINK_SECONDS} (a week)"
        )
    return seconds
