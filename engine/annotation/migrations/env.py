"""Run by alembic for each `migrate`; nobody imports it."""

from __future__ import annotations

from alembic import context

from engine.annotation.migrations import VERSION_TABLE
from engine.annotation.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
)
context.run_migrations()
