"""Publishing what people made: a campaign's accepted masks become a release of the data set.

    release = publish_campaign(workspace, db, "birds", now=now, gate=audit)

It is a run like any other, ``annotation-<campaign>-<number>``: a plan, shards, one publication; its
release is of the kind "annotation". Killed anywhere and called again it publishes the same, once.
See infra/decisions/0009.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime

from engine.annotation.campaigns import campaign as find_campaign
from engine.annotation.database import Database
from engine.annotation.publications import (
    PublicationPlan,
    folded_images,
    note_release,
    plan_publication,
    publication_run_id,
)
from engine.announcements import Announce
from engine.dataset.catalog import Workspace
from engine.dataset.publishing import Gate
from engine.dataset.runs import (
    Recipe,
    RunManifest,
    commit_run,
    keep_run,
    pending_shards,
    shard_size,
)
from engine.dataset.shards import ImageMasks, write_shard
from engine.errors import WorkspaceError
from engine.records import Release, Shard

__all__ = ["publish_campaign", "run_of"]

_IMAGES_AT_ONCE = 64


def publish_campaign(
    workspace: Workspace,
    db: Database,
    campaign: str,
    *,
    now: datetime,
    gate: Gate | None = None,
    accepted: str | None = None,
    note: str = "",
    announce: Announce | None = None,
) -> Release | None:
    """Publish what of a campaign is accepted and in no release yet.

    Args:
        workspace: the data set, which has the campaign's images.
        db: the annotation database.
        campaign: its name or id.
        now: UTC.
        gate: audits the masks before they are published; None: nothing is asked.
        accepted: why they are to be published even if the gate refuses.
        note: a person's words about it.
        announce: told of each release.

    Returns:
        The newest of the releases that this call made, or completed; None: nothing was due.

    Raises:
        UnknownCampaignError: there is no such campaign.
        RefusedError: the gate refused and nobody accepted it. The data set is unchanged; the same
            call with `accepted` publishes it.
        WorkspaceError: the data set has a publication of the campaign that the database does not
            know, or cannot be written.
        TransientError: the catalog, the store or the database stayed busy; the same call goes on.
    """
    campaign_id = find_campaign(db, campaign).campaign_id
    release = None
    while (plan := plan_publication(db, campaign_id, now=now)) is not None:
        run = keep_run(workspace.store, run_of(plan))
        if [i for shard in run.shards for i in shard.image_ids] != list(plan.image_ids):
            raise WorkspaceError(
                f"run {run.run_id} is of other images than the annotation database says: the "
                "database is older than the data set; bring back a newer backup of it"
            )
        for shard in pending_shards(workspace.store, run):
            write_shard(workspace.store, shard, _folded(db, plan, shard), run.provenance)
        release = commit_run(workspace, run, gate, accepted=accepted, note=note, announce=announce)
        note_release(db, plan, release.name)
    return release


def run_of(plan: PublicationPlan) -> RunManifest:
    """Return a publication as a run: its id, its settings and its shards."""
    campaign = plan.campaign
    run_id = publication_run_id(campaign.campaign_id, plan.number)
    recipe = Recipe.of(
        campaign.model_id,
        {
            "campaign": campaign.name,
            "campaign_id": campaign.campaign_id,
            "stage": campaign.stage,
            "model": campaign.model,
            "instructions": campaign.instructions,
            "annotators_per_image": campaign.annotators_per_image,
            "review": campaign.review,
            "ordering": json.loads(campaign.ordering),
            "seed": campaign.seed,
        },
    )
    size = shard_size(len(plan.image_ids))
    starts = range(0, len(plan.image_ids), size)
    shards = (
        Shard(run_id, index, plan.image_ids[start : start + size])
        for index, start in enumerate(starts)
    )
    return RunManifest(
        run_id, recipe, plan.planned_at, tuple(shards), kind="annotation", stage=campaign.stage
    )


def _folded(db: Database, plan: PublicationPlan, shard: Shard) -> Iterator[ImageMasks]:
    for start in range(0, len(shard.image_ids), _IMAGES_AT_ONCE):
        yield from folded_images(db, plan, shard.image_ids[start : start + _IMAGES_AT_ONCE])
