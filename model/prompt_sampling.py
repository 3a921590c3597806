"""Simulated people: where someone who wants a mask would click, and how they would draw its box.

>>> points_N2 = uniform_points(masks_NHW, generator)

Paper: Segment Anything, appendix A. Masks are (N, H, W) bool in the model's input frame;
coordinates are its pixels, (x, y). Randomness comes from the generator that is passed in. Where
several processes train one model, `rows` says which masks of the joint batch are meant: a mask
then gets the same prompts whichever process holds it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.processes import Rows
from model.types import PADDING, InputPrompts


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedPrompts:
    """What was said about N masks so far; some began with a box, the others with a point.

    Attributes:
        boxed_N: bool, who began with a box.
        boxes_N4: XYXY in pixels of the input; only those of `boxed_N` are shown to the model.
        points_NK2: the first point and the clicks after it.
        labels_NK: 1 foreground, 0 background; -1 in place of the first point of who began with a
            box.
        mask_logits_N1hw: the answer to improve on; None in the first round.
    """

    boxed_N: Tensor
    boxes_N4: Tensor
    points_NK2: Tensor
    labels_NK: Tensor
    mask_logits_N1hw: Tensor | None = None

    @classmethod
    def first(cls, boxed_N: Tensor, boxes_N4: Tensor, points_N2: Tensor) -> SimulatedPrompts:
        """Begin with the box where `boxed_N`, else with the foreground point."""
        labels_N = torch.where(boxed_N, PADDING, 1)
        return cls(boxed_N, boxes_N4, points_N2.unsqueeze(1), labels_N.unsqueeze(1))

    def answered(self, logits_N1hw: Tensor) -> SimulatedPrompts:
        """Show an answer as the mask prompt."""
        return replace(self, mask_logits_N1hw=logits_N1hw)

    def clicked(self, points_N2: Tensor, labels_N: Tensor) -> SimulatedPrompts:
        """Add a click to every mask."""
        return replace(
            self,
            points_NK2=torch.cat([self.points_NK2, points_N2.unsqueeze(1)], dim=1),
            labels_NK=torch.cat([self.labels_NK, labels_N.unsqueeze(1)], dim=1),
        )

    def groups(self) -> list[tuple[Tensor, InputPrompts]]:
        """Split into prompts without and with a box: indices into N, and what the model is asked.

        A prompt encoder takes a box for all of its prompts or for none, and a point alone brings
        another padding token than a box does; so each kind is asked as it will be in use.
        """
        groups = []
        for boxed in (False, True):
            index = torch.nonzero(self.boxed_N == boxed)[:, 0]
            if len(index):
                groups.append((index, self._input_prompts(index, boxed)))
        return groups

    def _input_prompts(self, index: Tensor, boxed: bool) -> InputPrompts:
        clicks = slice(int(boxed), None)  # without the padding that stands for the first point
        points, labels = self.points_NK2[index, clicks], self.labels_NK[index, clicks]
        logits = None if self.mask_logits_N1hw is None else self.mask_logits_N1hw[index]
        boxes = self.boxes_N4[index] if boxed else None
        if not points.shape[1]:
            return InputPrompts(None, None, boxes, logits)
        return InputPrompts(points, labels, boxes, logits)


def random_rows(
    columns: int, rows: Rows, generator: torch.Generator, *, normal: bool = False
) -> Tensor:
    """Draw (rows.count, columns) numbers in [0, 1), or normal ones: these rows of all."""
    draw = torch.randn if normal else torch.rand
    return rows.of(draw(rows.total, columns, generator=generator, device=generator.device))


def uniform_points(
    masks_NHW: Tensor, generator: torch.Generator, rows: Rows | None = None
) -> Tensor:
    """Draw one pixel of each mask, uniformly: (N, 2). An empty mask gives its first pixel."""
    counts = masks_NHW.flatten(1).cumsum(1, dtype=torch.int32)
    drawn = random_rows(1, rows or Rows.alone(len(counts)), generator)
    nth = (drawn * counts[:, -1:]).int() + 1
    index = torch.searchsorted(counts, nth.clamp(max=counts[:, -1:]))[:, 0]
    index = index.clamp(max=counts.shape[1] - 1)
    width = masks_NHW.shape[2]
    return torch.stack([index % width, index // width], dim=-1).float()


def others_under(
    points_N2: Tensor,
    masks_NHW: Tensor,
    image_index_N: Tensor,
    count: int,
    generator: torch.Generator,
    rows: Rows | None = None,
) -> tuple[Tensor, Tensor]:
    """Find other masks of the image that a point could have meant as well.

    Args:
        points_N2: a point in each mask.
        masks_NHW: all masks of the batch.
        image_index_N: which image each belongs to.
        count: how many to choose at random where there are more.
        generator: of the choice.
        rows: of the masks in the joint batch.

    Returns:
        Indices into N and whether they were found, both (N, K) with K = min(count, N).
    """
    x, y = points_N2.long().unbind(-1)
    contain_NN = masks_NHW[:, y, x].T & (image_index_N[:, None] == image_index_N)
    contain_NN.fill_diagonal_(False)
    rows = rows or Rows.alone(len(points_N2))
    drawn_NN = random_rows(len(points_N2), rows, generator)
    chosen = torch.where(contain_NN, drawn_NN, -1.0).topk(min(count, len(points_N2)), dim=1)
    return chosen.indices, chosen.values >= 0


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


def noisy_boxes(masks_NHW: Tensor, generator: torch.Generator, rows: Rows | None = None) -> Tensor:
    """Tight boxes with noise of 10 % of the side, at most 20 px: (N, 4), inside the image."""
    boxes = tight_boxes(masks_NHW)
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    noise = random_rows(4, rows or Rows.alone(len(boxes)), generator, normal=True) * sides * 0.1
    limits = boxes.new_tensor(masks_NHW.shape[:0:-1]).repeat(2) - 1
    noisy = boxes + noise.clamp(-20, 20)
    return torch.minimum(noisy.clamp(min=0), limits)


def corrective_points(
    wanted_NHW: Tensor,
    predicted_NHW: Tensor,
    generator: torch.Generator,
    rows: Rows | None = None,
) -> tuple[Tensor, Tensor]:
    """Click uniformly into the error region.

    Returns:
        Points (N, 2) and labels (N,): 1 where mask was missed, 0 where too much was taken. A
        perfect prediction gets one more foreground click.
    """
    errors = wanted_NHW ^ predicted_NHW
    perfect = ~errors.flatten(1).any(1)
    where = torch.where(perfect[:, None, None], wanted_NHW, errors)
    points = uniform_points(where, generator, rows)
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
