"""Edge maps: how strongly each pixel of an image looks like a boundary, as thin lines in 0..1.

    edges_HW = sam_edges(sam, image_HWC3)
    baseline_HW = sobel_edges(image_HWC3)

Nobody trains a promptable model on edges; they are where the masks of a grid of points end. Source:
Segment Anything, appendix D.2.

Shape suffixes: H, W image; h, w low-resolution logits or a region; N prompts, M masks, B pixels of
an outline, C3 RGB.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import rgb2gray
from skimage.filters import sobel

from engine.automatic.filters import tight_box
from engine.automatic.generator import Segmenter
from engine.automatic.nms import box_nms
from engine.automatic.point_grid import point_grid
from engine.errors import BadInputError
from model.types import Frame, Prompts
from model.upsample import Region, cut_window, regions_above, upsample_window

_PROMPTS_AT_ONCE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SamEdgeConfig:
    """How masks become edges; defaults as in the paper.

    Attributes:
        points_per_side: the grid has this many points squared, with three masks each.
        box_nms_thresh: of two masks whose boxes have a larger IoU the better scored stays.
    """

    points_per_side: int = 16
    box_nms_thresh: float = 0.7

    def __post_init__(self) -> None:
        if self.points_per_side < 1 or not 0 <= self.box_nms_thresh <= 1:
            raise BadInputError(
                "points_per_side must be 1 or more and box_nms_thresh from 0 to 1; got "
                f"{self.points_per_side} and {self.box_nms_thresh}"
            )


@torch.inference_mode()
def sam_edges(
    sam: Segmenter, image_HWC3: NDArray[np.uint8], config: SamEdgeConfig | None = None
) -> NDArray[np.float64]:
    """Find edges where masks end.

    Every pixel gets the largest slope of a mask's probability among the masks whose outer boundary
    it lies on; no mask is dropped for its score. The map is stretched to 0..1 and thinned.

    Args:
        sam: the model.
        image_HWC3: (H, W, 3) uint8 RGB.
        config: grid and removal of duplicates; by default the paper's.

    Returns:
        float64 (H, W) in 0..1, thin lines.
    """
    config = config or SamEdgeConfig()
    height, width = image_HWC3.shape[:2]
    outlines = list(_outlines(sam, image_HWC3, config.points_per_side))
    boxes_xyxy = np.array([o.box_xyxy for o in outlines], dtype=np.float32).reshape(-1, 4)
    scores = np.array([o.predicted_iou for o in outlines], dtype=np.float32)
    edges_HW = np.zeros((height, width))
    for i in box_nms(boxes_xyxy, scores, config.box_nms_thresh):
        outline = outlines[i]
        before = edges_HW[outline.y_B, outline.x_B]
        edges_HW[outline.y_B, outline.x_B] = np.maximum(before, outline.slope_B)
    return thin_edges(_stretched(edges_HW))


@dataclass(frozen=True, slots=True, eq=False)
class _Outline:
    """The B pixels just outside a mask, and how steeply its probability falls there."""

    box_xyxy: tuple[int, int, int, int]
    predicted_iou: float
    y_B: NDArray[np.int64]
    x_B: NDArray[np.int64]
    slope_B: NDArray[np.float32]


def _outlines(
    sam: Segmenter, image_HWC3: NDArray[np.uint8], points_per_side: int
) -> Iterator[_Outline]:
    """Prompt an image everywhere; yield the outlines of all masks that are not empty."""
    embedding = sam.encode(image_HWC3)
    points_N2 = point_grid(points_per_side) * image_HWC3.shape[1::-1]
    labels_N1 = np.ones((len(points_N2), 1), dtype=np.int64)
    scored = sam.score(embedding, Prompts(points_xy=points_N2[:, None], point_labels=labels_N1))
    iou_N3 = scored.iou_N4[:, 1:].float().cpu().numpy()
    for start in range(0, len(points_N2), _PROMPTS_AT_ONCE):
        chosen = torch.arange(start, min(start + _PROMPTS_AT_ONCE, len(points_N2)))
        logits = sam.draw(scored, chosen.to(scored.iou_N4.device))[:, 1:].flatten(0, 1)
        logits_Mhw = logits.float().cpu().numpy()
        regions = regions_above(logits_Mhw, 0.0, embedding.frame)
        scores = iou_N3[start : start + len(chosen)].ravel()
        for logits_hw, region, iou in zip(logits_Mhw, regions, scores, strict=True):
            if region is not None:
                outline = _outline(logits_hw, region, embedding.frame, float(iou))
                if outline is not None:
                    yield outline


def _outline(
    logits_hw: NDArray[np.float32], region: Region, frame: Frame, predicted_iou: float
) -> _Outline | None:
    """Measure one mask inside a region that holds all of it; None if it is empty."""
    height, width = frame.original_size
    region = Region(  # room for the outline and for the filter around it
        max(region.y0 - 2, 0),
        min(region.y1 + 2, height),
        max(region.x0 - 2, 0),
        min(region.x1 + 2, width),
    )
    full_hw = upsample_window(cut_window(logits_hw, frame, region), frame, region)
    mask_hw = full_hw > 0
    box = tight_box(mask_hw)
    if box is None:
        return None
    y_B, x_B = np.nonzero(_grown(mask_hw) & ~mask_hw)
    return _Outline(
        box_xyxy=(
            box[0] + region.x0,
            box[1] + region.y0,
            box[2] + region.x0,
            box[3] + region.y0,
        ),
        predicted_iou=predicted_iou,
        y_B=y_B + region.y0,
        x_B=x_B + region.x0,
        slope_B=_sobel_of_probability(full_hw, y_B, x_B),
    )


def _grown(mask_hw: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Add the eight neighbours of every mask pixel."""
    wider = mask_hw.copy()
    wider[:, 1:] |= mask_hw[:, :-1]
    wider[:, :-1] |= mask_hw[:, 1:]
    grown = wider.copy()
    grown[1:] |= wider[:-1]
    grown[:-1] |= wider[1:]
    return grown


def _sobel_of_probability(
    logits_hw: NDArray[np.float32], y_B: NDArray[np.int64], x_B: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Magnitude of the Sobel filter on the sigmoid, at some pixels; borders are repeated."""
    h, w = logits_hw.shape
    slope_y_B, slope_x_B = np.zeros((2, len(y_B)), dtype=np.float32)
    for dy, dx in product((-1, 0, 1), repeat=2):
        # exp cannot overflow in float32 below 88; beyond 50 a probability is 0 or 1 anyway
        logit_B = np.clip(logits_hw[(y_B + dy).clip(0, h - 1), (x_B + dx).clip(0, w - 1)], -50, 50)
        probability_B = 1 / (1 + np.exp(-logit_B))
        slope_y_B += dy * (2 - abs(dx)) * probability_B
        slope_x_B += dx * (2 - abs(dy)) * probability_B
    return np.hypot(slope_y_B, slope_x_B)


def sobel_edges(image_HWC3: NDArray[np.uint8], sigma_px: float = 2.0) -> NDArray[np.float64]:
    """Take the gradient of the smoothed grey image for edges: the baseline of any edge table.

    Args:
        image_HWC3: (H, W, 3) uint8 RGB.
        sigma_px: of the Gaussian that smooths it. 2 is best on six images of BSDS val (ODS .63); 0
            gives the plain filter of published tables (.54 there, .539 published).

    Returns:
        float64 (H, W) in 0..1, thin lines.
    """
    grey_HW = ndimage.gaussian_filter(rgb2gray(image_HWC3), sigma_px)
    return thin_edges(_stretched(sobel(grey_HW)))


def thin_edges(edges_HW: NDArray[np.float64], sigma_px: float = 1.5) -> NDArray[np.float64]:
    """Keep only the crests of an edge map: non-maximum suppression as in Canny's detector.

    A pixel stays where it is not lower than the map one pixel further to either side across the
    edge. Across is the direction in which the map changes most nearby (its structure tensor), which
    is known on a crest too, where the map itself is level.

    Args:
        edges_HW: strength, 0 or more.
        sigma_px: of the Gaussian that says what is nearby.

    Returns:
        The map with 0 off the crests.
    """
    along_y, along_x = (
        ndimage.gaussian_filter(edges_HW, 1.0, order=order) for order in ((1, 0), (0, 1))
    )
    yy, xx, yx = (
        ndimage.gaussian_filter(change, sigma_px)
        for change in (along_y**2, along_x**2, along_y * along_x)
    )
    angle = 0.5 * np.arctan2(2 * yx, xx - yy)
    across = np.stack([np.sin(angle), np.cos(angle)])  # (y, x)
    here = np.indices(edges_HW.shape, dtype=np.float64)
    sides = [
        ndimage.map_coordinates(edges_HW, here + step * across, order=1, mode="nearest")
        for step in (-1, 1)
    ]
    # Interpolation leaves a flat crest a rounding error above itself.
    crest = edges_HW >= np.maximum(*sides) * (1 - 1e-9)
    return np.where(crest, edges_HW, 0.0)


def _stretched(edges_HW: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map the smallest value to 0 and the largest to 1; a flat map to 0."""
    low, high = edges_HW.min(), edges_HW.max()
    return (edges_HW - low) / (high - low) if high > low else np.zeros_like(edges_HW)
