"""What a workspace's deployments and its work pool are called.

    name = deployment_name(home, "/data/birds", workspace_id)      # "birds", or "birds-90dd0d"

Workspaces share the server of a PREFECT_HOME, and two may be called alike: the plain name is the
first one's, for good. On a server that others use as well nobody can know, so there it is never
plain.
"""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath

from engine.files import write_atomically
from flows.up.state_file import held

__all__ = ["deployment_name"]

_FILE, _LOCK = "maskwheel-names.json", "maskwheel-names.lock"
_PATIENCE_SECONDS = 10.0


def deployment_name(home: Path | None, address: str, workspace_id: str) -> str:
    """Return the name of a workspace's deployments, the same each time.

    Args:
        home: the PREFECT_HOME whose server is used; None: a server that others use as well.
        address: of the workspace.
        workspace_id: tells it from others that are called alike.

    Raises:
        BadInputError, WorkspaceError: the PREFECT_HOME cannot be written.
    """
    slug = re.sub("[^a-z0-9]+", "-", PurePosixPath(address).name.lower()).strip("-")
    plain = slug[:40].strip("-") or "maskwheel"
    unmistakable = f"{plain}-{workspace_id[:6]}"
    if home is None:
        return unmistakable
    with held(home / _LOCK, wait_seconds=_PATIENCE_SECONDS) as is_mine:
        owners = _read(home / _FILE)
        if is_mine and plain not in owners:
            owners[plain] = address
            write_atomically(home / _FILE, json.dumps(owners, indent=2).encode())
    return plain if owners.get(plain) == address else unmistakable


def _read(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return {str(name): str(owner) for name, owner in dict(found).items()}
