"""What is annotated: images in one stage with one model, so many people each.

campaign = open_campaign(db, CampaignSpec(name="birds", stage="manual", ...), now=now)
campaign_state(db, campaign.campaign_id, now=now).tasks.open
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Literal, cast

from sqlalchemy import ColumnElement, and_, case, exists, func, insert, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from engine.annotation.database import Database
from engine.annotation.errors import UnknownCampaignError
from engine.annotation.records import (
    Campaign,
    CampaignImage,
    CampaignSpec,
    CampaignState,
    Stage,
    TaskCounts,
    TaskState,
)
from engine.annotation.tables import (
    CampaignImageRow,
    CampaignRow,
    SubmissionRow,
    SubmittedObjectRow,
    TaskRow,
)
from engine.annotation.texts import check_text
from engine.errors import BadInputError

__all__ = [
    "add_images",
    "campaign",
    "campaign_images",
    "campaign_of_row",
    "campaign_state",
    "close_campaign",
    "find_campaign",
    "find_image",
    "image_of_row",
    "list_campaigns",
    "open_campaign",
    "reopen_campaign",
    "reviewable_by",
]

MOST_ANNOTATORS = 20
_MAX_NAME, _MAX_INSTRUCTIONS = 200, 100_000


def open_campaign(db: Database, spec: CampaignSpec, *, now: datetime) -> Campaign:
    """Open a campaign; its tasks can be leased from then on, pending ones after `give_out`.

    Raises:
        BadInputError: a name that is taken or empty, an image twice or without a size, or a number
            of annotators that makes no sense.
    """
    _check(spec)
    slug = "-".join(re.findall(r"[a-z0-9]+", spec.name.lower()))[:40].strip("-") or "campaign"
    row = CampaignRow(
        campaign_id=f"{slug}-{secrets.token_hex(4)}",
        name=spec.name,
        stage=spec.stage,
        model=spec.model,
        model_id=spec.model_id,
        instructions=spec.instructions,
        annotators_per_image=spec.annotators_per_image,
        review=spec.review,
        ordering=spec.ordering,
        seed=spec.seed,
        images=0,
        opened_at=now,
    )
    try:
        with db.writing() as session:
            session.add(row)
            session.flush()
            _add(session, row, spec.images, now, "pending" if spec.pending else "open")
            return campaign_of_row(row)
    except IntegrityError as error:
        raise BadInputError(
            f"there is a campaign {spec.name!r} already; take another name, or add images to it"
        ) from error


def add_images(
    db: Database, campaign_id: str, images: Sequence[CampaignImage], *, now: datetime
) -> int:
    """Add images after those that a campaign has; return how many it did not have.

    Raises:
        UnknownCampaignError: there is no such campaign.
        BadInputError: an image without a size.
    """
    _check_images(images)
    with db.writing() as session:
        row = _row(session, campaign_id, lock=True)
        known = set(
            session.scalars(
                select(CampaignImageRow.image_id).where(
                    CampaignImageRow.campaign_id == row.campaign_id
                )
            )
        )
        new = {image.image_id: image for image in images if image.image_id not in known}
        _add(session, row, tuple(new.values()), now)
        return len(new)


def find_campaign(db: Database, name_or_id: str) -> Campaign | None:
    """Return a campaign by its name or id; None: there is none."""
    with db.reading() as session:
        row = _found(session, name_or_id)
        return None if row is None else campaign_of_row(row)


def campaign(db: Database, name_or_id: str) -> Campaign:
    """Return a campaign by its name or id.

    Raises:
        UnknownCampaignError: there is none.
    """
    with db.reading() as session:
        return campaign_of_row(_row(session, name_or_id))


def list_campaigns(db: Database) -> tuple[Campaign, ...]:
    """Return all campaigns, the newest first."""
    query = select(CampaignRow).order_by(CampaignRow.opened_at.desc(), CampaignRow.campaign_id)
    with db.reading() as session:
        return tuple(campaign_of_row(row) for row in session.scalars(query))


def campaign_images(db: Database, campaign_id: str) -> tuple[CampaignImage, ...]:
    """Return a campaign's images in their order.

    Raises:
        UnknownCampaignError: there is no such campaign.
    """
    with db.reading() as session:
        row = _row(session, campaign_id)
        query = (
            select(CampaignImageRow)
            .where(CampaignImageRow.campaign_id == row.campaign_id)
            .order_by(CampaignImageRow.position)
        )
        return tuple(image_of_row(image) for image in session.scalars(query))


def find_image(db: Database, image_id: int) -> CampaignImage | None:
    """Return an image of whatever campaign; None: no campaign has it."""
    query = select(CampaignImageRow).where(CampaignImageRow.image_id == image_id).limit(1)
    with db.reading() as session:
        row = session.scalars(query).first()
        return None if row is None else image_of_row(row)


def close_campaign(db: Database, campaign_id: str, *, now: datetime) -> Campaign:
    """Give out nothing more; what people are working on may still be handed in.

    Raises:
        UnknownCampaignError: there is no such campaign.
    """
    with db.writing() as session:
        row = _row(session, campaign_id, lock=True)
        row.closed_at = row.closed_at or now
        return campaign_of_row(row)


def reopen_campaign(db: Database, campaign_id: str) -> Campaign:
    """Give out tasks again.

    Raises:
        UnknownCampaignError: there is no such campaign.
    """
    with db.writing() as session:
        row = _row(session, campaign_id, lock=True)
        row.closed_at = None
        return campaign_of_row(row)


def campaign_state(
    db: Database, campaign_id: str, *, now: datetime, annotator_id: str | None = None
) -> CampaignState:
    """Return how far a campaign is, and one person in it.

    Raises:
        UnknownCampaignError: there is no such campaign.
    """
    with db.reading() as session:
        row = _row(session, campaign_id)
        of_campaign = TaskRow.campaign_id == row.campaign_id
        tasks = _counts(session, of_campaign, now)
        mine = TaskRow.annotator_id == annotator_id
        mine_tasks = _counts(session, of_campaign & mine, now)
        return CampaignState(
            campaign=campaign_of_row(row),
            state=_state(row, tasks),
            tasks=tasks,
            masks=_masks(session, of_campaign),
            mine_done=mine_tasks.submitted + mine_tasks.accepted,
            mine_returned=mine_tasks.returned,
            mine_skipped=mine_tasks.skipped,
            reviewable=0
            if annotator_id is None or not row.review
            else _number(session, of_campaign & reviewable_by(annotator_id, now)),
        )


def reviewable_by(annotator_id: str, now: datetime) -> ColumnElement[bool]:
    """Return the condition of tasks that a person may review now: not their own, in any round."""
    own = exists().where(
        SubmissionRow.task_id == TaskRow.task_id, SubmissionRow.annotator_id == annotator_id
    )
    lease_over = and_(TaskRow.state == "reviewing", TaskRow.lease_expires_at <= now)
    return and_(or_(TaskRow.state == "submitted", lease_over), ~own)


def campaign_of_row(row: CampaignRow) -> Campaign:
    """Return a row as a value."""
    return Campaign(
        campaign_id=row.campaign_id,
        name=row.name,
        stage=cast(Stage, row.stage),
        model=row.model,
        model_id=row.model_id,
        instructions=row.instructions,
        annotators_per_image=row.annotators_per_image,
        review=row.review,
        ordering=row.ordering,
        seed=row.seed,
        images=row.images,
        opened_at=row.opened_at,
        closed_at=row.closed_at,
    )


def image_of_row(row: CampaignImageRow) -> CampaignImage:
    """Return a row as a value."""
    return CampaignImage(
        image_id=row.image_id, width=row.width, height=row.height, uri=row.uri, score=row.score
    )


def _add(
    session: Session,
    row: CampaignRow,
    images: Sequence[CampaignImage],
    now: datetime,
    state: TaskState = "open",
) -> None:
    """Add images, which the campaign does not have, with their tasks."""
    if not images:
        return
    places = list(enumerate(images, start=row.images))
    session.execute(
        insert(CampaignImageRow),
        [
            {
                "campaign_id": row.campaign_id,
                "image_id": image.image_id,
                "position": position,
                "width": image.width,
                "height": image.height,
                "uri": image.uri,
                "score": image.score,
            }
            for position, image in places
        ],
    )
    session.execute(
        insert(TaskRow),
        [
            {
                "campaign_id": row.campaign_id,
                "image_id": image.image_id,
                "position": position,
                "slot": slot,
                "state": state,
                "round": 0,
                "changed_at": now,
            }
            for position, image in places
            for slot in range(row.annotators_per_image)
        ],
    )
    row.images += len(images)
    row.completed_at = None


def _check(spec: CampaignSpec) -> None:
    if not 1 <= len(spec.name.strip()) <= _MAX_NAME:
        raise BadInputError(f"got the name {spec.name[:80]!r}; expected 1 to {_MAX_NAME} letters")
    check_text("name", spec.name, _MAX_NAME)
    check_text("instructions", spec.instructions, _MAX_INSTRUCTIONS)
    check_text("ordering", spec.ordering, _MAX_INSTRUCTIONS)
    try:
        json.loads(spec.ordering)
    except ValueError as error:
        raise BadInputError(f"got an ordering that is no JSON: {spec.ordering[:80]!r}") from error
    if spec.stage not in ("manual", "semi"):
        raise BadInputError(f"got the stage {spec.stage!r}; expected manual or semi")
    if not 1 <= spec.annotators_per_image <= MOST_ANNOTATORS:
        raise BadInputError(
            f"got {spec.annotators_per_image} annotators per image; expected 1 to {MOST_ANNOTATORS}"
        )
    if len({image.image_id for image in spec.images}) != len(spec.images):
        raise BadInputError(f"campaign {spec.name!r} names an image twice")
    _check_images(spec.images)


def _check_images(images: Sequence[CampaignImage]) -> None:
    for image in images:
        if image.width < 1 or image.height < 1:
            raise BadInputError(
                f"image {image.image_id} is of {image.width} x {image.height} pixels; expected "
                "its size after EXIF orientation"
            )


def _found(session: Session, name_or_id: str, *, lock: bool = False) -> CampaignRow | None:
    query = select(CampaignRow).where(
        or_(CampaignRow.campaign_id == name_or_id, CampaignRow.name == name_or_id)
    )
    rows = session.scalars(query.with_for_update() if lock else query).all()
    by_id = [row for row in rows if row.campaign_id == name_or_id]
    return next(iter(by_id or rows), None)


def _row(session: Session, name_or_id: str, *, lock: bool = False) -> CampaignRow:
    row = _found(session, name_or_id, lock=lock)
    if row is None:
        raise UnknownCampaignError(
            f"got the campaign {name_or_id!r}, which there is not; `maskwheel campaigns list` "
            "names all"
        )
    return row


def _counts(session: Session, condition: ColumnElement[bool], now: datetime) -> TaskCounts:
    """Count tasks by what they wait for; a lease that is over holds nothing."""
    is_over = and_(TaskRow.state == "leased", TaskRow.lease_expires_at <= now)
    waits_for = case(
        (TaskRow.state == "pending", "open"),
        (TaskRow.state == "reviewing", "submitted"),
        (and_(is_over, TaskRow.round == 0), "open"),
        (is_over, "returned"),
        else_=TaskRow.state,
    ).label("waits_for")
    query = select(waits_for, func.count()).where(condition).group_by("waits_for")
    counts = dict.fromkeys(TaskCounts.__dataclass_fields__, 0)
    counts |= dict(session.execute(query).tuples().all())
    counts["total"] = sum(counts.values())
    return TaskCounts(**counts)


def _state(row: CampaignRow, tasks: TaskCounts) -> Literal["open", "complete", "closed"]:
    if tasks.total and tasks.accepted + tasks.skipped == tasks.total:
        return "complete"
    return "open" if row.closed_at is None else "closed"


def _masks(session: Session, of_tasks: ColumnElement[bool]) -> int:
    query = (
        select(func.count())
        .select_from(SubmittedObjectRow)
        .join(TaskRow, TaskRow.submission_id == SubmittedObjectRow.submission_id)
        .where(of_tasks, SubmittedObjectRow.made != "deleted")
    )
    return session.scalar(query) or 0


def _number(session: Session, condition: ColumnElement[bool]) -> int:
    return session.scalar(select(func.count()).select_from(TaskRow).where(condition)) or 0
