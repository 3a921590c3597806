"""What the model does for a campaign before people get it: embeddings, and proposals in stage semi.

    for chunk in chunks_to_prepare(db, campaign, embed_ahead=1000):
        prepare_images(store, db, campaign, chunk, sam, "auto", limits=limits, now=now)
    give_out(db, campaign.campaign_id, now=now)

A campaign that `open_chosen` opened has pending tasks, which nobody gets. They are given out chunk
by chunk as the images become ready, so that people can begin while the model is still at work, and
never wait for an embedding or see an image whose proposals come later. What is ready is in the
store and in the database: killed anywhere and called again, only the rest is done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from engine.annotation.campaigns import campaign_images, find_campaign
from engine.annotation.candidates import candidate_ids
from engine.annotation.database import Database
from engine.annotation.embeddings import embedding_bytes, embedding_key
from engine.annotation.image_stream import read_images
from engine.annotation.opening import CampaignRequest, OpenedCampaign
from engine.annotation.pending import give_out, pending_images
from engine.annotation.prefilling import prefill_campaign
from engine.annotation.proposal_sources import noted_proposer, prefill_source
from engine.annotation.records import Campaign, CampaignImage, Stage
from engine.dataset.catalog import Workspace
from engine.images import ImageLimits
from engine.learning.decisions import CHAMPION, resolve
from engine.objects import ObjectStore
from engine.records import SkippedImage
from model import Sam

__all__ = [
    "Chunk",
    "Prepared",
    "PreparedCampaign",
    "RoundPlan",
    "chunks_to_prepare",
    "plan_round",
    "prepare_images",
    "summarised",
]

logger = logging.getLogger(__name__)

_IMAGES_PER_CHUNK = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundPlan:
    """What a campaign works with.

    Attributes:
        is_open: whether there is a campaign of the name.
        model_id: of its model, or of the one that it will have.
        proposer: what proposes its masks; None: that is still to be chosen.
        candidates: images that a new one could have.
    """

    is_open: bool
    model_id: str
    proposer: str | None
    candidates: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Images of a campaign that are prepared together.

    Attributes:
        first: place of the first one in the campaign, from 1.
        image_ids: in the campaign's order.
        embed: whether their embeddings are made too.
    """

    first: int
    image_ids: tuple[int, ...]
    embed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What was made for some images.

    Attributes:
        images: that people may get now.
        embedded: that got an embedding now; the others had one, or need none yet.
        proposals: that were made now.
        skipped: images that cannot be read; people get them all the same, and skip them.
    """

    images: int
    embedded: int
    proposals: int
    skipped: tuple[SkippedImage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedCampaign:
    """What opening and preparing a campaign came to.

    Attributes:
        campaign_id: None: there was nothing to annotate, so none was opened.
        name: of the campaign.
        stage: ``manual`` or ``semi``.
        images: that the campaign has.
        opened: whether this call opened it.
        prepared: images that this call gave to people after preparing them.
        embedded: embeddings that it made.
        proposals: masks that it proposed.
        skipped: images that cannot be read.
        url: the campaign's page; None: no service is known to run.
    """

    campaign_id: str | None
    name: str
    stage: Stage
    images: int = 0
    opened: bool = False
    prepared: int = 0
    embedded: int = 0
    proposals: int = 0
    skipped: tuple[SkippedImage, ...] = ()
    url: str | None = None


def summarised(
    opened: OpenedCampaign, made: Sequence[Prepared], url: str | None
) -> PreparedCampaign:
    """Add up what was made for a campaign."""
    campaign = opened.campaign
    skipped = {image.uri: image for part in made for image in part.skipped}
    return PreparedCampaign(
        campaign_id=campaign.campaign_id,
        name=campaign.name,
        stage=campaign.stage,
        images=campaign.images,
        opened=opened.is_new,
        prepared=sum(part.images for part in made),
        embedded=sum(part.embedded for part in made),
        proposals=sum(part.proposals for part in made),
        skipped=tuple(skipped.values()),
        url=url,
    )


def plan_round(workspace: Workspace, db: Database, request: CampaignRequest) -> RoundPlan:
    """Return what a campaign works with, or would: the same however often it is gone on with.

    Raises:
        BadInputError: an unknown model, or a workspace without images.
    """
    existing = find_campaign(db, request.name or request.stage or "manual")
    if existing is not None:
        proposer = noted_proposer(existing)
        return RoundPlan(is_open=True, model_id=existing.model_id, proposer=proposer, candidates=0)
    version = resolve(workspace.store, request.model or CHAMPION)
    candidates = len(candidate_ids(workspace, db))
    return RoundPlan(is_open=False, model_id=version.model_id, proposer=None, candidates=candidates)


def chunks_to_prepare(
    db: Database, campaign: Campaign, *, embed_ahead: int, size: int = _IMAGES_PER_CHUNK
) -> tuple[Chunk, ...]:
    """Return what of a campaign is still to be prepared, in its order.

    Args:
        db: has the campaign.
        campaign: of stage manual: images that get an embedding; of stage semi: all.
        embed_ahead: the first so many images of the campaign get one.
        size: images per chunk.
    """
    pending = frozenset(pending_images(db, campaign.campaign_id))
    if not pending:
        return ()
    images = campaign_images(db, campaign.campaign_id)
    last = len(images) if campaign.stage == "semi" else min(embed_ahead, len(images))
    chunks = []
    for start in range(0, last, size):
        ids = tuple(image.image_id for image in images[start : min(start + size, last)])
        rest = tuple(image_id for image_id in ids if image_id in pending)
        if rest:
            chunks.append(Chunk(first=start + 1, image_ids=rest, embed=start < embed_ahead))
    return tuple(chunks)


def prepare_images(
    store: ObjectStore,
    db: Database,
    campaign: Campaign,
    chunk: Chunk,
    sam: Sam,
    proposer: str | None,
    *,
    limits: ImageLimits,
    now: datetime,
    on_image: Callable[[str, int], None] | None = None,
) -> Prepared:
    """Make what the images lack, and give them out.

    Args:
        store: of the workspace.
        db: has the campaign.
        campaign: whose images they are.
        chunk: which of them.
        sam: the campaign's model.
        proposer: what proposes masks, by the name that `proposal_source` takes; None: nothing.
        limits: what is too large to be decoded.
        now: UTC.
        on_image: called with each image's address and its number of proposals.

    Raises:
        BadInputError: proposals for a campaign of another stage, no such proposer, or transformers
            is not installed.
        WorkspaceError, TransientError: as of the store and the database.
    """
    wanted = set(chunk.image_ids)
    images = [i for i in campaign_images(db, campaign.campaign_id) if i.image_id in wanted]
    to_embed = images if chunk.embed else []
    embedded, skipped = _embed(store, campaign.model_id, sam, to_embed, limits)
    proposals = 0
    if proposer is not None:
        source = prefill_source(store, campaign, sam, proposer)
        filled = prefill_campaign(
            store, db, campaign, sam, source, limits=limits, images=images, on_image=on_image
        )
        proposals = filled.proposals
        skipped |= {image.uri: image for image in filled.skipped}
    elif on_image is not None:
        for image in images:
            on_image(image.uri, 0)
    give_out(db, campaign.campaign_id, chunk.image_ids, now=now)
    return Prepared(
        images=len(images),
        embedded=embedded,
        proposals=proposals,
        skipped=tuple(skipped.values()),
    )


def _embed(
    store: ObjectStore,
    model_id: str,
    sam: Sam,
    images: Sequence[CampaignImage],
    limits: ImageLimits,
) -> tuple[int, dict[str, SkippedImage]]:
    """Make the embeddings that the store lacks; count them, and say what cannot be read."""
    keys = {image.image_id: embedding_key(model_id, image.image_id) for image in images}
    missing = [image for image in images if not store.exists(keys[image.image_id])]
    skipped: dict[str, SkippedImage] = {}
    for image, pixels in read_images(missing, limits):
        if isinstance(pixels, SkippedImage):
            logger.warning("no embedding of %s (%s): %s", image.uri, pixels.reason, pixels.message)
            skipped[image.uri] = pixels
        else:
            store.put_if_absent(keys[image.image_id], embedding_bytes(sam, pixels, model_id))
    return len(missing) - len(skipped), skipped
