"""Bringing a table that an older version made up to the columns of this one.

    evolve(workspace.table("masks"), iceberg_schema("masks"))

Columns are only ever added, at the end and optional: rows from before have none in them, and
releases from before read as they were. Field ids must come out as `engine.dataset.schemas` says,
because the shards that workers write carry them.
"""

from __future__ import annotations

import logging

from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import NestedField

from engine.errors import WorkspaceError

__all__ = ["evolve"]

log = logging.getLogger(__name__)


def evolve(table: Table, wanted: Schema) -> None:
    """Add the columns that the table lacks; again, or by several processes: once.

    A table may have more columns, from a newer version: they stay, and are empty in new rows.

    Raises:
        WorkspaceError: the table cannot be brought to these columns.
        CommitFailedException: another process changed the table; look again.
    """
    name = table.name()[-1]
    present = {field.name: field for field in table.schema().fields}
    missing = [field for field in wanted.fields if field.name not in present]
    for field in wanted.fields:
        if (existing := present.get(field.name)) is not None:
            _refuse_change(name, existing, field)
    known = {field.name for field in wanted.fields}
    if foreign := sorted(f.name for n, f in present.items() if n not in known and f.required):
        raise WorkspaceError(
            f"table {name} requires {', '.join(foreign)}, which this version does not know: a "
            "newer one made it; update maskwheel"
        )
    if required := [field.name for field in missing if field.required]:
        raise WorkspaceError(
            f"table {name} lacks {', '.join(required)}: it was not made by maskwheel, or is damaged"
        )
    if not missing:
        return
    with table.transaction() as transaction:
        with transaction.update_schema() as change:
            for field in missing:
                change.add_column(field.name, field.field_type, field.doc)
        # Looked at before it is committed.
        staged = transaction.table_metadata.schema()
        for field in missing:
            _refuse_change(name, staged.find_field(field.name), field)
    # That a new table gets its columns in two steps is nothing to tell.
    level = logging.DEBUG if table.current_snapshot() is None else logging.INFO
    log.log(level, "table %s: added %s", name, ", ".join(field.name for field in missing))


def _refuse_change(table: str, existing: NestedField, wanted: NestedField) -> None:
    if (existing.field_id, existing.field_type) != (wanted.field_id, wanted.field_type):
        raise WorkspaceError(
            f"table {table}: column {wanted.name} is {existing.field_type} with id "
            f"{existing.field_id}, expected {wanted.field_type} with id {wanted.field_id}; another "
            "version made it: use that one"
        )
    if existing.required and not wanted.required:
        raise WorkspaceError(
            f"table {table} requires {wanted.name}, which is optional in this version; update "
            "maskwheel"
        )
