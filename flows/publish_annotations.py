"""What people accepted in a campaign becomes a release, as a flow.

>>> publish_annotations("birds", campaign="manual-1")

The same call again publishes what was accepted since; with nothing new it does nothing. An audit
stands before it: what that refuses stays where it is until a person decides.
"""

from __future__ import annotations

import logging

from prefect import flow, task

from engine.annotation.opening import open_workspace_database
from engine.annotation.release import publish_campaign
from engine.config import current_time
from engine.dataset.audit_reports import load_reports
from engine.dataset.catalog import Workspace
from engine.errors import RefusedError
from engine.quality.gate import audit
from engine.records import Release
from flows.annotation_figures import add_up
from flows.artifacts.automatic import show_audit
from flows.artifacts.campaigns import show_figures
from flows.artifacts.tables import show_table
from flows.events import announce
from flows.naming import describe_run
from flows.retrying import RETRIED

__all__ = ["publish_annotations"]


logger = logging.getLogger(__name__)


@flow(name="publish-annotations", flow_run_name="publish {campaign}")
def publish_annotations(
    workspace: str, campaign: str, accepted: str | None = None, note: str = ""
) -> str | None:
    """Publish what people accepted in a campaign, and is in no release yet.

    Args:
        workspace: folder of the data set, or ``s3://bucket/prefix``.
        campaign: its name or id.
        accepted: why it is to be published even if the audit refuses it.
        note: why; goes into the record.

    Returns:
        The release's name; None: all that was accepted is in a release.

    Raises:
        UnknownCampaignError: there is no such campaign.
        RefusedError: the audit refused it, and nobody accepted it; nothing is lost.
    """
    describe_run(workspace=workspace, stage="publish", campaign=campaign)
    show_figures(add_up(workspace, campaign))
    release = publish(workspace, campaign, accepted, note)
    show_release(release, campaign)
    return release.name if release is not None else None


@task(task_run_name="publish {campaign}", **RETRIED)
def publish(workspace: str, campaign: str, accepted: str | None, note: str) -> Release | None:
    """Audit the accepted masks and make a release of them.

    Raises:
        RefusedError: the audit refused it; its reports are shown.
    """
    with (
        Workspace.open(workspace, create=False) as opened,
        open_workspace_database(opened) as db,
    ):
        try:
            return publish_campaign(
                opened,
                db,
                campaign,
                now=current_time(),
                gate=audit,
                accepted=accepted,
                note=note,
                announce=announce,
            )
        except RefusedError as error:
            for commit_id in error.commit_ids:
                show_audit(load_reports(opened.store, commit_id))
            raise


def show_release(release: Release | None, campaign: str) -> None:
    """Say what came of it, in the log and as a table in the Prefect UI."""
    if release is None:
        logger.info("nothing of %s is new; the releases have it all", campaign)
        return
    describe_run(f"publish {campaign} as {release.name}", release=release.name)
    logger.info("release %s has %d masks on %d images", release.name, release.masks, release.images)
    rows = {
        "release": release.name,
        "follows": release.parent,
        "images": release.images,
        "masks": release.masks,
        "note": release.note,
        "accepted": release.accepted,
    }
    show_table("release", [{"release": name, "": value} for name, value in rows.items() if value])
