"""How many masks of people no training has seen, and whether that makes a retraining due.

    need = retraining_need(workspace)
    need.new_human_masks, need.is_due

Counted from the records of releases alone: a publication of people's work, or an import of it, adds
one run, and by how many masks the release is larger than the one before is how many the run has. So
it costs the same for a hundred masks and for a hundred million. It needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from engine.dataset.catalog import Workspace
from engine.dataset.reader import ReleaseReader
from engine.dataset.release_masks import HUMAN_STAGES
from engine.dataset.releases import latest_release, list_releases
from engine.errors import WorkspaceError
from engine.learning.decision_log import read_log
from engine.learning.held_out import HELD_OUT_LEAST
from engine.learning.model_records import registered_versions
from engine.objects import ObjectStore
from engine.records import ModelVersion, PromotionDecision, Release
from engine.wheel.policy import PRESETS, RetrainingPolicy, find_policy

__all__ = [
    "HumanMasks",
    "RetrainingNeed",
    "Training",
    "human_images",
    "human_masks",
    "human_masks_since_training",
    "least_images",
    "retraining_need",
    "trainings",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A model that was trained on releases, and what the gate said of it.

    Attributes:
        version: its name.
        releases: what it was trained on.
        decision: the newest about it as a candidate; None: it waits for the gate.
    """

    version: str
    releases: tuple[str, ...]
    decision: PromotionDecision | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HumanMasks:
    """Masks that people made, by stage, in the latest release.

    Attributes:
        manual: with the model's help.
        semi: beside, or over, masks that the model proposed.
        new: of both, those in no release that a model was trained on.
    """

    manual: int = 0
    semi: int = 0
    new: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainingNeed:
    """Whether a retraining is due.

    Attributes:
        new_human_masks: that no training has seen.
        minimum: from so many on it is due; None: the workspace has no policy, and nothing is.
        human_images: images that people made masks of.
        least_images: a training needs so many.
    """

    new_human_masks: int
    minimum: int | None
    human_images: int
    least_images: int

    @property
    def is_due(self) -> bool:
        """Whether there is enough."""
        if self.minimum is None or self.human_images < self.least_images:
            return False
        return self.new_human_masks >= self.minimum


def retraining_need(workspace: Workspace) -> RetrainingNeed:
    """Return what the workspace's own policy says of its latest release.

    Raises:
        BadInputError: a policy that cannot be read.
        WorkspaceError: a record that is damaged.
    """
    policy = find_policy(workspace.store)
    values = (policy or PRESETS["small"]).retraining
    return RetrainingNeed(
        new_human_masks=human_masks_since_training(workspace, judged_only=values.promote),
        minimum=None if policy is None else values.min_new_masks,
        human_images=human_images(workspace),
        least_images=least_images(values),
    )


def least_images(policy: RetrainingPolicy) -> int:
    """Return how many images with masks of people a training needs: some are only compared on."""
    return 1 + (HELD_OUT_LEAST if policy.hold_out is None else policy.hold_out)


def human_images(workspace: Workspace) -> int:
    """Return how many images of the latest release people made masks of.

    Raises:
        WorkspaceError: a file that is missing or damaged.
    """
    release = latest_release(workspace)
    if release is None:
        return 0
    with ReleaseReader.of(workspace, release, stages=HUMAN_STAGES) as reader:
        return int(reader.masked_ids().size)


def human_masks_since_training(workspace: Workspace, *, judged_only: bool = True) -> int:
    """Return how many masks of people the latest release has that no training has seen.

    Args:
        workspace: the data set.
        judged_only: a training counts when the gate has judged its model: until then it may have
            been interrupted, and is to be called again.

    Raises:
        WorkspaceError: a record that is damaged.
    """
    known = trainings(workspace.store)
    counted = [t for t in known if t.decision is not None] if judged_only else known
    return human_masks(list_releases(workspace), counted).new


def trainings(store: ObjectStore) -> tuple[Training, ...]:
    """Return the models that were trained on releases, oldest first.

    Raises:
        WorkspaceError: a record that is damaged.
    """
    return _trainings(registered_versions(store), read_log(store).decisions)


def human_masks(releases: Sequence[Release], seen_by: Sequence[Training]) -> HumanMasks:
    """Count the masks of people in the latest release.

    Args:
        releases: all, oldest first.
        seen_by: the trainings that count.
    """
    if not releases:
        return HumanMasks()
    by_name = {release.name: release for release in releases}
    learned = {name for training in seen_by for name in training.releases}
    seen = {run for name in learned if name in by_name for run in by_name[name].runs}
    counts = {"manual": 0, "semi": 0, "new": 0}
    present = frozenset(releases[-1].runs)
    for run, (stage, masks) in _human_runs(releases, by_name, present).items():
        counts[stage] += masks
        counts["new"] += 0 if run in seen else masks
    return HumanMasks(**counts)


def _trainings(
    versions: Sequence[ModelVersion], decisions: Sequence[PromotionDecision]
) -> tuple[Training, ...]:
    judged = {d.candidate: d for d in decisions if d.outcome != "rolled back"}
    return tuple(
        Training(
            version=version.name,
            releases=version.origin.trained_on,
            decision=judged.get(version.name),
        )
        for version in versions
        if version.origin.kind == "trained"
    )


def _human_runs(
    releases: Sequence[Release], by_name: Mapping[str, Release], present: Collection[str]
) -> dict[str, tuple[str, int]]:
    """Return stage and number of masks of each run of people's work that is present."""
    found: dict[str, tuple[str, int]] = {}
    for release in releases:
        if release.kind not in ("annotation", "import"):
            continue
        parent = by_name.get(release.parent or "")
        before = frozenset(parent.runs) if parent else frozenset()
        for run in release.runs:
            if run in present and run not in before:
                stage = _stage(release, run)
                if stage in HUMAN_STAGES:
                    found[run] = (stage, release.masks - (parent.masks if parent else 0))
    return found


def _stage(release: Release, run: str) -> str:
    try:
        return str(json.loads(release.configs.get(run, "{}")).get("stage", ""))
    except (ValueError, AttributeError) as error:
        raise WorkspaceError(
            f"release {release.name}: the settings of run {run} are damaged: {error!r}; restore "
            "the record from a backup"
        ) from error
