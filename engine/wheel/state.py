"""Where the wheel stands: read from the workspace and the annotation database, stored nowhere.

    state = read_state(workspace, db, load_policy(workspace.store), now=now)

Everything in it was written by the work itself, so it is right after any crash. Reading costs the
records of releases and models, one count per campaign, and the image ids that the champion has
masked; it never reads a mask. See infra/decisions/0011.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal

import numpy as np
import torch
from pyiceberg.expressions import EqualTo, Reference
from pyiceberg.expressions.literals import literal

from engine.annotation.campaigns import campaign_state, list_campaigns
from engine.annotation.candidates import candidate_ids
from engine.annotation.database import Database
from engine.annotation.pending import pending_images
from engine.annotation.publication_counts import publication_counts
from engine.annotation.records import Campaign, Stage
from engine.automatic.config import AutomaticConfig
from engine.dataset.catalog import Workspace
from engine.dataset.releases import list_releases, list_tags, scan
from engine.dataset.runs import Recipe
from engine.errors import WorkspaceError
from engine.learning.decisions import current_champion, read_log
from engine.learning.registry import load_model
from engine.quality.agreement import AgreementConfig
from engine.quality.audit_records import AuditBars, AuditSettings, load_audits
from engine.records import ModelVersion, Release
from engine.wheel.initial import known_images
from engine.wheel.policy import AuditPolicy, AutomaticPolicy, Policy
from engine.wheel.retraining import Training, human_images, human_masks, trainings

__all__ = ["AuditLook", "CampaignLook", "TrainingLook", "WheelState", "read_state"]

_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignLook:
    """How far a campaign is, in images.

    Attributes:
        campaign_id: its id.
        name: its name; rounds of the wheel are called ``manual-1``, ``semi-2``.
        stage: of its masks.
        state: ``"complete"``: every task is accepted or skipped; ``"closed"``: a person ended it.
        tasks: one per image and annotator.
        done: tasks that are accepted or skipped.
        in_hand: tasks that somebody works on, or that wait for a review.
        preparing: whether the model is still to prepare some of its images.
        published: images in releases.
        due: images to be published now.
    """

    campaign_id: str
    name: str
    stage: Stage
    state: Literal["open", "complete", "closed"]
    tasks: int
    done: int
    in_hand: int = 0
    preparing: bool = False
    published: int = 0
    due: int = 0

    @property
    def is_over(self) -> bool:
        """Whether nobody will hand in anything more."""
        return self.state == "complete" or (self.state == "closed" and self.in_hand == 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingLook:
    """A training on releases of the data set.

    Attributes:
        version: the model that came out.
        releases: what it learned from.
        outcome: of the gate; None: it waits for it.
        reason: of a refusal.
        decided_at: UTC.
    """

    version: str
    releases: tuple[str, ...]
    outcome: Literal["promoted", "forced", "refused", "rolled back"] | None = None
    reason: str = ""
    decided_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLook:
    """The audit of a release by the policy's bars.

    Attributes:
        release: what was audited.
        passed: whether it reached the bar; also where there was nothing to compare.
        reason: one sentence.
        audited_at: UTC.
    """

    release: str
    passed: bool
    reason: str
    audited_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelState:
    """Where the wheel stands.

    Attributes:
        workspace: address of the data set.
        workspace_id: who it is, also after another took the address.
        images: that the workspace knows.
        candidates: of these, images that people could annotate next.
        masked: of these, images that the champion has masked with the policy's settings, or tried.
        champion: name of the model that is used.
        release: the newest; None: there is none.
        release_tags: a person's, or the wheel's, names for it.
        tags: all tags of the data set.
        manual_masks: masks of stage manual in the newest release.
        semi_masks: likewise of stage semi.
        new_human_masks: of both, those that no training has seen.
        human_images: images that they are on.
        campaigns: the oldest first.
        trainings: on releases, the oldest first.
        audits: by the policy's bars, of each release that was audited, oldest release first.
    """

    workspace: str
    workspace_id: str
    images: int = 0
    candidates: int = 0
    masked: int = 0
    champion: str = "bundled"
    release: str | None = None
    release_tags: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    manual_masks: int = 0
    semi_masks: int = 0
    new_human_masks: int = 0
    human_images: int = 0
    campaigns: tuple[CampaignLook, ...] = ()
    trainings: tuple[TrainingLook, ...] = ()
    audits: tuple[AuditLook, ...] = ()

    def campaign(self, name: str) -> CampaignLook | None:
        """Return a campaign by its name; None: there is none."""
        return next((look for look in self.campaigns if look.name == name), None)

    def audit(self) -> AuditLook | None:
        """Return the newest release's audit; None: it was not audited."""
        return next((look for look in self.audits if look.release == self.release), None)

    def to_json(self) -> str:
        """Return the state as JSON, for the page that explains a decision."""
        return json.dumps(asdict(self), default=str, indent=1, ensure_ascii=False)


def read_state(workspace: Workspace, db: Database, policy: Policy, *, now: datetime) -> WheelState:
    """Read where the wheel stands.

    Args:
        workspace: the data set.
        db: its annotation database.
        policy: whose settings of the automatic stage count as the champion's.
        now: UTC.

    Raises:
        WorkspaceError: a record or the database is damaged.
        TransientError: the catalog, the store or the database is busy.
    """
    releases = list_releases(workspace)
    latest = releases[-1] if releases else None
    images = known_images(workspace)
    champion = current_champion(workspace.store, read_log(workspace.store))
    known = trainings(workspace.store)
    counted = [t for t in known if t.decision is not None or not policy.retraining.promote]
    masks = human_masks(releases, counted)
    tags = list_tags(workspace)
    return WheelState(
        workspace=workspace.address,
        workspace_id=workspace.workspace_id,
        images=images,
        candidates=len(candidate_ids(workspace, db)) if images else 0,
        masked=_masked(workspace, latest, champion, policy.automatic),
        champion=champion.name,
        release=latest.name if latest else None,
        release_tags=tuple(tag.name for tag in tags if latest and tag.release == latest.name),
        tags=tuple(tag.name for tag in tags),
        manual_masks=masks.manual,
        semi_masks=masks.semi,
        new_human_masks=masks.new,
        human_images=human_images(workspace),
        campaigns=tuple(_campaign(db, one, now) for one in reversed(list_campaigns(db))),
        trainings=tuple(_training(one) for one in counted if _of_releases(one, releases)),
        audits=_audits(workspace, releases, policy.audit),
    )


def _masked(
    workspace: Workspace, release: Release | None, champion: ModelVersion, policy: AutomaticPolicy
) -> int:
    """Count the images that the champion has masked in a release, or tried in vain."""
    if release is None:
        return 0
    recipe_id = _recipe(workspace, champion, policy).recipe_id
    of_recipe = EqualTo(term=Reference("recipe_id"), value=literal(recipe_id))
    rows = scan(workspace, release, "image_runs", ("image_id",), of_recipe)
    return int(np.unique(rows["image_id"].to_numpy()).size)


def _recipe(workspace: Workspace, champion: ModelVersion, policy: AutomaticPolicy) -> Recipe:
    """Return what `fully_automatic` makes of the champion and the policy."""
    model_id = champion.model_id
    if policy.precision != "float32":  # the id is of the weights as they compute
        dtype = _PRECISIONS[policy.precision]
        model_id = load_model(workspace.store, champion, "cpu", dtype).model_id()
    try:
        thresholds = json.loads(champion.config_json)["recommended"]
    except (ValueError, KeyError, TypeError) as error:
        raise WorkspaceError(
            f"the record of model {champion.name} is damaged: {error!r}; restore it from a backup"
        ) from error
    config = AutomaticConfig.for_thresholds(thresholds, {}, policy.preset or None)
    return Recipe.of(model_id, config.result_fields())


def _campaign(db: Database, campaign: Campaign, now: datetime) -> CampaignLook:
    found = campaign_state(db, campaign.campaign_id, now=now)
    counts = publication_counts(db, campaign.campaign_id)
    tasks = found.tasks
    return CampaignLook(
        campaign_id=campaign.campaign_id,
        name=campaign.name,
        stage=campaign.stage,
        state=found.state,
        tasks=tasks.total,
        done=tasks.accepted + tasks.skipped,
        in_hand=tasks.leased + tasks.submitted,
        preparing=bool(pending_images(db, campaign.campaign_id)),
        published=counts.published,
        due=counts.due,
    )


def _training(training: Training) -> TrainingLook:
    decision = training.decision
    if decision is None:
        return TrainingLook(version=training.version, releases=training.releases)
    return TrainingLook(
        version=training.version,
        releases=training.releases,
        outcome=decision.outcome,
        reason="; ".join(decision.reasons),
        decided_at=decision.decided_at,
    )


def _of_releases(training: Training, releases: Sequence[Release]) -> bool:
    return not {release.name for release in releases}.isdisjoint(training.releases)


def _audits(
    workspace: Workspace, releases: Sequence[Release], policy: AuditPolicy
) -> tuple[AuditLook, ...]:
    settings = AuditSettings(
        bars=AuditBars(
            mean_iou=policy.min_mean_iou or None,
            above_90=policy.min_above_90 or None,
            above_75=policy.min_above_75 or None,
        ),
        agreement=AgreementConfig(images=policy.images),
    )
    # With other bars another audit is asked for: a record says what it was measured by.
    records = (one for one in load_audits(workspace.store) if one.settings == settings)
    newest = {record.release: record for record in records}
    return tuple(
        AuditLook(
            release=release.name,
            passed=newest[release.name].outcome in ("passed", "nothing to compare"),
            reason=newest[release.name].reason,
            audited_at=newest[release.name].audited_at,
        )
        for release in releases
        if release.name in newest
    )
