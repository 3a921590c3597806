"""Where a workspace's service runs, for commands that make links to it.

with announced(workspace.local_folder, "http://127.0.0.1:8765"):
    ...  # meanwhile: running_at(workspace.local_folder) == "http://127.0.0.1:8765"
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.files import write_atomically

__all__ = ["announced", "join_link", "running_at"]

_FILE = "annotation-service.url"


@contextmanager
def announced(folder: Path, url: str) -> Iterator[None]:
    """Say that a service runs at an address, until the block ends.

    Raises:
        BadInputError: the folder cannot be written.
    """
    write_atomically(folder / _FILE, url.encode())
    try:
        yield
    finally:
        if running_at(folder) == url:
            (folder / _FILE).unlink(missing_ok=True)


def running_at(folder: Path) -> str | None:
    """Return the address of the service that was started last and not ended in order."""
    try:
        return (folder / _FILE).read_text().strip() or None
    except FileNotFoundError:
        return None


def join_link(public_url: str, token: str) -> str:
    """Return the link that signs somebody in; behind the #, nothing is sent or logged."""
    return f"{public_url.rstrip('/')}/join#token={token}"
