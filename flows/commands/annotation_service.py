"""What `maskwheel annotate` does: a campaign, if one is asked for, and the service until Ctrl-C."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from flows.commands.annotation_opening import Choices, open_asked_for, propose_masks

if TYPE_CHECKING:
    from engine.annotation.database import Database
    from engine.annotation.http.serve import Listener
    from engine.annotation.opening import CampaignRequest, OpenedCampaign
    from engine.annotation.records import Campaign
    from engine.dataset.catalog import Workspace

__all__ = ["open_and_serve", "serve_workspace"]

_NEXT_PORTS = 20
_SKIPPED_SHOWN = 5
_HEALTH_SECONDS = 5.0


def open_and_serve(
    address: str, request: CampaignRequest, photos: Sequence[str], choices: Choices
) -> None:
    """Open or continue a campaign and serve it until Ctrl-C."""
    from engine.annotation.opening import open_workspace_database
    from engine.dataset.catalog import Workspace, is_workspace
    from engine.dataset.inputs import expand_inputs
    from engine.errors import BadInputError
    from flows.commands.progress_bar import ProgressBar

    # A wrong path or address and a taken port are told before anything is done.
    _check(choices)
    listed = expand_inputs(photos) if photos else []
    if not listed and not is_workspace(address):
        raise BadInputError(f"there is nothing at {address} yet; name photos, or try --demo")
    with ExitStack() as stack:
        listener = stack.enter_context(_listener(choices))
        workspace = stack.enter_context(Workspace.open(address, create=bool(photos)))
        db = stack.enter_context(open_workspace_database(workspace))
        with ProgressBar() as bar:
            opened = open_asked_for(workspace, db, request, listed, choices, bar)
            for campaign in _open_campaigns(db, opened):
                if campaign.stage == "semi":
                    propose_masks(workspace, db, campaign, choices, bar)
        url = _running_service(workspace, choices)
        if url is None:
            _serve(workspace, db, listener, opened, choices)
        else:
            _say_where(workspace, db, url, opened, choices)
            if not choices.as_json:
                click.echo("The service runs already; --port starts another one.")


def serve_workspace(address: str, choices: Choices) -> None:
    """Serve whatever campaigns a workspace has, now and later, until Ctrl-C; it may have none yet.

    Whoever opens one, a flow or another command, need not tell the service.
    """
    from engine.annotation.opening import open_workspace_database
    from engine.dataset.catalog import Workspace

    _check(choices)
    with ExitStack() as stack:
        listener = stack.enter_context(_listener(choices))
        workspace = stack.enter_context(Workspace.open(address))
        db = stack.enter_context(open_workspace_database(workspace))
        _serve(workspace, db, listener, None, choices)


def _running_service(workspace: Workspace, choices: Choices) -> str | None:
    """Return where the workspace is served already, e.g. by `maskwheel up`, if that is enough."""
    import httpx

    from engine.annotation.http.whereabouts import running_at

    url = running_at(workspace.local_folder)
    if url is None or choices.port is not None or choices.public_url is not None:
        return None
    try:
        health = httpx.get(f"{url}/api/health", timeout=_HEALTH_SECONDS)
    except httpx.HTTPError:
        return None  # it was killed
    return url if health.is_success else None


def _check(choices: Choices) -> None:
    from engine.annotation.http.assembly import checked_public_url

    if choices.public_url is not None:
        checked_public_url(choices.public_url)


def _listener(choices: Choices) -> Listener:
    from engine.annotation.http.serve import listen
    from engine.config import load_settings

    settings = load_settings()
    host = choices.host or settings.annotation_host
    if choices.port is not None:
        return listen(host, choices.port)
    return listen(host, settings.annotation_port, next_ports=_NEXT_PORTS)


def _open_campaigns(db: Database, opened: OpenedCampaign | None) -> list[Campaign]:
    from engine.annotation.campaigns import list_campaigns

    if opened is not None:
        return [opened.campaign]
    return [campaign for campaign in list_campaigns(db) if campaign.closed_at is None]


def _serve(
    workspace: Workspace,
    db: Database,
    listener: Listener,
    opened: OpenedCampaign | None,
    choices: Choices,
) -> None:
    from engine.annotation.http.app import create_app
    from engine.annotation.http.assembly import ServiceOptions, make_context
    from engine.annotation.http.serve import Certificate, run
    from engine.annotation.http.whereabouts import announced
    from engine.annotation.model_service import ModelService
    from engine.annotation.upkeep import Upkeep
    from engine.config import load_settings
    from flows.events import announce
    from flows.limits import image_limits

    certificate = None
    if choices.certfile is not None and choices.keyfile is not None:
        certificate = Certificate(choices.certfile, choices.keyfile)
    models = ModelService(
        workspace.store,
        workspace.local_folder,
        image_limits=image_limits(),
        device=choices.device,
    )
    with models:
        if opened is not None:
            models.decoder_folder(opened.campaign.model_id)  # one that cannot be used is told now
        context = make_context(
            db,
            ServiceOptions(
                public_url=choices.public_url or listener.url("https" if certificate else "http"),
                host=listener.host,
                allow_hosts=choices.allow_hosts,
                work_folder=workspace.local_folder,
                lease_seconds=load_settings().annotation_lease_seconds,
                workspace=workspace.address,
            ),
            model=models,
            image_limits=image_limits(),
            announce=announce,
        )

        def say() -> None:
            _say_where(workspace, db, context.public_url, opened, choices)
            if not choices.as_json:
                click.echo("Ctrl-C stops the service.")

        _warn_of_plain_http(listener, context.public_url)
        with (
            announced(workspace.local_folder, context.public_url),
            Upkeep(db, workspace.store, models),
        ):
            run(
                create_app(context),
                listener,
                certificate=certificate,
                behind_proxy=choices.public_url is not None,
                on_ready=say,
            )
    if not choices.as_json:
        click.echo("stopped; the same command goes on where it was")


def _say_where(
    workspace: Workspace,
    db: Database,
    url: str,
    opened: OpenedCampaign | None,
    choices: Choices,
) -> None:
    from engine.annotation.http.whereabouts import join_link
    from engine.annotation.opening import admin_invitation
    from engine.config import current_time

    link = join_link(url, admin_invitation(workspace, db, current_time()))
    campaigns = _open_campaigns(db, opened)
    if choices.as_json:
        _say_json(workspace, url, link, opened, campaigns)
    else:
        _say(workspace, link, opened, campaigns)


def _say_json(
    workspace: Workspace,
    url: str,
    link: str,
    opened: OpenedCampaign | None,
    campaigns: Sequence[Campaign],
) -> None:
    fields = {
        "url": url,
        "admin_link": link,
        "workspace": workspace.address,
        "campaigns": [
            {"id": one.campaign_id, "name": one.name, "stage": one.stage, "images": one.images}
            for one in campaigns
        ],
        "images_added": opened.images_added if opened else 0,
        "skipped": [
            {"uri": one.uri, "reason": one.reason} for one in (opened.skipped if opened else ())
        ],
    }
    click.echo(json.dumps(fields))


def _say(
    workspace: Workspace,
    link: str,
    opened: OpenedCampaign | None,
    campaigns: Sequence[Campaign],
) -> None:
    for campaign in campaigns:
        click.echo(
            f"campaign {campaign.name}: {campaign.images} photos, stage {campaign.stage}, "
            f"model {campaign.model}"
        )
    skipped = opened.skipped if opened else ()
    for image in skipped[:_SKIPPED_SHOWN]:
        click.secho(f"  skipped {image.uri}: {image.message}", fg="yellow")
    if len(skipped) > _SKIPPED_SHOWN:
        click.secho(f"  ... and {len(skipped) - _SKIPPED_SHOWN} more", fg="yellow")
    click.echo("Open this link in a browser; it signs you in as admin:\n")
    click.secho(f"  {link}\n", bold=True)
    click.echo(
        f"Others need links of their own: maskwheel campaigns invite NAME -w {workspace.address}"
    )


def _warn_of_plain_http(listener: Listener, public_url: str) -> None:
    from engine.annotation.http.origins import is_loopback

    if is_loopback(listener.host) or public_url.startswith("https:"):
        return
    click.secho(
        "Without https anybody on the network can read the links and sessions, and browsers run "
        "the decoder in one thread only. Give --ssl-certfile and --ssl-keyfile, or put a proxy "
        "in front and give --public-url https://NAME.",
        fg="yellow",
        err=True,
    )
