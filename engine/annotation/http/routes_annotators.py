"""People: who may sign in. For admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from engine.annotation import records
from engine.annotation.annotators import invite, list_annotators, revoke, rotate
from engine.annotation.http.answers import AnnotatorValue, Invitation, NewAnnotator
from engine.annotation.http.bodies import JsonRoute
from engine.annotation.http.context import Context, ServiceContext
from engine.annotation.http.errors import ApiError
from engine.annotation.http.security import Leading
from engine.annotation.http.whereabouts import join_link

__all__ = ["router"]

router = APIRouter(prefix="/api/annotators", tags=["annotators"], route_class=JsonRoute)

AnnotatorId = Annotated[str, Path(pattern=r"^[0-9a-f]{12}$")]


@router.get("")
def annotators(context: Context, me: Leading) -> list[AnnotatorValue]:
    """List everybody who was ever invited."""
    return [_value(annotator) for annotator in list_annotators(context.database)]


@router.post("", status_code=201)
def invite_annotator(body: NewAnnotator, context: Context, me: Leading) -> Invitation:
    """Invite somebody; the answer's link signs them in, and is shown this once."""
    made = invite(context.database, body.name, body.role, now=context.clock())
    return _invitation(made, context)


@router.post("/{annotator_id}/invitation", status_code=201)
def renew_invitation(annotator_id: AnnotatorId, context: Context, me: Leading) -> Invitation:
    """Make a new link for somebody; the old one and its sessions end."""
    return _invitation(rotate(context.database, annotator_id, now=context.clock()), context)


@router.delete("/{annotator_id}")
def revoke_annotator(annotator_id: AnnotatorId, context: Context, me: Leading) -> AnnotatorValue:
    """Shut somebody out, at once; what they did stays."""
    if annotator_id == me.annotator_id:
        raise ApiError(409, "own_account", "an admin cannot shut out themselves; ask another one")
    return _value(revoke(context.database, annotator_id, now=context.clock()))


def _invitation(made: records.Invitation, context: ServiceContext) -> Invitation:
    return Invitation(
        id=made.annotator.annotator_id,
        name=made.annotator.name,
        role=made.annotator.role,
        token=made.token,
        link=join_link(context.public_url, made.token),
    )


def _value(annotator: records.Annotator) -> AnnotatorValue:
    return AnnotatorValue(
        id=annotator.annotator_id,
        name=annotator.name,
        role=annotator.role,
        invited_at=annotator.invited_at,
        revoked_at=annotator.revoked_at,
    )
