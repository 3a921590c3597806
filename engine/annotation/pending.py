"""Images of a campaign that nobody gets yet, because the model is still at work on them.

    pending_images(db, campaign_id)                # their ids, in the campaign's order
    give_out(db, campaign_id, ids, now=now)        # people get them from now on

`engine.annotation.opening.open_chosen` opens campaigns whose images are all pending.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select, update

from engine.annotation.database import Database
from engine.annotation.tables import TaskRow

__all__ = ["give_out", "pending_images"]

_IDS_AT_ONCE = 500
_PLAIN = {"synchronize_session": False}


def pending_images(db: Database, campaign_id: str) -> tuple[int, ...]:
    """Return the images of a campaign that people do not get yet, in its order."""
    query = (
        select(TaskRow.image_id)
        .where(TaskRow.campaign_id == campaign_id, TaskRow.state == "pending", TaskRow.slot == 0)
        .order_by(TaskRow.position)
    )
    with db.reading() as session:
        return tuple(session.scalars(query))


def give_out(
    db: Database, campaign_id: str, image_ids: Sequence[int] | None = None, *, now: datetime
) -> int:
    """Let people have images; return how many tasks became theirs by this call.

    Args:
        db: has the campaign.
        campaign_id: which.
        image_ids: of it; None: all that are still pending.
        now: UTC.
    """
    pending = (TaskRow.campaign_id == campaign_id) & (TaskRow.state == "pending")
    parts = [pending]
    if image_ids is not None:
        starts = range(0, len(image_ids), _IDS_AT_ONCE)
        parts = [
            pending & TaskRow.image_id.in_(image_ids[start : start + _IDS_AT_ONCE])
            for start in starts
        ]
    giving = update(TaskRow).values(state="open", changed_at=now).returning(TaskRow.task_id)
    with db.writing() as session:
        return sum(
            len(session.scalars(giving.where(part), execution_options=_PLAIN).all())
            for part in parts
        )
