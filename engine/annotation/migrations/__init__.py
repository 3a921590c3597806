"""Bringing the annotation database up to date: numbered steps, each run once, all or none.

    with engine.begin() as connection:
        migrate(connection)

The steps are in ``versions/``; what a released one does never changes. A new step is a file beside
them with the next number.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

from engine.errors import WorkspaceError

__all__ = ["migrate", "newest_version", "version_of"]

VERSION_TABLE = "annotation_version"


def migrate(connection: Connection, version: str = "head") -> None:
    """Bring the database, empty or of any earlier version, to a version.

    Args:
        connection: inside of a transaction, which keeps others from migrating at the same time.
        version: where to stop; the newest by default.

    Raises:
        WorkspaceError: a newer Maskwheel made the database.
    """
    config = _config()
    present = version_of(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if present is not None and present not in known:
        raise WorkspaceError(
            f"the annotation database is of version {present}, this Maskwheel knows versions up to "
            f"{max(known)}: a newer one made it; update maskwheel"
        )
    config.attributes["connection"] = connection
    command.upgrade(config, version)


def version_of(connection: Connection) -> str | None:
    """Return the database's version; None: it is empty."""
    options = {"version_table": VERSION_TABLE}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def newest_version() -> str:
    """Return the version that `migrate` leads to."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config
