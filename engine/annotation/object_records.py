"""Masks that people make, and what they are made of: prompts, objects, drafts, events.

    MaskObject(object_id="a1", rle=rle, prompts=(PointPrompt(120.5, 80.0, 1),), decoder="browser")

Import from `engine.annotation.records`, which has them all. Coordinates are pixels of the original
image, after EXIF orientation: x right, y down, and pixel i covers [i, i + 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from engine.records import Rle

DecoderKind = Literal["browser", "server"]
Made = Literal["kept", "corrected", "new", "deleted"]
"""What a person did to the model's proposal; ``"new"``: there was none."""
VerdictKind = Literal["accept", "fix", "reject"]


@dataclass(frozen=True, slots=True)
class PointPrompt:
    """A click: on the object (`label` 1), or on what is not part of it (0)."""

    x: float
    y: float
    label: int


@dataclass(frozen=True, slots=True)
class BoxPrompt:
    """A box around the object; x1 and y1 are its right and lower edge."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True, slots=True)
class StrokePrompt:
    """What a brush added, or an eraser took away."""

    mode: Literal["brush", "eraser"]
    radius: float
    points: tuple[tuple[float, float], ...]


Prompt = PointPrompt | BoxPrompt | StrokePrompt


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskObject:
    """One mask of a task, or a proposal.

    Attributes:
        object_id: unique in its task: letters, digits, ``._-``, at most 64.
        rle: at the image's size.
        proposal: whether it began as a proposal.
        predicted_iou: the model's own estimate, of its last answer.
        prompts: what it was made with, in order.
        decoder: what answered them; None: nothing did.
        accepted: of a proposal, whether it is shown as done, or the person confirmed it.
    """

    object_id: str
    rle: Rle
    proposal: bool = False
    predicted_iou: float | None = None
    prompts: tuple[Prompt, ...] = ()
    decoder: DecoderKind | None = None
    accepted: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftContent:
    """The unsent state of a task.

    Attributes:
        objects: finished so far.
        deleted: ids of objects that were deleted, proposals among them.
        exhaustive: whether the person says that nothing is left to annotate.
        current: the object that is being made.
    """

    objects: tuple[MaskObject, ...] = ()
    deleted: tuple[str, ...] = ()
    exhaustive: bool = False
    current: MaskObject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A saved draft; its version grows by one with each save, from 1."""

    version: int
    content: DraftContent
    saved_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that a person did, at one moment; never changes.

    Attributes:
        seq: place among the task's events of one page, from 1, without gaps.
        at_ms: the client's clock, milliseconds since 1970.
        kind: ``"click"``, ``"box"``, ``"stroke"``, ``"undo"``, ``"commit"``, ...
        object_id: what it was done to; None: to no object.
        data: more about it, as a JSON object.
    """

    seq: int
    at_ms: int
    kind: str
    object_id: str | None = None
    data: str = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedEvent:
    """An event as the log has it: with who did it, and on which page."""

    annotator_id: str
    page_id: str
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveSeconds:
    """A person's time on one task.

    Attributes:
        total: the sum of `by_object` and `unattributed`.
        by_object: by object id.
        unattributed: before events without an object: looking, moving the view.
    """

    total: float
    by_object: dict[str, float]
    unattributed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmittedObject:
    """A mask of a submission, with what it cost.

    Attributes:
        mask: as it was handed in; of a deleted proposal, the proposal.
        made: from a proposal, or not.
        active_seconds: the person's time on it.
        clicks: prompts that asked the model: clicks and boxes, also those taken back.
        strokes: of brush and eraser.
        verdict: of the last review.
        fixed: the reviewer's own mask, if the verdict is ``"fix"``.
    """

    mask: MaskObject
    made: Made
    active_seconds: float
    clicks: int
    strokes: int
    verdict: VerdictKind | None = None
    fixed: Rle | None = None

    @property
    def final(self) -> Rle:
        """The mask after the review."""
        return self.fixed or self.mask.rle
