"""Who may annotate: invitations, sessions and roles.

    invitation = invite(db, "Ada", "annotator", now=now)       # invitation.token is shown once
    signed_in = open_session(db, invitation.token, now=now)
    whoami(db, signed_in.session_id, now=now).name == "Ada"

Tokens and session ids are random and long, so that their plain SHA-256 in the database tells
nobody what they were. A token may be used again, on another device, until it is rotated.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import ColumnElement, delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from engine.annotation.database import Database
from engine.annotation.errors import (
    BadTokenError,
    NotAllowedError,
    NotSignedInError,
    RevokedError,
)
from engine.annotation.records import ROLES, Annotator, Invitation, Role, SignedIn
from engine.annotation.tables import AnnotatorRow, SessionRow, TaskRow
from engine.errors import BadInputError

__all__ = [
    "close_session",
    "find_annotator",
    "invite",
    "list_annotators",
    "lock_annotator",
    "open_session",
    "revoke",
    "rotate",
    "whoami",
]

_SECRET_BYTES = 32
_MAX_NAME = 200


def invite(db: Database, name: str, role: Role, *, now: datetime) -> Invitation:
    """Let somebody in.

    Raises:
        BadInputError: a name that is empty, too long or taken, or a role that is none.
    """
    name = name.strip()
    if not 1 <= len(name) <= _MAX_NAME or not name.isprintable():
        raise BadInputError(f"got the name {name[:80]!r}; expected 1 to {_MAX_NAME} characters")
    if role not in ROLES:
        raise BadInputError(f"got the role {role!r}; expected one of {', '.join(ROLES)}")
    token = secrets.token_urlsafe(_SECRET_BYTES)
    row = AnnotatorRow(
        annotator_id=secrets.token_hex(6),
        name=name,
        role=role,
        token_sha256=_hash(token),
        invited_at=now,
    )
    try:
        with db.writing() as session:
            session.add(row)
            session.flush()
            return Invitation(annotator=_annotator(row), token=token)
    except IntegrityError as error:
        raise BadInputError(
            f"{name!r} is invited already; rotate their token, or take another name"
        ) from error


def rotate(db: Database, annotator_id: str, *, now: datetime) -> Invitation:
    """Give somebody a new token: the old one and their sessions end. Revoked people stay out.

    Raises:
        BadInputError: there is nobody with this id or name.
        NotAllowedError: the person was revoked.
    """
    token = secrets.token_urlsafe(_SECRET_BYTES)
    with db.writing() as session:
        row = _row(session, annotator_id)
        if row.revoked_at is not None:
            raise NotAllowedError(f"{row.name} was revoked; invite them under another name")
        row.token_sha256 = _hash(token)
        _end_sessions(session, row.annotator_id)
        return Invitation(annotator=_annotator(row), token=token)


def revoke(db: Database, annotator_id: str, *, now: datetime) -> Annotator:
    """Shut somebody out at once; again: nothing happens.

    What they handed in stays. Others get what they were working on, and what they were to do again.

    Raises:
        BadInputError: there is nobody with this id or name.
    """
    with db.writing() as session:
        row = _row(session, annotator_id)
        if row.revoked_at is None:
            row.revoked_at = now
        # Sessions stay, to tell the person why they are out.
        _free_tasks(session, row.annotator_id, now)
        return _annotator(row)


def list_annotators(db: Database) -> tuple[Annotator, ...]:
    """Return everybody who was ever invited, oldest first."""
    query = select(AnnotatorRow).order_by(AnnotatorRow.invited_at, AnnotatorRow.name)
    with db.reading() as session:
        return tuple(_annotator(row) for row in session.scalars(query))


def find_annotator(db: Database, name_or_id: str) -> Annotator:
    """Return somebody by their id or name.

    Raises:
        BadInputError: there is nobody like that.
    """
    with db.reading() as session:
        return _annotator(_row(session, name_or_id))


def open_session(db: Database, token: str, *, now: datetime, days: int = 30) -> SignedIn:
    """Exchange an invitation's token for a session.

    Raises:
        BadTokenError: the token is none, or was rotated.
        RevokedError: its person was revoked.
    """
    session_id = secrets.token_urlsafe(_SECRET_BYTES)
    expires_at = now + timedelta(days=days)
    with db.writing() as session:
        row = session.scalar(select(AnnotatorRow).where(AnnotatorRow.token_sha256 == _hash(token)))
        if row is None:
            raise BadTokenError("this invitation is not valid, or not any more; ask for a new link")
        _refuse_revoked(row)
        session.execute(delete(SessionRow).where(SessionRow.expires_at <= now))
        session.add(
            SessionRow(
                session_sha256=_hash(session_id),
                annotator_id=row.annotator_id,
                opened_at=now,
                expires_at=expires_at,
            )
        )
        return SignedIn(session_id=session_id, annotator=_annotator(row), expires_at=expires_at)


def whoami(db: Database, session_id: str, *, now: datetime) -> Annotator:
    """Return whose session it is.

    Raises:
        NotSignedInError: there is no such session, or it is over.
        RevokedError: its person was revoked.
    """
    query = (
        select(AnnotatorRow)
        .join(SessionRow, SessionRow.annotator_id == AnnotatorRow.annotator_id)
        .where(
            SessionRow.session_sha256 == _hash(session_id),
            SessionRow.expires_at > now,
        )
    )
    with db.reading() as session:
        row = session.scalar(query)
        if row is None:
            raise NotSignedInError("not signed in, or no longer; open the invitation's link again")
        _refuse_revoked(row)
        return _annotator(row)


def close_session(db: Database, session_id: str) -> None:
    """End a session; again: nothing happens."""
    with db.writing() as session:
        session.execute(delete(SessionRow).where(SessionRow.session_sha256 == _hash(session_id)))


def lock_annotator(session: Session, annotator_id: str) -> Annotator:
    """Return somebody who wants a task, and let nobody else want one as them until the end.

    Raises:
        BadInputError: there is nobody with this id.
        NotAllowedError: the person was revoked.
    """
    query = select(AnnotatorRow).where(AnnotatorRow.annotator_id == annotator_id).with_for_update()
    row = session.scalar(query)
    if row is None:
        raise BadInputError(f"got the annotator {annotator_id!r}, who was never invited")
    if row.revoked_at is not None:
        raise NotAllowedError(f"{row.name} was revoked")
    return _annotator(row)


def _refuse_revoked(row: AnnotatorRow) -> None:
    if row.revoked_at is not None:
        raise RevokedError(f"{row.name} was revoked by an admin; ask them for a new invitation")


def _end_sessions(session: Session, annotator_id: str) -> None:
    session.execute(delete(SessionRow).where(SessionRow.annotator_id == annotator_id))


def _free_tasks(session: Session, annotator_id: str, now: datetime) -> None:
    no_lease = {"lease_id": None, "leased_by": None, "lease_expires_at": None, "changed_at": now}

    def free(condition: ColumnElement[bool], **values: object) -> None:
        session.execute(update(TaskRow).where(condition).values(**values, **no_lease))

    leased = (TaskRow.state == "leased") & (TaskRow.leased_by == annotator_id)
    free(leased & (TaskRow.round == 0), state="open", annotator_id=None)
    free(leased & (TaskRow.round > 0), state="returned", annotator_id=None)
    returned = (TaskRow.state == "returned") & (TaskRow.annotator_id == annotator_id)
    free(returned, annotator_id=None)
    reviewing = (TaskRow.state == "reviewing") & (TaskRow.leased_by == annotator_id)
    free(reviewing, state="submitted")


def _row(session: Session, name_or_id: str) -> AnnotatorRow:
    query = (
        select(AnnotatorRow)
        .where(or_(AnnotatorRow.annotator_id == name_or_id, AnnotatorRow.name == name_or_id))
        .order_by(AnnotatorRow.annotator_id == name_or_id)
        .with_for_update()
    )
    row = session.scalars(query).all()
    if not row:
        raise BadInputError(f"got the annotator {name_or_id!r}; nobody of this name was invited")
    return row[-1]


def _annotator(row: AnnotatorRow) -> Annotator:
    return Annotator(
        annotator_id=row.annotator_id,
        name=row.name,
        role=cast(Role, row.role),
        invited_at=row.invited_at,
        revoked_at=row.revoked_at,
    )


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
