"""Proposals: masks that the model made of an image before people saw it.

set_proposals(db, campaign_id, image_id, objects)      # before anybody begins the image
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from engine.annotation.database import Database
from engine.annotation.errors import BadSubmissionError
from engine.annotation.payloads import prompts_from_json, prompts_to_json
from engine.annotation.records import DecoderKind, MaskObject
from engine.annotation.tables import CampaignImageRow, ProposalRow, TaskRow
from engine.annotation.texts import check_id
from engine.errors import BadInputError, InvalidMaskError
from engine.masks import mask_area
from engine.records import Rle

__all__ = ["check_mask", "check_masks", "proposals_of", "proposals_of_image", "set_proposals"]

MOST_OBJECTS = 5000
_NOT_BEGUN = ("pending", "open")


def set_proposals(
    db: Database, campaign_id: str, image_id: int, objects: Sequence[MaskObject]
) -> bool:
    """Replace the proposals of an image, unless somebody has begun it.

    Returns:
        Whether they were set; False: somebody was given the image before, nothing has changed.

    Raises:
        BadInputError: the campaign has no such image.
        BadSubmissionError: masks of another size, empty or damaged ones, or an id twice.
    """
    with db.reading() as session:
        image = _image(session, campaign_id, image_id)
        height, width = image.height, image.width
    check_masks(objects, height, width)
    with db.writing() as session:
        tasks = session.scalars(
            select(TaskRow)
            .where(TaskRow.campaign_id == campaign_id, TaskRow.image_id == image_id)
            .with_for_update()
        ).all()
        if any(row.annotator_id is not None or row.state not in _NOT_BEGUN for row in tasks):
            return False
        session.execute(
            delete(ProposalRow).where(
                ProposalRow.campaign_id == campaign_id, ProposalRow.image_id == image_id
            )
        )
        if objects:
            session.execute(insert(ProposalRow), _rows(campaign_id, image_id, objects))
        return True


def proposals_of(db: Database, campaign_id: str, image_id: int) -> tuple[MaskObject, ...]:
    """Return the proposals of an image, in their order.

    Raises:
        BadInputError: the campaign has no such image.
    """
    with db.reading() as session:
        image = _image(session, campaign_id, image_id)
        return proposals_of_image(session, image)


def proposals_of_image(session: Session, image: CampaignImageRow) -> tuple[MaskObject, ...]:
    """Return the proposals of an image, in their order."""
    query = (
        select(ProposalRow)
        .where(ProposalRow.campaign_id == image.campaign_id, ProposalRow.image_id == image.image_id)
        .order_by(ProposalRow.position)
    )
    return tuple(
        MaskObject(
            object_id=row.object_id,
            rle=Rle(image.height, image.width, row.counts),
            proposal=True,
            predicted_iou=row.predicted_iou,
            prompts=prompts_from_json(row.prompts),
            decoder=cast(DecoderKind | None, row.decoder),
            accepted=row.accepted,
        )
        for row in session.scalars(query)
    )


def check_masks(objects: Sequence[MaskObject], height: int, width: int) -> None:
    """Check that masks are those of an image, none empty, with ids of their own.

    Raises:
        BadSubmissionError: they are not; says which.
    """
    if len(objects) > MOST_OBJECTS:
        raise BadSubmissionError(f"got {len(objects)} masks; expected at most {MOST_OBJECTS}")
    seen: set[str] = set()
    for item in objects:
        try:
            check_id("object id", item.object_id)
        except BadInputError as error:
            raise BadSubmissionError(str(error)) from error
        if item.object_id in seen:
            raise BadSubmissionError(f"got the object {item.object_id} twice")
        seen.add(item.object_id)
        check_mask(item.object_id, item.rle, height, width)


def check_mask(object_id: str, rle: Rle, height: int, width: int) -> None:
    """Check that a mask is one of an image, and not empty.

    Raises:
        BadSubmissionError: it is not.
    """
    if (rle.height, rle.width) != (height, width):
        raise BadSubmissionError(
            f"object {object_id}: a mask of {rle.height} x {rle.width} pixels; the image has "
            f"{height} x {width}"
        )
    try:
        area = mask_area(rle)
    except InvalidMaskError as error:
        raise BadSubmissionError(f"object {object_id}: {error}") from error
    if area == 0:
        raise BadSubmissionError(f"object {object_id}: the mask is empty; delete the object")


def _image(session: Session, campaign_id: str, image_id: int) -> CampaignImageRow:
    image = session.get(CampaignImageRow, (campaign_id, image_id))
    if image is None:
        raise BadInputError(f"campaign {campaign_id} has no image {image_id}")
    return image


def _rows(
    campaign_id: str, image_id: int, objects: Sequence[MaskObject]
) -> list[dict[str, object]]:
    return [
        {
            "campaign_id": campaign_id,
            "image_id": image_id,
            "object_id": item.object_id,
            "position": position,
            "counts": item.rle.counts,
            "predicted_iou": item.predicted_iou,
            "prompts": prompts_to_json(item.prompts),
            "decoder": item.decoder,
            "accepted": item.accepted,
        }
        for position, item in enumerate(objects)
    ]
