"""Instance segmentation given boxes: COCO's AP of the masks that a model draws into boxes.

    result = evaluate_instances(sam, labelled_set, InstanceConfig())
    result.ap.ap, result.rows()

As in the paper a box is answered by the mask with the highest predicted IoU, which goes back in
with the box once. Boxes are those of the human masks; then the predicted IoU is the score by which
masks are ranked. With the detections of a detector instead (`read_detections`) the scores are the
detector's, and AP judges both. Source: Segment Anything, section 7.4 and appendix D.4.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.dataset.labelled_sets import LabelledImage, LabelledMask, LabelledSet
from engine.errors import BadInputError
from engine.evaluation.labelled import chosen_images
from engine.masks import (
    AveragePrecision,
    JudgedMask,
    average_precision,
    encode_mask,
    mask_area,
    mask_box_xyxy,
)
from model import Prompts
from model.evaluate import Segmenter
from model.types import ImageEmbedding, MaskPrediction

Listener = Callable[[str, int], None]
"""Called with an image's path and its number of boxes when it is done."""

_BOXES_AT_ONCE = 64
# Three masks of each box stay below this many pixels together.
_PIXELS_AT_ONCE = 64_000_000
_ANYTHING = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceConfig:
    """What is asked.

    Attributes:
        refinements: how often the answer goes back in with the box; the paper does it once.
        class_agnostic: take all masks for one category, also where annotations name several.
        min_votes: only human masks that so many people drew.
        max_images: evenly spaced, at most; None for all.
    """

    refinements: int = 1
    class_agnostic: bool = False
    min_votes: int = 1
    max_images: int | None = None

    def __post_init__(self) -> None:
        if self.refinements < 0 or self.min_votes < 1:
            raise BadInputError(
                "refinements must be 0 or more and min_votes 1 or more; got "
                f"{self.refinements} and {self.min_votes}"
            )
        if self.max_images is not None and self.max_images < 1:
            raise BadInputError(f"max_images must be 1 or more; got {self.max_images}")


@dataclass(frozen=True, slots=True)
class Detection:
    """A box that a detector found.

    Attributes:
        image_id: the COCO file's id of the image.
        category_id: what it shows.
        box_xyxy: in pixels of the image.
        score: the detector's.
    """

    image_id: int
    category_id: int
    box_xyxy: tuple[float, float, float, float]
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceResult:
    """How well a model fills boxes.

    Attributes:
        method: the model.
        images: with human masks.
        wanted: human masks.
        boxes: that were put to the model.
        categories: that AP averages over; 1 where categories do not count.
        ap: COCO's figures.
    """

    method: str
    images: int
    wanted: int
    boxes: int
    categories: int
    ap: AveragePrecision

    def rows(self) -> tuple[tuple[str, str, float], ...]:
        """Return (model, figure, value), for tables; sizes that nobody drew are left out."""
        figures = (
            ("AP", self.ap.ap),
            ("AP50", self.ap.ap50),
            ("AP75", self.ap.ap75),
            ("APs", self.ap.small),
            ("APm", self.ap.medium),
            ("APl", self.ap.large),
        )
        return tuple((self.method, name, value) for name, value in figures if value is not None)


def evaluate_instances(
    sam: Segmenter,
    labelled_set: LabelledSet,
    config: InstanceConfig,
    detections: Sequence[Detection] | None = None,
    on_image: Listener | None = None,
    name: str = "model",
) -> InstanceResult:
    """Put boxes to a model and judge its masks.

    Images without human masks are no part of a labelled set, so what a detector finds there does
    not count, nor do crowd regions excuse anything: with detections both make AP differ a little
    from COCO's own.

    Args:
        sam: the model.
        labelled_set: images with masks; a set of COCO annotations where there are detections.
        config: what is asked.
        detections: boxes with scores; None for the boxes of the human masks.
        on_image: for progress.
        name: of the model in tables.

    Raises:
        BadInputError: no fitting human mask, or no detection for any of the images.
    """
    by_image: Mapping[int, list[Detection]] | None = None
    if detections is not None:
        by_image = defaultdict(list)
        for detection in detections:
            by_image[detection.image_id].append(detection)
    wanted: list[JudgedMask] = []
    found: list[JudgedMask] = []
    for index in chosen_images(labelled_set, config.max_images):
        image = labelled_set[index]
        masks = [m for m in image.masks if m.votes >= config.min_votes and mask_area(m.rle)]
        if not masks:
            continue
        wanted += [
            JudgedMask(index, _category(m.category_id, config), m.rle, area=m.area) for m in masks
        ]
        asked = _asked(image, masks, by_image)
        found += _answers(sam, index, image, asked, config)
        if on_image is not None:
            on_image(str(image.path), len(asked))
    _check_something(labelled_set.name, wanted, found, config, by_image is not None)
    return InstanceResult(
        method=name,
        images=len({mask.image for mask in wanted}),
        wanted=len(wanted),
        boxes=len(found),
        categories=len({mask.category for mask in wanted}),
        ap=average_precision(wanted, found),
    )


def read_detections(path: Path) -> tuple[Detection, ...]:
    """Read a detector's boxes from a JSON file of COCO results.

    Args:
        path: a list of ``{"image_id", "category_id", "bbox": [x, y, w, h], "score"}``.

    Raises:
        BadInputError: not such a file.
    """
    try:
        rows = json.loads(path.read_bytes())
        detections = []
        for row in rows:
            x, y, w, h = (float(side) for side in row["bbox"])
            category_id = int(row.get("category_id", _ANYTHING))
            box_xyxy = (x, y, x + w, y + h)
            detections.append(
                Detection(row["image_id"], category_id, box_xyxy, float(row["score"]))
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInputError(
            f"{path} is not a JSON list of detections with image_id, category_id, bbox [x, y, w, "
            f"h] and score: {error!r}"
        ) from error
    return tuple(detections)


@dataclass(frozen=True, slots=True)
class _Box:
    """A box to ask about; its score is None where the model's own is to be taken."""

    xyxy: tuple[float, float, float, float]
    category_id: int | None
    score: float | None = None


def _asked(
    image: LabelledImage,
    masks: Sequence[LabelledMask],
    by_image: Mapping[int, list[Detection]] | None,
) -> list[_Box]:
    if by_image is not None:
        detections = [] if image.image_id is None else by_image.get(image.image_id, [])
        return [_Box(d.box_xyxy, d.category_id, d.score) for d in detections]
    boxes = [(mask_box_xyxy(mask.rle), mask.category_id) for mask in masks]
    return [_Box(box, category) for box, category in boxes if box is not None]


def _answers(
    sam: Segmenter, index: int, image: LabelledImage, asked: Sequence[_Box], config: InstanceConfig
) -> list[JudgedMask]:
    """Draw a mask into each box of an image."""
    if not asked:
        return []
    embedding = sam.encode(image.read())
    at_once = max(1, min(_BOXES_AT_ONCE, _PIXELS_AT_ONCE // (3 * image.height * image.width)))
    answers = []
    for start in range(0, len(asked), at_once):
        boxes = asked[start : start + at_once]
        boxes_N4 = np.array([box.xyxy for box in boxes], dtype=np.float64)
        masks_NHW, iou_N = fill_boxes(sam, embedding, boxes_N4, config.refinements)
        for box, mask_HW, iou in zip(boxes, masks_NHW, iou_N, strict=True):
            score = float(iou) if box.score is None else box.score
            category = _category(box.category_id, config)
            answers.append(JudgedMask(index, category, encode_mask(mask_HW), score))
    return answers


@torch.inference_mode()
def fill_boxes(
    sam: Segmenter, embedding: ImageEmbedding, boxes_N4: NDArray[np.float64], refinements: int
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Draw one mask for each box.

    Args:
        sam: the model.
        embedding: of the image.
        boxes_N4: XYXY in pixels of the image.
        refinements: how often the answer goes back in with the box.

    Returns:
        bool (N, H, W) at the image's size, and float32 (N,) predicted IoU.
    """
    prediction = sam.predict(embedding, Prompts(boxes_xyxy=boxes_N4), multimask=True)
    for _ in range(refinements):
        logits_N1hw = _most_confident(prediction, prediction.low_res_logits_NMhw)
        prompts = Prompts(boxes_xyxy=boxes_N4, mask_logits=logits_N1hw)
        prediction = sam.predict(embedding, prompts, multimask=False)
    masks_N1HW = _most_confident(prediction, prediction.masks_NMHW)
    return masks_N1HW[:, 0].cpu().numpy(), prediction.iou_NM.float().amax(1).cpu().numpy()


def _most_confident(prediction: MaskPrediction, maps_NMxy: Tensor) -> Tensor:
    """Pick the map with the highest predicted IoU for each prompt: (N, 1, ...)."""
    best_N = prediction.iou_NM.argmax(dim=1)
    return maps_NMxy[torch.arange(len(best_N), device=best_N.device), best_N].unsqueeze(1)


def _category(category_id: int | None, config: InstanceConfig) -> int:
    return _ANYTHING if config.class_agnostic or category_id is None else category_id


def _check_something(
    data: str,
    wanted: Sequence[JudgedMask],
    found: Sequence[JudgedMask],
    config: InstanceConfig,
    detected: bool,
) -> None:
    if not wanted:
        raise BadInputError(
            f"{data} has no mask that {config.min_votes} or more people drew; lower --min-votes "
            "or give other images"
        )
    if detected and not found:
        raise BadInputError(
            f"no detection belongs to an image of {data}; their image_id must be the id of the "
            "image in its COCO file"
        )
