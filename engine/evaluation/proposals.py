"""Automatic masks as proposals: how much of what people drew is among the first k of an image.

    result = evaluate_proposals(sam, labelled_set, ProposalConfig())
    result.scores[0].average_recall(1000), result.rows()

Average recall (AR@k) as COCO and LVIS define it, without classes: the share of human masks that one
of an image's first k proposals covers, averaged over the IoU thresholds .50, .55, ... .95. One
proposal covers one human mask: proposals choose in the order of their scores, each the best one
still free. The result equals that of pycocotools (held to it by a test), but takes milliseconds for
what takes it seconds. Sources: Hosang et al., TPAMI 2016; Segment Anything, section 7.3.

Shape suffixes: I images, S sizes, K numbers of proposals, T IoU thresholds, D proposals of an
image, G its human masks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from engine.automatic import AutomaticConfig, Segmenter, generate_masks
from engine.dataset.labelled_sets import LabelledSet
from engine.errors import BadInputError
from engine.evaluation.labelled import chosen_images
from engine.evaluation.region_pool import PoolConfig, felzenszwalb_pool
from engine.masks import mask_area, mask_iou
from engine.records import Rle
from model import Sam

Size = Literal["all", "small", "medium", "large"]
Propose = Callable[[NDArray[np.uint8]], Sequence[Rle]]
"""From (H, W, 3) uint8 RGB to masks at the image's size, the best first."""
Listener = Callable[[str, int], None]
"""Called with an image's path and its number of human masks when it is done."""

SIZES: tuple[Size, ...] = get_args(Size)
IOU_THRESHOLDS = np.arange(10) * 0.05 + 0.5
_AREAS_PX = {
    "all": (0.0, np.inf),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, np.inf),
}
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalConfig:
    """What is asked of proposals.

    Attributes:
        counts: the numbers of proposals k for AR@k, ascending; an image's others do not count.
        automatic: how a model makes masks; None for its recommended thresholds.
        pool: the regions that the model is held against; None leaves them out.
        min_votes: only human masks that so many people drew.
        max_images: evenly spaced, at most; None for all.
    """

    counts: tuple[int, ...] = (10, 100, 1000)
    automatic: AutomaticConfig | None = None
    pool: PoolConfig | None = field(default_factory=PoolConfig)
    min_votes: int = 1
    max_images: int | None = None

    def __post_init__(self) -> None:
        if not self.counts or min(self.counts) < 1 or sorted(set(self.counts)) != [*self.counts]:
            raise BadInputError(
                f"counts must be different numbers above 0, ascending; got {self.counts}"
            )
        if self.min_votes < 1 or (self.max_images is not None and self.max_images < 1):
            raise BadInputError(
                f"min_votes and max_images must be 1 or more; got {self.min_votes} and "
                f"{self.max_images}"
            )


@dataclass(frozen=True, slots=True)
class Proposer:
    """Something that proposes masks, under the name that tables show."""

    name: str
    propose: Propose


def automatic_proposer(
    segmenter: Segmenter, config: AutomaticConfig | None = None, name: str = "model"
) -> Proposer:
    """Let a model mask everything, and rank the masks by predicted IoU.

    Raises:
        BadInputError: no config, and the model carries no recommended thresholds.
    """
    if config is None:
        if not isinstance(segmenter, Sam):
            raise BadInputError(
                f"{type(segmenter).__name__} recommends no thresholds; give an AutomaticConfig"
            )
        config = AutomaticConfig.recommended(segmenter)
    settings = config

    def propose(image_HWC3: NDArray[np.uint8]) -> list[Rle]:
        masks = generate_masks(segmenter, image_HWC3, settings)
        return [mask.rle for mask in sorted(masks, key=lambda m: -m.predicted_iou)]

    return Proposer(name, propose)


def pool_proposer(config: PoolConfig | None = None) -> Proposer:
    """Propose the regions of several segmentations by colour; see `felzenszwalb_pool`."""
    return Proposer("felzenszwalb pool", lambda image_HWC3: felzenszwalb_pool(image_HWC3, config))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProposalScores:
    """What a proposer scored: counts of human masks by image, size, k and IoU threshold.

    Attributes:
        method: the proposer.
        counts: the numbers of proposals k.
        masks_I: int64, proposals of each image, all of them.
        wanted_IS: int64, human masks by size (`SIZES`).
        covered_ISKT: int64, those of them that one of the first k proposals covers.
    """

    method: str
    counts: tuple[int, ...]
    masks_I: NDArray[np.int64]
    wanted_IS: NDArray[np.int64]
    covered_ISKT: NDArray[np.int64]

    @property
    def masks_per_image(self) -> float:
        """Mean number of proposals, also of those beyond the largest k."""
        return float(self.masks_I.mean())

    def recall_T(self, count: int, size: Size = "all") -> NDArray[np.float64]:  # noqa: N802
        """Share of the human masks covered at each IoU threshold; NaN where there are none.

        Raises:
            BadInputError: a number of proposals that was not counted.
        """
        if count not in self.counts:
            raise BadInputError(f"recall is known for {self.counts} proposals; got {count}")
        s, k = SIZES.index(size), self.counts.index(count)
        wanted = self.wanted_IS[:, s].sum()
        covered_T: NDArray[np.int64] = self.covered_ISKT[:, s, k].sum(0)
        return covered_T / wanted if wanted else np.full(len(covered_T), np.nan)

    def average_recall(self, count: int, size: Size = "all") -> float:
        """AR@k: mean of `recall_T` over the thresholds."""
        return float(self.recall_T(count, size).mean())

    def resampled(self, images_I: NDArray[np.int64]) -> ProposalScores:
        """Return the scores on some of the images, with repetition: for bootstrap intervals."""
        return ProposalScores(
            method=self.method,
            counts=self.counts,
            masks_I=self.masks_I[images_I],
            wanted_IS=self.wanted_IS[images_I],
            covered_ISKT=self.covered_ISKT[images_I],
        )

    def rows(self) -> tuple[tuple[str, float], ...]:
        """Return the figures by name, for tables; sizes that no human mask has are left out."""
        most = self.counts[-1]
        by_count = [(f"AR@{count}", self.average_recall(count)) for count in self.counts]
        by_size = [
            (f"AR@{most} {size}", self.average_recall(most, size))
            for s, size in enumerate(SIZES)
            if size != "all" and self.wanted_IS[:, s].any()
        ]
        recall_T = self.recall_T(most)
        return (
            *by_count,
            *by_size,
            (f"recall@{most} at IoU .50", float(recall_T[0])),
            (f"recall@{most} at IoU .75", float(recall_T[5])),
            ("masks per image", self.masks_per_image),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProposalResult:
    """What several proposers scored on the same images.

    Attributes:
        images: how many.
        wanted: human masks in them.
        scores: in the order of the proposers; the model first.
    """

    images: int
    wanted: int
    scores: tuple[ProposalScores, ...]

    def rows(self) -> tuple[tuple[str, str, float], ...]:
        """Return (proposer, figure, value), for tables."""
        return tuple((s.method, name, value) for s in self.scores for name, value in s.rows())


def evaluate_proposals(
    segmenter: Segmenter,
    labelled_set: LabelledSet,
    config: ProposalConfig,
    on_image: Listener | None = None,
    name: str = "model",
) -> ProposalResult:
    """Score a model's automatic masks and the pool of felzenszwalb's regions.

    Args:
        segmenter: the model; other than a `Sam` it needs `config.automatic`.
        labelled_set: images with masks.
        config: what is asked.
        on_image: for progress.
        name: of the model in tables.

    Raises:
        BadInputError: no fitting human mask, or a model without thresholds.
    """
    proposers = [automatic_proposer(segmenter, config.automatic, name)]
    if config.pool is not None:
        proposers.append(pool_proposer(config.pool))
    return score_proposers(proposers, labelled_set, config, on_image)


def score_proposers(
    proposers: Sequence[Proposer],
    labelled_set: LabelledSet,
    config: ProposalConfig,
    on_image: Listener | None = None,
) -> ProposalResult:
    """Score any proposers on the same images; see `evaluate_proposals`."""
    wanted: list[NDArray[np.int64]] = []
    found: list[list[tuple[int, NDArray[np.int64]]]] = [[] for _ in proposers]
    for index in chosen_images(labelled_set, config.max_images):
        image = labelled_set[index]
        rles = [m.rle for m in image.masks if m.votes >= config.min_votes and mask_area(m.rle)]
        if not rles:
            continue
        image_HWC3 = image.read()
        area_G = np.array([mask_area(rle) for rle in rles], dtype=np.int64)
        wanted.append(np.array([_has_size(area_G, size).sum() for size in SIZES]))
        for proposer, counts in zip(proposers, found, strict=True):
            proposals = proposer.propose(image_HWC3)
            iou_DG = mask_iou(proposals[: config.counts[-1]], rles)
            counts.append((len(proposals), covered(iou_DG, area_G, config.counts)))
        if on_image is not None:
            on_image(str(image.path), len(rles))
    if not wanted or not proposers:
        raise BadInputError(
            f"{labelled_set.name} has no mask that {config.min_votes} or more people drew, or "
            "there is no proposer; lower --min-votes or give other images"
        )
    return ProposalResult(
        images=len(wanted),
        wanted=int(np.sum(wanted, axis=0)[0]),
        scores=tuple(
            ProposalScores(
                method=proposer.name,
                counts=config.counts,
                masks_I=np.array([masks for masks, _ in counts], dtype=np.int64),
                wanted_IS=np.stack(wanted),
                covered_ISKT=np.stack([covered_SKT for _, covered_SKT in counts]),
            )
            for proposer, counts in zip(proposers, found, strict=True)
        ),
    )


def covered(
    iou_DG: NDArray[np.float64], area_G: NDArray[np.int64], counts: Sequence[int]
) -> NDArray[np.int64]:
    """Count the human masks of one image that its first k proposals cover.

    Args:
        iou_DG: IoU of the proposals, best first, with the human masks.
        area_G: of the human masks, in pixels.
        counts: the numbers of proposals k.

    Returns:
        int64 (S, K, T), sizes as in `SIZES`.
    """
    covered_SKT = np.zeros((len(SIZES), len(counts), len(IOU_THRESHOLDS)), dtype=np.int64)
    for s, size in enumerate(SIZES):
        # Proposals that would cover a mask of another size neither count nor take one away.
        place_TG = covered_by(iou_DG[:, _has_size(area_G, size)])
        covered_SKT[s] = [(place_TG < count).sum(axis=1) for count in counts]
    return covered_SKT


def covered_by(iou_DG: NDArray[np.float64]) -> NDArray[np.int64]:
    """Find which proposal covers each human mask: COCO's greedy one-to-one matching.

    Returns:
        int64 (T, G): place of the proposal at each IoU threshold; a huge number if none does.
    """
    thresholds_T1 = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)[:, None]  # as COCO does
    place_TG = np.full((len(IOU_THRESHOLDS), iou_DG.shape[1]), _NEVER, dtype=np.int64)
    promising = np.flatnonzero((iou_DG >= thresholds_T1[0]).any(axis=1))
    for place in promising:
        open_TG = (place_TG == _NEVER) & (iou_DG[place] >= thresholds_T1)
        # Of equally good masks the last one, as in COCO.
        best_T = iou_DG.shape[1] - 1 - np.where(open_TG, iou_DG[place], -1)[:, ::-1].argmax(axis=1)
        hits_T = np.flatnonzero(open_TG.any(axis=1))
        place_TG[hits_T, best_T[hits_T]] = place
    return place_TG


def _has_size(area_G: NDArray[np.int64], size: Size) -> NDArray[np.bool_]:
    """Tell which areas count as a size; COCO's ranges share their ends."""
    low, high = _AREAS_PX[size]
    return np.asarray((area_G >= low) & (area_G <= high))
