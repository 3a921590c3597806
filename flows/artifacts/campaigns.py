"""Annotation campaigns in the Prefect UI: where people go, how far they are, what masks cost.

show_campaign("birds", url, stage="manual", images=40, ready=40, workspace=workspace)
show_figures(campaign_figures(db, "birds", now=now))
"""

from __future__ import annotations

from engine.annotation.figure_values import CampaignFigures
from engine.annotation.figures_markdown import figure_rows, figures_markdown
from flows.artifacts.links import linked
from flows.artifacts.next_steps import command
from flows.artifacts.pages import show_page
from flows.artifacts.sending import artifact_key
from flows.artifacts.tables import show_table
from flows.artifacts.texts import Cell, escaped, markdown_table, readable
from flows.naming import counted

__all__ = ["show_campaign", "show_figures"]


def show_campaign(
    name: str,
    url: str | None,
    *,
    stage: str,
    images: int,
    ready: int,
    proposals: int = 0,
    skipped: int = 0,
    opened: bool = True,
    workspace: str = "",
) -> None:
    """Leave a campaign as a page ``campaign`` with the link that people open.

    Args:
        name: of the campaign.
        url: of its page; None where no annotation service is known.
        stage: ``"manual"`` or ``"semi"``.
        images: of the campaign.
        ready: of these, what people can begin with now.
        proposals: masks that were pre-filled.
        skipped: images that could not be prepared.
        opened: False where it was open before.
        workspace: address, for the command that serves it.
    """
    serve = command("annotate --serve", workspace)
    where = linked(url, f"Annotate {name}") if url else f"Start the annotation service: {serve}"
    figures: dict[str, Cell] = {
        "stage": stage,
        "photos": images,
        "ready for people": ready,
        "masks proposed by the model": proposals,
        "photos that cannot be used": skipped,
    }
    rows = [{"what": what, "value": readable(value)} for what, value in figures.items() if value]
    verb = "opened" if opened else "is open"
    page = (
        f"# Campaign {escaped(name)} {verb}\n\n**{where}**\n\n{markdown_table(rows)}\n\n"
        f"How far it is: {command('campaigns list', workspace)}\n"
    )
    show_page("campaign", page, f"{escaped(name)}: {counted(images, 'photo')}, {ready:,} ready")


def show_figures(figures: CampaignFigures, url: str | None = None) -> None:
    """Leave a campaign's figures as a page and a table; those of one campaign are its versions.

    Args:
        figures: as they are now.
        url: of the campaign's page, if the annotation service is known.
    """
    one, total = figures.campaign, figures.total
    # The engine's page begins with the campaign's name, which people choose.
    page = figures_markdown(figures).partition("\n")[2]
    link = f"\n{linked(url, f'Open {one.name}')}\n" if url else ""
    said = (
        f"{escaped(one.name)}: {counted(total.masks, 'mask')} of {counted(total.images, 'photo')}"
    )
    show_page(
        artifact_key("annotation", one.campaign_id), f"# {escaped(one.name)}\n{link}{page}", said
    )
    show_table(
        artifact_key("annotation-rows", one.campaign_id),
        figure_rows(figures),
        f"{escaped(one.name)}: in all, by annotator, by day",
    )
