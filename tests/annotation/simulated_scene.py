"""A scene of discs with known masks, a decoder that answers imprecisely, and a service that notes.

For tests of simulated people without a service and without a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.annotation.client_values import (
    AcknowledgedSubmission,
    DecodedMasks,
    TaskImage,
    TaskLease,
)
from engine.annotation.errors import DraftConflictError
from engine.annotation.records import (
    BoxPrompt,
    DecoderKind,
    DraftContent,
    Event,
    MaskObject,
    PointPrompt,
    Prompt,
)
from engine.annotation.simulation.answers import logits_of_mask
from engine.annotation.simulation.truth import Truth
from engine.dataset.labelled_sets import LabelledImage, LabelledMask
from engine.masks import encode_mask, mask_area
from model.preprocess import input_frame

HEIGHT, WIDTH, IMAGE_ID = 120, 160, 77
FRAME = input_frame((HEIGHT, WIDTH), 512, 32)
DISCS = ((40, 40, 28), (115, 35, 22), (120, 90, 18), (40, 98, 14))

Mask = NDArray[np.bool_]


def disc(x: float, y: float, radius: float) -> Mask:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)


def scene_masks() -> list[Mask]:
    return [disc(*place) for place in DISCS]


def scene_truth(voters: Sequence[tuple[int, ...]] | None = None) -> Truth:
    """The discs, each drawn by the given people."""
    masks = []
    for place, mask in enumerate(scene_masks()):
        rle = encode_mask(mask)
        drawn_by = voters[place] if voters else ()
        masks.append(LabelledMask(rle, (0, 0, 0, 0), mask_area(rle), voters=drawn_by))
    return Truth({IMAGE_ID: LabelledImage("nowhere.jpg", HEIGHT, WIDTH, tuple(masks))})


def scene_lease(
    proposals: Iterable[MaskObject] = (), draft: DraftContent | None = None, **changed: object
) -> TaskLease:
    values: dict[str, object] = {
        "task_id": "5",
        "lease_id": "lease",
        "seconds": 120,
        "campaign": "discs",
        "model_id": "m",
        "image": TaskImage(
            image_id=IMAGE_ID,
            width=WIDTH,
            height=HEIGHT,
            pixels="/pixels",
            preview="/preview",
            embedding="/embedding",
        ),
        "proposals": tuple(proposals),
        "draft": draft,
        "draft_version": 0 if draft is None else 3,
        "rejected": {},
        "returned": False,
        "decoder": "/decoder",
        **changed,
    }
    return TaskLease(**values)  # type: ignore[arg-type]  # checked by the tests that use it


@dataclass
class DiscDecoder:
    """Answers with the disc that the prompts mean, grown by `error_px`, less with every prompt."""

    error_px: float = 6.0
    kind: DecoderKind = "server"
    asked: list[tuple[Prompt, ...]] = field(default_factory=list)
    had_mask: list[bool] = field(default_factory=list)

    def decode(
        self, prompts: Sequence[Prompt], mask_logits_hw: NDArray[np.float32] | None
    ) -> DecodedMasks:
        self.asked.append(tuple(prompts))
        self.had_mask.append(mask_logits_hw is not None)
        x, y, radius = self._meant(prompts)
        error = self.error_px / len(prompts)
        radii = [radius + error, radius * 0.4, radius + 2 * error, radius + error]
        size = (FRAME.padded_size[0] // 4, FRAME.padded_size[1] // 4)
        logits = [logits_of_mask(disc(x, y, r), FRAME, size) for r in radii]
        return DecodedMasks(np.array([0.7, 0.9, 0.5, 0.6], np.float32), np.stack(logits))

    def _meant(self, prompts: Sequence[Prompt]) -> tuple[float, float, float]:
        xs, ys = [], []
        for prompt in prompts:
            match prompt:
                case BoxPrompt(x0, y0, x1, y1):
                    xs.append((x0 + x1) / 2)
                    ys.append((y0 + y1) / 2)
                case PointPrompt(x, y, 1):
                    xs.append(x)
                    ys.append(y)
        at = np.array([xs[0], ys[0]]) if xs else np.array([0.0, 0.0])
        return min(DISCS, key=lambda d: float(np.hypot(d[0] - at[0], d[1] - at[1])))


@dataclass
class NotingService:
    """Takes everything and notes it; answers to saved drafts may get lost."""

    lose_answers_to_drafts: int = 0
    version: int = 0
    drafts: list[DraftContent] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    submitted: list[DraftContent] = field(default_factory=list)
    last_seq: int = 0
    heartbeats: int = 0
    given_back: int = 0

    def heartbeat(self, lease: TaskLease) -> None:
        self.heartbeats += 1

    def save_draft(self, lease: TaskLease, content: DraftContent, version: int) -> int:
        if version != self.version:
            raise DraftConflictError("another one", self.version, None)
        self.drafts.append(content)
        self.version += 1
        if self.lose_answers_to_drafts:
            self.lose_answers_to_drafts -= 1
            raise DraftConflictError("repeated after a lost answer", self.version, None)
        return self.version

    def send_events(self, lease: TaskLease, page_id: str, events: Sequence[Event]) -> None:
        self.events += events

    def submit(
        self,
        lease: TaskLease,
        objects: Iterable[MaskObject],
        *,
        deleted: Iterable[str] = (),
        exhaustive: bool = False,
        page_id: str | None = None,
        last_seq: int = 0,
        events: Sequence[Event] = (),
        submission_id: str | None = None,
    ) -> AcknowledgedSubmission:
        self.events += events
        self.last_seq = last_seq
        content = DraftContent(
            objects=tuple(objects), deleted=tuple(deleted), exhaustive=exhaustive
        )
        self.submitted.append(content)
        return AcknowledgedSubmission(
            submission_id="s", task_id=lease.task_id, objects=len(content.objects), state="accepted"
        )

    def give_back(self, lease: TaskLease) -> None:
        self.given_back += 1
