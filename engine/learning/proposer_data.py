"""What a box proposer learns from and is measured on: masks that enough people drew, as boxes.

>>> agreed = agreed_masks(labelled_set, min_votes=2)
>>> box_recall(proposer, [agreed])["recall@50 at IoU .50"]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.dataset.labelled_sets import LabelledImage, LabelledSet
from engine.evaluation.proposals import covered_by
from engine.learning.proposer import BoxProposer

__all__ = ["agreed_masks", "box_iou", "box_recall"]

_COUNT = 50
_PLACES_OF_THRESHOLDS = {".50": 0, ".75": 5}


@dataclass(frozen=True, slots=True, eq=False)
class _AgreedMasks:
    """A labelled set with only the masks that enough people drew."""

    whole: LabelledSet
    min_votes: int

    @property
    def name(self) -> str:
        """The whole set's name."""
        return self.whole.name

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, index: int) -> LabelledImage:
        image = self.whole[index]
        masks = tuple(mask for mask in image.masks if mask.votes >= self.min_votes)
        return replace(image, masks=masks) if masks else image


def agreed_masks(whole: LabelledSet, min_votes: int) -> LabelledSet:
    """Return a set with only the masks that so many people drew, where people drew any alike.

    An image on which nobody agreed, or that one person drew alone, keeps all its masks.
    """
    return whole if min_votes <= 1 else _AgreedMasks(whole, min_votes)


def box_recall(
    proposer: BoxProposer, sets: Sequence[LabelledSet], count: int = _COUNT
) -> dict[str, float]:
    """Measure which share of the masks has a box among an image's first `count`.

    Returns:
        By name: average recall over the IoU thresholds .50, .55, ... .95, and recall at two.
    """
    places_TG = [
        covered_by(box_iou(proposer.boxes(image.read())[0][:count], _boxes_of(image)))
        for labelled_set in sets
        for image in (labelled_set[i] for i in range(len(labelled_set)))
        if image.masks
    ]
    if not places_TG:
        return {}
    hits_TG = np.concatenate(places_TG, axis=1) < count
    at = {
        f"recall@{count} at IoU {name}": float(hits_TG[place].mean())
        for name, place in _PLACES_OF_THRESHOLDS.items()
    }
    return {f"AR@{count}": float(hits_TG.mean()), **at}


def _boxes_of(image: LabelledImage) -> NDArray[np.float64]:
    xywh_G4 = np.array([mask.bbox_xywh for mask in image.masks], dtype=np.float64)
    return np.concatenate([xywh_G4[:, :2], xywh_G4[:, :2] + xywh_G4[:, 2:]], axis=1)


def box_iou(a_A4: NDArray[np.float64], b_B4: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU of every box of `a` with every box of `b`, XYXY: (A, B)."""
    low = np.maximum(a_A4[:, None, :2], b_B4[None, :, :2])
    high = np.minimum(a_A4[:, None, 2:], b_B4[None, :, 2:])
    inner_AB: NDArray[np.float64] = np.clip(high - low, 0, None).prod(axis=2)
    areas_A, areas_B = ((c[:, 2:] - c[:, :2]).prod(axis=1) for c in (a_A4, b_B4))
    union_AB = areas_A[:, None] + areas_B[None] - inner_AB
    iou_AB = np.zeros_like(inner_AB)
    np.divide(inner_AB, union_AB, out=iou_AB, where=union_AB > 0)
    return iou_AB
