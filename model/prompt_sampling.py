"""Simulated people: where someone who wants a mask would click, and how they would draw its box.

Paper: Segment Anything, appendix A. Masks are (N, H, W) bool in the model's input frame;
coordinates are its pixels, (x, y). Randomness comes from the generator that is passed in.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def uniform_points(masks_NHW: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one pixel of each mask, uniformly: (N, 2). An empty mask gives its first pixel."""
    counts = masks_NHW.flatten(1).cumsum(1, dtype=torch.int32)
    drawn = torch.rand(len(counts), 1, generator=generator, device=counts.device)
    nth = (drawn * counts[:, -1:]).int() + 1
    index = torch.searchsorted(counts, nth.clamp(max=counts[:, -1:]))[:, 0]
    index = index.clamp(max=counts.shape[1] - 1)
    width = masks_NHW.shape[2]
    return torch.stack([index % width, index // width], dim=-1).float()


def tight_boxes(masks_NHW: Tensor) -> Tensor:
    """Boxes XYXY with inclusive corners: (N, 4) float; zeros for an empty mask."""
    columns, rows = masks_NHW.any(1), masks_NHW.any(2)
    x0, x1 = _first_last(columns)
    y0, y1 = _first_last(rows)
    found = masks_NHW.flatten(1).any(1, keepdim=True)
    return torch.stack([x0, y0, x1, y1], dim=-1).float() * found


def _first_last(hits_NL: Tensor) -> tuple[Tensor, Tensor]:
    length = hits_NL.shape[1]
    as_int = hits_NL.int()
    return as_int.argmax(1), length - 1 - as_int.flip(1).argmax(1)


def noisy_boxes(masks_NHW: Tensor, generator: torch.Generator) -> Tensor:
    """Tight boxes with noise of 10 % of the side, at most 20 px: (N, 4), inside the image."""
    boxes = tight_boxes(masks_NHW)
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    noise = torch.randn(boxes.shape, generator=generator, device=boxes.device) * sides * 0.1
    limits = boxes.new_tensor(masks_NHW.shape[:0:-1]).repeat(2) - 1
    noisy = boxes + noise.clamp(-20, 20)
    return torch.minimum(noisy.clamp(min=0), limits)


def corrective_points(
    wanted_NHW: Tensor, predicted_NHW: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Click uniformly into the error region.

    Returns:
        Points (N, 2) and labels (N,): 1 where mask was missed, 0 where too much was taken. A
        perfect prediction gets one more foreground click.
    """
    errors = wanted_NHW ^ predicted_NHW
    perfect = ~errors.flatten(1).any(1)
    where = torch.where(perfect[:, None, None], wanted_NHW, errors)
    points = uniform_points(where, generator)
    x, y = points.long().unbind(-1)
    labels = wanted_NHW[torch.arange(len(points), device=points.device), y, x]
    return points, labels.long()


def centre_point(mask_HW: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the pixel (x, y) of a mask that is farthest from all that is not the mask.

    Raises:
        ValueError: an empty mask.
    """
    ys, xs = np.nonzero(mask_HW)
    if not len(ys):
        raise ValueError("an empty mask has no centre")
    y0, x0 = ys.min(), xs.min()
    box = np.pad(mask_HW[y0 : ys.max() + 1, x0 : xs.max() + 1], 1)
    y, x = np.unravel_index(np.argmax(_squared_distance(box)), box.shape)
    return int(x + x0 - 1), int(y + y0 - 1)


def _squared_distance(mask_HW: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Squared Euclidean distance of every pixel to the nearest background pixel."""
    height, width = mask_HW.shape
    down = np.zeros((height, width), np.float32)
    for y in range(1, height):  # distance to the background along the column, from above...
        down[y] = np.where(mask_HW[y], down[y - 1] + 1, 0)
    for y in range(height - 2, -1, -1):  # ...and from below
        down[y] = np.minimum(down[y], np.where(mask_HW[y], down[y + 1] + 1, 0))
    squared = down**2
    x = np.arange(width, dtype=np.float32)
    apart = (x[:, None] - x[None, :]) ** 2
    return np.stack([(row[None, :] + apart).min(1) for row in squared])
