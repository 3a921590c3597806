"""From boxes to masks: a detector's boxes prompt the model, which draws what is in them.

    source = DetectorBoxes(proposer, min_score=0.3)
    proposals = propose(sam, image_HWC3, source, config)

A box is answered by the mask with the highest predicted IoU. The paper (appendix D.4) puts that
answer back in with the box once; here it is left as it is, because the model's own estimate is what
proposals are chosen by. Measured with the bundled model (134 boxes of 17 held-out photos, each side
moved by 8 %): the first answers have an IoU of .74 and predict .70, the second ones .74 and .80.

A mask exists at full resolution only inside its own box, so memory does not grow with the image
times the boxes.

Shapes: N boxes, h w low-resolution logits.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from engine.annotation.prefill import Candidate
from engine.automatic import Segmenter
from engine.automatic.filters import tight_box
from engine.automatic.nms import box_nms
from engine.automatic.small_regions import fill_small_holes, remove_small_islands, working_region
from engine.errors import BadInputError
from engine.learning.proposer import BoxProposer
from engine.masks import encode_region
from engine.records import Rle
from model import Frame, ImageEmbedding, Prompts, cut_window, regions_above, upsample_window

__all__ = ["DetectorBoxes", "masks_in_boxes"]

_BOXES_AT_ONCE = 32


@dataclass(frozen=True, slots=True, eq=False)
class DetectorBoxes:
    """A detector's boxes as a source of proposals.

    Attributes:
        proposer: finds the boxes.
        min_score: boxes are used from this score on.
        max_boxes: at most so many, the best.
        box_nms_thresh: of two boxes with a larger IoU the better one is used.
        min_region_area: islands and holes of masks below this many pixels go.
    """

    proposer: BoxProposer
    min_score: float = 0.2
    max_boxes: int = 100
    box_nms_thresh: float = 0.8
    min_region_area: int = 100

    def __post_init__(self) -> None:
        if not 0 <= self.min_score <= 1 or not 0 <= self.box_nms_thresh <= 1 or self.max_boxes < 1:
            raise BadInputError(
                "min_score and box_nms_thresh go from 0 to 1, max_boxes from 1; got "
                f"{self.min_score}, {self.box_nms_thresh} and {self.max_boxes}"
            )

    @property
    def name(self) -> str:
        """What records call it."""
        return f"detector {self.proposer.name}"

    def settings(self) -> str:
        """Return what decides the boxes, as canonical JSON."""
        fields = {
            "proposer": self.proposer.name,
            "min_score": self.min_score,
            "max_boxes": self.max_boxes,
            "box_nms_thresh": self.box_nms_thresh,
            "min_region_area": self.min_region_area,
        }
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    def candidates(self, segmenter: Segmenter, image_HWC3: NDArray[np.uint8]) -> list[Candidate]:
        """Find boxes and fill them."""
        boxes_N4, scores_N = self.proposer.boxes(image_HWC3)
        good_N = (scores_N >= self.min_score) & ((boxes_N4[:, 2:] - boxes_N4[:, :2]) >= 1).all(1)
        boxes_N4, scores_N = boxes_N4[good_N], scores_N[good_N]
        kept = box_nms(boxes_N4.astype(np.float32), scores_N, self.box_nms_thresh)[: self.max_boxes]
        if not len(kept):
            return []
        return list(
            masks_in_boxes(
                segmenter,
                segmenter.encode(image_HWC3),
                boxes_N4[kept],
                scores_N[kept],
                self.min_region_area,
            )
        )


@torch.inference_mode()
def masks_in_boxes(
    segmenter: Segmenter,
    embedding: ImageEmbedding,
    boxes_N4: NDArray[np.float64],
    scores_N: NDArray[np.float32],
    min_region_area: int = 0,
) -> Iterator[Candidate]:
    """Draw one mask into each box; boxes with an empty answer are left out.

    Args:
        segmenter: the model.
        embedding: of the image.
        boxes_N4: XYXY in pixels of the image.
        scores_N: the detector's.
        min_region_area: islands and holes below this many pixels go; 0 leaves them.
    """
    for start in range(0, len(boxes_N4), _BOXES_AT_ONCE):
        part = slice(start, start + _BOXES_AT_ONCE)
        logits_Nhw, iou_N = _answers(segmenter, embedding, boxes_N4[part])
        regions = regions_above(logits_Nhw, 0.0, embedding.frame)
        for i, region in enumerate(regions):
            if region is None:
                continue
            window = cut_window(logits_Nhw[i], embedding.frame, region)
            mask = upsample_window(window, embedding.frame, region) > 0
            rle = _cleaned(mask, region.x0, region.y0, embedding.frame, min_region_area)
            if rle is not None:
                x0, y0, x1, y1 = boxes_N4[start + i].tolist()
                yield Candidate(
                    rle=rle,
                    predicted_iou=float(iou_N[i]),
                    box_xyxy=(x0, y0, x1, y1),
                    score=float(scores_N[start + i]),
                )


def _answers(
    segmenter: Segmenter, embedding: ImageEmbedding, boxes_N4: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the surest of three answers to each box: logits (N, h, w), predicted IoU (N,)."""
    scored = segmenter.score(embedding, Prompts(boxes_xyxy=boxes_N4))
    iou_N, token_N = scored.iou_N4[:, 1:].float().max(dim=1)
    rows = torch.arange(len(boxes_N4), device=token_N.device)
    logits_Nhw = segmenter.draw(scored, rows)[rows, token_N + 1]
    return logits_Nhw.cpu().numpy(), iou_N.cpu().numpy()


def _cleaned(
    mask_hw: NDArray[np.bool_], x0: int, y0: int, frame: Frame, min_area: int
) -> Rle | None:
    """Remove specks and pinholes; None for an empty mask.

    Args:
        mask_hw: the mask inside a region of the image.
        x0: the region's first column.
        y0: the region's first row.
        frame: has the image's size.
        min_area: in pixels; 0 leaves the mask as it is.
    """
    height, width = frame.original_size
    box = tight_box(mask_hw)
    if box is None:
        return None
    if min_area <= 0:
        return encode_region(mask_hw, x0, y0, height, width)
    on_image = (box[0] + x0, box[1] + y0, box[2] + x0, box[3] + y0)
    region, open_sides = working_region(on_image, height, width, min_area)
    part = np.zeros((region.y1 - region.y0, region.x1 - region.x0), dtype=np.bool_)
    top, left = on_image[1] - region.y0, on_image[0] - region.x0
    inner = mask_hw[box[1] : box[3] + 1, box[0] : box[2] + 1]
    part[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    part, _ = fill_small_holes(part, min_area, open_sides)
    part, _, _ = remove_small_islands(part, min_area)
    return encode_region(part, region.x0, region.y0, height, width)
