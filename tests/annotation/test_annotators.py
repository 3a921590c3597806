"""Who gets in: tokens and sessions are secrets, roles grow, and who is revoked is out at once."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from engine.annotation.annotators import (
    close_session,
    find_annotator,
    invite,
    list_annotators,
    open_session,
    revoke,
    rotate,
    whoami,
)
from engine.annotation.database import Database
from engine.annotation.errors import (
    BadTokenError,
    NotAllowedError,
    NotSignedInError,
    RevokedError,
)
from engine.annotation.tables import AnnotatorRow, SessionRow
from engine.errors import BadInputError
from tests.annotation.annotation_builders import NOW, at


def test_an_invitation_opens_a_session_and_a_session_says_who_it_is(db: Database) -> None:
    invitation = invite(db, "  Ada ", "reviewer", now=NOW)
    signed_in = open_session(db, invitation.token, now=NOW, days=1)
    assert whoami(db, signed_in.session_id, now=at(86_399)) == invitation.annotator
    assert invitation.annotator.name == "Ada"
    with pytest.raises(NotSignedInError):
        whoami(db, signed_in.session_id, now=at(86_400))


def test_roles_grow(db: Database) -> None:
    reviewer = invite(db, "Ada", "reviewer", now=NOW).annotator
    assert reviewer.may("annotator")
    assert reviewer.may("reviewer")
    assert not reviewer.may("admin")


def test_a_token_serves_several_devices_and_sessions_end_one_by_one(db: Database) -> None:
    token = invite(db, "Ada", "annotator", now=NOW).token
    phone, desk = open_session(db, token, now=NOW), open_session(db, token, now=NOW)
    assert phone.session_id != desk.session_id
    close_session(db, phone.session_id)
    close_session(db, phone.session_id)
    with pytest.raises(NotSignedInError):
        whoami(db, phone.session_id, now=NOW)
    assert whoami(db, desk.session_id, now=NOW).name == "Ada"


def test_a_rotated_token_ends_the_old_one_and_its_sessions(db: Database) -> None:
    old = invite(db, "Ada", "annotator", now=NOW)
    session = open_session(db, old.token, now=NOW)
    new = rotate(db, old.annotator.annotator_id, now=NOW)
    with pytest.raises(NotSignedInError):
        whoami(db, session.session_id, now=NOW)
    with pytest.raises(BadTokenError):
        open_session(db, old.token, now=NOW)
    assert open_session(db, new.token, now=NOW).annotator == old.annotator


def test_who_is_revoked_is_out_at_once_and_for_good(db: Database) -> None:
    invitation = invite(db, "Ada", "admin", now=NOW)
    session = open_session(db, invitation.token, now=NOW)
    assert revoke(db, "Ada", now=at(5)).revoked_at == at(5)
    assert revoke(db, "Ada", now=at(9)).revoked_at == at(5)
    with pytest.raises(RevokedError):
        whoami(db, session.session_id, now=at(5))
    with pytest.raises(RevokedError):
        open_session(db, invitation.token, now=at(5))
    with pytest.raises(NotAllowedError, match="revoked"):
        rotate(db, "Ada", now=at(6))


@pytest.mark.parametrize("token", ["", "x", "\x00", "é" * 1000])
def test_made_up_tokens_and_sessions_open_nothing(db: Database, token: str) -> None:
    invite(db, "Ada", "annotator", now=NOW)
    with pytest.raises(BadTokenError):
        open_session(db, token, now=NOW)
    with pytest.raises(NotSignedInError):
        whoami(db, token, now=NOW)


def test_the_database_has_neither_tokens_nor_session_ids(db: Database) -> None:
    invitation = invite(db, "Ada", "annotator", now=NOW)
    session = open_session(db, invitation.token, now=NOW)
    with db.reading() as reading:
        tables = (AnnotatorRow.__table__, SessionRow.__table__)
        stored = repr([reading.execute(select(table)).all() for table in tables])
    assert "Ada" in stored
    assert invitation.token not in stored
    assert session.session_id not in stored
    assert invitation.token not in repr(invitation)
    assert session.session_id not in repr(session)


def test_people_are_found_by_name_and_by_id(db: Database) -> None:
    ada = invite(db, "Ada", "annotator", now=NOW).annotator
    bob = invite(db, "Bob", "annotator", now=at(1)).annotator
    assert list_annotators(db) == (ada, bob)
    assert find_annotator(db, "Bob") == find_annotator(db, bob.annotator_id) == bob
    with pytest.raises(BadInputError, match="nobody of this name"):
        find_annotator(db, "Cleo")


def test_a_name_that_is_another_persons_id_does_not_hide_that_person(db: Database) -> None:
    ada = invite(db, "Ada", "annotator", now=NOW).annotator
    invite(db, ada.annotator_id, "annotator", now=NOW)
    assert find_annotator(db, ada.annotator_id) == ada


def test_names_are_unique_and_are_names(db: Database) -> None:
    invite(db, "Ada", "annotator", now=NOW)
    with pytest.raises(BadInputError, match="invited already"):
        invite(db, "Ada", "admin", now=NOW)
    for name in ("", " ", "a\nb", "x" * 201, "a\x00", "\ud800"):
        with pytest.raises(BadInputError, match="name"):
            invite(db, name, "annotator", now=NOW)
    with pytest.raises(BadInputError, match="role"):
        invite(db, "Bob", "king", now=NOW)  # type: ignore[arg-type]
