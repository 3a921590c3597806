"""The semi-automatic stage's proposals: what the model is sure of, before a person looks.

    config = PrefillConfig.for_model(sam)
    proposals = propose(sam, image_HWC3, AutomaticMasks.of(sam, config), config)

A person sees all proposals of an image at once, and pays for each wrong one. So they are few and
sure, steady (the mirrored image gives them too), and lie beside one another: of masks that share
pixels the surest stays. Two sources: the model's automatic masks, or the boxes of a detector that
was trained on the masks of the first stage (`engine.annotation.box_masks`), as in the paper.

How sure is sure? Predicted IoUs mean what the model that predicts them means: SAM's own recommend
.88 as the least to keep, the bundled model's .38. `strictness` goes from a model's recommended
threshold (0) to a predicted IoU of 1. Automatic masks of the bundled model on 40 photos of BSDS val
(tests/benchmarks/bench_prefill.py, 2026-11-22; right: IoU with anybody's mask; recall: share of the
masks that two or more people drew, at .75; in brackets without asking the mirrored image):

| strictness | min_iou | a photo | right at .75 | at .90 | recall |
|---|---|---|---|---|---|
| .40 | .628 | 4.7 (5.2) | 61 % (58 %) | 32 % (29 %) | 26 % (27 %) |
| .50, the default | .690 | 3.1 (3.4) | 68 % (65 %) | 39 % (36 %) | 20 % (21 %) |
| .60 | .752 | 1.7 (1.8) | 78 % (78 %) | 61 % (58 %) | 14 % (15 %) |
| .70, shown as done | .814 | 0.8 (0.8) | 94 % (94 %) | 71 % (69 %) | 8 % (8 %) |
| .80 | .876 | 0.1 (0.1) | 100 % (100 %) | 100 % (100 %) | 1 % (1 %) |

So a third of what the bundled model proposes needs a person's hand. A better model proposes more at
the same strictness; where proposals shall hardly ever be wrong, take .7 and more.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.annotation.steadiness import mirrored_agreement
from engine.automatic import AutomaticConfig, Segmenter, generate_masks
from engine.errors import BadInputError
from engine.masks import mask_area, mask_areas, mask_box_xyxy, mask_iou
from engine.records import MaskRecord, Rle
from model import Sam

__all__ = [
    "AutomaticMasks",
    "Candidate",
    "PrefillConfig",
    "Proposal",
    "ProposalSource",
    "propose",
    "select_proposals",
]

_POINTS_PER_SIDE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillConfig:
    """What is proposed, and what of it is shown as done.

    Attributes:
        min_iou: masks are proposed above this predicted IoU.
        done_iou: and shown as done from this one on; the others wait for a person's yes.
        min_agreement: masks are left out unless an answer to their prompt in the mirrored image has
            this IoU with them; 0 does not ask.
        max_overlap: a mask is left out if more of it than this share lies on surer ones, or if it
            covers more than this share of one.
        min_area_ratio: masks that fill less of the image are left out...
        max_area_ratio: ...and those that fill more.
        max_proposals: of one image; the surest stay.
    """

    min_iou: float
    done_iou: float
    min_agreement: float = 0.9
    max_overlap: float = 0.1
    min_area_ratio: float = 0.001
    max_area_ratio: float = 0.95
    max_proposals: int = 50

    def __post_init__(self) -> None:
        if not 0 <= self.min_iou <= self.done_iou <= 2:
            raise BadInputError(
                "expected predicted IoUs with 0 <= min_iou <= done_iou <= 2; got "
                f"{self.min_iou} and {self.done_iou}"
            )
        if not 0 <= self.max_overlap <= 1 or not 0 <= self.min_agreement <= 1:
            raise BadInputError(
                "max_overlap and min_agreement go from 0 to 1; got "
                f"{self.max_overlap} and {self.min_agreement}"
            )
        if self.max_proposals < 0:
            raise BadInputError(f"max_proposals counts from 0; got {self.max_proposals}")
        if not 0 <= self.min_area_ratio < self.max_area_ratio <= 1:
            raise BadInputError(
                "expected shares of the image with 0 <= min_area_ratio < max_area_ratio <= 1; got "
                f"{self.min_area_ratio} and {self.max_area_ratio}"
            )

    @classmethod
    def for_model(cls, sam: Sam, strictness: float = 0.5, done: float = 0.7) -> PrefillConfig:
        """Choose thresholds by what the model's predicted IoUs mean.

        Args:
            sam: carries the least predicted IoU that it recommends.
            strictness: of what is proposed, from 0 (all that is recommended) to 1 (nothing).
            done: strictness of what is shown as done.

        Raises:
            BadInputError: not 0 <= strictness <= done <= 1.
        """
        if not 0 <= strictness <= done <= 1:
            raise BadInputError(
                f"expected 0 <= strictness <= done <= 1; got {strictness} and {done}"
            )
        least = sam.config.recommended.pred_iou_thresh
        low, high = (round(least + (1 - least) * share, 4) for share in (strictness, done))
        return cls(min_iou=low, done_iou=high)

    def to_json(self) -> str:
        """Return the settings as canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A mask that a source found, before the choice among them.

    Attributes:
        rle: at the image's size.
        predicted_iou: by the model.
        box_xyxy: the box that prompted it, x1 and y1 its right and lower edge; None: none did.
        point_xy: the point that prompted it; None: none did.
        score: the detector's; None without one.
    """

    rle: Rle
    predicted_iou: float
    box_xyxy: tuple[float, float, float, float] | None = None
    point_xy: tuple[float, float] | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A mask that people are shown before they begin.

    Attributes:
        rle: at the image's size.
        predicted_iou: by the model.
        box_xyxy: around the mask, x1 and y1 its right and lower edge.
        done: whether it is shown as done.
        source: what found it, e.g. ``"automatic"`` or ``"detector p1"``.
        prompt_xyxy: the detector's box; None without one.
        score: the detector's.
        agreement: IoU with the answer to the mirrored image; None: nobody asked.
    """

    rle: Rle
    predicted_iou: float
    box_xyxy: tuple[int, int, int, int]
    done: bool
    source: str
    prompt_xyxy: tuple[float, float, float, float] | None = None
    score: float | None = None
    agreement: float | None = None


class ProposalSource(Protocol):
    """Where proposals come from."""

    @property
    def name(self) -> str:
        """What records call it."""
        ...

    def settings(self) -> str:
        """Return what decides its candidates, as canonical JSON."""
        ...

    def candidates(
        self, segmenter: Segmenter, image_HWC3: NDArray[np.uint8]
    ) -> Sequence[Candidate]:
        """Find masks in an image, in any order."""
        ...


@dataclass(frozen=True, slots=True)
class AutomaticMasks:
    """The fully automatic stage as a source, at a strict threshold."""

    config: AutomaticConfig

    @classmethod
    def of(cls, sam: Sam, config: PrefillConfig, **explicit: float | int | bool) -> AutomaticMasks:
        """Take the model's recommended settings, but for the predicted IoU and a coarser grid.

        Prominent things, which are what proposals are for, are hit by a quarter of the points too;
        `explicit` wins.
        """
        strict: dict[str, float | int | bool] = {
            "pred_iou_thresh": config.min_iou,
            "points_per_side": _POINTS_PER_SIDE,
        }
        return cls(AutomaticConfig.recommended(sam, **{**strict, **explicit}))

    @property
    def name(self) -> str:
        """What records call it."""
        return "automatic"

    def settings(self) -> str:
        """Return the settings that decide the masks, as canonical JSON."""
        return json.dumps(self.config.result_fields(), sort_keys=True, separators=(",", ":"))

    def candidates(self, segmenter: Segmenter, image_HWC3: NDArray[np.uint8]) -> list[Candidate]:
        """Mask everything."""
        masks: list[MaskRecord] = generate_masks(segmenter, image_HWC3, self.config)
        return [
            Candidate(rle=mask.rle, predicted_iou=mask.predicted_iou, point_xy=mask.point_xy)
            for mask in masks
        ]


def propose(
    segmenter: Segmenter,
    image_HWC3: NDArray[np.uint8],
    source: ProposalSource,
    config: PrefillConfig,
) -> tuple[Proposal, ...]:
    """Propose masks for one image, the surest first.

    Args:
        segmenter: the model that the campaign works with.
        image_HWC3: (H, W, 3) uint8 RGB.
        source: finds the masks.
        config: chooses among them.
    """
    found = [
        candidate
        for candidate in source.candidates(segmenter, image_HWC3)
        if is_worth_asking(candidate, config)
    ]
    agreement: dict[Candidate, float] = {}
    if config.min_agreement > 0:
        agreement = dict(
            zip(found, mirrored_agreement(segmenter, image_HWC3, found).tolist(), strict=True)
        )
        found = [one for one in found if agreement[one] >= config.min_agreement]
    return tuple(
        Proposal(
            rle=candidate.rle,
            predicted_iou=candidate.predicted_iou,
            box_xyxy=_edges(candidate.rle),
            done=candidate.predicted_iou >= config.done_iou,
            source=source.name,
            prompt_xyxy=candidate.box_xyxy,
            score=candidate.score,
            agreement=agreement.get(candidate),
        )
        for candidate in select_proposals(found, config)
    )


def is_worth_asking(candidate: Candidate, config: PrefillConfig) -> bool:
    """Whether a mask is sure and of a fitting size, whatever else there is in the image."""
    area = mask_area(candidate.rle)
    share = area / (candidate.rle.height * candidate.rle.width)
    is_fitting = area > 0 and config.min_area_ratio <= share <= config.max_area_ratio
    return is_fitting and candidate.predicted_iou > config.min_iou


def select_proposals(candidates: Sequence[Candidate], config: PrefillConfig) -> list[Candidate]:
    """Choose masks of one image that are sure, of a fitting size, and beside one another.

    Returns:
        The surest first; of equally sure ones the first.
    """
    fitting = [candidate for candidate in candidates if is_worth_asking(candidate, config)]
    taken: list[Candidate] = []
    for candidate in sorted(fitting, key=lambda one: -one.predicted_iou):
        if len(taken) == config.max_proposals:
            break
        if _stands_alone(candidate.rle, [other.rle for other in taken], config.max_overlap):
            taken.append(candidate)
    return taken


def _stands_alone(mask: Rle, taken: Sequence[Rle], max_overlap: float) -> bool:
    """Whether a mask lies beside those that were taken: neither on them nor they on it."""
    if not taken:
        return True
    iou_T, area, areas_T = mask_iou([mask], taken)[0], mask_area(mask), mask_areas(taken)
    shared_T = iou_T * (area + areas_T) / (1 + iou_T)
    # What was taken hardly overlaps itself, so the sum is what of the mask is covered.
    is_covered = shared_T.sum() > max_overlap * area
    return not (is_covered or bool((shared_T > max_overlap * areas_T).any()))


def _edges(rle: Rle) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = mask_box_xyxy(rle) or (0, 0, -1, -1)
    return x0, y0, x1 + 1, y1 + 1
