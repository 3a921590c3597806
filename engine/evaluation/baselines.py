"""Classical methods that answer the same prompts as a model, so that its numbers mean something.

    scores = score_method(Felzenszwalb(), labelled_set, PromptConfig())

None of them has learned anything. Where a method has several answers (scales, radii), one fixed
choice is the trusted answer and the best of all is the oracle, as for a model's three masks. The
fixed scale and disc were chosen on a dozen of BSDS500's training images, by the score of one click;
nothing was chosen on its validation images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.segmentation import felzenszwalb
from torch import Tensor

from engine.evaluation.points import Method
from engine.images import Hint, grabcut, resize_to_fit
from model import MaskPrediction, Prompts
from model.evaluate import Answerer, Click
from model.types import BACKGROUND, FOREGROUND, PADDING

T = TypeVar("T", np.bool_, np.int64)


@dataclass(frozen=True, slots=True)
class Disc:
    """A disc around the click; for a box the ellipse inside it, or the box itself.

    Attributes:
        radii_px: of the discs.
        trusted_px: the radius that a user would be given.
        name: in tables.
    """

    radii_px: tuple[int, ...] = (8, 15, 30, 60, 120)
    trusted_px: int = 30
    name: str = "disc"

    def open(self, image_HWC3: NDArray[np.uint8]) -> Answerer:
        """Take the image's size; the pixels do not matter."""
        return _DiscsOnImage(image_HWC3.shape[0], image_HWC3.shape[1], self)


@dataclass(frozen=True, slots=True)
class _DiscsOnImage:
    height: int
    width: int
    discs: Disc

    def answer(self, prompts: Prompts, *, multimask: bool) -> MaskPrediction:
        """Draw discs; a pixel follows its nearest click."""
        y, x = np.ogrid[: self.height, : self.width]
        if prompts.boxes_xyxy is not None:
            boxes = [_inside(box, y, x) for box in prompts.boxes_xyxy]
            ellipses = [_ellipse(box, y, x) for box in prompts.boxes_xyxy]
            return _prediction(np.stack([ellipses, boxes], axis=1), 0, multimask)
        radii_R11 = np.array(self.discs.radii_px)[:, None, None]
        masks = []
        for clicks in _clicks(prompts):
            squared_KHW = np.stack([(x - click.x) ** 2 + (y - click.y) ** 2 for click in clicks])
            wanted_HW = np.array([click.label > 0 for click in clicks])[squared_KHW.argmin(axis=0)]
            masks.append((squared_KHW.min(axis=0) <= radii_R11**2) & wanted_HW)
        trusted = self.discs.radii_px.index(self.discs.trusted_px)
        return _prediction(np.array(masks), trusted, multimask)


@dataclass(frozen=True, slots=True)
class Felzenszwalb:
    """The region below the click, at several scales; for a box the regions that lie mostly in it.

    A region that holds clicks of both kinds is taken apart at the next finer scale.

    Source: Felzenszwalb and Huttenlocher, Efficient Graph-Based Image Segmentation, 2004.

    Attributes:
        scales: of the segmentations: larger ones have larger regions.
        trusted_scale: the one that a user would be given.
        long_side_px: images are shrunk to it.
        name: in tables.
    """

    scales: tuple[int, ...] = (100, 200, 400, 800, 1600)
    trusted_scale: int = 200
    long_side_px: int = 480
    name: str = "felzenszwalb"

    def open(self, image_HWC3: NDArray[np.uint8]) -> Answerer:
        """Segment the image at every scale."""
        small = resize_to_fit(image_HWC3, self.long_side_px)
        labels = [
            _resampled(felzenszwalb(small, scale, sigma=0.8, min_size=50), image_HWC3.shape[:2])
            for scale in self.scales
        ]
        return _RegionsOnImage(tuple(labels), self.scales.index(self.trusted_scale))


@dataclass(frozen=True, slots=True)
class _RegionsOnImage:
    labels: tuple[NDArray[np.int64], ...]
    trusted: int

    def answer(self, prompts: Prompts, *, multimask: bool) -> MaskPrediction:
        """Choose regions at every scale."""
        if prompts.boxes_xyxy is not None:
            masks = [
                [_regions_in_box(labels_HW, box) for labels_HW in self.labels]
                for box in prompts.boxes_xyxy
            ]
        else:
            masks = [
                [_clicked_regions(self.labels[: i + 1], clicks) for i in range(len(self.labels))]
                for clicks in _clicks(prompts)
            ]
        return _prediction(np.array(masks), self.trusted, multimask)


@dataclass(frozen=True, slots=True)
class GrabCut:
    """Colours below the prompt against those around it, cut as a graph.

    A click stands for a disc of foreground before a border of background; corrective clicks are
    strokes on the last answer, as in the original tool. A box is cut out of its surroundings.

    Attributes:
        long_side_px: images are shrunk to it, as the cut takes longest.
        disc_ratio: radius of the first disc as a share of the long side.
        stroke_ratio: radius of a corrective click.
        iterations: of the cut; twice as many for a box.
        name: in tables.
    """

    long_side_px: int = 128
    disc_ratio: float = 0.06
    stroke_ratio: float = 0.015
    iterations: int = 1
    name: str = "GrabCut"

    def open(self, image_HWC3: NDArray[np.uint8]) -> Answerer:
        """Shrink the image."""
        return _CutsOnImage(image_HWC3, resize_to_fit(image_HWC3, self.long_side_px), self)


@dataclass(frozen=True, slots=True)
class _CutsOnImage:
    image_HWC3: NDArray[np.uint8]
    small_HWC3: NDArray[np.uint8]
    settings: GrabCut

    def answer(self, prompts: Prompts, *, multimask: bool) -> MaskPrediction:
        """Cut once for each prompt; the logits carry an answer on to the next round."""
        if prompts.boxes_xyxy is not None:
            masks = np.stack([self._cut_box(box) for box in prompts.boxes_xyxy.astype(int)])
            return _prediction(masks[:, None], 0, multimask)
        before = prompts.mask_logits
        cuts = np.stack(
            [
                self._cut_clicks(clicks, None if before is None else before[i, 0].numpy() > 0)
                for i, clicks in enumerate(_clicks(prompts))
            ]
        )
        masks = np.stack([_resampled(cut, self.image_HWC3.shape[:2]) for cut in cuts])
        logits = torch.from_numpy(np.where(cuts, np.float32(1), np.float32(-1)))
        return _prediction(masks[:, None], 0, multimask, logits[:, None])

    def _cut_clicks(
        self, clicks: Sequence[Click], before_hw: NDArray[np.bool_] | None
    ) -> NDArray[np.bool_]:
        height, width = self.small_HWC3.shape[:2]
        scale = max(height, width) / max(self.image_HWC3.shape)
        y, x = np.ogrid[:height, :width]
        hints_hw = np.full((height, width), Hint.MAYBE_BACKGROUND, dtype=np.uint8)
        if before_hw is None:
            hints_hw[[0, -1]] = hints_hw[:, [0, -1]] = Hint.BACKGROUND
        else:
            hints_hw[before_hw] = Hint.MAYBE_FOREGROUND
        for place, click in enumerate(clicks):
            ratio = self.settings.stroke_ratio if place else self.settings.disc_ratio
            radius = max(1.0, ratio * max(height, width))
            disc_hw = (x - click.x * scale) ** 2 + (y - click.y * scale) ** 2 <= radius**2
            hints_hw[disc_hw] = Hint.FOREGROUND if click.label else Hint.BACKGROUND
        return grabcut(self.small_HWC3, hints_hw, self.settings.iterations)

    def _cut_box(self, box_xyxy: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Cut within a window twice the box's size, so that small boxes keep their pixels.

        Where the cut leaves nothing the box itself is the answer.
        """
        x0, y0, x1, y1 = box_xyxy
        margin_x, margin_y = (x1 - x0) // 2 + 2, (y1 - y0) // 2 + 2
        left, top = max(0, x0 - margin_x), max(0, y0 - margin_y)
        window = self.image_HWC3[top : y1 + 1 + margin_y, left : x1 + 1 + margin_x]
        small = resize_to_fit(window, self.settings.long_side_px)
        y, x = np.ogrid[: window.shape[0], : window.shape[1]]
        box_hw = _inside(box_xyxy - [left, top, left, top], y, x)
        inside = _resampled(box_hw, small.shape[:2])
        hints = np.where(inside, Hint.MAYBE_FOREGROUND, Hint.BACKGROUND).astype(np.uint8)
        cut_hw = _resampled(grabcut(small, hints, 2 * self.settings.iterations), box_hw.shape)
        answer_hw = cut_hw & box_hw if (cut_hw & box_hw).any() else box_hw
        mask_HW = np.zeros(self.image_HWC3.shape[:2], dtype=np.bool_)
        mask_HW[top : top + box_hw.shape[0], left : left + box_hw.shape[1]] = answer_hw
        return mask_HW


BASELINES: tuple[Method, ...] = (Felzenszwalb(), GrabCut(), Disc())


def _clicks(prompts: Prompts) -> list[list[Click]]:
    """Return the clicks of each prompt, without padding, in their order."""
    if prompts.points_xy is None or prompts.point_labels is None:
        raise ValueError("a baseline answers clicks or boxes; got a prompt with neither")
    return [
        [Click(int(x), int(y), int(label)) for x, y, label in rows_K3 if label != PADDING]
        for rows_K3 in np.dstack([prompts.points_xy, prompts.point_labels])
    ]


def _prediction(
    masks_NMHW: NDArray[np.bool_], trusted: int, multimask: bool, logits: Tensor | None = None
) -> MaskPrediction:
    """Make answer `trusted` the one with the highest score, or the only one."""
    scores_M = np.zeros(masks_NMHW.shape[1], dtype=np.float32)
    scores_M[trusted] = 1
    if not multimask:
        masks_NMHW, scores_M = masks_NMHW[:, [trusted]], scores_M[[trusted]]
    masks = torch.from_numpy(masks_NMHW)
    iou = torch.from_numpy(scores_M).expand(masks.shape[:2])
    nothing = torch.zeros(*masks.shape[:2], 0, 0)
    return MaskPrediction(masks, iou, nothing if logits is None else logits)


def _inside(
    box_xyxy: NDArray[np.float64], y: NDArray[np.intp], x: NDArray[np.intp]
) -> NDArray[np.bool_]:
    x0, y0, x1, y1 = box_xyxy
    return np.asarray((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1))


def _ellipse(
    box_xyxy: NDArray[np.float64], y: NDArray[np.intp], x: NDArray[np.intp]
) -> NDArray[np.bool_]:
    x0, y0, x1, y1 = box_xyxy
    across, down = (x1 - x0 + 1) / 2, (y1 - y0 + 1) / 2
    return np.asarray(((x - (x0 + x1) / 2) / across) ** 2 + ((y - (y0 + y1) / 2) / down) ** 2 <= 1)


def _clicked_regions(
    scales: Sequence[NDArray[np.int64]], clicks: Sequence[Click]
) -> NDArray[np.bool_]:
    """Join what the foreground clicks mean, without what the background clicks mean."""
    mask_HW = np.zeros(scales[0].shape, dtype=np.bool_)
    for label in (FOREGROUND, BACKGROUND):
        others = [click for click in clicks if click.label != label]
        for click in clicks:
            if click.label == label:
                mask_HW[_meant(scales, click, others)] = label == FOREGROUND
    return mask_HW


def _meant(
    scales: Sequence[NDArray[np.int64]], click: Click, others: Sequence[Click]
) -> NDArray[np.bool_]:
    """Return the coarsest region below a click without a click of the other kind; maybe none."""
    for labels_HW in reversed(scales):
        region = labels_HW[click.y, click.x]
        if all(labels_HW[other.y, other.x] != region for other in others):
            return np.asarray(labels_HW == region)
    return np.zeros(scales[0].shape, dtype=np.bool_)


def _regions_in_box(
    labels_HW: NDArray[np.int64], box_xyxy: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Join the regions that lie mostly in the box; the box itself where none does."""
    x0, y0, x1, y1 = box_xyxy.astype(int)
    within = np.zeros(labels_HW.shape, dtype=np.bool_)
    within[y0 : y1 + 1, x0 : x1 + 1] = True
    areas_L = np.bincount(labels_HW.ravel())
    inside_L = np.bincount(labels_HW[within], minlength=len(areas_L))
    chosen_HW = (2 * inside_L > areas_L)[labels_HW] & within
    return chosen_HW if chosen_HW.any() else within


def _resampled(map_hw: NDArray[T], size: tuple[int, int]) -> NDArray[T]:
    """Repeat or leave out pixels until the map has the size (height, width)."""
    rows, columns = (
        np.arange(new) * old // new for new, old in zip(size, map_hw.shape, strict=True)
    )
    resampled: NDArray[T] = map_hw[rows[:, None], columns]
    return resampled
