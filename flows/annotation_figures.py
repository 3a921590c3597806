"""A campaign's figures in the Prefect UI: what masks cost, who made them, what became of proposals.

annotation_figures("birds", "first")
"""

from __future__ import annotations

from prefect import flow, task

from engine.annotation.figure_values import CampaignFigures
from engine.annotation.figures import campaign_figures
from engine.annotation.opening import open_workspace_database
from engine.config import current_time
from engine.dataset.catalog import Workspace
from flows.artifacts.campaigns import show_figures
from flows.naming import describe_run
from flows.retrying import RETRIED

__all__ = ["annotation_figures"]


@task(task_run_name="add up", **RETRIED)
def add_up(workspace: str, campaign: str) -> CampaignFigures:
    """Read the figures from the annotation database."""
    with (
        Workspace.open(workspace, create=False) as opened,
        open_workspace_database(opened) as db,
    ):
        return campaign_figures(db, campaign, now=current_time())


@flow(name="annotation-figures", flow_run_name="figures of {campaign}")
def annotation_figures(workspace: str, campaign: str) -> str:
    """Show a campaign's figures as they are now; return them as JSON.

    Args:
        workspace: address of the workspace.
        campaign: name or id.
    """
    describe_run(workspace=workspace, stage="annotation", campaign=campaign)
    figures = add_up(workspace, campaign)
    show_figures(figures)
    return figures.to_json()
