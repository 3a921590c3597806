"""Going back: the masks of an old release are the data set's again, in a new release.

release = rollback(workspace, "r3", now, note="the new camera was out of focus")
"""

from __future__ import annotations

from datetime import datetime

from engine.announcements import Announce
from engine.dataset.catalog import Workspace
from engine.dataset.publishing import Publication, publish, settle
from engine.dataset.releases import latest_release, load_release
from engine.errors import BadInputError
from engine.records import Release

__all__ = ["rollback"]


def rollback(
    workspace: Workspace,
    name: str,
    now: datetime,
    note: str = "",
    *,
    announce: Announce | None = None,
) -> Release:
    """Publish a release with the masks and runs of an old one; history stays as it is.

    Images stay too: those that were added since have no masks then. What the automatic stage did
    since counts as not done. Going back to where the data set already is does nothing.

    Args:
        workspace: the data set.
        name: of the release to go back to, or a tag.
        now: UTC; the new release's time.
        note: why; goes into the record.
        announce: told of the new release.

    Returns:
        The new release, or the latest one where that has restored this release already.

    Raises:
        BadInputError: there is no such release, or it is the latest one.
        WorkspaceError: its snapshots are gone, or the workspace cannot be written.
        TransientError: the catalog or the store stayed busy.
    """
    restored = load_release(workspace, name)
    latest = latest_release(workspace) or restored
    if latest.restores == restored.name:
        settle(workspace)
        return latest
    if latest.name == restored.name:
        raise BadInputError(f"{restored.name} is the latest release; name an older one")
    publication = Publication(
        commit_id=f"rollback-to-{restored.name}-from-{latest.name}",
        kind="rollback",
        created_at=now,
        note=note,
        restores=restored,
    )
    return publish(workspace, publication, announce=announce)
