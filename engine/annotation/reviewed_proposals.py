"""What people made of proposals: an image's proposals beside the masks that were handed in.

    for image in reviewed_images(db, release.runs):
        read_reviewed(db, image).proposals

Of published images only, so that what is found for a release stays the same.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import exists, select

from engine.annotation.database import Database
from engine.annotation.proposals import proposals_of_image
from engine.annotation.publications import publication_run_id
from engine.annotation.submitted import load_submissions
from engine.annotation.tables import (
    CampaignImageRow,
    CampaignRow,
    ProposalRow,
    PublishedImageRow,
    SubmissionRow,
)
from engine.records import Rle

__all__ = ["Reviewed", "ReviewedImage", "read_reviewed", "reviewed_images"]


@dataclass(frozen=True, slots=True, order=True)
class ReviewedImage:
    """An image of a campaign whose proposals somebody has gone through, and the submission."""

    campaign_id: str
    image_id: int
    submission_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewed:
    """Proposals, and what became of the image.

    Attributes:
        image_id: the image.
        model_id: the campaign's model.
        stage: the campaign's.
        proposals: as they were shown.
        masks: as they are in the data set: kept, corrected and new ones.
    """

    image_id: int
    model_id: str
    stage: str
    proposals: tuple[Rle, ...]
    masks: tuple[Rle, ...]


def reviewed_images(db: Database, runs: Collection[str]) -> list[ReviewedImage]:
    """Return the images that had proposals and are in one of these runs of a release."""
    has_proposals = exists().where(
        ProposalRow.campaign_id == PublishedImageRow.campaign_id,
        ProposalRow.image_id == PublishedImageRow.image_id,
    )
    query = select(PublishedImageRow).where(
        PublishedImageRow.submission_id.is_not(None), has_proposals
    )
    with db.reading() as session:
        return sorted(
            ReviewedImage(row.campaign_id, row.image_id, row.submission_id or "")
            for row in session.scalars(query)
            if publication_run_id(row.campaign_id, row.number) in runs
        )


def read_reviewed(db: Database, reviewed: ReviewedImage) -> Reviewed:
    """Read the masks of one image."""
    with db.reading() as session:
        campaign = session.get_one(CampaignRow, reviewed.campaign_id)
        image = session.get_one(CampaignImageRow, (reviewed.campaign_id, reviewed.image_id))
        row = session.get_one(SubmissionRow, reviewed.submission_id)
        (submission,) = load_submissions(session, [row])
        return Reviewed(
            image_id=image.image_id,
            model_id=campaign.model_id,
            stage=campaign.stage,
            proposals=tuple(mask.rle for mask in proposals_of_image(session, image)),
            masks=tuple(item.final for item in submission.objects),
        )
