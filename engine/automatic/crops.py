"""Overlapping crops in layers: layer i cuts the image into 2**i x 2**i windows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product


@dataclass(frozen=True, slots=True)
class Crop:
    """A window of the image, in pixels; x1 and y1 are excluded.

    Attributes:
        layer: 0 is the whole image.
    """

    x0: int
    y0: int
    x1: int
    y1: int
    layer: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def xywh(self) -> tuple[int, int, int, int]:
        """The window as XYWH."""
        return self.x0, self.y0, self.x1 - self.x0, self.y1 - self.y0


def layered_crops(height: int, width: int, crop_n_layers: int, overlap_ratio: float) -> list[Crop]:
    """Return the crops of all layers, the whole image first.

    Args:
        height: of the image in pixels.
        width: of the image in pixels.
        crop_n_layers: layers besides the whole image.
        overlap_ratio: overlap in the first layer as a share of the short side; halved with each
            layer.
    """
    crops = [Crop(0, 0, width, height, 0)]
    for layer in range(1, crop_n_layers + 1):
        per_side = 2**layer
        overlap = int(overlap_ratio * min(height, width) * (2 / per_side))
        crop_width = _window_length(width, per_side, overlap)
        crop_height = _window_length(height, per_side, overlap)
        for column, row in product(range(per_side), repeat=2):
            x0, y0 = (crop_width - overlap) * column, (crop_height - overlap) * row
            crop = Crop(x0, y0, min(x0 + crop_width, width), min(y0 + crop_height, height), layer)
            if (
                crop.x0 < crop.x1 and crop.y0 < crop.y1
            ):  # tiny images leave nothing for some windows
                crops.append(crop)
    return crops


def _window_length(length: int, per_side: int, overlap: int) -> int:
    return math.ceil((overlap * (per_side - 1) + length) / per_side)
