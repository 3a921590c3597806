"""How far a click reaches before it meets a boundary: cheapest paths over a learnt cost per pixel.

A pixel's cost is softplus of a boundary logit, that is -log P(no boundary here), so exp(-distance)
is the probability that the best path from the click crosses none. The values of this map are
nested regions around the click, from its immediate surroundings to whole objects: what three
masks for one ambiguous click choose from.

Distances are swept along rows and columns in turn (fast sweeping, Zhao 2005): in a sweep a path
may run along a whole line at once, because with T the cost travelled from the line's start,

    distance(x) = min over x' of distance(x') + |T(x) - T(x')|

is a running minimum in either direction. Every round lets paths turn twice more.

Shapes: N prompts, P points, K costs, B images, h w pixels at the guidance stride, l o the pixels
along and across the lines of a sweep.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

FAR = 30.0
ROUNDS = 2
# Even open ground costs a little, so that what is near stays nearer than what is far.
GROUND_COST = 0.02
_BLOCK = 8


@dataclass(frozen=True, slots=True, eq=False)
class Terrain:
    """What it costs to cross the images, ready for sweeping.

    Attributes:
        along_rows_BKwh: cost travelled from a row's start to each pixel's centre, transposed.
        along_columns_BKhw: cost travelled from a column's top to each pixel's centre.
        along_columns_BKwh: the same, transposed.
    """

    along_rows_BKwh: Tensor
    along_columns_BKhw: Tensor
    along_columns_BKwh: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.along_columns_BKhw.shape[-2], self.along_columns_BKhw.shape[-1]

    @classmethod
    def from_logits(cls, boundary_logits_BKhw: Tensor) -> Terrain:
        """Sum the costs of float32 boundary logits along rows and columns."""
        cost = F.softplus(boundary_logits_BKhw.float().contiguous()) + GROUND_COST
        half = cost / 2
        along_rows = (cost.cumsum(3) - half).transpose(2, 3).contiguous()
        along_columns = cost.cumsum(2) - half
        return cls(along_rows, along_columns, along_columns.transpose(2, 3).contiguous())

    def distances(self, seeds_Nhw: Tensor, owner_N: Tensor | None) -> Tensor:
        """Return each pixel's distance to its cheapest seed, for every cost: (N, K, h, w).

        Args:
            seeds_Nhw: 0 at seeds, `FAR` elsewhere; see `seeds_at`.
            owner_N: which image each prompt belongs to; None when one image serves all.
        """
        kinds = self.along_rows_BKwh.shape[1]
        return self._swept(seeds_Nhw.unsqueeze(1).expand(-1, kinds, -1, -1), owner_N, ROUNDS)

    def distances_from_point(
        self, points_N2: Tensor, weights_N: Tensor, owner_N: Tensor | None
    ) -> Tensor:
        """Return what `distances` has for prompts with one seed each, without sweeping twice.

        A single seed's first round is known: along its row, and from there along the columns.

        Args:
            points_N2: as in `seeds_at`.
            weights_N: prompts with weight 0 have no seed.
            owner_N: as in `distances`.
        """
        x_N, y_N = _cells(points_N2, self.size)
        image_N = torch.zeros_like(x_N) if owner_N is None else owner_N
        on_row_NKw = self.along_rows_BKwh[image_N, :, :, y_N]
        at_seed_NK1 = on_row_NKw.gather(2, x_N.view(-1, 1, 1).expand(-1, on_row_NKw.shape[1], 1))
        unreached_N11 = (weights_N <= 0).view(-1, 1, 1)
        along_row_NKw = (on_row_NKw - at_seed_NK1).abs().masked_fill(unreached_N11, FAR)
        start_NKw = along_row_NKw.clamp(max=FAR)
        top_NKw = self.along_columns_BKhw[image_N, :, y_N]
        columns = _of_prompts(self.along_columns_BKwh, owner_N)
        down_NKwh = columns + (start_NKw - top_NKw).unsqueeze(3)
        up_NKwh = (start_NKw + top_NKw).unsqueeze(3) - columns
        first_round_NKwh = torch.maximum(down_NKwh, up_NKwh).clamp_(max=FAR)
        return self._swept(first_round_NKwh.transpose(2, 3), owner_N, ROUNDS - 1)

    def _swept(self, distance_NKhw: Tensor, owner_N: Tensor | None, rounds: int) -> Tensor:
        along_rows = _of_prompts(self.along_rows_BKwh, owner_N)
        along_columns = _of_prompts(self.along_columns_BKhw, owner_N)
        for _ in range(rounds):
            distance_NKwh = _sweep(distance_NKhw.transpose(2, 3).contiguous(), along_rows)
            distance_NKhw = _sweep(distance_NKwh.transpose(2, 3).contiguous(), along_columns)
        return distance_NKhw


def seeds_at(points_NP2: Tensor, weights_NP: Tensor, size: tuple[int, int]) -> Tensor:
    """Draw seeds for `Terrain.distances`: (N, h, w) float32.

    Args:
        points_NP2: (x, y) in pixels of the map, fractions cut off; outside points move to its edge.
        weights_NP: points with weight 0 are no seeds.
        size: (height, width) of the map.
    """
    height, width = size
    x, y = _cells(points_NP2, size)
    seeds = points_NP2.new_full((len(points_NP2), height * width), FAR, dtype=torch.float32)
    value = torch.where(weights_NP > 0, 0.0, FAR).to(seeds.dtype)
    return seeds.scatter_reduce(1, y * width + x, value, "amin").view(-1, height, width)


def _cells(points: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the column and the row of points (..., 2), each (...)."""
    height, width = size
    cells = points.floor().long()
    return cells[..., 0].clamp(0, width - 1), cells[..., 1].clamp(0, height - 1)


def _of_prompts(terrain_BKlo: Tensor, owner_N: Tensor | None) -> Tensor:
    return terrain_BKlo if owner_N is None else terrain_BKlo[owner_N]


def _sweep(distance_NKlo: Tensor, travelled_NKlo: Tensor) -> Tensor:
    """Let paths run along dimension 2 in both directions."""
    forward = _running_minimum(distance_NKlo - travelled_NKlo).add_(travelled_NKlo)
    reverse = _running_minimum(distance_NKlo + travelled_NKlo, reverse=True).sub_(travelled_NKlo)
    return torch.minimum(forward, reverse)


def _running_minimum(x_NKlo: Tensor, *, reverse: bool = False) -> Tensor:
    """Minimum over all before, or all after, along dimension 2; may overwrite `x_NKlo`.

    `torch.cummin` also finds where the minimum is, which only gradients need, and so takes one
    number at a time.
    """
    if x_NKlo.device.type == "cpu" and not x_NKlo.requires_grad:
        return _minimum_in_blocks_(x_NKlo, reverse=reverse)
    if reverse:
        return torch.cummin(x_NKlo.flip(2), 2).values.flip(2)
    return torch.cummin(x_NKlo, 2).values


def _minimum_in_blocks_(x_NKlo: Tensor, *, reverse: bool) -> Tensor:
    """Run inside all blocks of a line at once, then over their ends, then spread the ends."""
    N, K, length, across = x_NKlo.shape
    block = math.gcd(length, _BLOCK)
    blocks = x_NKlo.view(N, K, length // block, block, across)
    if reverse:
        lines = blocks.unbind(3)[::-1], blocks[:, :, :, 0].unbind(2)[::-1]
        open_cells, ends = blocks[:, :, :-1, 1:], blocks[:, :, 1:, :1]
    else:
        lines = blocks.unbind(3), blocks[:, :, :, -1].unbind(2)
        open_cells, ends = blocks[:, :, 1:, :-1], blocks[:, :, :-1, -1:]
    for line in lines:
        for before, here in pairwise(line):
            torch.minimum(before, here, out=here)
    torch.minimum(open_cells, ends, out=open_cells)
    return x_NKlo
