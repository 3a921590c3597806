"""What a retraining learns from, and what no retraining has seen: the masks of a release, cut.

source = learning_data(workspace, planned)         # source.images, source.held_out
unseen_data(workspace, "r7").images                # to compare models on
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.dataset.catalog import Workspace
from engine.dataset.labelled_sets import Subset
from engine.dataset.release_masks import HUMAN_STAGES, ReleaseMasks
from engine.dataset.releases import load_release
from engine.errors import BadInputError
from engine.learning.held_out import (
    HELD_OUT_LEAST,
    held_out_below,
    number_held_out,
    places,
)
from engine.learning.retrainings import Retraining, content_key, list_retrainings
from engine.learning.training_data import DataSource
from engine.objects import ObjectStore
from engine.records import Release

__all__ = ["ReleaseContent", "choose_bound", "learning_data", "unseen_data"]


@dataclass(frozen=True, slots=True, eq=False)
class ReleaseContent:
    """The masks of a release that were made in some stages.

    Attributes:
        masks: image by image.
        key: 16 hex digits of the files that hold them; the same in any release with these files.
    """

    masks: ReleaseMasks
    key: str

    @classmethod
    def open(
        cls, workspace: Workspace, release: Release, stages: Collection[str]
    ) -> ReleaseContent:
        """Open them; errors as `ReleaseMasks.open`."""
        masks = ReleaseMasks.open(workspace, release, stages=stages)
        files = sorted(file.key for file in masks.reader.mask_files.files)
        return cls(masks, content_key({"files": files}))

    @property
    def number(self) -> int:
        """How many masks there are."""
        return sum(file.rows for file in self.masks.reader.mask_files.files)

    def image_ids(self) -> list[int]:
        """Return the ids of the images, in the order of `masks`."""
        ids: list[int] = self.masks.images["image_id"].to_pylist()
        return ids

    def is_held_out(self, below: int) -> NDArray[np.bool_]:
        """Say of each image whether it is held out under a bound."""
        return places(self.image_ids()) < below


def learning_data(workspace: Workspace, planned: Retraining) -> DataSource:
    """Return what a retraining learns from, with its held-out images beside."""
    content = _content(workspace, planned.release, planned.stages)
    is_held_out_I = content.is_held_out(planned.held_out_below)
    return DataSource(
        name=planned.release,
        fingerprint=content_key({"data": content.key, "below": planned.held_out_below}),
        images=Subset(content.masks, np.flatnonzero(~is_held_out_I)),
        is_release=True,
        held_out=Subset(content.masks, np.flatnonzero(is_held_out_I)),
    )


def unseen_data(
    workspace: Workspace, release: str, stages: Collection[str] = HUMAN_STAGES
) -> DataSource:
    """Return the images of a release with masks of these stages that no retraining has learned.

    Raises:
        BadInputError: there is no such release, or no such image.
        WorkspaceError: the release or a record is damaged.
    """
    content = _content(workspace, release, stages)
    bounds = [retraining.held_out_below for retraining in list_retrainings(workspace.store)]
    unseen_I = np.arange(len(content.masks))
    if bounds:
        unseen_I = np.flatnonzero(content.is_held_out(min(bounds)))
    if not len(unseen_I):
        raise BadInputError(
            f"all images of {content.masks.name} with such masks were learned from; name other data"
        )
    return DataSource(
        name=content.masks.name,
        fingerprint=content_key({"data": content.key, "unseen": min(bounds, default=None)}),
        images=Subset(content.masks, unseen_I),
        is_release=True,
    )


def choose_bound(
    store: ObjectStore, image_ids: Sequence[int], hold_out: int | None, release: str
) -> int:
    """Return the bound of the places that a new retraining holds out.

    Raises:
        BadInputError: too few images, or too few that no retraining has seen.
    """
    wanted = number_held_out(len(image_ids)) if hold_out is None else hold_out
    if wanted < 2:
        raise BadInputError(f"got hold_out {wanted}; the gate compares on 2 images at least")
    if len(image_ids) <= wanted:
        raise BadInputError(
            f"{len(image_ids)} images of release {release} have masks to learn from, and {wanted} "
            "are held out to compare on: too few to train on. Annotate more; a smaller hold_out "
            f"makes do with fewer, but below {HELD_OUT_LEAST} luck may decide"
        )
    earlier = [retraining.held_out_below for retraining in list_retrainings(store)]
    below = held_out_below(image_ids, wanted, earlier)
    left = int((places(image_ids) < below).sum())
    if left < min(wanted, HELD_OUT_LEAST):
        raise BadInputError(
            f"only {left} images of release {release} were never trained on, of which {wanted} are "
            "needed to compare on: an earlier retraining held fewer out. Annotate more images"
        )
    return below


def _content(workspace: Workspace, release: str, stages: Collection[str]) -> ReleaseContent:
    return ReleaseContent.open(workspace, load_release(workspace, release), stages)
