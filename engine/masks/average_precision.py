"""COCO's average precision of masks, by pycocotools.

    scores = average_precision(wanted, found)
    scores.ap, scores.ap50

Source: the COCO detection challenge, https://cocodataset.org/#detection-eval. Two differences: no
limit of 100 masks per image, as they answer given boxes, and no crowd regions.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from engine.errors import BadInputError
from engine.masks.rle import mask_area, validate_rle
from engine.records import Rle

_IOU_50, _IOU_75 = 0, 5


@dataclass(frozen=True, slots=True)
class JudgedMask:
    """A mask of one image, wanted or found.

    Attributes:
        image: any number, the same for all masks of the image.
        category: what it shows; masks of different categories never match.
        rle: at the image's size.
        score: of a found mask; higher ones choose first.
        area: in pixels by which a wanted mask is small, medium or large; None to count its pixels.
    """

    image: int
    category: int
    rle: Rle
    score: float = 1.0
    area: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AveragePrecision:
    """COCO's figures, 0 to 1; None where no mask of the size is wanted.

    Attributes:
        ap: mean over the IoU thresholds .50, .55, ... .95 and over the categories.
        ap50: at IoU .50.
        ap75: at IoU .75.
        small: of masks up to 32^2 pixels.
        medium: of masks from 32^2 to 96^2 pixels.
        large: of masks from 96^2 pixels on.
    """

    ap: float
    ap50: float
    ap75: float
    small: float | None
    medium: float | None
    large: float | None


def average_precision(
    wanted: Sequence[JudgedMask], found: Sequence[JudgedMask]
) -> AveragePrecision:
    """Compare found masks with wanted ones.

    Args:
        wanted: at least one.
        found: in any order; those of images and categories where nothing is wanted do not count.

    Raises:
        BadInputError: nothing is wanted.
        InvalidMaskError: a mask that cannot be decoded.
    """
    if not wanted:
        raise BadInputError("average precision needs at least one wanted mask; got none")
    for mask in (*wanted, *found):
        validate_rle(mask.rle)
    images = {mask.image for mask in wanted}
    results = [_result(mask) for mask in found if mask.image in images]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
        truth = COCO()
        truth.dataset = _dataset(wanted)
        truth.createIndex()
        answers = truth.loadRes(results) if results else COCO()
        evaluation = COCOeval(truth, answers, "segm")
        evaluation.params.maxDets = [max(len(results), 1)]
        evaluation.evaluate()
        evaluation.accumulate()
    precision_TRCA: NDArray[np.float64] = evaluation.eval["precision"][..., 0]
    return AveragePrecision(
        ap=_mean(precision_TRCA[..., 0]) or 0.0,
        ap50=_mean(precision_TRCA[_IOU_50, ..., 0]) or 0.0,
        ap75=_mean(precision_TRCA[_IOU_75, ..., 0]) or 0.0,
        small=_mean(precision_TRCA[..., 1]),
        medium=_mean(precision_TRCA[..., 2]),
        large=_mean(precision_TRCA[..., 3]),
    )


def _mean(precision: NDArray[np.float64]) -> float | None:
    """Average where something is wanted; pycocotools marks the rest with -1."""
    known = precision[precision > -1]
    return float(known.mean()) if known.size else None


def _dataset(wanted: Sequence[JudgedMask]) -> dict[str, object]:
    sizes = {mask.image: (mask.rle.height, mask.rle.width) for mask in wanted}
    return {
        "info": {},
        "images": [{"id": i, "height": h, "width": w} for i, (h, w) in sorted(sizes.items())],
        "categories": [{"id": c} for c in sorted({mask.category for mask in wanted})],
        # pycocotools takes an annotation with the id 0 for none
        "annotations": [
            {
                "id": number,
                "area": mask_area(mask.rle) if mask.area is None else mask.area,
                "iscrowd": 0,
                **_place(mask),
            }
            for number, mask in enumerate(wanted, start=1)
        ],
    }


def _result(mask: JudgedMask) -> dict[str, object]:
    return {"score": mask.score, **_place(mask)}


def _place(mask: JudgedMask) -> dict[str, object]:
    return {
        "image_id": mask.image,
        "category_id": mask.category,
        "segmentation": {
            "size": [mask.rle.height, mask.rle.width],
            "counts": mask.rle.counts.encode("ascii"),
        },
    }
