"""What was published, who the database is, and finding an image whatever its campaign."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add three tables and an index."""
    _properties()
    _publications()
    op.create_index("images_of_all_campaigns", "campaign_images", ["image_id"])


def _properties() -> None:
    properties = op.create_table(
        "properties",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_properties")),
    )
    op.bulk_insert(properties, [{"name": "database_id", "value": uuid.uuid4().hex}])


def _publications() -> None:
    op.create_table(
        "publications",
        sa.Column("campaign_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("planned_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("release", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.campaign_id"], name=op.f("fk_publications_campaign_id")
        ),
        sa.PrimaryKeyConstraint("campaign_id", "number", name=op.f("pk_publications")),
    )
    op.create_table(
        "published_images",
        sa.Column("campaign_id", sa.String(length=64), nullable=False),
        sa.Column("image_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("submission_id", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(
            ["submission_id"],
            ["submissions.submission_id"],
            name=op.f("fk_published_images_submission_id"),
        ),
        sa.ForeignKeyConstraint(
            ["campaign_id", "image_id"],
            ["campaign_images.campaign_id", "campaign_images.image_id"],
            name=op.f("fk_published_images_campaign_id_image_id"),
        ),
        sa.ForeignKeyConstraint(
            ["campaign_id", "number"],
            ["publications.campaign_id", "publications.number"],
            name=op.f("fk_published_images_campaign_id_number"),
        ),
        sa.PrimaryKeyConstraint("campaign_id", "image_id", name=op.f("pk_published_images")),
    )
