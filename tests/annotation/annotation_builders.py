"""Small campaigns, people and masks for tests of the annotation database."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from engine.annotation.annotators import invite
from engine.annotation.campaigns import open_campaign
from engine.annotation.database import Database
from engine.annotation.records import (
    Campaign,
    CampaignImage,
    CampaignSpec,
    Event,
    Lease,
    MaskObject,
    NothingToDo,
    Receipt,
    Role,
    Submission,
)
from engine.annotation.submissions import submit
from engine.annotation.tasks import lease_next
from engine.masks import encode_mask
from engine.records import Rle

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HEIGHT, WIDTH = 40, 60
PAGE = "page-1"


def at(seconds: float) -> datetime:
    """Return a time some seconds after the test's start."""
    return NOW + timedelta(seconds=seconds)


def an_image(image_id: int) -> CampaignImage:
    return CampaignImage(image_id=image_id, width=WIDTH, height=HEIGHT, uri=f"/photos/{image_id}")


def a_campaign(
    db: Database,
    images: int = 3,
    *,
    name: str = "birds",
    annotators_per_image: int = 1,
    review: bool = False,
) -> Campaign:
    """Open a campaign over images with the ids 101, 102, ..."""
    spec = CampaignSpec(
        name=name,
        stage="manual",
        images=tuple(an_image(101 + i) for i in range(images)),
        model="m1",
        model_id="model-1",
        annotators_per_image=annotators_per_image,
        review=review,
    )
    return open_campaign(db, spec, now=NOW)


def a_person(db: Database, name: str = "Ada", role: Role = "annotator") -> str:
    """Invite somebody; return their id."""
    return invite(db, name, role, now=NOW).annotator.annotator_id


def a_mask(
    x0: int = 5,
    y0: int = 5,
    x1: int = 20,
    y1: int = 15,
    *,
    height: int = HEIGHT,
    width: int = WIDTH,
) -> Rle:
    """Return a rectangle: columns x0 to x1 - 1, rows y0 to y1 - 1."""
    mask_HW = np.zeros((height, width), dtype=np.bool_)
    mask_HW[y0:y1, x0:x1] = True
    return encode_mask(mask_HW)


def an_object(object_id: str, rle: Rle | None = None, *, proposal: bool = False) -> MaskObject:
    return MaskObject(
        object_id=object_id,
        rle=rle or a_mask(),
        proposal=proposal,
        predicted_iou=0.9,
        decoder="browser",
    )


def some_events(*seconds_and_objects: tuple[float, str | None], kind: str = "click") -> list[Event]:
    """Return events at times after the test's start, numbered from 1."""
    return [
        Event(seq=seq, at_ms=int(at(seconds).timestamp() * 1000), kind=kind, object_id=object_id)
        for seq, (seconds, object_id) in enumerate(seconds_and_objects, start=1)
    ]


def a_lease(db: Database, campaign: Campaign, person: str, now: datetime = NOW) -> Lease:
    """Lease the next task; there has to be one."""
    lease = lease_next(db, campaign.campaign_id, person, now=now)
    assert isinstance(lease, Lease), lease
    return lease


def nothing(db: Database, campaign: Campaign, person: str, now: datetime = NOW) -> str:
    """Ask for a task where there is none; return the reason."""
    found = lease_next(db, campaign.campaign_id, person, now=now)
    assert isinstance(found, NothingToDo), found
    return found.reason


def a_submission(
    *objects: MaskObject,
    deleted: Sequence[str] = (),
    events: Sequence[Event] = (),
    exhaustive: bool = False,
) -> Submission:
    return Submission(
        submission_id=str(uuid.uuid4()),
        objects=objects,
        deleted=tuple(deleted),
        exhaustive=exhaustive,
        page_id=PAGE,
        last_seq=max((event.seq for event in events), default=0),
        events=tuple(events),
    )


def hand_in(
    db: Database,
    lease: Lease,
    *objects: MaskObject,
    deleted: Sequence[str] = (),
    events: Sequence[Event] = (),
    exhaustive: bool = False,
    now: datetime = NOW,
) -> Receipt:
    """Submit a leased task."""
    handed_in = a_submission(*objects, deleted=deleted, events=events, exhaustive=exhaustive)
    return submit(db, lease.key, handed_in, now=now)
