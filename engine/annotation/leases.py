"""Leases: who works on a task, until when. A task has one at most, and a person one per campaign.

    row = take(session, condition, "leased", annotator_id, now=now, seconds=120)
    row = held_task(session, key, "leased")         # or LeaseLostError

A lease is lost when another takes the task after its time is over, and not before: whoever comes
back late to a task that nobody took goes on. Taking is one UPDATE ... RETURNING of the first task
that fits, so that any number of processes may take at once and no two get the same.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from engine.annotation.errors import LeaseLostError, UnknownTaskError
from engine.annotation.records import LeaseKey
from engine.annotation.tables import TaskRow
from engine.errors import BadInputError

__all__ = [
    "LEASE_SECONDS",
    "LeasedState",
    "check_seconds",
    "end_lease",
    "held_task",
    "locked_task",
    "require_lease",
    "take",
]

LEASE_SECONDS = 120
LeasedState = Literal["leased", "reviewing"]

_LONGEST_SECONDS = 24 * 3600


def take(
    session: Session,
    condition: ColumnElement[bool],
    state: LeasedState,
    annotator_id: str,
    *,
    now: datetime,
    seconds: int,
) -> TaskRow | None:
    """Lease the first task, in the campaign's order, that meets a condition; None: there is none.

    `session` holds the person's lock (`lock_annotator`).
    """
    # Rows that another transaction is taking are passed over. SQLite has no such transactions.
    first = (
        select(TaskRow.task_id)
        .where(condition)
        .order_by(TaskRow.position, TaskRow.slot)
        .limit(1)
        .with_for_update(of=TaskRow, skip_locked=True)
        .correlate(None)
        .scalar_subquery()
    )
    values: dict[str, object] = {
        "state": state,
        "lease_id": secrets.token_hex(16),
        "leased_by": annotator_id,
        "lease_expires_at": now + timedelta(seconds=seconds),
        "changed_at": now,
    }
    if state == "leased":
        values["annotator_id"] = annotator_id
    taking = update(TaskRow).where(TaskRow.task_id == first).values(**values).returning(TaskRow)
    return session.scalar(taking, execution_options={"synchronize_session": False})


def held_task(session: Session, key: LeaseKey, *states: LeasedState) -> TaskRow:
    """Return a task that its lease's holder works on, locked until the transaction ends.

    Raises:
        UnknownTaskError: there is no such task.
        LeaseLostError: the lease is not the task's, or not any more, or of another person.
    """
    row = locked_task(session, key.task_id)
    require_lease(row, key, *states)
    return row


def require_lease(row: TaskRow, key: LeaseKey, *states: LeasedState) -> None:
    """Check that a key opens a task.

    Raises:
        LeaseLostError: it does not.
    """
    if not (
        row.state in states
        and row.leased_by == key.annotator_id
        and row.lease_id is not None
        and secrets.compare_digest(row.lease_id.encode(), key.lease_id.encode("utf-8", "replace"))
    ):
        raise LeaseLostError(
            f"task {key.task_id} is not yours any more: it was handed in, opened in another tab, "
            "or given to another person after a pause; ask for the next task"
        )


def locked_task(session: Session, task_id: int) -> TaskRow:
    """Return a task, locked until the transaction ends.

    Raises:
        UnknownTaskError: there is no such task.
    """
    if not 0 < task_id < 2**31:
        raise UnknownTaskError(f"there is no task {task_id}")
    row = session.scalar(select(TaskRow).where(TaskRow.task_id == task_id).with_for_update())
    if row is None:
        raise UnknownTaskError(f"there is no task {task_id}")
    return row


def end_lease(row: TaskRow, state: str, now: datetime) -> None:
    """Take a task from whoever works on it."""
    row.state, row.changed_at = state, now
    row.lease_id = row.leased_by = row.lease_expires_at = None


def check_seconds(seconds: int) -> None:
    """Check how long a lease is to be.

    Raises:
        BadInputError: less than a second, or more than a day.
    """
    if not 1 <= seconds <= _LONGEST_SECONDS:
        raise BadInputError(f"got a lease of {seconds} s; expected 1 to {_LONGEST_SECONDS}")
