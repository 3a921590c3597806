"""A simulated annotator: has the truth, and makes masks of it as a person would.

    person = SimulatedAnnotator(truth, viewer=0, skill=SKILLS["careful"], random=random)
    outcome = person.annotate(page)

The rules of Segment Anything's annotators (section 4): objects in order of prominence, until there
is nothing left; one that takes longer than 30 s is left as it is. Clicks go where evaluation puts
them (`engine.evaluation.clicks`): into the middle of what is wanted, then of what is wrong.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.annotation.client_values import AcknowledgedSubmission
from engine.annotation.records import DraftContent, MaskObject
from engine.annotation.simulation.mask_making import MaskMaker, Skill
from engine.annotation.simulation.page import SimulatedPage
from engine.annotation.simulation.timing import TimeIsUpError
from engine.annotation.simulation.truth import Truth
from engine.masks import decode_mask, mask_area, mask_iou
from engine.records import Rle

__all__ = ["MaskOutcome", "SimulatedAnnotator", "TaskOutcome"]

Mask = NDArray[np.bool_]

# A mask that overlaps an object this much is of that object, good or bad.
_SAME_OBJECT_IOU = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskOutcome:
    """What became of one object.

    Attributes:
        made: how; ``"given-up"``: no mask came of it.
        iou: of the mask with the truth.
        clicks: clicks and boxes.
        strokes: of brush and eraser.
        seconds: simulated, from looking for the object to keeping its mask.
    """

    made: Literal["kept", "corrected", "new", "deleted", "given-up"]
    iou: float
    clicks: int = 0
    strokes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOutcome:
    """What became of one task.

    Attributes:
        task_id: which.
        image_id: its image.
        acknowledged: the service's answer; None: the time was up, and the task was given back.
        masks: object by object.
        overlooked: objects that the person did not see.
        seconds: simulated, all in all.
    """

    task_id: str
    image_id: int
    acknowledged: AcknowledgedSubmission | None
    masks: tuple[MaskOutcome, ...]
    overlooked: int
    seconds: float


@dataclass(slots=True)
class _Work:
    """The state of a task while somebody works on it."""

    objects: dict[str, MaskObject]
    deleted: list[str]
    outcomes: list[MaskOutcome] = field(default_factory=list)
    overlooked: int = 0

    def content(self, *, exhaustive: bool = False) -> DraftContent:
        return DraftContent(
            objects=tuple(self.objects.values()),
            deleted=tuple(self.deleted),
            exhaustive=exhaustive,
        )


class SimulatedAnnotator:
    """One person; see the module."""

    def __init__(
        self, truth: Truth, viewer: int, skill: Skill, random: np.random.Generator
    ) -> None:
        """Take what the person sees, and how well they work."""
        self._truth, self._viewer, self._skill, self._random = truth, viewer, skill, random

    def sees(self, image_id: int) -> bool:
        """Whether there is anything for this person to go by."""
        return image_id in self._truth

    def annotate(self, page: SimulatedPage) -> TaskOutcome:
        """Work on a task until it is handed in, or the time is up."""
        begun, lease = page.clock.seconds, page.lease
        work = _begun_work(page)
        page.begin(work.content())
        acknowledged = None
        try:
            acknowledged = self._finish(page, work)
        except TimeIsUpError:
            page.leave(work.content())
        return TaskOutcome(
            task_id=lease.task_id,
            image_id=lease.image.image_id,
            acknowledged=acknowledged,
            masks=tuple(work.outcomes),
            overlooked=work.overlooked,
            seconds=page.clock.seconds - begun,
        )

    def _finish(self, page: SimulatedPage, work: _Work) -> AcknowledgedSubmission:
        page.log("show")
        page.spend(page.pace.seconds("look"))
        seen = [
            rle
            for rle in self._truth.seen_by(self._viewer, page.lease.image.image_id)
            if mask_area(rle) >= self._skill.smallest_px
        ]
        maker = MaskMaker(page, self._skill, self._random)
        covered = self._go_through(page, work, maker, seen)
        missing = [rle for place, rle in enumerate(seen) if place not in covered]
        for wanted in missing[: self._skill.most_objects]:
            # Somebody whose work came back looks closely.
            if not page.lease.returned and self._random.random() < self._skill.overlooks:
                work.overlooked += 1
                continue
            self._make(page, work, maker, decode_mask(wanted))
        exhaustive = all(outcome.made != "given-up" for outcome in work.outcomes)
        page.spend(page.pace.seconds("submit"))
        if exhaustive:
            page.log("exhaustive", None, {"exhaustive": True})
        return page.submit(work.content(exhaustive=exhaustive))

    def _go_through(
        self, page: SimulatedPage, work: _Work, maker: MaskMaker, seen: Sequence[Rle]
    ) -> set[int]:
        """Look at the masks that are there already; return which objects have one after that."""
        there = list(work.objects.values())
        iou_NT = mask_iou([item.rle for item in there], seen)
        covered: set[int] = set()
        for item, iou_T in zip(there, iou_NT, strict=True):
            place = int(iou_T.argmax()) if len(seen) else -1
            iou = float(iou_T[place]) if len(seen) else 0.0
            if place in covered or iou < self._skill.drop_iou:
                self._delete(page, work, item, iou)
                continue
            covered.add(place)
            if iou >= self._skill.keep_iou:
                begun = page.clock.seconds
                page.act("keep", "select", item.object_id)
                work.objects[item.object_id] = replace(item, accepted=True)
                spent = page.clock.seconds - begun
                if item.proposal:
                    work.outcomes.append(MaskOutcome(made="kept", iou=iou, seconds=spent))
            else:
                self._correct(page, work, maker, item, decode_mask(seen[place]))
        return covered

    def _delete(self, page: SimulatedPage, work: _Work, item: MaskObject, iou: float) -> None:
        begun = page.clock.seconds
        data = {"proposal": item.proposal, "area": mask_area(item.rle)}
        page.act("delete", "delete", item.object_id, data)
        del work.objects[item.object_id]
        work.deleted.append(item.object_id)
        page.save(work.content())
        spent = page.clock.seconds - begun
        work.outcomes.append(MaskOutcome(made="deleted", iou=iou, seconds=spent))

    def _correct(
        self, page: SimulatedPage, work: _Work, maker: MaskMaker, item: MaskObject, wanted_HW: Mask
    ) -> None:
        begun = page.clock.seconds
        page.act("select", "select", item.object_id)
        made = maker.correct(item, wanted_HW)
        work.objects[item.object_id] = replace(made.mask_object(page.decoder_kind), accepted=True)
        page.save(work.content())
        work.outcomes.append(
            MaskOutcome(
                made="corrected" if made.changed else "kept",
                iou=made.iou,
                clicks=made.clicks,
                strokes=made.strokes,
                seconds=page.clock.seconds - begun,
            )
        )

    def _make(self, page: SimulatedPage, work: _Work, maker: MaskMaker, wanted_HW: Mask) -> None:
        begun, object_id = page.clock.seconds, str(uuid.uuid4())
        made = maker.make(object_id, wanted_HW)
        good = made.iou >= self._skill.drop_iou and bool(made.mask_HW.any())
        if good:
            item = made.mask_object(page.decoder_kind)
            page.act("commit", "commit", object_id, {"area": mask_area(item.rle)})
            work.objects[object_id] = item
        else:
            page.act("commit", "clear", object_id)
        page.save(work.content())
        work.outcomes.append(
            MaskOutcome(
                made="new" if good else "given-up",
                iou=made.iou,
                clicks=made.clicks,
                strokes=made.strokes,
                seconds=page.clock.seconds - begun,
            )
        )


def _begun_work(page: SimulatedPage) -> _Work:
    """Go on from the draft, else from the proposals; what a reviewer rejected is made anew."""
    lease = page.lease
    if lease.draft is None:
        return _Work({item.object_id: item for item in lease.proposals}, [])
    objects = {item.object_id: item for item in lease.draft.objects}
    deleted = list(lease.draft.deleted)
    rejected = [objects.pop(object_id) for object_id in lease.rejected if object_id in objects]
    deleted += [item.object_id for item in rejected if item.proposal]
    return _Work(objects, deleted)
