"""Regions of an image from colour alone: what any proposal of a model is held against.

    regions = felzenszwalb_pool(image_HWC3)  # ranked, without near-duplicates

Five segmentations from fine to coarse, all their regions in one pool. Source: Felzenszwalb and
Huttenlocher, Efficient Graph-Based Image Segmentation, IJCV 2004.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import felzenszwalb

from engine.errors import BadInputError
from engine.images import resize_to_fit
from engine.masks import encode_region, mask_area, mask_iou
from engine.records import Rle


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """How the pool is made.

    Attributes:
        scales: of the segmentations: larger ones have larger regions.
        sigma_px: of the Gaussian that smooths the image.
        min_size_px: smaller regions are merged into a neighbour.
        duplicate_iou: of two regions with a larger IoU one stays.
        long_side_px: larger images are segmented at this size.
    """

    scales: tuple[float, ...] = (100, 200, 400, 800, 1600)
    sigma_px: float = 0.8
    min_size_px: int = 50
    duplicate_iou: float = 0.9
    long_side_px: int = 1024

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) <= 0 or not 0 <= self.duplicate_iou <= 1:
            raise BadInputError(
                "expected at least one scale above 0 and duplicate_iou from 0 to 1; got "
                f"{self.scales} and {self.duplicate_iou}"
            )


def felzenszwalb_pool(
    image_HWC3: NDArray[np.uint8], config: PoolConfig | None = None
) -> tuple[Rle, ...]:
    """Pool the regions of all scales, large ones first.

    Of near-duplicates the larger one stays. A segmentation has no scores to rank by; on images of
    BSDS train large first has a higher AR@100 than coarse first, small first, regions that most
    scales agree on first, or no order.

    Args:
        image_HWC3: (H, W, 3) uint8 RGB.
        config: scales and what counts as a duplicate.

    Returns:
        Masks at the image's size.
    """
    config = config or PoolConfig()
    rles = sorted(_regions(image_HWC3, config), key=mask_area, reverse=True)
    like_NN = mask_iou(rles, rles) > config.duplicate_iou
    kept: list[int] = []
    for place in range(len(rles)):
        if not like_NN[place, kept].any():
            kept.append(place)
    return tuple(rles[place] for place in kept)


def _regions(image_HWC3: NDArray[np.uint8], config: PoolConfig) -> Iterator[Rle]:
    height, width = image_HWC3.shape[:2]
    small = resize_to_fit(image_HWC3, config.long_side_px)
    for scale in config.scales:
        labels_hw = felzenszwalb(small, scale, sigma=config.sigma_px, min_size=config.min_size_px)
        labels_HW = _enlarged(labels_hw, height, width) + 1
        for label, window in enumerate(ndimage.find_objects(labels_HW), start=1):
            if window is not None:
                rows, columns = window
                region_hw = labels_HW[window] == label
                yield encode_region(region_hw, columns.start, rows.start, height, width)


def _enlarged(labels_hw: NDArray[np.int64], height: int, width: int) -> NDArray[np.int64]:
    """Repeat pixels until the map has the size wanted."""
    rows = np.arange(height) * labels_hw.shape[0] // height
    columns = np.arange(width) * labels_hw.shape[1] // width
    labels_HW: NDArray[np.int64] = labels_hw[rows[:, None], columns]
    return labels_HW
