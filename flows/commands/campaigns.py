"""`maskwheel campaigns`: who annotates what, how far it is, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from flows.commands.options import json_option, print_json, workspace_address, workspace_option

if TYPE_CHECKING:
    from engine.annotation.database import Database
    from engine.annotation.records import CampaignState
    from engine.dataset.catalog import Workspace

_DEFAULT_URL = "http://127.0.0.1:8765"


@click.group("campaigns")
def command() -> None:
    """List, invite to, close and publish annotation campaigns.

    Where a campaign is asked for, its name and its id do. `maskwheel annotate` opens them.
    """


@command.command("list", epilog="\b\nExample:\n  maskwheel campaigns list -w birds")
@workspace_option
@json_option
def list_command(workspace: str | None, as_json: bool) -> None:
    """List the campaigns, the newest first, and how far they are."""
    from engine.annotation.campaigns import list_campaigns

    with _opened(workspace) as (_, db):
        states = [_state(db, campaign.campaign_id) for campaign in list_campaigns(db)]
    if as_json:
        print_json({"campaigns": [asdict(state) for state in states]})
    elif not states:
        click.echo("no campaigns yet; open one: maskwheel annotate PHOTOS...")
    else:
        from flows.commands.campaigns_tables import show_list

        show_list(states)


@command.command("show", epilog="\b\nExample:\n  maskwheel campaigns show manual -w birds")
@click.argument("campaign")
@workspace_option
@json_option
def show_command(campaign: str, workspace: str | None, as_json: bool) -> None:
    """Show what CAMPAIGN is, how far it is, and who may work on it."""
    from engine.annotation.annotators import list_annotators
    from engine.annotation.campaigns import campaign as find

    with _opened(workspace) as (_, db):
        state = _state(db, find(db, campaign).campaign_id)
        people = list_annotators(db)
    if as_json:
        print_json({**asdict(state), "annotators": [asdict(person) for person in people]})
        return
    fields = {**asdict(state.campaign), "state": state.state, "masks": state.masks}
    counts = asdict(state.tasks)
    fields["tasks"] = ", ".join(f"{number} {name}" for name, number in counts.items() if number)
    fields["annotators"] = ", ".join(
        f"{person.name} ({'revoked' if person.revoked_at else person.role})" for person in people
    )
    for key, value in fields.items():
        if value not in (None, ""):
            click.echo(f"{key.replace('_', ' '):>20}  {value}")


@command.command(
    "invite",
    epilog="""\b
Examples:
  maskwheel campaigns invite Ada -w birds
  maskwheel campaigns invite Rita --role reviewer --public-url https://annotate.example.org
  maskwheel campaigns invite Ada --renew                  a new link; the old one ends

A link signs its owner in on any device until it is renewed or revoked. It is shown once.""",
)
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["annotator", "reviewer", "admin"]),
    default="annotator",
    show_default=True,
    help="Each may do what those before it may.",
)
@click.option("--renew", is_flag=True, help="Give somebody who was invited before a new link.")
@click.option("--public-url", help="What the link begins with.  [default: where the service runs]")
@workspace_option
@json_option
def invite_command(
    name: str, role: str, renew: bool, public_url: str | None, workspace: str | None, as_json: bool
) -> None:
    """Make a link that signs NAME in."""
    from engine.annotation.annotators import find_annotator, invite, rotate
    from engine.annotation.http.assembly import checked_public_url
    from engine.annotation.http.whereabouts import join_link, running_at
    from engine.annotation.records import ROLES
    from engine.config import current_time

    with _opened(workspace) as (opened, db):
        base = checked_public_url(public_url or running_at(opened.local_folder) or _DEFAULT_URL)
        if renew:
            made = rotate(db, find_annotator(db, name).annotator_id, now=current_time())
        else:
            chosen = next(one for one in ROLES if one == role)
            made = invite(db, name, chosen, now=current_time())
    link = join_link(base, made.token)
    if as_json:
        print_json({**asdict(made.annotator), "link": link})
    else:
        click.echo(f"{made.annotator.name}, {made.annotator.role}: {link}")


@command.command("revoke", epilog="\b\nExample:\n  maskwheel campaigns revoke Ada -w birds")
@click.argument("name")
@workspace_option
@json_option
def revoke_command(name: str, workspace: str | None, as_json: bool) -> None:
    """Shut NAME out at once; what they handed in stays, others get what they left."""
    from engine.annotation.annotators import revoke
    from engine.config import current_time

    with _opened(workspace) as (_, db):
        gone = revoke(db, name, now=current_time())
    if as_json:
        print_json(asdict(gone))
    else:
        click.echo(f"{gone.name} is shut out; their masks stay")


@command.command("close", epilog="\b\nExample:\n  maskwheel campaigns close manual -w birds")
@click.argument("campaign")
@workspace_option
@json_option
def close_command(campaign: str, workspace: str | None, as_json: bool) -> None:
    """Give out no more tasks of CAMPAIGN; what people are at may still be handed in."""
    from engine.annotation.campaigns import close_campaign
    from engine.config import current_time

    with _opened(workspace) as (_, db):
        closed = close_campaign(db, campaign, now=current_time())
    if as_json:
        print_json(asdict(closed))
    else:
        click.echo(f"{closed.name} is closed; `maskwheel campaigns publish` makes a release of it")


@command.command("reopen", epilog="\b\nExample:\n  maskwheel campaigns reopen manual -w birds")
@click.argument("campaign")
@workspace_option
@json_option
def reopen_command(campaign: str, workspace: str | None, as_json: bool) -> None:
    """Give out tasks of CAMPAIGN again."""
    from engine.annotation.campaigns import reopen_campaign

    with _opened(workspace) as (_, db):
        again = reopen_campaign(db, campaign)
    if as_json:
        print_json(asdict(again))
    else:
        click.echo(f"{again.name} is open again")


@command.command(
    "publish",
    epilog="""\b
Examples:
  maskwheel campaigns publish manual -w birds
  maskwheel campaigns publish manual --accept "few masks, as intended"

Again, it publishes what was accepted since. Exit code 4: an audit refused the masks; nothing is
lost, and it says why.""",
)
@click.argument("campaign")
@click.option("--accept", metavar="REASON", help="Publish even if an audit refuses it.")
@click.option("--note", default="", help="Why; goes into the record.")
@workspace_option
@json_option
def publish_command(
    campaign: str, accept: str | None, note: str, workspace: str | None, as_json: bool
) -> None:
    """Make a release of the accepted masks of CAMPAIGN."""
    from engine.annotation.release import publish_campaign
    from engine.config import current_time
    from engine.quality.gate import audit
    from flows.commands.audit_table import explained_refusals
    from flows.events import announce

    with (
        explained_refusals(workspace_address(workspace), quiet=as_json),
        _opened(workspace) as (opened, db),
    ):
        release = publish_campaign(
            opened,
            db,
            campaign,
            now=current_time(),
            gate=audit,
            accepted=accept,
            note=note,
            announce=announce,
        )
    if as_json:
        print_json({"release": asdict(release) if release else None})
    elif release is None:
        click.echo(f"nothing of {campaign} is new; the releases have it all")
    else:
        click.echo(f"{release.name} has {release.masks:,} masks on {release.images:,} images")


@command.command("figures", epilog="\b\nExample:\n  maskwheel campaigns figures manual -w birds")
@click.argument("campaign")
@click.option("--csv", "as_csv", is_flag=True, help="One line per mask instead.")
@workspace_option
@json_option
def figures_command(campaign: str, as_csv: bool, workspace: str | None, as_json: bool) -> None:
    """Say what masks of CAMPAIGN cost, who made them, and how well people agree."""
    from engine.annotation.campaigns import campaign as find
    from engine.annotation.figures import campaign_figures, masks_csv
    from engine.config import current_time

    with _opened(workspace) as (_, db):
        campaign_id = find(db, campaign).campaign_id
        if as_csv:
            click.echo(masks_csv(db, campaign_id), nl=False)
            return
        figures = campaign_figures(db, campaign_id, now=current_time())
    if as_json:
        click.echo(figures.to_json())
    else:
        from flows.commands.campaigns_tables import show_figures

        show_figures(figures)


@contextmanager
def _opened(workspace: str | None) -> Iterator[tuple[Workspace, Database]]:
    from engine.annotation.opening import open_workspace_database
    from engine.dataset.catalog import Workspace

    with (
        Workspace.open(workspace_address(workspace), create=False) as opened,
        open_workspace_database(opened) as db,
    ):
        yield opened, db


def _state(db: Database, campaign_id: str) -> CampaignState:
    from engine.annotation.campaigns import campaign_state
    from engine.config import current_time

    return campaign_state(db, campaign_id, now=current_time())
