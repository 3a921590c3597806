"""A campaign's figures in the Prefect UI: what masks cost, who made them, what became of proposals.

annotation_figures("birds", "first")
"""

from __future__ import annotations

import re

from prefect import Task, flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State, TaskRun

from engine.annotation.figure_values import CampaignFigures
from engine.annotation.figures import campaign_figures
from engine.annotation.figures_markdown import figure_rows, figures_markdown
from engine.annotation.opening import open_workspace_database
from engine.config import current_time
from engine.dataset.catalog import Workspace
from engine.errors import TransientError

__all__ = ["annotation_figures", "show_figures"]


def _is_transient(_: Task[..., object], __: TaskRun, state: State[object]) -> bool:
    return isinstance(state.result(raise_on_failure=False), TransientError)


@task(task_run_name="add up", retries=3, retry_delay_seconds=2, retry_condition_fn=_is_transient)
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
    figures = add_up(workspace, campaign)
    show_figures(figures)
    return figures.to_json()


def show_figures(figures: CampaignFigures) -> None:
    """Leave figures as a page and as a table; artifacts of one campaign replace each other."""
    key = re.sub(r"[^a-z0-9]+", "-", figures.campaign.campaign_id.lower()).strip("-")
    create_markdown_artifact(
        figures_markdown(figures),
        key=f"annotation-{key}",
        description=f"Annotation campaign {figures.campaign.name}",
    )
    create_table_artifact(
        figure_rows(figures),
        key=f"annotation-rows-{key}",
        description=f"Annotation campaign {figures.campaign.name}: in all, by annotator, by day",
    )
