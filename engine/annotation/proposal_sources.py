"""Where a campaign's proposals come from, by the name that the command line has for it.

source = prefill_source(workspace.store, campaign, sam, "detector")
prefill_campaign(workspace.store, db, campaign, sam, source, limits=limits)
"""

from __future__ import annotations

import json

from engine.annotation.box_masks import DetectorBoxes
from engine.annotation.opening import Arranged
from engine.annotation.prefill import AutomaticMasks, PrefillConfig, ProposalSource
from engine.annotation.prefilling import PrefillSource
from engine.annotation.records import Campaign
from engine.learning.proposer_registry import find_proposer, load_proposer, newest_proposer
from engine.objects import ObjectStore
from model import Sam

__all__ = [
    "AUTOMATIC",
    "DETECTOR",
    "noted_proposer",
    "noting_proposer",
    "prefill_source",
    "proposal_source",
]

AUTOMATIC, DETECTOR = "auto", "detector"
_PROPOSER = "proposals_by"


def prefill_source(store: ObjectStore, campaign: Campaign, sam: Sam, name: str) -> PrefillSource:
    """Return what proposes a campaign's masks, with the thresholds that its model recommends.

    Args:
        store: of the workspace.
        campaign: of stage semi.
        sam: its model.
        name: as `proposal_source` takes it.

    Raises:
        BadInputError: no such proposer, or transformers is not installed.
        WorkspaceError: the proposer is damaged.
    """
    config = PrefillConfig.for_model(sam)
    source = proposal_source(name, store, sam, config)
    return PrefillSource(model_id=campaign.model_id, source=source, config=config)


def noting_proposer(arranged: Arranged, name: str) -> Arranged:
    """Write into the record of a new campaign what will propose its masks."""
    fields = {**json.loads(arranged.ordering), _PROPOSER: name}
    return Arranged(arranged.images, json.dumps(fields, sort_keys=True, separators=(",", ":")))


def noted_proposer(campaign: Campaign) -> str | None:
    """Return what proposes a campaign's masks, whoever goes on with it; None: nobody has said."""
    name = json.loads(campaign.ordering).get(_PROPOSER)
    return name if isinstance(name, str) else None


def proposal_source(
    name: str, store: ObjectStore, sam: Sam, config: PrefillConfig
) -> ProposalSource:
    """Return a source of proposals.

    Args:
        name: ``auto``: the model's automatic masks; ``detector``: the newest box proposer that was
            trained with the model; ``p2``: that one.
        store: of the workspace.
        sam: the model that the campaign works with.
        config: chooses among the masks; automatic ones are not even drawn below its threshold.

    Raises:
        BadInputError: no such proposer, or transformers is not installed.
        WorkspaceError: the proposer is damaged.
    """
    if name == AUTOMATIC:
        return AutomaticMasks.of(sam, config)
    if name == DETECTOR:
        version = newest_proposer(store, sam.model_id())
    else:
        version = find_proposer(store, name)
    least = sam.config.recommended.min_mask_region_area
    return DetectorBoxes(load_proposer(store, version, sam), min_region_area=least)
