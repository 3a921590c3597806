"""A model's masks against people's, image by image: how often do both draw the same outline?

    report = compare_masks(images_of_both(workspace, release, config, db=None), config)
    report.rows[0].mean_iou, report.rows[0].above_90

The audit of the paper (section 5): of pairs of an automatic mask and the same mask corrected by a
professional, 94 % have an IoU above .90 and 97 % above .75; two people reach .85 to .91 on average.
Here a model's mask and a person's are paired one to one where they overlap most, as far as they
can be meant for the same object. People do not outline everything and models find parts, so only
people's masks that no model's mask fits count as missing, never the other way round.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadInputError
from engine.evaluation.bootstrap import Estimate, bootstrap_mean
from engine.masks import mask_iou
from engine.records import Rle

__all__ = [
    "AgreementConfig",
    "AgreementReport",
    "AgreementRow",
    "ComparedImage",
    "MaskSource",
    "WorstPair",
    "compare_masks",
    "pair_masks",
]

MaskSource = Literal["automatic", "proposals"]
_HIGH, _GOOD = 0.90, 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementConfig:
    """What is compared.

    Attributes:
        images: sampled from those that have both; the paper took 500.
        seed: of the sample and of the intervals' resampling.
        same_object_iou: pairs that overlap less are not meant for the same object.
        worst: pairs that are remembered for pictures, one per image.
    """

    images: int = 500
    seed: int = 0
    same_object_iou: float = 0.5
    worst: int = 6

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            BadInputError: a value out of range.
        """
        if self.images < 1 or self.worst < 0 or not 0 < self.same_object_iou < 1:
            raise BadInputError(
                "expected at least 1 image, 0 or more worst pairs and an IoU between 0 and 1; got "
                f"{self.images}, {self.worst} and {self.same_object_iou}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedImage:
    """An image with the masks of one model and those of people of one stage.

    Attributes:
        image_id: its id.
        uri: where the photo is.
        source: whether the model's masks are of a release, or were proposed to people.
        model_id: what made them.
        stage: in which people's masks were made.
        made: the model's masks.
        human: people's.
    """

    image_id: int
    uri: str
    source: MaskSource
    model_id: str
    stage: str
    made: Sequence[Rle]
    human: Sequence[Rle]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementRow:
    """One model against the people of one stage.

    Attributes:
        source: as in `ComparedImage`.
        model_id: whose masks.
        stage: ``manual``, ``semi``, or ``all`` of them.
        images: that were compared.
        made: masks of the model on them.
        human: masks of people on them.
        pairs: masks that are meant for the same object.
        mean_iou: of the pairs; None where there is none. Intervals resample images.
        above_90: share of the pairs with an IoU above .90.
        above_75: likewise .75.
        found: share of people's masks that are in a pair; None where there are none.
    """

    source: MaskSource
    model_id: str
    stage: str
    images: int
    made: int
    human: int
    pairs: int
    mean_iou: Estimate | None
    above_90: Estimate | None
    above_75: Estimate | None
    found: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstPair:
    """A pair that agrees badly.

    Attributes:
        image_id: the image.
        uri: where the photo is.
        source: as in `ComparedImage`.
        model_id: whose mask.
        iou: of the two.
        made: the model's mask.
        human: the person's.
    """

    image_id: int
    uri: str
    source: MaskSource
    model_id: str
    iou: float
    made: Rle
    human: Rle


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementReport:
    """What a comparison found.

    Attributes:
        images: that were compared.
        rows: by source and model in the order of their coming, each over all stages first.
        worst: the worst pairs, one of an image, the worst first.
    """

    images: int
    rows: tuple[AgreementRow, ...]
    worst: tuple[WorstPair, ...]


@dataclass(slots=True)
class _Tally:
    """What is counted for a row."""

    images: int = 0
    made: int = 0
    iou_P: list[float] = field(default_factory=list)
    image_P: list[int] = field(default_factory=list)
    found_H: list[bool] = field(default_factory=list)
    image_H: list[int] = field(default_factory=list)


def compare_masks(images: Iterable[ComparedImage], config: AgreementConfig) -> AgreementReport:
    """Pair the masks of every image and sum up; one image is in memory at a time.

    Raises:
        BadInputError: masks of different sizes on one image.
        InvalidMaskError: an RLE that cannot be read.
    """
    tallies: dict[tuple[MaskSource, str, str], _Tally] = defaultdict(_Tally)
    worst: list[tuple[float, int, WorstPair]] = []
    seen: set[int] = set()
    for number, image in enumerate(images):
        seen.add(image.image_id)
        iou_PM, pairs = pair_masks(image.made, image.human, config.same_object_iou)
        for stage in ("all", image.stage):
            _count(tallies[image.source, image.model_id, stage], image, iou_PM, pairs)
        if pairs and config.worst:
            iou, (made, human) = min(zip(iou_PM, pairs, strict=True))
            pair = WorstPair(
                image_id=image.image_id,
                uri=image.uri,
                source=image.source,
                model_id=image.model_id,
                iou=iou,
                made=image.made[made],
                human=image.human[human],
            )
            heapq.heappush(worst, (-iou, -number, pair))
            if len(worst) > config.worst:
                heapq.heappop(worst)
    return AgreementReport(
        images=len(seen),
        rows=tuple(_row(*case, tally, config.seed) for case, tally in tallies.items()),
        worst=tuple(pair for _, _, pair in sorted(worst, key=lambda item: (-item[0], -item[1]))),
    )


def pair_masks(
    made: Sequence[Rle], human: Sequence[Rle], least_iou: float
) -> tuple[list[float], list[tuple[int, int]]]:
    """Pair masks one to one, those that overlap most first.

    Returns:
        The IoU of each pair, at least `least_iou`, and its places in `made` and in `human`.
    """
    iou_MH = mask_iou(made, human)
    places = np.argwhere(iou_MH >= least_iou)
    # Stable, so that equal overlaps are paired in the order of the masks.
    order = np.argsort(-iou_MH[places[:, 0], places[:, 1]], kind="stable")
    free_made, free_human = set(range(len(made))), set(range(len(human)))
    found: list[float] = []
    pairs: list[tuple[int, int]] = []
    for one, other in places[order].tolist():
        if one in free_made and other in free_human:
            free_made.remove(one)
            free_human.remove(other)
            found.append(float(iou_MH[one, other]))
            pairs.append((one, other))
    return found, pairs


def _count(
    tally: _Tally, image: ComparedImage, iou_P: Sequence[float], pairs: Sequence[tuple[int, int]]
) -> None:
    fitted = {human for _, human in pairs}
    tally.images += 1
    tally.made += len(image.made)
    tally.iou_P += iou_P
    tally.image_P += [image.image_id] * len(iou_P)
    tally.found_H += [place in fitted for place in range(len(image.human))]
    tally.image_H += [image.image_id] * len(image.human)


def _row(source: MaskSource, model_id: str, stage: str, tally: _Tally, seed: int) -> AgreementRow:
    iou_P, image_P = np.array(tally.iou_P), np.array(tally.image_P, dtype=np.int64)
    found_H, image_H = np.array(tally.found_H), np.array(tally.image_H, dtype=np.int64)
    return AgreementRow(
        source=source,
        model_id=model_id,
        stage=stage,
        images=tally.images,
        made=tally.made,
        human=len(found_H),
        pairs=len(iou_P),
        mean_iou=_estimate(iou_P, image_P, seed),
        above_90=_estimate(iou_P > _HIGH, image_P, seed),
        above_75=_estimate(iou_P > _GOOD, image_P, seed),
        found=_estimate(found_H, image_H, seed),
    )


def _estimate(
    values_N: NDArray[np.float64] | NDArray[np.bool_], image_N: NDArray[np.int64], seed: int
) -> Estimate | None:
    if not len(values_N):
        return None
    return bootstrap_mean(values_N.astype(np.float64), image_N, seed=seed)
