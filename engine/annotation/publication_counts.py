"""How much of a campaign is in releases, and how much is due: counted, not planned.

    publication_counts(db, campaign_id).due

`engine.annotation.publications` plans what is due; it compares masks, where this only counts tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import case, exists, func, select

from engine.annotation.database import Database
from engine.annotation.errors import UnknownCampaignError
from engine.annotation.tables import CampaignRow, PublicationRow, PublishedImageRow, TaskRow

__all__ = ["PublicationCounts", "publication_counts"]

_FINAL = ("accepted", "skipped")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicationCounts:
    """Images of a campaign.

    Attributes:
        published: in a release.
        due: to be published by the next `publish_campaign`.
    """

    published: int
    due: int


def publication_counts(db: Database, campaign_id: str) -> PublicationCounts:
    """Count the images of a campaign by whether they are published.

    Raises:
        UnknownCampaignError: there is no such campaign.
    """
    with db.reading() as session:
        campaign = session.get(CampaignRow, campaign_id)
        if campaign is None:
            raise UnknownCampaignError(f"there is no campaign {campaign_id!r}")
        in_releases = (
            select(PublicationRow.release.is_not(None), func.count())
            .join(
                PublishedImageRow,
                (PublicationRow.campaign_id == PublishedImageRow.campaign_id)
                & (PublicationRow.number == PublishedImageRow.number),
            )
            .where(PublicationRow.campaign_id == campaign_id)
            .group_by(PublicationRow.release.is_not(None))
        )
        planned = {bool(is_out): images for is_out, images in session.execute(in_releases)}
        finished = func.sum(case((TaskRow.state.in_(_FINAL), 1), else_=0))
        is_planned = exists().where(
            PublishedImageRow.campaign_id == TaskRow.campaign_id,
            PublishedImageRow.image_id == TaskRow.image_id,
        )
        unplanned = (
            select(TaskRow.image_id)
            .where(TaskRow.campaign_id == campaign_id, ~is_planned)
            .group_by(TaskRow.image_id)
            .having(finished > 0 if campaign.closed_at is not None else finished == func.count())
            .subquery()
        )
        found = session.scalar(select(func.count()).select_from(unplanned)) or 0
        return PublicationCounts(published=planned.get(True, 0), due=found + planned.get(False, 0))
