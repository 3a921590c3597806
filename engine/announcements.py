"""What the engine announces when it happened, to whoever handed it a callable.

    def hear(news: Announcement) -> None: ...
    publish(workspace, publication, gate, announce=hear)

An announcement is a hint, so that others look sooner; the truth is what was written before it. One
may be lost when a process dies between the two, and whoever hears it looks for itself. So telling
never fails the work that is told about.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from engine.records import PromotionDecision, Release

__all__ = [
    "Announce",
    "Announcement",
    "AuditCheckFailed",
    "AuditFailed",
    "CampaignCompleted",
    "ModelPromoted",
    "ReleasePublished",
    "tell",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasePublished:
    """A release was written: told once, by whoever wrote it.

    Attributes:
        workspace: address of the data set.
        release: its record.
    """

    workspace: str
    release: Release


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignCompleted:
    """The last image of a campaign was accepted or skipped: told once, by whoever did that.

    Attributes:
        workspace: address of the data set that the campaign's images are of.
        campaign: its name.
        campaign_id: its id.
        stage: what its masks will be.
        images: number of its images.
        masks: accepted masks.
    """

    workspace: str
    campaign: str
    campaign_id: str
    stage: Literal["manual", "semi"]
    images: int
    masks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPromoted:
    """The champion changed, by a promotion or a rollback.

    Attributes:
        workspace: address of the data set.
        decision: the log's entry.
    """

    workspace: str
    decision: PromotionDecision


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditCheckFailed:
    """A check of an audit that failed.

    Attributes:
        name: of the check.
        figure: what was measured.
        limit: what was asked.
        detail: one sentence for a person.
    """

    name: str
    figure: float
    limit: float
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFailed:
    """An audit found a release below the bar.

    Attributes:
        workspace: address of the data set.
        release: what was audited.
        model: the model version that made its masks, as far as one did.
        reason: one sentence for a person.
        figure: what was reached on the first figure, e.g. the mean IoU with corrected masks.
        bar: what was asked of it.
        checks: all that failed.
    """

    workspace: str
    release: str
    model: str | None
    reason: str
    figure: float | None
    bar: float | None
    checks: tuple[AuditCheckFailed, ...] = ()


Announcement = ReleasePublished | CampaignCompleted | ModelPromoted | AuditFailed

Announce = Callable[[Announcement], None]
"""Hears what happened, after it was written."""


def tell(announce: Announce | None, announcement: Announcement) -> None:
    """Announce something that is done; what goes wrong in telling is logged and no more."""
    if announce is None:
        return
    try:
        announce(announcement)
    except Exception as error:  # the work is done: whoever listens must not undo it
        logger.warning("%s was not announced: %r", type(announcement).__name__, error)
