"""The first version: people, campaigns, tasks, drafts, events, submissions and reviews."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make all tables."""
    _people()
    _campaigns()
    _tasks()
    _submissions()
    _reviews()


def _people() -> None:
    """Who may annotate."""
    op.create_table(
        "annotators",
        sa.Column("annotator_id", sa.String(length=12), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("token_sha256", sa.String(length=64), nullable=False),
        sa.Column("invited_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("annotator_id", name=op.f("pk_annotators")),
        sa.UniqueConstraint("name", name=op.f("uq_annotators_name")),
        sa.UniqueConstraint("token_sha256", name=op.f("uq_annotators_token_sha256")),
    )
    op.create_table(
        "sessions",
        sa.Column("session_sha256", sa.String(length=64), nullable=False),
        sa.Column("annotator_id", sa.String(length=12), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["annotator_id"], ["annotators.annotator_id"], name=op.f("fk_sessions_annotator_id")
        ),
        sa.PrimaryKeyConstraint("session_sha256", name=op.f("pk_sessions")),
    )
    op.create_index(op.f("ix_sessions_annotator_id"), "sessions", ["annotator_id"], unique=False)


def _campaigns() -> None:
    """What is to be annotated."""
    op.create_table(
        "campaigns",
        sa.Column("campaign_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("stage", sa.String(length=16), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("instructions", sa.Text(), nullable=False),
        sa.Column("annotators_per_image", sa.Integer(), nullable=False),
        sa.Column("review", sa.Boolean(), nullable=False),
        sa.Column("ordering", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("campaign_id", name=op.f("pk_campaigns")),
        sa.UniqueConstraint("name", name=op.f("uq_campaigns_name")),
    )
    op.create_table(
        "campaign_images",
        sa.Column("campaign_id", sa.String(length=64), nullable=False),
        sa.Column("image_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("score", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.campaign_id"], name=op.f("fk_campaign_images_campaign_id")
        ),
        sa.PrimaryKeyConstraint("campaign_id", "image_id", name=op.f("pk_campaign_images")),
        sa.UniqueConstraint(
            "campaign_id", "position", name=op.f("uq_campaign_images_campaign_id_position")
        ),
    )
    op.create_table(
        "proposals",
        sa.Column("campaign_id", sa.String(), nullable=False),
        sa.Column("image_id", sa.BigInteger(), nullable=False),
        sa.Column("object_id", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("counts", sa.Text(), nullable=False),
        sa.Column("predicted_iou", sa.Double(), nullable=True),
        sa.Column("prompts", sa.Text(), nullable=False),
        sa.Column("decoder", sa.String(length=16), nullable=True),
        sa.Column("accepted", sa.Boolean(), nullable=True),
        sa.ForeignKeyConstraint(
            ["campaign_id", "image_id"],
            ["campaign_images.campaign_id", "campaign_images.image_id"],
            name=op.f("fk_proposals_campaign_id_image_id"),
        ),
        sa.PrimaryKeyConstraint("campaign_id", "image_id", "object_id", name=op.f("pk_proposals")),
    )


def _tasks() -> None:
    """Who works on what."""
    op.create_table(
        "tasks",
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("campaign_id", sa.String(), nullable=False),
        sa.Column("image_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("annotator_id", sa.String(length=12), nullable=True),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("submission_id", sa.String(length=64), nullable=True),
        sa.Column("lease_id", sa.String(length=64), nullable=True),
        sa.Column("leased_by", sa.String(length=12), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("skip_reason", sa.Text(), nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["annotator_id"], ["annotators.annotator_id"], name=op.f("fk_tasks_annotator_id")
        ),
        sa.ForeignKeyConstraint(
            ["campaign_id", "image_id"],
            ["campaign_images.campaign_id", "campaign_images.image_id"],
            name=op.f("fk_tasks_campaign_id_image_id"),
        ),
        sa.ForeignKeyConstraint(
            ["leased_by"], ["annotators.annotator_id"], name=op.f("fk_tasks_leased_by")
        ),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_tasks")),
        sa.UniqueConstraint(
            "campaign_id",
            "image_id",
            "annotator_id",
            name=op.f("uq_tasks_campaign_id_image_id_annotator_id"),
        ),
        sa.UniqueConstraint(
            "campaign_id", "image_id", "slot", name=op.f("uq_tasks_campaign_id_image_id_slot")
        ),
    )
    op.create_index(op.f("ix_tasks_annotator_id"), "tasks", ["annotator_id"], unique=False)
    op.create_index("tasks_by_holder", "tasks", ["campaign_id", "leased_by", "state"], unique=False)
    op.create_index(
        "tasks_in_order", "tasks", ["campaign_id", "state", "position", "slot"], unique=False
    )
    op.create_table(
        "drafts",
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("annotator_id", sa.String(length=12), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("saved_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["annotator_id"], ["annotators.annotator_id"], name=op.f("fk_drafts_annotator_id")
        ),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_drafts_task_id")),
        sa.PrimaryKeyConstraint("task_id", "annotator_id", name=op.f("pk_drafts")),
    )
    op.create_table(
        "events",
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("annotator_id", sa.String(length=12), nullable=False),
        sa.Column("page_id", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("object_id", sa.String(length=64), nullable=True),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["annotator_id"], ["annotators.annotator_id"], name=op.f("fk_events_annotator_id")
        ),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_events_task_id")),
        sa.PrimaryKeyConstraint(
            "task_id", "annotator_id", "page_id", "seq", name=op.f("pk_events")
        ),
    )


def _submissions() -> None:
    """What was handed in."""
    op.create_table(
        "submissions",
        sa.Column("submission_id", sa.String(length=64), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("annotator_id", sa.String(length=12), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("page_id", sa.String(length=64), nullable=False),
        sa.Column("last_seq", sa.Integer(), nullable=False),
        sa.Column("exhaustive", sa.Boolean(), nullable=False),
        sa.Column("active_seconds", sa.Double(), nullable=False),
        sa.Column("unattributed_seconds", sa.Double(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("submitted_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["annotator_id"], ["annotators.annotator_id"], name=op.f("fk_submissions_annotator_id")
        ),
        sa.ForeignKeyConstraint(
            ["task_id"], ["tasks.task_id"], name=op.f("fk_submissions_task_id")
        ),
        sa.PrimaryKeyConstraint("submission_id", name=op.f("pk_submissions")),
        sa.UniqueConstraint("task_id", "round", name=op.f("uq_submissions_task_id_round")),
    )
    op.create_index(op.f("ix_submissions_task_id"), "submissions", ["task_id"], unique=False)
    op.create_table(
        "submitted_objects",
        sa.Column("submission_id", sa.String(length=64), nullable=False),
        sa.Column("object_id", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("made", sa.String(length=16), nullable=False),
        sa.Column("counts", sa.Text(), nullable=False),
        sa.Column("predicted_iou", sa.Double(), nullable=True),
        sa.Column("prompts", sa.Text(), nullable=False),
        sa.Column("decoder", sa.String(length=16), nullable=True),
        sa.Column("accepted", sa.Boolean(), nullable=True),
        sa.Column("active_seconds", sa.Double(), nullable=False),
        sa.Column("clicks", sa.Integer(), nullable=False),
        sa.Column("strokes", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["submission_id"],
            ["submissions.submission_id"],
            name=op.f("fk_submitted_objects_submission_id"),
        ),
        sa.PrimaryKeyConstraint("submission_id", "object_id", name=op.f("pk_submitted_objects")),
    )


def _reviews() -> None:
    """What a second person said of it."""
    op.create_table(
        "reviews",
        sa.Column("review_id", sa.String(length=64), nullable=False),
        sa.Column("submission_id", sa.String(length=64), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("reviewer_id", sa.String(length=12), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("incomplete", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("judged_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["reviewer_id"], ["annotators.annotator_id"], name=op.f("fk_reviews_reviewer_id")
        ),
        sa.ForeignKeyConstraint(
            ["submission_id"], ["submissions.submission_id"], name=op.f("fk_reviews_submission_id")
        ),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_reviews_task_id")),
        sa.PrimaryKeyConstraint("review_id", name=op.f("pk_reviews")),
        sa.UniqueConstraint("submission_id", name=op.f("uq_reviews_submission_id")),
    )
    op.create_index(op.f("ix_reviews_task_id"), "reviews", ["task_id"], unique=False)
    op.create_table(
        "verdicts",
        sa.Column("review_id", sa.String(length=64), nullable=False),
        sa.Column("object_id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("counts", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["review_id"], ["reviews.review_id"], name=op.f("fk_verdicts_review_id")
        ),
        sa.PrimaryKeyConstraint("review_id", "object_id", name=op.f("pk_verdicts")),
    )
