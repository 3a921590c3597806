"""How a simulated person makes one mask: prompts, the choice among candidates, brush and eraser.

    made = MaskMaker(page, skill, random).make("a1", wanted_HW)
    made.iou, made.clicks, made.mask_object("server")

Shapes: H, W image pixels; h, w logits; K clicks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.annotation.records import (
    BoxPrompt,
    DecoderKind,
    MaskObject,
    PointPrompt,
    Prompt,
    StrokePrompt,
)
from engine.annotation.simulation.answers import Candidate, logits_of_mask, overlap
from engine.annotation.simulation.page import SimulatedPage
from engine.annotation.simulation.strokes import mending_stroke
from engine.annotation.simulation.timing import Action
from engine.errors import BadInputError
from engine.evaluation.clicks import centre_clicks, corrective_click
from engine.masks import decode_mask, encode_mask, mask_box_xyxy
from model.types import FOREGROUND
from model.upsample import LOW_RES_STRIDE

__all__ = ["SKILLS", "MadeMask", "MaskMaker", "Skill"]

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    """How a person works.

    Attributes:
        stop_iou: a mask is good from this IoU with the truth on.
        keep_iou: and a mask that is there already is left as it is from this one on.
        drop_iou: a mask below this one shows nothing: it is deleted, or not kept.
        most_clicks: prompts for one object before the brush.
        most_strokes: of brush and eraser for one object.
        most_seconds: for one object; the paper's annotators went on after 30.
        boxes: share of objects that begin with a box.
        aim_px: standard deviation of where a click lands, in each direction.
        overlooks: share of objects that are not seen.
        smallest_px: objects with fewer pixels are not annotated.
        most_objects: new ones in an image; None: all.
    """

    stop_iou: float = 0.9
    keep_iou: float = 0.9
    drop_iou: float = 0.5
    most_clicks: int = 8
    most_strokes: int = 4
    most_seconds: float = 30.0
    boxes: float = 0.2
    aim_px: float = 1.0
    overlooks: float = 0.02
    smallest_px: int = 100
    most_objects: int | None = None

    def __post_init__(self) -> None:
        for name in ("stop_iou", "keep_iou", "drop_iou", "boxes", "overlooks"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadInputError(f"a skill's {name} lies in 0 to 1; got {getattr(self, name)}")
        if self.most_clicks < 1:
            raise BadInputError(f"an object takes at least one click; got {self.most_clicks}")


SKILLS: Mapping[str, Skill] = {
    "perfect": Skill(aim_px=0.0, overlooks=0.0),
    "careful": Skill(),
    "sloppy": Skill(
        stop_iou=0.75, keep_iou=0.6, drop_iou=0.3, most_clicks=3, most_strokes=0, aim_px=6.0,
        overlooks=0.25,
    ),
}  # fmt: skip


@dataclass(slots=True)
class MadeMask:
    """A mask in the making.

    Attributes:
        iou: with the truth.
        changed: whether it differs from what it began as.
    """

    object_id: str
    mask_HW: Mask
    proposal: bool = False
    predicted_iou: float | None = None
    logits_hw: NDArray[np.float32] | None = None
    prompts: list[Prompt] = field(default_factory=list)
    iou: float = 0.0
    clicks: int = 0
    strokes: int = 0
    changed: bool = False
    began_as: MaskObject | None = None

    def mask_object(self, decoder: DecoderKind) -> MaskObject:
        """Return it as an object of a task."""
        if self.began_as is not None and not self.changed:
            return self.began_as
        return MaskObject(
            object_id=self.object_id,
            rle=encode_mask(self.mask_HW),
            proposal=self.proposal,
            predicted_iou=self.predicted_iou,
            prompts=tuple(self.prompts),
            decoder=decoder if self.clicks else None,
        )


class MaskMaker:
    """One person making the masks of one image."""

    def __init__(self, page: SimulatedPage, skill: Skill, random: np.random.Generator) -> None:
        """Sit down at a page."""
        self._page, self._skill, self._random = page, skill, random

    def make(self, object_id: str, wanted_HW: Mask) -> MadeMask:
        """Make a new mask: a box or a click into the middle first."""
        made = MadeMask(object_id, np.zeros_like(wanted_HW))
        ends_at = self._page.clock.seconds + self._skill.most_seconds
        self._page.spend(self._page.pace.seconds("search"))
        if self._random.random() < self._skill.boxes:
            self._box(made, wanted_HW)
        else:
            (centre_2,) = centre_clicks(wanted_HW[None])
            self._click(made, wanted_HW, (float(centre_2[0]), float(centre_2[1])), FOREGROUND)
        self._click_until_good(made, wanted_HW, ends_at)
        self._paint_until_good(made, wanted_HW, ends_at)
        return made

    def correct(self, item: MaskObject, wanted_HW: Mask) -> MadeMask:
        """Correct a mask that is there already: it goes in with the clicks."""
        mask_HW = decode_mask(item.rle)
        frame = self._page.frame
        size = [side // LOW_RES_STRIDE for side in frame.padded_size]
        made = MadeMask(
            item.object_id,
            mask_HW,
            proposal=item.proposal,
            predicted_iou=item.predicted_iou,
            logits_hw=logits_of_mask(mask_HW, frame, size),
            prompts=list(item.prompts),
            iou=overlap(mask_HW, wanted_HW),
            began_as=item,
        )
        ends_at = self._page.clock.seconds + self._skill.most_seconds
        self._click_until_good(made, wanted_HW, ends_at)
        self._paint_until_good(made, wanted_HW, ends_at)
        return made

    def _click_until_good(self, made: MadeMask, wanted_HW: Mask, ends_at: float) -> None:
        """Click into the largest mistake, until a click makes it worse."""
        while self._goes_on(made, ends_at) and made.clicks < self._skill.most_clicks:
            clicked = [(p.x, p.y) for p in made.prompts if isinstance(p, PointPrompt)]
            clicked_K2 = np.floor(np.array(clicked, dtype=np.float64).reshape(-1, 2))
            x, y, label = corrective_click(wanted_HW, made.mask_HW, clicked_K2)
            if not self._click(made, wanted_HW, (x, y), label):
                return

    def _paint_until_good(self, made: MadeMask, wanted_HW: Mask, ends_at: float) -> None:
        while self._goes_on(made, ends_at) and made.strokes < self._skill.most_strokes:
            stroke = mending_stroke(wanted_HW, made.mask_HW)
            if stroke is None:
                return
            points = tuple((float(x), float(y)) for x, y in stroke.points_P2)
            self._page.spend(self._page.pace.stroke_seconds(stroke.pieces, stroke.length_px))
            data = {"mode": stroke.mode, "radius": stroke.radius_px, "points": len(points)}
            self._page.log("stroke", made.object_id, data)
            made.strokes += 1
            painted_HW = stroke.apply(made.mask_HW)
            iou = overlap(painted_HW, wanted_HW)
            if iou <= made.iou:
                self._page.act("undo", "undo", made.object_id, {"step": "stroke"})
                return
            made.prompts.append(StrokePrompt(stroke.mode, stroke.radius_px, points))
            made.mask_HW, made.iou, made.predicted_iou = painted_HW, iou, None
            made.changed = True
            self._page.save_current(made.mask_object(self._page.decoder_kind))

    def _goes_on(self, made: MadeMask, ends_at: float) -> bool:
        return made.iou < self._skill.stop_iou and self._page.clock.seconds < ends_at

    def _box(self, made: MadeMask, wanted_HW: Mask) -> None:
        box = mask_box_xyxy(encode_mask(wanted_HW))
        if box is None:
            raise BadInputError("cannot draw a box around an empty mask; leave empty masks out")
        height, width = wanted_HW.shape
        x0, y0 = self._aimed(box[0], box[1], wanted_HW.shape)
        x1, y1 = self._aimed(box[2] + 1, box[3] + 1, (height + 1, width + 1))
        if x1 - x0 < 1 or y1 - y0 < 1:  # too small for this hand
            x0, y0, x1, y1 = box[0], box[1], box[2] + 1, box[3] + 1
        self._page.act("box", "box", made.object_id, {"x0": x0, "y0": y0, "x1": x1, "y1": y1})
        self._answer(made, BoxPrompt(x0, y0, x1, y1), wanted_HW)

    def _click(
        self, made: MadeMask, wanted_HW: Mask, pixel: tuple[float, float], label: int
    ) -> bool:
        """Click at a pixel's centre, as well as this person can; False: it was taken back."""
        x, y = self._aimed(pixel[0] + 0.5, pixel[1] + 0.5, wanted_HW.shape)
        action: Action = "click" if made.clicks else "first_click"
        self._page.act(action, "click", made.object_id, {"x": x, "y": y, "label": label})
        return self._answer(made, PointPrompt(x, y, label), wanted_HW)

    def _aimed(self, x: float, y: float, size: tuple[int, ...]) -> tuple[float, float]:
        """Miss by chance; inside the image, in hundredths of a pixel as the page keeps them."""
        dx, dy = self._random.normal(0.0, self._skill.aim_px, 2)
        return (
            round(float(np.clip(x + dx, 0, size[1] - 0.01)), 2),
            round(float(np.clip(y + dy, 0, size[0] - 0.01)), 2),
        )

    def _answer(self, made: MadeMask, prompt: Prompt, wanted_HW: Mask) -> bool:
        """Ask with one prompt more and choose; False: all answers were worse, it was taken back."""
        made.clicks += 1
        shown = self._page.ask([*made.prompts, prompt], made.logits_hw)
        best, iou = _best(shown, wanted_HW)
        if best:
            self._page.act("cycle", "cycle", made.object_id, {"candidate": best})
        if iou < made.iou:
            self._page.act("undo", "undo", made.object_id, {"step": "click"})
            return False
        made.prompts.append(prompt)
        chosen = shown[best]
        made.mask_HW, made.logits_hw, made.iou = chosen.mask_HW, chosen.logits_hw, iou
        made.predicted_iou, made.changed = chosen.predicted_iou, True
        self._page.save_current(made.mask_object(self._page.decoder_kind))
        return True


def _best(shown: tuple[Candidate, ...], wanted_HW: Mask) -> tuple[int, float]:
    """Choose like a person: the mask that looks best; of equal ones the one that is shown."""
    ious = [overlap(candidate.mask_HW, wanted_HW) for candidate in shown]
    best = int(np.argmax(ious))
    return best, ious[best]
