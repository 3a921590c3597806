"""Proposals for a whole campaign: made image by image, kept in the database, resumed after a kill.

    outcome = prefill_campaign(store, db, campaign, sam, source, config, limits=limits)

What was proposed, by which source and above which thresholds is recorded beside the database, one
small object an image: ``annotation/<campaign>/prefill/<settings>/<image>.json``. It is written
after the proposals, so its existence says that the image is done: a killed run goes on with the
others, and other settings (another digest in the key) start over. An image that somebody has begun
keeps the proposals that the person saw.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.annotation.campaigns import campaign_images
from engine.annotation.database import Database
from engine.annotation.image_stream import read_images
from engine.annotation.prefill import PrefillConfig, Proposal, ProposalSource, propose
from engine.annotation.proposals import set_proposals
from engine.annotation.records import BoxPrompt, Campaign, CampaignImage, MaskObject
from engine.automatic import Segmenter
from engine.errors import BadInputError
from engine.images import ImageLimits
from engine.objects import ObjectStore
from engine.records import SkippedImage

__all__ = ["PrefillOutcome", "PrefillSource", "prefill_campaign", "prefill_prefix"]

logger = logging.getLogger(__name__)

Listener = Callable[[str, int], None]
"""Called with an image's address and its number of proposals when it is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillSource:
    """What proposes: a model, a source of masks, and the choice among them.

    Attributes:
        model_id: of the model's weights.
        source: finds the masks.
        config: chooses among them.
    """

    model_id: str
    source: ProposalSource
    config: PrefillConfig

    def to_json(self) -> str:
        """Return all that decides the proposals, as canonical JSON."""
        fields = {
            "model_id": self.model_id,
            "source": self.source.name,
            "source_settings": json.loads(self.source.settings()),
            "thresholds": json.loads(self.config.to_json()),
        }
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillOutcome:
    """What a call did.

    Attributes:
        images: that were to be done.
        filled: that this call made proposals for, also where it found none.
        proposals: their number.
        done: of them, shown as done.
        before: images that an earlier call had done.
        begun: images that somebody had begun, and which were left as they were.
        skipped: images that could not be used; the next call tries them again.
    """

    images: int
    filled: int
    proposals: int
    done: int
    before: int
    begun: int
    skipped: tuple[SkippedImage, ...]


def prefill_campaign(
    store: ObjectStore,
    db: Database,
    campaign: Campaign,
    segmenter: Segmenter,
    source: PrefillSource,
    *,
    limits: ImageLimits,
    images: Sequence[CampaignImage] | None = None,
    on_image: Listener | None = None,
) -> PrefillOutcome:
    """Propose masks for every image of a campaign that has none of these settings yet.

    Args:
        store: of the workspace.
        db: has the campaign.
        campaign: of stage ``"semi"``.
        segmenter: the model that the campaign works with.
        source: what proposes.
        limits: what is too large to be decoded.
        images: some of the campaign's, to share the work; None: all.
        on_image: for progress; also called for the images of an earlier call.

    Raises:
        BadInputError: a campaign of another stage or with another model.
        UnknownCampaignError: there is no such campaign.
        WorkspaceError: the store cannot be written.
    """
    if campaign.stage != "semi" or campaign.model_id != source.model_id:
        raise BadInputError(
            f"campaign {campaign.name} is of stage {campaign.stage} with {campaign.model_id}; "
            f"proposals of {source.model_id} are for a campaign of stage semi with that model"
        )
    prefix = prefill_prefix(campaign.campaign_id, source)
    if images is None:
        images = campaign_images(db, campaign.campaign_id)
        known = {key.removeprefix(prefix).removesuffix(".json") for key in store.list(prefix)}
    else:  # listing all would cost each of many calls as much as all of them need
        ids = (str(image.image_id) for image in images)
        known = {name for name in ids if store.exists(f"{prefix}{name}.json")}
    before = [image for image in images if str(image.image_id) in known]
    for image in before:
        _tell(on_image, image, 0)
    filled = proposals = done = begun = 0
    skipped: list[SkippedImage] = []
    rest = [image for image in images if str(image.image_id) not in known]
    for image, found in _proposed(rest, segmenter, source, limits):
        if isinstance(found, SkippedImage):
            logger.warning("no proposals for %s (%s): %s", found.uri, found.reason, found.message)
            skipped.append(found)
            _tell(on_image, image, 0)
            continue
        if not set_proposals(db, campaign.campaign_id, image.image_id, _objects(found)):
            begun += 1
            _tell(on_image, image, 0)
            continue
        store.put_if_absent(f"{prefix}{image.image_id}.json", _record(image, found, source))
        filled, proposals = filled + 1, proposals + len(found)
        done += sum(proposal.done for proposal in found)
        _tell(on_image, image, len(found))
    return PrefillOutcome(
        images=len(images),
        filled=filled,
        proposals=proposals,
        done=done,
        before=len(before),
        begun=begun,
        skipped=tuple(skipped),
    )


def prefill_prefix(campaign_id: str, source: PrefillSource) -> str:
    """Return where the records of a campaign's proposals lie in the store."""
    digest = hashlib.sha256(source.to_json().encode()).hexdigest()[:12]
    return f"annotation/{campaign_id}/prefill/{digest}/"


def _proposed(
    images: Sequence[CampaignImage],
    segmenter: Segmenter,
    source: PrefillSource,
    limits: ImageLimits,
) -> Iterator[tuple[CampaignImage, tuple[Proposal, ...] | SkippedImage]]:
    for image, pixels in read_images(images, limits):
        if isinstance(pixels, SkippedImage):
            yield image, pixels
        else:
            yield image, _on(segmenter, pixels, source)


def _on(
    segmenter: Segmenter, pixels_HWC3: NDArray[np.uint8], source: PrefillSource
) -> tuple[Proposal, ...]:
    return propose(segmenter, pixels_HWC3, source.source, source.config)


def _objects(proposals: Sequence[Proposal]) -> list[MaskObject]:
    return [
        MaskObject(
            object_id=_object_id(number),
            rle=proposal.rle,
            proposal=True,
            predicted_iou=proposal.predicted_iou,
            prompts=_prompts(proposal),
            decoder="server",
            accepted=True if proposal.done else None,
        )
        for number, proposal in enumerate(proposals, start=1)
    ]


def _prompts(proposal: Proposal) -> tuple[BoxPrompt, ...]:
    """The detector's box, which asked for the mask; a grid's points are nobody's prompts."""
    if proposal.prompt_xyxy is None:
        return ()
    return (BoxPrompt(*proposal.prompt_xyxy),)


def _object_id(number: int) -> str:
    return f"proposal-{number}"


def _record(image: CampaignImage, proposals: Sequence[Proposal], source: PrefillSource) -> bytes:
    fields = {
        **json.loads(source.to_json()),
        "image_id": str(image.image_id),
        "proposals": [
            {
                "id": _object_id(number),
                "source": proposal.source,
                "predicted_iou": proposal.predicted_iou,
                "score": proposal.score,
                "agreement": proposal.agreement,
                "box_xyxy": proposal.box_xyxy,
                "done": proposal.done,
            }
            for number, proposal in enumerate(proposals, start=1)
        ],
    }
    return json.dumps(fields, sort_keys=True, indent=1).encode()


def _tell(listener: Listener | None, image: CampaignImage, proposals: int) -> None:
    if listener is not None:
        listener(image.uri, proposals)
