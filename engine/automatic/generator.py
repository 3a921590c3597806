"""Prompt an image everywhere, keep what is worth keeping: the public SAM generator's semantics.

Each crop is encoded once and prompted with a grid. A mask passes by predicted IoU, stability and
distance from crop edges; duplicates go within a crop by score and across crops in favour of the
smaller crop; then small holes and islands go. The result equals the public generator's; the order
of work does not:

- prompts are scored first, and only those with a promising mask are drawn;
- full-resolution logits exist for one mask at a time, and only where the mask is;
- survivors become RLE at the very end. A candidate in between is a window of low-resolution logits,
  so memory depends on the batch and the grid, never on the image's size times the number of masks.

Source: Segment Anything, section 4 and appendix B.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.automatic.config import AutomaticConfig
from engine.automatic.crops import Crop, layered_crops
from engine.automatic.filters import (
    above_iou,
    is_stable,
    stability_score,
    tight_box,
    touches_crop_edge,
)
from engine.automatic.nms import box_nms
from engine.automatic.point_grid import layer_point_grids
from engine.automatic.small_regions import (
    fill_small_holes,
    remove_small_islands,
    working_region,
)
from engine.masks import encode_region
from engine.records import MaskRecord
from model import (
    Frame,
    ImageEmbedding,
    Prompts,
    Region,
    ScoredPrompts,
    cut_window,
    regions_above,
    upsample_window,
)

_PROMPTS_DRAWN_AT_ONCE = 16


class Segmenter(Protocol):
    """What the generator needs of a model; `model.Sam` is one."""

    def encode(self, image_HWC3: NDArray[np.uint8]) -> ImageEmbedding:
        """Encode an RGB image or crop."""
        ...

    def score(self, embedding: ImageEmbedding, prompts: Prompts) -> ScoredPrompts:
        """Score prompts without drawing their masks."""
        ...

    def draw(self, scored: ScoredPrompts, chosen: Tensor) -> Tensor:
        """Draw the chosen prompts: low-resolution logits (chosen, 4, h, w)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A mask that passed the filters, not yet drawn at full size.

    Attributes:
        window_hw: the low-resolution logits that the mask depends on.
        frame: how its crop was laid into the model's input.
        region: the mask's box in pixels of the crop.
        crop: where it was found.
        area: number of mask pixels.
        predicted_iou: by the model.
        stability: see `stability_score`.
        point_xy: its prompt in pixels of the image.
    """

    window_hw: NDArray[np.float32]
    frame: Frame
    region: Region
    crop: Crop
    area: int
    predicted_iou: np.float32
    stability: np.float32
    point_xy: tuple[float, float]

    @property
    def box_xyxy(self) -> tuple[int, int, int, int]:
        """Inclusive box in pixels of the image."""
        return (
            self.region.x0 + self.crop.x0,
            self.region.y0 + self.crop.y0,
            self.region.x1 - 1 + self.crop.x0,
            self.region.y1 - 1 + self.crop.y0,
        )


@torch.inference_mode()
def generate_masks(
    sam: Segmenter, image_HWC3: NDArray[np.uint8], config: AutomaticConfig
) -> list[MaskRecord]:
    """Mask everything in an image.

    Args:
        sam: the model.
        image_HWC3: (H, W, 3) uint8 RGB of any size.
        config: grids, crops and thresholds.

    Returns:
        The masks, best first within a crop layer's order; an empty list if nothing passes.
    """
    height, width = image_HWC3.shape[:2]
    crops = layered_crops(height, width, config.crop_n_layers, config.crop_overlap_ratio)
    grids = layer_point_grids(
        config.points_per_side, config.crop_n_layers, config.crop_n_points_downscale_factor
    )
    found: list[Candidate] = []
    for crop in crops:
        found += crop_candidates(sam, image_HWC3, crop, grids[crop.layer], config)
    if len(crops) > 1:
        found = _best_by_box(found, [1 / _area(c.crop) for c in found], config.crop_nms_thresh)
    if config.min_mask_region_area > 0:
        return _cleaned_records(found, height, width, config)
    return [_record(candidate, height, width) for candidate in found]


def crop_candidates(
    sam: Segmenter,
    image_HWC3: NDArray[np.uint8],
    crop: Crop,
    grid: NDArray[np.float64],
    config: AutomaticConfig,
) -> list[Candidate]:
    """Prompt one crop with a grid and drop duplicates within it."""
    height, width = image_HWC3.shape[:2]
    embedding = sam.encode(image_HWC3[crop.y0 : crop.y1, crop.x0 : crop.x1])
    points_P2 = grid * np.array(crop.size[::-1])
    found = [
        candidate
        for start in range(0, len(points_P2), config.points_per_batch)
        for candidate in _batch_candidates(
            sam, embedding, crop, points_P2[start : start + config.points_per_batch], config
        )
        if not touches_crop_edge(candidate.box_xyxy, crop, height, width)
        and candidate.area <= config.max_mask_area_ratio * height * width
    ]
    return _best_by_box(found, [c.predicted_iou for c in found], config.box_nms_thresh)


def _batch_candidates(
    sam: Segmenter,
    embedding: ImageEmbedding,
    crop: Crop,
    points_P2: NDArray[np.float64],
    config: AutomaticConfig,
) -> Iterator[Candidate]:
    """Yield what passes predicted IoU and stability, prompt by prompt."""
    labels = np.ones((len(points_P2), 1), dtype=np.int64)
    scored = sam.score(embedding, Prompts(points_xy=points_P2[:, None], point_labels=labels))
    iou_P3 = scored.iou_N4[:, 1:].cpu().numpy()
    passing_P3 = above_iou(iou_P3, config.pred_iou_thresh)
    promising = np.flatnonzero(passing_P3.any(axis=1))
    for start in range(0, len(promising), _PROMPTS_DRAWN_AT_ONCE):
        chosen = promising[start : start + _PROMPTS_DRAWN_AT_ONCE]
        drawn = sam.draw(scored, torch.from_numpy(chosen).to(scored.iou_N4.device))[:, 1:]
        passing = passing_P3[chosen]
        logits_Mhw = drawn.cpu().numpy()[passing]
        prompt_of = np.repeat(chosen, passing.sum(axis=1))
        regions = regions_above(logits_Mhw, -config.stability_score_offset, embedding.frame)
        for logits_hw, region, prompt, iou in zip(
            logits_Mhw, regions, prompt_of, iou_P3[chosen][passing], strict=True
        ):
            x, y = points_P2[prompt]
            candidate = _candidate(
                logits_hw, region, embedding.frame, crop, (x + crop.x0, y + crop.y0), iou, config
            )
            if candidate is not None:
                yield candidate


def _candidate(
    logits_hw: NDArray[np.float32],
    region: Region | None,
    frame: Frame,
    crop: Crop,
    point_xy: tuple[float, float],
    iou: np.float32,
    config: AutomaticConfig,
) -> Candidate | None:
    """Measure one mask at full resolution, within its region; None if it fails or is empty."""
    if region is None:
        return None
    logits = upsample_window(cut_window(logits_hw, frame, region), frame, region)
    stability = stability_score(logits, config.stability_score_offset)
    if not is_stable(stability, config.stability_score_thresh):
        return None
    mask = logits > 0
    box = tight_box(mask)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    tight = Region(region.y0 + y0, region.y0 + y1 + 1, region.x0 + x0, region.x0 + x1 + 1)
    window = cut_window(logits_hw, frame, tight)
    return Candidate(
        window_hw=window,
        frame=frame,
        region=tight,
        crop=crop,
        area=int(np.count_nonzero(mask)),
        predicted_iou=iou,
        stability=stability,
        point_xy=(float(point_xy[0]), float(point_xy[1])),
    )


def _best_by_box(
    found: list[Candidate], scores: list[float] | list[np.float32], iou_threshold: float
) -> list[Candidate]:
    boxes = np.array([c.box_xyxy for c in found], dtype=np.float32).reshape(-1, 4)
    kept = box_nms(boxes, np.array(scores, dtype=np.float32), iou_threshold)
    return [found[i] for i in kept]


def _area(crop: Crop) -> int:
    height, width = crop.size
    return height * width


def _mask(candidate: Candidate) -> NDArray[np.bool_]:
    """Draw a candidate inside its box."""
    return upsample_window(candidate.window_hw, candidate.frame, candidate.region) > 0


def _record(candidate: Candidate, height: int, width: int) -> MaskRecord:
    x0, y0, x1, y1 = candidate.box_xyxy
    return MaskRecord(
        rle=encode_region(_mask(candidate), x0, y0, height, width),
        bbox_xywh=(x0, y0, x1 - x0, y1 - y0),
        area=candidate.area,
        predicted_iou=float(candidate.predicted_iou),
        stability_score=float(candidate.stability),
        crop_box_xywh=candidate.crop.xywh,
        point_xy=candidate.point_xy,
    )


def _cleaned_records(
    found: list[Candidate], height: int, width: int, config: AutomaticConfig
) -> list[MaskRecord]:
    """Remove small holes and islands, then duplicates again; untouched masks win."""
    records, unchanged = [], []
    for candidate in found:
        record, changed = _clean(_record(candidate, height, width), _mask(candidate), config)
        if record is not None:
            records.append(record)
            unchanged.append(float(not changed))
    boxes = np.array([_corners(r) for r in records], dtype=np.float32).reshape(-1, 4)
    threshold = max(config.box_nms_thresh, config.crop_nms_thresh)
    kept = box_nms(boxes, np.array(unchanged, dtype=np.float32), threshold)
    return [records[i] for i in kept]


def _clean(
    record: MaskRecord, box_mask: NDArray[np.bool_], config: AutomaticConfig
) -> tuple[MaskRecord | None, bool]:
    """Clean one mask; None if the paper's rule drops it."""
    height, width = record.rle.height, record.rle.width
    box = _corners(record)
    region, open_sides = working_region(box, height, width, config.min_mask_region_area)
    mask = np.zeros((region.y1 - region.y0, region.x1 - region.x0), dtype=bool)
    x0, y0 = box[0] - region.x0, box[1] - region.y0
    mask[y0 : y0 + box_mask.shape[0], x0 : x0 + box_mask.shape[1]] = box_mask
    mask, filled = fill_small_holes(mask, config.min_mask_region_area, open_sides)
    mask, removed, largest = remove_small_islands(mask, config.min_mask_region_area)
    if config.drop_small_masks and largest < config.min_mask_region_area:
        return None, True
    new_box = tight_box(mask)
    if not (filled or removed) or new_box is None:
        return record, False
    left, top, right, bottom = new_box
    return (
        replace(
            record,
            rle=encode_region(mask, region.x0, region.y0, height, width),
            bbox_xywh=(left + region.x0, top + region.y0, right - left, bottom - top),
            area=int(np.count_nonzero(mask)),
        ),
        True,
    )


def _corners(record: MaskRecord) -> tuple[int, int, int, int]:
    x, y, w, h = record.bbox_xywh
    return x, y, x + w, y + h
