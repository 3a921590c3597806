"""A table in the Prefect UI that a person can read, whatever the rows hold.

show_table("skipped", [{"photo": "a.jpg", "reason": "truncated"}], "1 photo was skipped")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flows.artifacts.sending import artifact_key, attempt
from flows.artifacts.texts import Cell, in_cell, readable

__all__ = ["MAX_ROWS", "show_table"]

MAX_ROWS = 200


def show_table(
    key: str, rows: Sequence[Mapping[str, Cell]], description: str = "", *, rest: str = ""
) -> None:
    """Leave a table in the Prefect UI; tables of one key are its versions.

    Args:
        key: any text; it is made into a key.
        rows: in the order of showing, with the columns of the first; the first `MAX_ROWS` are
            shown.
        description: a sentence above it, Markdown.
        rest: where the rows are that are not shown, e.g. ``"all in `maskwheel report`"``.
    """
    from prefect.artifacts import create_table_artifact

    columns = list(rows[0]) if rows else []
    shown = [
        {in_cell(name): in_cell(readable(row.get(name))) for name in columns}
        for row in rows[:MAX_ROWS]
    ]
    parts = [description] if description else []
    if len(rows) > MAX_ROWS:
        parts.append(f"The first {MAX_ROWS} of {len(rows):,} rows" + (f"; {rest}" if rest else ""))
    attempt(
        f"table {key}",
        lambda: create_table_artifact(
            shown, key=artifact_key(key), description=". ".join(parts) or None
        ),
    )
