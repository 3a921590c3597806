"""Plans of what of a campaign goes into which release; written before anything is published.

    plan = plan_publication(db, campaign_id, now=now)      # the unfinished one, if there is one
    note_release(db, plan, "r7")

An image is due when every task of it is accepted or skipped; after the campaign was closed, when
one is. It is published once. Of several people's submissions `folding.choose` takes one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import exists, func, insert, select, update
from sqlalchemy.orm import Session

from engine.annotation.campaigns import campaign_of_row, image_of_row
from engine.annotation.database import Database
from engine.annotation.errors import UnknownCampaignError
from engine.annotation.folding import choose, fold_image, fold_skipped
from engine.annotation.records import Campaign
from engine.annotation.submitted import load_submissions
from engine.annotation.tables import (
    CampaignImageRow,
    CampaignRow,
    PublicationRow,
    PublishedImageRow,
    SubmissionRow,
    TaskRow,
)
from engine.dataset.shards import ImageMasks

__all__ = [
    "PublicationPlan",
    "folded_images",
    "note_release",
    "plan_publication",
    "publication_run_id",
]

_FINAL = ("accepted", "skipped")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicationPlan:
    """What is to become one release; the same however often it is asked for.

    Attributes:
        campaign: of which campaign.
        number: the campaign's publications are numbered from 1.
        image_ids: ascending.
        planned_at: UTC; the release's time.
    """

    campaign: Campaign
    number: int
    image_ids: tuple[int, ...]
    planned_at: datetime


def plan_publication(db: Database, campaign_id: str, *, now: datetime) -> PublicationPlan | None:
    """Return what of a campaign is to be published next; None: nothing is due.

    Raises:
        UnknownCampaignError: there is no such campaign.
    """
    with db.reading() as session:
        if session.get(CampaignRow, campaign_id) is None:
            raise UnknownCampaignError(f"there is no campaign {campaign_id!r}")
        # Masks of several people are compared before the one writer is asked for its turn. What
        # was accepted once stays so.
        speakers = {} if _unfinished(session, campaign_id) else _due(session, campaign_id)
    with db.writing() as session:
        query = select(CampaignRow).where(CampaignRow.campaign_id == campaign_id).with_for_update()
        campaign = session.scalars(query).one()
        row = _unfinished(session, campaign_id) or _new(session, campaign_id, speakers, now)
        if row is None:
            return None
        image_ids = session.scalars(
            select(PublishedImageRow.image_id)
            .where(
                PublishedImageRow.campaign_id == campaign_id,
                PublishedImageRow.number == row.number,
            )
            .order_by(PublishedImageRow.image_id)
        ).all()
        return PublicationPlan(
            campaign=campaign_of_row(campaign),
            number=row.number,
            image_ids=tuple(image_ids),
            planned_at=row.planned_at,
        )


def folded_images(
    db: Database, plan: PublicationPlan, image_ids: Sequence[int]
) -> list[ImageMasks]:
    """Return the masks of some images of a plan, in the order of their ids."""
    campaign_id = plan.campaign.campaign_id
    with db.reading() as session:
        query = (
            select(PublishedImageRow, CampaignImageRow)
            .join(
                CampaignImageRow,
                (CampaignImageRow.campaign_id == PublishedImageRow.campaign_id)
                & (CampaignImageRow.image_id == PublishedImageRow.image_id),
            )
            .where(
                PublishedImageRow.campaign_id == campaign_id,
                PublishedImageRow.number == plan.number,
                PublishedImageRow.image_id.in_(image_ids),
            )
            .order_by(PublishedImageRow.image_id)
        )
        rows = session.execute(query).all()
        chosen = [row.submission_id for row, _ in rows if row.submission_id is not None]
        found = session.scalars(
            select(SubmissionRow).where(SubmissionRow.submission_id.in_(chosen))
        ).all()
        submissions = {s.submission_id: s for s in load_submissions(session, found)}
        return [
            fold_skipped(image_of_row(image), _skip_reasons(session, row))
            if row.submission_id is None
            else fold_image(row.image_id, submissions[row.submission_id])
            for row, image in rows
        ]


def publication_run_id(campaign_id: str, number: int) -> str:
    """Return the id of the run that a campaign's publication is in the data set."""
    return f"annotation-{campaign_id}-{number:04d}"


def note_release(db: Database, plan: PublicationPlan, release: str) -> None:
    """Write down what a plan became; again: nothing changes."""
    with db.writing() as session:
        session.execute(
            update(PublicationRow)
            .where(
                PublicationRow.campaign_id == plan.campaign.campaign_id,
                PublicationRow.number == plan.number,
            )
            .values(release=release)
        )


def _unfinished(session: Session, campaign_id: str) -> PublicationRow | None:
    """Return the plan that did not become a release yet, if there is one."""
    return session.scalar(
        select(PublicationRow)
        .where(PublicationRow.campaign_id == campaign_id, PublicationRow.release.is_(None))
        .order_by(PublicationRow.number)
        .limit(1)
    )


def _due(session: Session, campaign_id: str) -> dict[int, str | None]:
    """Return the images that are due, each with the submission that speaks for it."""
    campaign = session.get_one(CampaignRow, campaign_id)
    published = exists().where(
        PublishedImageRow.campaign_id == TaskRow.campaign_id,
        PublishedImageRow.image_id == TaskRow.image_id,
    )
    tasks = session.execute(
        select(TaskRow.image_id, TaskRow.state, TaskRow.submission_id).where(
            TaskRow.campaign_id == campaign_id, ~published
        )
    )
    by_image = defaultdict[int, list[tuple[str, str | None]]](list)
    for image_id, state, submission_id in tasks:
        by_image[image_id].append((state, submission_id))
    enough = all if campaign.closed_at is None else any
    return {
        image_id: _speaker(session, [i for state, i in of_image if state == "accepted" and i])
        for image_id, of_image in sorted(by_image.items())
        if enough(state in _FINAL for state, _ in of_image)
    }


def _new(
    session: Session, campaign_id: str, speakers: Mapping[int, str | None], now: datetime
) -> PublicationRow | None:
    """Plan the next publication; None: another process has just planned all of it."""
    of_campaign = PublishedImageRow.campaign_id == campaign_id
    taken = set(session.scalars(select(PublishedImageRow.image_id).where(of_campaign)))
    due = {image_id: given for image_id, given in speakers.items() if image_id not in taken}
    if not due:
        return None
    last = session.scalar(
        select(func.max(PublicationRow.number)).where(PublicationRow.campaign_id == campaign_id)
    )
    row = PublicationRow(campaign_id=campaign_id, number=(last or 0) + 1, planned_at=now)
    session.add(row)
    session.flush()
    session.execute(
        insert(PublishedImageRow),
        [
            {
                "campaign_id": campaign_id,
                "image_id": image_id,
                "number": row.number,
                "submission_id": submission_id,
            }
            for image_id, submission_id in due.items()
        ],
    )
    return row


def _speaker(session: Session, submission_ids: Sequence[str]) -> str | None:
    """Return which of an image's submissions is published."""
    if len(submission_ids) < 2:
        return next(iter(submission_ids), None)
    rows = session.scalars(
        select(SubmissionRow).where(SubmissionRow.submission_id.in_(submission_ids))
    ).all()
    return choose(load_submissions(session, rows)).submission_id


def _skip_reasons(session: Session, row: PublishedImageRow) -> list[str]:
    query = (
        select(TaskRow.skip_reason)
        .where(
            TaskRow.campaign_id == row.campaign_id,
            TaskRow.image_id == row.image_id,
            TaskRow.state == "skipped",
        )
        .order_by(TaskRow.slot)
    )
    return [reason for reason in session.scalars(query) if reason is not None]
