"""From photos to a campaign at the command line, with a progress bar.

opened = open_asked_for(workspace, db, request, photos, choices, bar)
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from engine.annotation.database import Database
    from engine.annotation.opening import Arranged, CampaignRequest, OpenedCampaign
    from engine.annotation.records import Campaign, CampaignImage
    from engine.dataset.catalog import Workspace
    from engine.dataset.inputs import ListedImage
    from engine.records import ModelVersion
    from flows.commands.progress_bar import ProgressBar

__all__ = ["ORDERS", "Choices", "OrderName", "open_asked_for", "propose_masks"]

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


def open_asked_for(
    workspace: Workspace,
    db: Database,
    request: CampaignRequest,
    photos: Sequence[ListedImage],
    choices: Choices,
    bar: ProgressBar,
) -> OpenedCampaign | None:
    """Open the campaign that is asked for; None: all that there are, as they are."""
    from engine.annotation.campaigns import list_campaigns
    from engine.annotation.opening import CampaignRequest, open_or_continue
    from engine.config import current_time, load_settings
    from flows.limits import image_limits

    if not photos and request == CampaignRequest() and list_campaigns(db):
        return None
    bar.stage("reading photos", len(photos) or None)

    def order(images: Sequence[CampaignImage], version: ModelVersion) -> Arranged:
        return _ordered(workspace, images, version, request, choices, bar)

    return open_or_continue(
        workspace,
        db,
        request,
        photos,
        image_limits(),
        current_time(),
        order=order,
        on_image=lambda uri: bar.image(uri, 0),
        threads=load_settings().read_threads,
    )


def _ordered(
    workspace: Workspace,
    images: Sequence[CampaignImage],
    version: ModelVersion,
    request: CampaignRequest,
    choices: Choices,
    bar: ProgressBar,
) -> Arranged:
    from engine.annotation.choosing import arrange
    from engine.annotation.proposal_sources import noting_proposer
    from engine.learning.registry import load_model
    from flows.limits import image_limits

    if choices.order != "listed":
        bar.stage("ordering", len(images))
    arranged = arrange(
        images,
        choices.order,
        lambda: load_model(workspace.store, version, choices.device),
        seed=request.seed,
        limits=image_limits(),
        on_image=lambda uri: bar.image(uri, 0),
    )
    return noting_proposer(arranged, choices.prefill) if request.stage == "semi" else arranged


def propose_masks(
    workspace: Workspace,
    db: Database,
    campaign: Campaign,
    choices: Choices,
    bar: ProgressBar,
) -> None:
    """Propose masks for the images that have none yet; a killed call goes on with the others."""
    from engine.annotation.prefilling import prefill_campaign
    from engine.annotation.proposal_sources import noted_proposer, prefill_source
    from engine.learning.registry import find_version, load_model
    from flows.limits import image_limits

    sam = load_model(
        workspace.store, find_version(workspace.store, campaign.model_id), choices.device
    )
    # What the campaign was opened with proposes its other masks too, whoever goes on with it.
    proposer = noted_proposer(campaign) or choices.prefill
    source = prefill_source(workspace.store, campaign, sam, proposer)
    bar.stage("proposing masks", campaign.images)
    outcome = prefill_campaign(
        workspace.store,
        db,
        campaign,
        sam,
        source,
        limits=image_limits(),
        on_image=bar.image,
    )
    log.info("%s: %d proposals for %d images", campaign.name, outcome.proposals, outcome.filled)
