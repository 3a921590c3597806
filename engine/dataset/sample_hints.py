"""What else a recipe may ask of a sample's masks: their centres, and the boundaries between them.

>>> centres_M2 = mask_centres(masks_MSS)

Shape legend: M masks, S side of the crop, s the same at the resolution of low-res logits.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.images import border_distance
from model import LOW_RES_STRIDE


def mask_centres(masks_MSS: Tensor) -> Tensor:
    """Return the pixel (x, y) of each mask that is farthest from its border: (M, 2) float32."""
    centres = []
    for mask in masks_MSS.numpy():
        y, x = np.unravel_index(np.argmax(border_distance(mask)), mask.shape)
        centres.append((float(x), float(y)))
    return torch.tensor(centres).reshape(-1, 2)


def draw_boundaries(masks_MSS: Tensor, votes: NDArray[np.float32]) -> Tensor:
    """Draw where people saw boundaries: (s, s) float32 in [0, 1], -1 where no mask is near.

    A pixel beside a mask's border counts with the mask's votes; what as many people saw as agree on
    any mask counts fully. Where two masks meet, each adds its side, so a border that two masks
    share needs half the votes.

    Args:
        masks_MSS: all masks that the crop shows.
        votes: how many people drew each.
    """
    masks = masks_MSS.numpy()
    side = masks.shape[1]
    seen = np.zeros((side, side), dtype=np.float32)
    for mask, count in zip(masks, votes, strict=True):
        band = np.zeros((side, side), dtype=np.bool_)
        across, down = mask[:, 1:] != mask[:, :-1], mask[1:] != mask[:-1]
        band[:, 1:] |= across
        band[:, :-1] |= across
        band[1:] |= down
        band[:-1] |= down
        seen += band * count
    known = masks.any(0) | (seen > 0)
    share = np.where(known, np.minimum(1, seen / votes.max(initial=1)), -1)
    blocks = side // LOW_RES_STRIDE
    low = share.reshape(blocks, LOW_RES_STRIDE, blocks, LOW_RES_STRIDE).max((1, 3))
    return torch.from_numpy(low.astype(np.float32))
