"""The databases of a workspace, tidied: people's work, and the index of the tables.

for freed in tidy_databases(workspace): print(freed.what, freed.size_bytes)
"""

from __future__ import annotations

from engine.annotation.database import FILE_NAME
from engine.annotation.opening import annotation_schema
from engine.config import load_settings
from engine.database_upkeep import tidy_postgresql, tidy_sqlite
from engine.dataset.catalog import Workspace
from engine.dataset.catalog_database import CATALOG_FILE, CATALOG_TABLES
from engine.upkeep import Freed

__all__ = ["tidy_databases"]

_ANNOTATION, _CATALOG = "annotation database", "catalog"


def tidy_databases(workspace: Workspace, *, dry_run: bool = False) -> tuple[Freed, ...]:
    """Vacuum and analyse the annotation database and the catalog, where there are such.

    Raises:
        TransientError: one is in use for long, or cannot be reached.
        WorkspaceError: one is damaged, or refused.
    """
    url = load_settings().database_url
    if url is None:
        folder = workspace.local_folder
        found = (
            tidy_sqlite(folder / FILE_NAME, _ANNOTATION, dry_run=dry_run),
            tidy_sqlite(folder / CATALOG_FILE, _CATALOG, dry_run=dry_run),
        )
        return tuple(freed for freed in found if freed is not None)
    address = url.get_secret_value()
    return (
        tidy_postgresql(address, annotation_schema(workspace), _ANNOTATION, dry_run=dry_run),
        tidy_postgresql(address, None, _CATALOG, tables=CATALOG_TABLES, dry_run=dry_run),
    )
