"""Prompt an image everywhere, keep what is worth keeping: the public SAM generator's semantics.

Each crop is encoded once and prompted with a grid. A mask passes by predicted IoU, stability and
distance from crop edges; duplicates go within a crop by score and across crops in favour of the
smaller crop; then small holes and islands go. The result equals the public generator's; the order
of work does not:

- prompts are scored first, and only those with a promising mask are drawn;
- full-resolution logits exist a strip at a time, and only along the masks' outlines;
- survivors become RLE at the very end. A candidate in between is a window of low-resolution logits,
  or a bit a pixel where that is less, so memory depends on the batch and the grid, never on the
  image's size times the number of masks.

Source: Segment Anything, section 4 and appendix B.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.automatic.config import AutomaticConfig
from engine.automatic.crop_encoding import encode_crops
from engine.automatic.crops import Crop, layered_crops
from engine.automatic.device_measuring import draw_together
from engine.automatic.device_prompting import measures_on, prompt_on_device
from engine.automatic.filters import tight_box, touches_crop_edge
from engine.automatic.measuring import MeasuredMask
from engine.automatic.nms import box_nms
from engine.automatic.point_grid import layer_point_grids
from engine.automatic.point_order import crop_rounds, point_rounds
from engine.automatic.precision import in_precision
from engine.automatic.prompting import prompt_on_processor
from engine.automatic.small_regions import (
    fill_small_holes,
    remove_small_islands,
    working_region,
)
from engine.masks import encode_region
from engine.records import MaskRecord, Rle
from model import ImageEmbedding, Prompts, ScoredPrompts


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
    """A mask that passed the filters.

    Attributes:
        measured: where it is in its crop, and its pixels.
        crop: where it was found.
        predicted_iou: by the model.
        point_xy: its prompt in pixels of the image.
    """

    measured: MeasuredMask
    crop: Crop
    predicted_iou: np.float32
    point_xy: tuple[float, float]

    @property
    def box_xyxy(self) -> tuple[int, int, int, int]:
        """Inclusive box in pixels of the image."""
        region = self.measured.region
        return (
            region.x0 + self.crop.x0,
            region.y0 + self.crop.y0,
            region.x1 - 1 + self.crop.x0,
            region.y1 - 1 + self.crop.y0,
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
    segmenter = in_precision(sam, config)
    for some in crop_rounds(crops, grids, found, config):
        for crop, embedding in zip(some, encode_crops(segmenter, image_HWC3, some), strict=True):
            found += crop_candidates(
                segmenter, embedding, crop, grids[crop.layer], (height, width), config, found
            )
    if len(crops) > 1:
        found = _best_by_box(found, [1 / _area(c.crop) for c in found], config.crop_nms_thresh)
    if config.min_mask_region_area > 0:
        return _cleaned_records(found, height, width, config)
    return [_record(c, c.measured.kept.encode(*c.box_xyxy[:2], height, width)) for c in found]


def crop_candidates(
    sam: Segmenter,
    embedding: ImageEmbedding,
    crop: Crop,
    grid: NDArray[np.float64],
    image_size: tuple[int, int],
    config: AutomaticConfig,
    before: Sequence[Candidate] = (),
) -> list[Candidate]:
    """Prompt one crop with a grid and drop duplicates within it; `before` is what others gave."""
    height, width = image_size
    points_P2 = grid * np.array(crop.size[::-1])
    seen = list(before)
    for chosen in point_rounds(grid, crop, seen, config):
        seen += [
            candidate
            for candidate in _prompted(sam, embedding, crop, points_P2[chosen], config)
            if not touches_crop_edge(candidate.box_xyxy, crop, height, width)
            and candidate.measured.area <= config.max_mask_area_ratio * height * width
        ]
    found = seen[len(before) :]
    best = _best_by_box(found, [c.predicted_iou for c in found], config.box_nms_thresh)
    drawn = draw_together([candidate.measured for candidate in best])
    return [
        replace(candidate, measured=measured)
        for candidate, measured in zip(best, drawn, strict=True)
    ]


def _prompted(
    sam: Segmenter,
    embedding: ImageEmbedding,
    crop: Crop,
    points_P2: NDArray[np.float64],
    config: AutomaticConfig,
) -> Iterator[Candidate]:
    """Prompt with any number of points, where the embedding is."""
    on_device = measures_on(embedding.features.coarse_BCHW.device)
    prompt = prompt_on_device if on_device else prompt_on_processor
    for mask in prompt(sam, embedding, points_P2, config):
        yield _candidate(mask.measured, crop, mask.predicted_iou, points_P2[mask.prompt])


def _candidate(
    measured: MeasuredMask, crop: Crop, predicted_iou: np.float32, point_2: NDArray[np.float64]
) -> Candidate:
    x, y = point_2
    point_xy = (float(x + crop.x0), float(y + crop.y0))
    return Candidate(measured=measured, crop=crop, predicted_iou=predicted_iou, point_xy=point_xy)


def _best_by_box(
    found: list[Candidate], scores: list[float] | list[np.float32], iou_threshold: float
) -> list[Candidate]:
    boxes = np.array([c.box_xyxy for c in found], dtype=np.float32).reshape(-1, 4)
    kept = box_nms(boxes, np.array(scores, dtype=np.float32), iou_threshold)
    return [found[i] for i in kept]


def _area(crop: Crop) -> int:
    height, width = crop.size
    return height * width


def _record(candidate: Candidate, rle: Rle) -> MaskRecord:
    x0, y0, x1, y1 = candidate.box_xyxy
    return MaskRecord(
        rle=rle,
        bbox_xywh=(x0, y0, x1 - x0, y1 - y0),
        area=candidate.measured.area,
        predicted_iou=float(candidate.predicted_iou),
        stability_score=float(candidate.measured.stability),
        crop_box_xywh=candidate.crop.xywh,
        point_xy=candidate.point_xy,
    )


def _cleaned_records(
    found: list[Candidate], height: int, width: int, config: AutomaticConfig
) -> list[MaskRecord]:
    """Remove small holes and islands, then duplicates again; untouched masks win."""
    records, unchanged = [], []
    for candidate in found:
        record, changed = _clean(candidate, height, width, config)
        if record is not None:
            records.append(record)
            unchanged.append(float(not changed))
    boxes = np.array([_corners(r) for r in records], dtype=np.float32).reshape(-1, 4)
    threshold = max(config.box_nms_thresh, config.crop_nms_thresh)
    kept = box_nms(boxes, np.array(unchanged, dtype=np.float32), threshold)
    return [records[i] for i in kept]


def _clean(
    candidate: Candidate, height: int, width: int, config: AutomaticConfig
) -> tuple[MaskRecord | None, bool]:
    """Clean one mask and tell whether that changed it; None if the paper's rule drops it."""
    x0, y0, x1, y1 = candidate.box_xyxy
    box_mask = candidate.measured.kept.draw()
    region, open_sides = working_region(
        (x0, y0, x1, y1), height, width, config.min_mask_region_area
    )
    mask = box_mask
    if (region.y1 - region.y0, region.x1 - region.x0) != box_mask.shape:
        mask = np.zeros((region.y1 - region.y0, region.x1 - region.x0), dtype=bool)
        mask[y0 - region.y0 : y1 + 1 - region.y0, x0 - region.x0 : x1 + 1 - region.x0] = box_mask
    mask, filled = fill_small_holes(mask, config.min_mask_region_area, open_sides)
    mask, removed, largest = remove_small_islands(mask, config.min_mask_region_area)
    if config.drop_small_masks and largest < config.min_mask_region_area:
        return None, True
    new_box = tight_box(mask) if filled or removed else None
    if new_box is None:
        return _record(candidate, encode_region(box_mask, x0, y0, height, width)), False
    left, top, right, bottom = new_box
    record = replace(
        _record(candidate, encode_region(mask, region.x0, region.y0, height, width)),
        bbox_xywh=(left + region.x0, top + region.y0, right - left, bottom - top),
        area=int(np.count_nonzero(mask)),
    )
    return record, True


def _corners(record: MaskRecord) -> tuple[int, int, int, int]:
    x, y, w, h = record.bbox_xywh
    return x, y, x + w, y + h
