"""Campaigns and their figures as tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flows.commands.release_tables import console, table

if TYPE_CHECKING:
    from engine.annotation.figure_values import CampaignFigures
    from engine.annotation.records import CampaignState

__all__ = ["show_figures", "show_list"]


def show_list(states: Sequence[CampaignState]) -> None:
    """Print one line per campaign."""
    shown = table(
        "campaign", "stage", "model", "state", ">photos", ">done", ">to review", ">masks", "opened"
    )
    for state in states:
        campaign, tasks = state.campaign, state.tasks
        shown.add_row(
            campaign.name,
            campaign.stage,
            campaign.model,
            state.state,
            f"{campaign.images:,}",
            f"{tasks.accepted + tasks.skipped:,} of {tasks.total:,}",
            f"{tasks.submitted:,}",
            f"{state.masks:,}",
            f"{campaign.opened_at:%Y-%m-%d %H:%M}",
        )
    console().print(shown)


def show_figures(figures: CampaignFigures) -> None:
    """Print what masks cost: in all, and by annotator."""
    shown = table(
        "who", ">tasks", ">masks", ">s per mask", ">clicks per mask", ">kept", ">corrected", ">new"
    )
    for name, row in [("all", figures.total), *figures.by_annotator.items()]:
        shown.add_row(
            name,
            f"{row.tasks:,}",
            f"{row.masks:,}",
            _number(row.seconds_per_mask_median),
            _number(row.clicks_per_mask_mean),
            *(f"{row.made.get(kind, 0):,}" for kind in ("kept", "corrected", "new")),
        )
    console().print(shown)
    agreement = figures.agreement
    if agreement is not None:
        console().print(
            f"agreement: mean IoU {agreement.mean_iou:.2f} of {agreement.pairs:,} pairs of masks"
        )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
