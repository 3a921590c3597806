"""Where a campaign's proposals come from, by the name that the command line has for it.

source = proposal_source("detector", workspace.store, sam, config)
prefill_campaign(store, db, campaign, sam, PrefillSource(..., source=source, config=config), ...)
"""

from __future__ import annotations

from engine.annotation.box_masks import DetectorBoxes
from engine.annotation.prefill import AutomaticMasks, PrefillConfig, ProposalSource
from engine.learning.proposer_registry import find_proposer, load_proposer, newest_proposer
from engine.objects import ObjectStore
from model import Sam

__all__ = ["AUTOMATIC", "DETECTOR", "proposal_source"]

AUTOMATIC, DETECTOR = "auto", "detector"


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
