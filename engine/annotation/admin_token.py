"""The token of a workspace's admin on this machine, in a file that only its owner can read.

keep_admin_token(workspace.local_folder, token)
read_admin_token(workspace.local_folder) == token
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["keep_admin_token", "read_admin_token"]

_FILE = "annotation-admin-token"


def read_admin_token(folder: Path) -> str | None:
    """Return the token, or None before there is one."""
    path = folder / _FILE
    return path.read_text().strip() or None if path.is_file() else None


def keep_admin_token(folder: Path, token: str) -> None:
    """Write the token, instead of an earlier one."""
    path = folder / _FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(token)
