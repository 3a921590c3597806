"""How far a workspace is, from what is written in it: for `maskwheel status`.

found = data_overview("birds", now)            # None: there is no workspace yet
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from engine.annotation.campaigns import campaign_state, list_campaigns
from engine.annotation.opening import find_workspace_database
from engine.annotation.records import CampaignState
from engine.dataset.catalog import Workspace, is_workspace
from engine.dataset.releases import latest_release
from engine.learning.decision_log import read_log
from engine.records import Release

__all__ = ["DataOverview", "data_overview"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOverview:
    """What a workspace holds.

    Attributes:
        workspace: its address.
        images: that it knows.
        release: the newest.
        champion: the model that is used.
        campaigns: that are open, the newest first.
    """

    workspace: str
    images: int
    release: Release | None
    champion: str
    campaigns: tuple[CampaignState, ...]


def data_overview(address: str, now: datetime) -> DataOverview | None:
    """Read how far a workspace is; None: there is none yet.

    Raises:
        WorkspaceError, TransientError: as of the workspace and its database.
    """
    if not is_workspace(address):
        return None
    with Workspace.open(address, create=False) as workspace:
        return DataOverview(
            workspace=workspace.address,
            images=_images(workspace),
            release=latest_release(workspace),
            champion=read_log(workspace.store).champion,
            campaigns=_open_campaigns(workspace, now),
        )


def _open_campaigns(workspace: Workspace, now: datetime) -> tuple[CampaignState, ...]:
    db = find_workspace_database(workspace)
    if db is None:
        return ()
    with db:
        still_open = [one for one in list_campaigns(db) if one.closed_at is None]
        return tuple(campaign_state(db, one.campaign_id, now=now) for one in still_open)


def _images(workspace: Workspace) -> int:
    snapshot = workspace.table("images").current_snapshot()
    summary = None if snapshot is None else snapshot.summary
    return 0 if summary is None else int(summary["total-records"] or 0)
