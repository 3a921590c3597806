"""Folding: what people handed in for an image becomes masks of the data set.

    chosen = choose(submissions)                 # of several people, the one who speaks for all
    masks = fold_image(image_id, chosen)         # ImageMasks, for `write_shard`

The event log and the database keep everything; the data set gets each mask as it is after the
review, with who made it, in how many seconds, with which prompts, and what of the model is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

from engine.annotation.payloads import prompts_to_json
from engine.annotation.records import (
    CampaignImage,
    JudgedSubmission,
    PointPrompt,
    Prompt,
    SubmittedObject,
)
from engine.annotation.reviews import pair_agreement
from engine.dataset.shards import HandWork, ImageMasks
from engine.errors import BadInputError
from engine.masks import mask_area, mask_box_xyxy
from engine.records import MaskRecord, Rle, SkippedImage

__all__ = ["SKIPPED", "choose", "fold_image", "fold_skipped"]

SKIPPED = "annotator-skipped"

# A mask that a person made has no estimate by a model, and does not depend on a threshold.
_NO_ESTIMATE = 1.0


def choose(submissions: Sequence[JudgedSubmission]) -> JudgedSubmission:
    """Return the submission that agrees best with the others; of equal ones, the earliest.

    Args:
        submissions: of one image, by different people; those that a reviewer rejected are not
            among them.

    Raises:
        BadInputError: there is none.
    """
    if not submissions:
        raise BadInputError("an image without a submission has no masks to choose")
    masks = [[item.final for item in submission.objects] for submission in submissions]

    def rank(place: int) -> tuple[float, str, str]:
        others = (other for i, other in enumerate(masks) if i != place)
        agreement = sum(pair_agreement(masks[place], other) for other in others)
        submission = submissions[place]
        # Rounded: the order in which agreements are added up must decide nothing.
        return -round(agreement, 9), submission.submitted_at.isoformat(), submission.submission_id

    return submissions[min(range(len(submissions)), key=rank)]


def fold_image(image_id: int, submission: JudgedSubmission) -> ImageMasks:
    """Return the masks of a submission as the data set's, in the order of their making."""
    return ImageMasks(
        image_id,
        masks=[_record(item) for item in submission.objects],
        work=[_work(item, submission) for item in submission.objects],
        exhaustive=submission.exhaustive,
    )


def fold_skipped(image: CampaignImage, reasons: Sequence[str]) -> ImageMasks:
    """Return an image that everybody who was asked skipped."""
    message = "; ".join(dict.fromkeys(reasons))
    return ImageMasks(image.image_id, (), SkippedImage(image.uri, SKIPPED, message))


def _record(item: SubmittedObject) -> MaskRecord:
    rle = item.final
    box_xyxy = mask_box_xyxy(rle)
    if box_xyxy is None:
        raise BadInputError(f"object {item.mask.object_id} is empty")
    x0, y0, x1, y1 = box_xyxy
    estimate = None if item.fixed else item.mask.predicted_iou
    return MaskRecord(
        rle=rle,
        bbox_xywh=(x0, y0, x1 - x0, y1 - y0),
        area=mask_area(rle),
        predicted_iou=_NO_ESTIMATE if estimate is None else estimate,
        stability_score=_NO_ESTIMATE,
        crop_box_xywh=(0, 0, rle.width, rle.height),
        point_xy=_first_click(item.mask.prompts, rle),
    )


def _first_click(prompts: Sequence[Prompt], rle: Rle) -> tuple[float, float] | None:
    """Return the first click on the object, if it is inside of the image."""
    for prompt in prompts:
        if isinstance(prompt, PointPrompt) and prompt.label == 1:
            inside = 0 <= prompt.x <= rle.width and 0 <= prompt.y <= rle.height
            return (prompt.x, prompt.y) if inside else None
    return None


def _work(item: SubmittedObject, submission: JudgedSubmission) -> HandWork:
    return HandWork(
        annotator_id=submission.annotator_id,
        active_seconds=item.active_seconds,
        made=cast(Literal["kept", "corrected", "new"], item.made),
        prompts=prompts_to_json(item.mask.prompts),
        decoder=item.mask.decoder,
        reviewer_id=submission.reviewer_id,
    )
