"""The first policy of a workspace, made to fit the photos that it has.

if adopt_policy(workspace, "small"): ...
"""

from __future__ import annotations

from engine.dataset.catalog import Workspace
from engine.wheel.policy import init_policy

__all__ = ["adopt_policy", "known_images"]


def adopt_policy(workspace: Workspace, preset: str = "small") -> bool:
    """Write a preset as the workspace's policy; return whether it had none.

    Raises:
        BadInputError: an unknown preset.
        WorkspaceError: the store cannot be written.
    """
    return init_policy(workspace.store, preset, images=known_images(workspace))


def known_images(workspace: Workspace) -> int:
    """Return how many images were ingested; read from the table's summary alone."""
    snapshot = workspace.table("images").current_snapshot()
    if snapshot is None or snapshot.summary is None:
        return 0
    return int(snapshot.summary.get("total-records") or 0)
