"""When the last image of a campaign is done: noted once, and told by whoever noted it.

    submit(db, lease.key, submission, now=now)
    if (done := note_completion(db, lease.key.task_id, now=now)) is not None: ...

It is asked in a transaction of its own, after the one that finished a task: of two people who hand
in the last two tasks at once neither sees the other's work before it is committed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import get_args

from sqlalchemy import ColumnElement, exists, func, select, update
from sqlalchemy.orm import Session

from engine.annotation.campaigns import campaign_of_row
from engine.annotation.database import Database
from engine.annotation.records import Campaign, TaskState
from engine.annotation.tables import CampaignRow, SubmittedObjectRow, TaskRow
from engine.announcements import Announce, CampaignCompleted, tell

__all__ = ["CompletedCampaign", "note_completion", "tell_completion"]

_UNFINISHED = tuple(set(get_args(TaskState)) - {"accepted", "skipped"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletedCampaign:
    """A campaign whose every task is accepted or skipped.

    Attributes:
        campaign: what it is.
        masks: accepted masks.
    """

    campaign: Campaign
    masks: int


def note_completion(db: Database, task_id: int, *, now: datetime) -> CompletedCampaign | None:
    """Note that the campaign of a finished task is complete, if it is.

    Images that are added later make it incomplete again, and it is noted anew.

    Returns:
        The campaign, to exactly one caller; None: it is not complete, or others have noted it.
    """
    with db.reading() as session:
        task = session.get(TaskRow, task_id)
        if task is None or session.scalar(select(_has_unfinished(task.campaign_id))):
            return None
        campaign_id = task.campaign_id
    noting = (
        update(CampaignRow)
        .where(
            CampaignRow.campaign_id == campaign_id,
            CampaignRow.completed_at.is_(None),
            ~_has_unfinished(campaign_id),
        )
        .values(completed_at=now)
        .returning(CampaignRow.campaign_id)
    )
    with db.writing() as session:
        if session.scalar(noting, execution_options={"synchronize_session": False}) is None:
            return None
        row = session.get_one(CampaignRow, campaign_id)
        return CompletedCampaign(
            campaign=campaign_of_row(row), masks=_accepted_masks(session, campaign_id)
        )


def tell_completion(
    db: Database, task_id: int, announce: Announce | None, workspace: str, *, now: datetime
) -> None:
    """Announce that the campaign of a finished task is complete, if this call noted it.

    Args:
        db: the database.
        task_id: what was just accepted or skipped.
        announce: told, once per campaign.
        workspace: address of the data set that the campaign's images are of.
        now: UTC.
    """
    done = note_completion(db, task_id, now=now)
    if done is None:
        return
    campaign = done.campaign
    announcement = CampaignCompleted(
        workspace=workspace,
        campaign=campaign.name,
        campaign_id=campaign.campaign_id,
        stage=campaign.stage,
        images=campaign.images,
        masks=done.masks,
    )
    tell(announce, announcement)


def _has_unfinished(campaign_id: str) -> ColumnElement[bool]:
    # States one by one: the index answers each at once, and "not accepted" would read every task.
    return exists().where(TaskRow.campaign_id == campaign_id, TaskRow.state.in_(_UNFINISHED))


def _accepted_masks(session: Session, campaign_id: str) -> int:
    query = (
        select(func.count())
        .select_from(SubmittedObjectRow)
        .join(TaskRow, TaskRow.submission_id == SubmittedObjectRow.submission_id)
        .where(
            TaskRow.campaign_id == campaign_id,
            TaskRow.state == "accepted",
            SubmittedObjectRow.made != "deleted",
        )
    )
    return session.scalar(query) or 0
