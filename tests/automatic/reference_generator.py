"""A slow, plain second telling of the public automatic mask generator, to compare ours with.

It is written from a description of the public generator's behaviour and shares no line with
``engine.automatic``: a mistake would have to be made twice to pass unseen. Loops are plain and
masks are kept at full size, so use it on small images with few points.

    masks = reference_masks(image_HWC3, ReferenceConfig(points_per_side=8), encode, decode)

Shape suffixes: H, W image or crop size; C3 RGB; N points or masks; 2 an (x, y) pair.

Frames: the *image frame* is pixels of the whole image; the *crop frame* is pixels of one crop, its
top left corner at 0; the *input frame* is pixels of the crop after resizing its long side to 1024;
the low-resolution logits cover the 1024 x 1024 padded input at a quarter of its resolution.

Where the description leaves a choice, the choice is:

- Masks without a pixel above logit 0 are dropped: they have no box and cannot be a record.
- A stability score of 0/0 counts as 0.
- Equal scores keep their order: the candidate with the lowest index wins.
- A "hole" is any 8-connected region of background, also one that touches the image's border.
- A mask counts as changed as soon as a region below the minimum area was found, even when it is the
  only island and therefore stays.
- Of equally large islands the one met first, reading row by row, stays.
- Crops that clipping leaves without a pixel (images of a few pixels) are skipped.
- An image in which nothing survives gives an empty list.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
BoxXYXY = tuple[int, int, int, int]

Encode = Callable[[UInt8Array], Any]
"""Raw crop (H, W, 3) uint8 RGB -> whatever `Decode` takes."""

Decode = Callable[[Any, Float64Array], tuple[Float32Array, Float32Array]]
"""(features, points (N, 2) float64) -> (logits (N, 3, 256, 256), predicted IoU (N, 3)) in float32.

Points are xy in the input frame, NOT yet moved to pixel centres: adding 0.5 is the decoder's work.
"""

INPUT_SIDE_PX = 1024
EDGE_TOLERANCE_PX = 20
PIXEL_MEAN_RGB = (123.675, 116.28, 103.53)
PIXEL_STD_RGB = (58.395, 57.12, 57.375)
EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=np.int64)


@dataclass(frozen=True)
class ReferenceConfig:
    """The public generator's options and defaults; a threshold of 0 switches its filter off."""

    points_per_side: int = 32
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    min_mask_region_area: int = 0


@dataclass(frozen=True, eq=False)
class ReferenceMask:
    """One mask that survived every filter.

    Attributes:
        mask_HW: bool, at the size of the whole image.
        bbox_xywh: image frame; sides are last minus first pixel, so a single pixel has width 0.
        area: number of True pixels.
        predicted_iou: as decoded, before any small-region removal.
        stability_score: as measured before any small-region removal, in [0, 1].
        crop_box_xywh: the crop that the mask was found in, image frame.
        point_xy: the prompt, image frame.
    """

    mask_HW: BoolArray
    bbox_xywh: tuple[int, int, int, int]
    area: int
    predicted_iou: float
    stability_score: float
    crop_box_xywh: tuple[int, int, int, int]
    point_xy: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A mask on its way through the filters; mask, boxes and point are in the image frame."""

    mask_HW: BoolArray
    box_xyxy: BoxXYXY
    predicted_iou: float
    stability_score: float
    crop_xyxy: BoxXYXY
    point_xy: tuple[float, float]


def reference_masks(
    image_HWC3: UInt8Array, config: ReferenceConfig, encode: Encode, decode: Decode
) -> list[ReferenceMask]:
    """Generate every mask of an image as the public generator does.

    Order: without crop layers by falling predicted IoU; with crop layers the smallest crops first;
    small-region removal then moves changed masks behind unchanged ones.

    Args:
        image_HWC3: uint8 RGB.
        config: thresholds and grid.
        encode: called once per crop with the raw crop.
        decode: called per batch of at most `points_per_batch` points of one crop; points are in the
            input frame, scaled in float64, WITHOUT the +0.5 shift to pixel
            centres, which belongs inside `decode`.

    Returns:
        The surviving masks; an empty list when there are none.
    """
    height, width = image_HWC3.shape[:2]
    crops = crop_boxes(height, width, config.crop_n_layers, config.crop_overlap_ratio)
    candidates: list[Candidate] = []
    for layer, crop_xyxy in crops:
        candidates += candidates_of_crop(image_HWC3, crop_xyxy, layer, config, encode, decode)
    if len(crops) > 1:
        scores = [1.0 / box_area(candidate.crop_xyxy) for candidate in candidates]
        candidates = suppress(candidates, scores, config.crop_nms_thresh)
    if config.min_mask_region_area > 0:
        iou_thresh = max(config.box_nms_thresh, config.crop_nms_thresh)
        candidates = clean_small_regions(candidates, config.min_mask_region_area, iou_thresh)
    return [to_record(candidate) for candidate in candidates]


def reference_pixels(crop_HWC3: UInt8Array) -> torch.Tensor:
    """Prepare a crop for the image encoder: resize, normalise, then pad right and below with zeros.

    Args:
        crop_HWC3: uint8 RGB.

    Returns:
        float32 (1, 3, 1024, 1024).
    """
    new_height, new_width = input_size(crop_HWC3.shape[0], crop_HWC3.shape[1])
    # Width first: Pillow always did so when SAM was trained; from 13 on it picks the cheaper order.
    picture = Image.fromarray(crop_HWC3)
    for size in ((new_width, picture.height), (new_width, new_height)):
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    pixels_C3HW = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()
    mean = torch.tensor(PIXEL_MEAN_RGB).reshape(3, 1, 1)
    std = torch.tensor(PIXEL_STD_RGB).reshape(3, 1, 1)
    padded = torch.zeros(1, 3, INPUT_SIDE_PX, INPUT_SIDE_PX)
    padded[0, :, :new_height, :new_width] = (pixels_C3HW - mean) / std
    return padded


def input_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of a crop after its long side became 1024, each rounded half up."""
    scale = INPUT_SIDE_PX / max(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)


def point_grid(points_per_side: int) -> Float64Array:
    """Evenly spread points in the unit square, (N, 2) float64 xy, x fastest.

    Raises:
        ValueError: there is no point on a side.
    """
    if points_per_side < 1:
        raise ValueError(f"got {points_per_side} points per side, expected at least 1")
    margin = 1 / (2 * points_per_side)
    positions = np.linspace(margin, 1 - margin, points_per_side)
    return np.array([(x, y) for y in positions for x in positions], dtype=np.float64)


def crop_boxes(
    height: int, width: int, n_layers: int, overlap_ratio: float
) -> list[tuple[int, BoxXYXY]]:
    """The crops in the order they are worked on, as (layer, box); layer 0 is the whole image.

    Boxes are in the image frame, XYXY with exclusive right and bottom sides.
    """
    crops: list[tuple[int, BoxXYXY]] = [(0, (0, 0, width, height))]
    for layer in range(1, n_layers + 1):
        per_side = 2**layer
        overlap = int(overlap_ratio * min(height, width) * 2 / per_side)
        crop_width = math.ceil((overlap * (per_side - 1) + width) / per_side)
        crop_height = math.ceil((overlap * (per_side - 1) + height) / per_side)
        for column in range(per_side):
            for row in range(per_side):
                x0 = (crop_width - overlap) * column
                y0 = (crop_height - overlap) * row
                x1 = min(x0 + crop_width, width)
                y1 = min(y0 + crop_height, height)
                if x0 < x1 and y0 < y1:
                    crops.append((layer, (x0, y0, x1, y1)))
    return crops


def candidates_of_crop(
    image_HWC3: UInt8Array,
    crop_xyxy: BoxXYXY,
    layer: int,
    config: ReferenceConfig,
    encode: Encode,
    decode: Decode,
) -> list[Candidate]:
    """Prompt one crop with its layer's grid; filter, then suppress by predicted IoU."""
    x0, y0, x1, y1 = crop_xyxy
    crop_HWC3 = np.ascontiguousarray(image_HWC3[y0:y1, x0:x1])
    new_height, new_width = input_size(y1 - y0, x1 - x0)
    per_side = int(config.points_per_side / config.crop_n_points_downscale_factor**layer)
    crop_points_N2 = point_grid(per_side) * np.array([x1 - x0, y1 - y0])
    scale_2 = np.array([new_width / (x1 - x0), new_height / (y1 - y0)])
    features = encode(crop_HWC3)

    found: list[Candidate] = []
    for start in range(0, len(crop_points_N2), config.points_per_batch):
        batch_N2 = crop_points_N2[start : start + config.points_per_batch]
        low_res, predicted_iou = decode(features, batch_N2 * scale_2)
        logits = upsample(low_res, (new_height, new_width), (y1 - y0, x1 - x0))
        for i in range(len(batch_N2)):
            point_xy = (float(batch_N2[i, 0] + x0), float(batch_N2[i, 1] + y0))
            for k in range(logits.shape[1]):
                candidate = examine(
                    logits[i, k], predicted_iou[i, k], point_xy, crop_xyxy, image_HWC3.shape, config
                )
                if candidate is not None:
                    found.append(candidate)
    return suppress(found, [c.predicted_iou for c in found], config.box_nms_thresh)


def upsample(
    low_res_N3hw: Float32Array, input_hw: tuple[int, int], crop_hw: tuple[int, int]
) -> torch.Tensor:
    """Bring low-resolution logits to the crop's own size.

    Args:
        low_res_N3hw: (N, 3, 256, 256) float32 over the padded input.
        input_hw: size of the part of the input that is not padding.
        crop_hw: size of the crop before resizing.

    Returns:
        float32 (N, 3, H, W) in the crop frame.
    """
    low_res = torch.from_numpy(np.ascontiguousarray(low_res_N3hw))
    whole_input = (INPUT_SIDE_PX, INPUT_SIDE_PX)
    padded = F.interpolate(low_res, whole_input, mode="bilinear", align_corners=False)
    unpadded = padded[:, :, : input_hw[0], : input_hw[1]]
    return F.interpolate(unpadded, crop_hw, mode="bilinear", align_corners=False)


def examine(
    logits_HW: torch.Tensor,
    predicted_iou: np.float32,
    point_xy: tuple[float, float],
    crop_xyxy: BoxXYXY,
    image_shape: tuple[int, ...],
    config: ReferenceConfig,
) -> Candidate | None:
    """Judge one mask by quality, stability, emptiness and crop edges; None when it is rejected.

    `logits_HW` is in the crop frame; the candidate is in the image frame.
    """
    # Predicted IoUs are float32, so the strict comparison is made in that precision.
    too_bad = not predicted_iou > np.float32(config.pred_iou_thresh)
    if config.pred_iou_thresh > 0 and too_bad:
        return None
    stability = stability_score(logits_HW, config.stability_score_offset)
    if config.stability_score_thresh > 0 and stability < config.stability_score_thresh:
        return None
    mask_HW = np.zeros(image_shape[:2], dtype=np.bool_)
    x0, y0, x1, y1 = crop_xyxy
    mask_HW[y0:y1, x0:x1] = (logits_HW > 0).numpy()
    if not mask_HW.any():
        return None
    box_xyxy = mask_box(mask_HW)
    if cut_by_crop(box_xyxy, crop_xyxy, (0, 0, image_shape[1], image_shape[0])):
        return None
    return Candidate(mask_HW, box_xyxy, float(predicted_iou), stability, crop_xyxy, point_xy)


def stability_score(logits: torch.Tensor, offset: float) -> float:
    """Pixels above +offset as a share of those above -offset; 0 when there are none."""
    confident = int((logits > offset).sum())
    possible = int((logits > -offset).sum())
    return confident / possible if possible else 0.0


def mask_box(mask_HW: BoolArray) -> BoxXYXY:
    """First and last True column and row, XYXY with inclusive right and bottom.

    Raises:
        ValueError: the mask is empty.
    """
    rows, columns = np.nonzero(mask_HW)
    if len(rows) == 0:
        raise ValueError("got an empty mask, expected at least one True pixel")
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


def box_area(box_xyxy: BoxXYXY) -> int:
    """Width times height, both as plain differences: a box one pixel wide has area 0."""
    return (box_xyxy[2] - box_xyxy[0]) * (box_xyxy[3] - box_xyxy[1])


def box_iou(a: BoxXYXY, b: BoxXYXY) -> float:
    """Intersection over union of two XYXY boxes; 0 when either area is 0."""
    overlap_x = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    overlap_y = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    intersection = overlap_x * overlap_y
    union = box_area(a) + box_area(b) - intersection
    return intersection / union if union else 0.0


def cut_by_crop(box_xyxy: BoxXYXY, crop_xyxy: BoxXYXY, image_xyxy: BoxXYXY) -> bool:
    """Whether a side lies within 20 px of its crop side but not within 20 px of its image side."""
    for side in range(4):
        near_crop = abs(box_xyxy[side] - crop_xyxy[side]) <= EDGE_TOLERANCE_PX
        near_image = abs(box_xyxy[side] - image_xyxy[side]) <= EDGE_TOLERANCE_PX
        if near_crop and not near_image:
            return True
    return False


def nms(boxes: Sequence[BoxXYXY], scores: Sequence[float], iou_thresh: float) -> list[int]:
    """Indices that survive non-maximum suppression, by falling score, equal scores by index.

    A box goes when its IoU with a better surviving box is strictly greater than `iou_thresh`.
    """
    by_score = sorted(range(len(boxes)), key=lambda i: (-scores[i], i))
    survivors: list[int] = []
    for i in by_score:
        if all(box_iou(boxes[i], boxes[j]) <= iou_thresh for j in survivors):
            survivors.append(i)
    return survivors


def suppress(
    candidates: Sequence[Candidate], scores: Sequence[float], iou_thresh: float
) -> list[Candidate]:
    """The candidates that survive `nms`, in its order."""
    boxes = [candidate.box_xyxy for candidate in candidates]
    return [candidates[i] for i in nms(boxes, scores, iou_thresh)]


def clean_small_regions(
    candidates: Sequence[Candidate], min_area_px: int, iou_thresh: float
) -> list[Candidate]:
    """Fill small holes, remove small islands, then suppress again, unchanged masks first."""
    cleaned: list[Candidate] = []
    scores: list[float] = []
    for candidate in candidates:
        filled_HW, had_holes = fill_small_holes(candidate.mask_HW, min_area_px)
        mask_HW, had_islands = remove_small_islands(filled_HW, min_area_px)
        cleaned.append(replace(candidate, mask_HW=mask_HW, box_xyxy=mask_box(mask_HW)))
        scores.append(0.0 if had_holes or had_islands else 1.0)
    return suppress(cleaned, scores, iou_thresh)


def fill_small_holes(mask_HW: BoolArray, min_area_px: int) -> tuple[BoolArray, bool]:
    """Fill each 8-connected background region below `min_area_px`; tells whether there was one."""
    small = [hole for hole in regions(~mask_HW) if hole.sum() < min_area_px]
    filled_HW = mask_HW.copy()
    for hole_HW in small:
        filled_HW |= hole_HW
    return filled_HW, len(small) > 0


def remove_small_islands(mask_HW: BoolArray, min_area_px: int) -> tuple[BoolArray, bool]:
    """Remove each 8-connected island below `min_area_px`; tells whether there was one.

    When all are small, the largest stays, and of equally large ones the first in reading order.
    """
    islands = regions(mask_HW)
    small = [island for island in islands if island.sum() < min_area_px]
    if len(small) == len(islands) and islands:
        largest_HW = max(islands, key=lambda island: int(island.sum()))
        return largest_HW, True
    remaining_HW = mask_HW.copy()
    for island_HW in small:
        remaining_HW &= ~island_HW
    return remaining_HW, len(small) > 0


def regions(mask_HW: BoolArray) -> list[BoolArray]:
    """The 8-connected regions of True pixels, each as a mask, by first pixel in reading order."""
    labels_HW, count = ndimage.label(mask_HW, structure=EIGHT_NEIGHBOURS)
    found = [np.asarray(labels_HW == label, dtype=np.bool_) for label in range(1, count + 1)]
    return sorted(found, key=lambda region: int(np.flatnonzero(region)[0]))


def to_record(candidate: Candidate) -> ReferenceMask:
    """Turn a surviving candidate into a record with XYWH boxes."""
    x0, y0, x1, y1 = candidate.box_xyxy
    crop_x0, crop_y0, crop_x1, crop_y1 = candidate.crop_xyxy
    return ReferenceMask(
        mask_HW=candidate.mask_HW,
        bbox_xywh=(x0, y0, x1 - x0, y1 - y0),
        area=int(candidate.mask_HW.sum()),
        predicted_iou=candidate.predicted_iou,
        stability_score=candidate.stability_score,
        crop_box_xywh=(crop_x0, crop_y0, crop_x1 - crop_x0, crop_y1 - crop_y0),
        point_xy=candidate.point_xy,
    )
