"""The tables of the annotation database.

    session.scalars(select(TaskRow).where(TaskRow.campaign_id == campaign_id))

`engine.annotation.migrations` makes them; a test holds the two equal. Masks are COCO RLE at the
image's size, lists of prompts and drafts are JSON text (`engine.annotation.payloads`). Rows of
events, submissions and reviews are only ever added.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = [
    "AnnotatorRow",
    "Base",
    "CampaignImageRow",
    "CampaignRow",
    "DraftRow",
    "EventRow",
    "PropertyRow",
    "ProposalRow",
    "PublicationRow",
    "PublishedImageRow",
    "ReviewRow",
    "SessionRow",
    "SubmissionRow",
    "SubmittedObjectRow",
    "TaskRow",
    "UtcTime",
    "VerdictRow",
]


class UtcTime(TypeDecorator[datetime]):
    """A time with its zone, UTC: SQLite keeps no zones, and would give it back without one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the time in UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the time with its zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """What all tables share: constraints have names, so that a later version can change them."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )
    type_annotation_map = {float: Double}  # noqa: RUF012 - SQLAlchemy's way of saying it


class PropertyRow(Base):
    """A fact about the database: ``database_id``, by which clients know it again."""

    __tablename__ = "properties"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class AnnotatorRow(Base):
    """Somebody who may, or might, annotate."""

    __tablename__ = "annotators"

    annotator_id: Mapped[str] = mapped_column(String(12), primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    role: Mapped[str] = mapped_column(String(16))
    token_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    invited_at: Mapped[datetime] = mapped_column(UtcTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcTime)


class SessionRow(Base):
    """A browser that somebody signed in with."""

    __tablename__ = "sessions"

    session_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    annotator_id: Mapped[str] = mapped_column(ForeignKey(AnnotatorRow.annotator_id), index=True)
    opened_at: Mapped[datetime] = mapped_column(UtcTime)
    expires_at: Mapped[datetime] = mapped_column(UtcTime)


class CampaignRow(Base):
    """Images to annotate in one stage with one model."""

    __tablename__ = "campaigns"

    campaign_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    stage: Mapped[str] = mapped_column(String(16))
    model: Mapped[str] = mapped_column(Text)
    model_id: Mapped[str] = mapped_column(Text)
    instructions: Mapped[str] = mapped_column(Text)
    annotators_per_image: Mapped[int]
    review: Mapped[bool]
    ordering: Mapped[str] = mapped_column(Text)
    seed: Mapped[int] = mapped_column(BigInteger)
    images: Mapped[int]
    opened_at: Mapped[datetime] = mapped_column(UtcTime)
    closed_at: Mapped[datetime | None] = mapped_column(UtcTime)
    completed_at: Mapped[datetime | None] = mapped_column(UtcTime)


class CampaignImageRow(Base):
    """An image of a campaign, at its place in the order."""

    __tablename__ = "campaign_images"

    campaign_id: Mapped[str] = mapped_column(ForeignKey(CampaignRow.campaign_id), primary_key=True)
    image_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    position: Mapped[int]
    width: Mapped[int]
    height: Mapped[int]
    uri: Mapped[str] = mapped_column(Text)
    score: Mapped[float | None]

    __table_args__ = (
        UniqueConstraint("campaign_id", "position"),
        Index("images_of_all_campaigns", "image_id"),
    )


class ProposalRow(Base):
    """A mask that the model made of an image before people saw it."""

    __tablename__ = "proposals"

    campaign_id: Mapped[str] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    object_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    position: Mapped[int]
    counts: Mapped[str] = mapped_column(Text)
    predicted_iou: Mapped[float | None]
    prompts: Mapped[str] = mapped_column(Text)
    decoder: Mapped[str | None] = mapped_column(String(16))
    accepted: Mapped[bool | None]

    __table_args__ = (
        ForeignKeyConstraint(
            ["campaign_id", "image_id"], [CampaignImageRow.campaign_id, CampaignImageRow.image_id]
        ),
    )


class TaskRow(Base):
    """One image for one annotator.

    `annotator_id` is who has the task or had it last, `leased_by` who works on it now: of a review
    that is another. A person has an image of a campaign once, in whatever slot.
    """

    __tablename__ = "tasks"

    task_id: Mapped[int] = mapped_column(primary_key=True)
    campaign_id: Mapped[str]
    image_id: Mapped[int] = mapped_column(BigInteger)
    position: Mapped[int]
    slot: Mapped[int]
    state: Mapped[str] = mapped_column(String(16))
    annotator_id: Mapped[str | None] = mapped_column(
        ForeignKey(AnnotatorRow.annotator_id), index=True
    )
    round: Mapped[int] = mapped_column(default=0)
    submission_id: Mapped[str | None] = mapped_column(String(64))
    lease_id: Mapped[str | None] = mapped_column(String(64))
    leased_by: Mapped[str | None] = mapped_column(ForeignKey(AnnotatorRow.annotator_id))
    lease_expires_at: Mapped[datetime | None] = mapped_column(UtcTime)
    skip_reason: Mapped[str | None] = mapped_column(Text)
    changed_at: Mapped[datetime] = mapped_column(UtcTime)

    __table_args__ = (
        ForeignKeyConstraint(
            ["campaign_id", "image_id"], [CampaignImageRow.campaign_id, CampaignImageRow.image_id]
        ),
        UniqueConstraint("campaign_id", "image_id", "slot"),
        UniqueConstraint("campaign_id", "image_id", "annotator_id"),
        Index("tasks_in_order", "campaign_id", "state", "position", "slot"),
        Index("tasks_by_holder", "campaign_id", "leased_by", "state"),
    )


class DraftRow(Base):
    """What somebody has made of a task and not handed in; each person has one of their own."""

    __tablename__ = "drafts"

    task_id: Mapped[int] = mapped_column(ForeignKey(TaskRow.task_id), primary_key=True)
    annotator_id: Mapped[str] = mapped_column(
        ForeignKey(AnnotatorRow.annotator_id), primary_key=True
    )
    version: Mapped[int]
    content: Mapped[str] = mapped_column(Text)
    saved_at: Mapped[datetime] = mapped_column(UtcTime)


class EventRow(Base):
    """One thing that somebody did."""

    __tablename__ = "events"

    task_id: Mapped[int] = mapped_column(ForeignKey(TaskRow.task_id), primary_key=True)
    annotator_id: Mapped[str] = mapped_column(
        ForeignKey(AnnotatorRow.annotator_id), primary_key=True
    )
    page_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    at_ms: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(32))
    object_id: Mapped[str | None] = mapped_column(String(64))
    data: Mapped[str] = mapped_column(Text)
    received_at: Mapped[datetime] = mapped_column(UtcTime)


class SubmissionRow(Base):
    """What somebody handed in; `submission_id` is the client's."""

    __tablename__ = "submissions"

    submission_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey(TaskRow.task_id), index=True)
    annotator_id: Mapped[str] = mapped_column(ForeignKey(AnnotatorRow.annotator_id))
    round: Mapped[int]
    page_id: Mapped[str] = mapped_column(String(64))
    last_seq: Mapped[int]
    exhaustive: Mapped[bool]
    active_seconds: Mapped[float]
    unattributed_seconds: Mapped[float]
    state: Mapped[str] = mapped_column(String(16))
    submitted_at: Mapped[datetime] = mapped_column(UtcTime)

    __table_args__ = (UniqueConstraint("task_id", "round"),)


class SubmittedObjectRow(Base):
    """A mask of a submission, or a proposal that was deleted, as it was proposed."""

    __tablename__ = "submitted_objects"

    submission_id: Mapped[str] = mapped_column(
        ForeignKey(SubmissionRow.submission_id), primary_key=True
    )
    object_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    position: Mapped[int]
    made: Mapped[str] = mapped_column(String(16))
    counts: Mapped[str] = mapped_column(Text)
    predicted_iou: Mapped[float | None]
    prompts: Mapped[str] = mapped_column(Text)
    decoder: Mapped[str | None] = mapped_column(String(16))
    accepted: Mapped[bool | None]
    active_seconds: Mapped[float]
    clicks: Mapped[int]
    strokes: Mapped[int]


class ReviewRow(Base):
    """What a reviewer said of a submission; `review_id` is the client's."""

    __tablename__ = "reviews"

    review_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    submission_id: Mapped[str] = mapped_column(ForeignKey(SubmissionRow.submission_id), unique=True)
    task_id: Mapped[int] = mapped_column(ForeignKey(TaskRow.task_id), index=True)
    reviewer_id: Mapped[str] = mapped_column(ForeignKey(AnnotatorRow.annotator_id))
    state: Mapped[str] = mapped_column(String(16))
    incomplete: Mapped[bool]
    reason: Mapped[str] = mapped_column(Text)
    judged_at: Mapped[datetime] = mapped_column(UtcTime)


class VerdictRow(Base):
    """What a reviewer said of one mask; with counts where they fixed it."""

    __tablename__ = "verdicts"

    review_id: Mapped[str] = mapped_column(ForeignKey(ReviewRow.review_id), primary_key=True)
    object_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)
    counts: Mapped[str | None] = mapped_column(Text)


class PublicationRow(Base):
    """What of a campaign goes into one release; the images are `PublishedImageRow`.

    Written before anything is published, so that whoever tries again publishes the same.
    """

    __tablename__ = "publications"

    campaign_id: Mapped[str] = mapped_column(ForeignKey(CampaignRow.campaign_id), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    planned_at: Mapped[datetime] = mapped_column(UtcTime)
    release: Mapped[str | None] = mapped_column(Text)


class PublishedImageRow(Base):
    """An image of a publication, with the submission that speaks for it; None: it was skipped."""

    __tablename__ = "published_images"

    campaign_id: Mapped[str] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    number: Mapped[int]
    submission_id: Mapped[str | None] = mapped_column(ForeignKey(SubmissionRow.submission_id))

    __table_args__ = (
        ForeignKeyConstraint(
            ["campaign_id", "image_id"], [CampaignImageRow.campaign_id, CampaignImageRow.image_id]
        ),
        ForeignKeyConstraint(
            ["campaign_id", "number"], [PublicationRow.campaign_id, PublicationRow.number]
        ),
    )
