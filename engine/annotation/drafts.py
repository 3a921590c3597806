"""Drafts: what somebody has made of a task and not handed in; saved often, lost never.

    version = save_draft(db, key, version, content, now=now)

A save names the version that it builds on. If another tab has saved since, it is refused with that
draft; if the same content is there already, because an answer was lost, it is fine.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from engine.annotation.database import Database
from engine.annotation.errors import DraftConflictError
from engine.annotation.leases import held_task
from engine.annotation.payloads import draft_from_json, draft_to_json
from engine.annotation.records import Draft, DraftContent, LeaseKey
from engine.annotation.tables import DraftRow
from engine.annotation.texts import check_id

__all__ = ["draft_of", "load_draft", "put_draft", "save_draft"]


def save_draft(
    db: Database, key: LeaseKey, version: int, content: DraftContent, *, now: datetime
) -> int:
    """Save a draft; return its version.

    Args:
        db: the database.
        key: of the task's lease.
        version: that the content builds on; 0: there was none.
        content: all of the draft. Its masks are checked when they are handed in.
        now: UTC.

    Raises:
        DraftConflictError: the saved draft is of another version.
        LeaseLostError: the task is another's.
        UnknownTaskError: there is no such task.
        BadInputError: an id that is none, or a number that is not finite.
    """
    for item in (*content.objects, *([content.current] if content.current else [])):
        check_id("object id", item.object_id)
    for object_id in content.deleted:
        check_id("object id", object_id)
    text = draft_to_json(content)
    with db.writing() as session:
        held_task(session, key, "leased")
        row = session.get(DraftRow, (key.task_id, key.annotator_id))
        present = 0 if row is None else row.version
        if row is not None and present == version + 1 and row.content == text:
            return present
        if present != version:
            raise DraftConflictError(
                f"the draft of task {key.task_id} is at version {present}, not {version}: it was "
                "saved elsewhere meanwhile",
                present,
                None if row is None else _draft(row),
            )
        return put_draft(session, key.task_id, key.annotator_id, content, now)


def load_draft(db: Database, task_id: int, annotator_id: str) -> Draft | None:
    """Return somebody's draft of a task; None: there is none."""
    with db.reading() as session:
        return draft_of(session, task_id, annotator_id)


def draft_of(session: Session, task_id: int, annotator_id: str) -> Draft | None:
    """Return somebody's draft of a task; None: there is none."""
    row = session.get(DraftRow, (task_id, annotator_id))
    return None if row is None else _draft(row)


def put_draft(
    session: Session, task_id: int, annotator_id: str, content: DraftContent, now: datetime
) -> int:
    """Replace somebody's draft of a task, of whatever version; return the new one."""
    row = session.get(DraftRow, (task_id, annotator_id))
    if row is None:
        row = DraftRow(task_id=task_id, annotator_id=annotator_id, version=0)
        session.add(row)
    row.version += 1
    row.content, row.saved_at = draft_to_json(content), now
    return row.version


def _draft(row: DraftRow) -> Draft:
    return Draft(version=row.version, content=draft_from_json(row.content), saved_at=row.saved_at)
