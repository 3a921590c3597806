"""What `maskwheel annotate` does, step by step: photos, campaign, proposals, decoder, service."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from engine.annotation.database import Database
    from engine.annotation.http.serve import Listener
    from engine.annotation.model_service import ModelService
    from engine.annotation.opening import Arranged, CampaignRequest, OpenedCampaign
    from engine.annotation.records import Campaign, CampaignImage
    from engine.config import Settings
    from engine.dataset.catalog import Workspace
    from engine.dataset.inputs import ListedImage
    from engine.images import ImageLimits
    from engine.records import ModelVersion
    from flows.commands.progress_bar import ProgressBar

__all__ = ["ORDERS", "Choices", "OrderName", "open_and_serve"]

log = logging.getLogger(__name__)

OrderName = Literal["listed", "random", "uncertain", "disagreement", "uncovered", "diverse", "mix"]
ORDERS: tuple[OrderName, ...] = (
    "listed",
    "random",
    "uncertain",
    "disagreement",
    "uncovered",
    "diverse",
    "mix",
)
_NEXT_PORTS = 20
_SKIPPED_SHOWN = 5
_ENCODED_AHEAD = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """How to serve, and what of a campaign is not for its record.

    Attributes:
        order: of photos that are new to the campaign.
        prefill: where the proposals of stage semi come from, see `proposal_source`.
        host: None: the settings' one.
        port: None: the settings' one, or the next that is free; 0: any.
        public_url: what browsers reach the service by, behind a proxy.
        allow_hosts: names that it may be called by.
        certfile: for https, with its key in `keyfile`.
        keyfile: of `certfile`.
        device: to encode photos on.
        as_json: print one line of JSON instead of text.
    """

    order: OrderName = "listed"
    prefill: str = "auto"
    host: str | None = None
    port: int | None = None
    public_url: str | None = None
    allow_hosts: tuple[str, ...] = ()
    certfile: Path | None = None
    keyfile: Path | None = None
    device: str | None = None
    as_json: bool = False


def open_and_serve(
    address: str, request: CampaignRequest, photos: Sequence[str], choices: Choices
) -> None:
    """Open or continue a campaign and serve it until Ctrl-C."""
    from engine.annotation.http.assembly import checked_public_url
    from engine.annotation.model_service import ModelService
    from engine.annotation.opening import open_workspace_database
    from engine.config import load_settings
    from engine.dataset.catalog import Workspace, is_workspace
    from engine.dataset.inputs import expand_inputs
    from engine.errors import BadInputError
    from engine.images import ImageLimits
    from flows.commands.progress_bar import ProgressBar

    settings = load_settings()
    limits = ImageLimits(max_pixels=settings.max_image_pixels, max_bytes=settings.max_image_bytes)
    # A wrong path or address and a taken port are told before anything is done.
    if choices.public_url is not None:
        checked_public_url(choices.public_url)
    listed = expand_inputs(photos) if photos else []
    if not listed and not is_workspace(address):
        raise BadInputError(f"there is nothing at {address} yet; name photos, or try --demo")
    with ExitStack() as stack:
        listener = stack.enter_context(_listener(settings, choices))
        workspace = stack.enter_context(Workspace.open(address, create=bool(photos)))
        db = stack.enter_context(open_workspace_database(workspace))
        models = stack.enter_context(
            ModelService(
                workspace.store,
                workspace.local_folder,
                image_limits=limits,
                device=choices.device,
            )
        )
        with ProgressBar() as bar:
            opened = _opened(workspace, db, request, listed, limits, choices, bar)
            campaigns = _open_campaigns(db, opened)
            for campaign in campaigns:
                if campaign.stage == "semi":
                    _prefill(workspace, db, campaign, limits, choices, bar)
                _make_ready(db, models, campaign, required=opened is not None)
        _serve(workspace, db, models, limits, listener, opened, campaigns, choices)


def _listener(settings: Settings, choices: Choices) -> Listener:
    from engine.annotation.http.serve import listen

    host = choices.host or settings.annotation_host
    if choices.port is not None:
        return listen(host, choices.port)
    return listen(host, settings.annotation_port, next_ports=_NEXT_PORTS)


def _opened(
    workspace: Workspace,
    db: Database,
    request: CampaignRequest,
    photos: Sequence[ListedImage],
    limits: ImageLimits,
    choices: Choices,
    bar: ProgressBar,
) -> OpenedCampaign | None:
    """Open the campaign that is asked for; None: all that there are, as they are."""
    from engine.annotation.campaigns import list_campaigns
    from engine.annotation.opening import CampaignRequest, open_or_continue
    from engine.config import current_time, load_settings

    if not photos and request == CampaignRequest() and list_campaigns(db):
        return None
    bar.stage("reading photos", len(photos) or None)

    def order(images: Sequence[CampaignImage], version: ModelVersion) -> Arranged:
        return _ordered(workspace, images, version, request.seed, limits, choices, bar)

    return open_or_continue(
        workspace,
        db,
        request,
        photos,
        limits,
        current_time(),
        order=order,
        on_image=lambda uri: bar.image(uri, 0),
        threads=load_settings().read_threads,
    )


def _ordered(
    workspace: Workspace,
    images: Sequence[CampaignImage],
    version: ModelVersion,
    seed: int,
    limits: ImageLimits,
    choices: Choices,
    bar: ProgressBar,
) -> Arranged:
    from engine.annotation.opening import Arranged, as_listed

    if choices.order == "listed":
        return as_listed(images, version)
    from engine.annotation.ordering import OrderingConfig, order_images
    from engine.learning.registry import load_model

    bar.stage("ordering", len(images))
    sam = None
    if choices.order != "random":
        sam = load_model(workspace.store, version, choices.device)
    ordering = order_images(
        images,
        sam,
        OrderingConfig(strategy=choices.order, seed=seed),
        limits=limits,
        on_image=lambda uri: bar.image(uri, 0),
    )
    return Arranged(ordering.arrange(images), ordering.to_json())


def _open_campaigns(db: Database, opened: OpenedCampaign | None) -> list[Campaign]:
    from engine.annotation.campaigns import list_campaigns

    if opened is not None:
        return [opened.campaign]
    return [campaign for campaign in list_campaigns(db) if campaign.closed_at is None]


def _prefill(
    workspace: Workspace,
    db: Database,
    campaign: Campaign,
    limits: ImageLimits,
    choices: Choices,
    bar: ProgressBar,
) -> None:
    """Propose masks for the images that have none yet; a killed call goes on with the others."""
    from engine.annotation.prefill import PrefillConfig
    from engine.annotation.prefilling import PrefillSource, prefill_campaign
    from engine.annotation.proposal_sources import proposal_source
    from engine.learning.registry import find_version, load_model

    sam = load_model(
        workspace.store, find_version(workspace.store, campaign.model_id), choices.device
    )
    config = PrefillConfig.for_model(sam)
    source = proposal_source(choices.prefill, workspace.store, sam, config)
    bar.stage("proposing masks", campaign.images)
    outcome = prefill_campaign(
        workspace.store,
        db,
        campaign,
        sam,
        PrefillSource(model_id=campaign.model_id, source=source, config=config),
        limits=limits,
        on_image=bar.image,
    )
    log.info("%s: %d proposals for %d images", campaign.name, outcome.proposals, outcome.filled)


def _make_ready(db: Database, models: ModelService, campaign: Campaign, *, required: bool) -> None:
    """Export the decoder, and begin to encode the first images."""
    from engine.annotation.campaigns import campaign_images
    from engine.errors import EngineError

    try:
        models.decoder_folder(campaign.model_id)
    except EngineError as error:
        if required:
            raise
        # The others can be worked on; this one's page says what is missing.
        click.secho(
            f"campaign {campaign.name}: its model cannot be used: {error}", fg="yellow", err=True
        )
        return
    images = campaign_images(db, campaign.campaign_id)
    models.prepare_ahead(campaign.model_id, images[:_ENCODED_AHEAD])


def _serve(
    workspace: Workspace,
    db: Database,
    models: ModelService,
    limits: ImageLimits,
    listener: Listener,
    opened: OpenedCampaign | None,
    campaigns: Sequence[Campaign],
    choices: Choices,
) -> None:
    from engine.annotation.http.app import create_app
    from engine.annotation.http.assembly import ServiceOptions, make_context
    from engine.annotation.http.routes_annotators import join_link
    from engine.annotation.http.serve import Certificate, run
    from engine.annotation.http.whereabouts import announced
    from engine.annotation.opening import admin_invitation
    from engine.config import current_time, load_settings

    certificate = None
    if choices.certfile is not None and choices.keyfile is not None:
        certificate = Certificate(choices.certfile, choices.keyfile)
    context = make_context(
        db,
        ServiceOptions(
            public_url=choices.public_url or listener.url("https" if certificate else "http"),
            host=listener.host,
            allow_hosts=choices.allow_hosts,
            work_folder=workspace.local_folder,
            lease_seconds=load_settings().annotation_lease_seconds,
        ),
        model=models,
        image_limits=limits,
    )
    link = join_link(context.public_url, admin_invitation(workspace, db, current_time()))

    def say() -> None:
        if choices.as_json:
            _say_json(workspace, context.public_url, link, opened, campaigns)
        else:
            _say(workspace, link, opened, campaigns)

    _warn_of_plain_http(listener, context.public_url)
    with announced(workspace.local_folder, context.public_url):
        run(
            create_app(context),
            listener,
            certificate=certificate,
            behind_proxy=choices.public_url is not None,
            on_ready=say,
        )
    if not choices.as_json:
        click.echo("stopped; the same command goes on where it was")


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
    click.echo("Ctrl-C stops the service.")


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
