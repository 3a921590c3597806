"""How far a click reaches before it meets a boundary: cheapest paths over a learnt cost per pixel.

A pixel's cost is softplus of a boundary logit, that is -log P(no boundary here), so exp(-distance)
is the probability that the best path from the click crosses none. The values of this map are
nested regions around the click, from its immediate surroundings to whole objects: what three
masks for one ambiguous click choose from.

Distances are swept along rows and columns in turn (fast sweeping, Zhao 2005): in a sweep a path
may run along a whole line at once, because with T the cost travelled from the line's start,

    distance(x) = min over x' of distance(x') + |T(x) - T(x')|

is a running minimum in either direction. Every round lets paths turn twice more.

Shapes: N prompts, P points, K costs, B images, h w pixels at the guidance stride.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

FAR = 30.0
ROUNDS = 2
# Even open ground costs a little, so that what is near stays nearer than what is far.
GROUND_COST = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Terrain:
    """What it costs to cross the images, ready for sweeping.

    Attributes:
        along_rows_BKwh: cost travelled from a row's start to each pixel's centre, transposed.
        along_columns_BKhw: cost travelled from a column's top to each pixel's centre.
    """

    along_rows_BKwh: Tensor
    along_columns_BKhw: Tensor

    @classmethod
    def from_logits(cls, boundary_logits_BKhw: Tensor) -> Terrain:
        """Sum the costs of float32 boundary logits along rows and columns."""
        cost = F.softplus(boundary_logits_BKhw.float()) + GROUND_COST
        half = cost / 2
        along_rows = (cost.cumsum(3) - half).transpose(2, 3).contiguous()
        return cls(along_rows, cost.cumsum(2) - half)

    def distances(self, seeds_Nhw: Tensor, owner_N: Tensor | None) -> Tensor:
        """Return each pixel's distance to its cheapest seed, for every cost: (N, K, h, w).

        Args:
            seeds_Nhw: 0 at seeds, `FAR` elsewhere; see `seeds_at`.
            owner_N: which image each prompt belongs to; None when one image serves all.
        """
        along_rows, along_columns = (
            t if owner_N is None else t[owner_N]
            for t in (self.along_rows_BKwh, self.along_columns_BKhw)
        )
        distance = seeds_Nhw.unsqueeze(1).expand(-1, along_columns.shape[1], -1, -1)
        for _ in range(ROUNDS):
            distance = _sweep(distance.transpose(2, 3), along_rows).transpose(2, 3)
            distance = _sweep(distance, along_columns)
        return distance


def seeds_at(points_NP2: Tensor, weights_NP: Tensor, size: tuple[int, int]) -> Tensor:
    """Draw seeds for `Terrain.distances`: (N, h, w) float32.

    Args:
        points_NP2: (x, y) in pixels of the map, fractions cut off; outside points move to its edge.
        weights_NP: points with weight 0 are no seeds.
        size: (height, width) of the map.
    """
    height, width = size
    x = points_NP2[..., 0].floor().long().clamp(0, width - 1)
    y = points_NP2[..., 1].floor().long().clamp(0, height - 1)
    seeds = points_NP2.new_full((len(points_NP2), height * width), FAR, dtype=torch.float32)
    value = torch.where(weights_NP > 0, 0.0, FAR).to(seeds.dtype)
    return seeds.scatter_reduce(1, y * width + x, value, "amin").view(-1, height, width)


def _sweep(distance_NKlo: Tensor, travelled_NKlo: Tensor) -> Tensor:
    """Let paths run along dimension 2 in both directions."""
    forward = torch.cummin(distance_NKlo - travelled_NKlo, 2).values + travelled_NKlo
    reverse = torch.cummin((distance_NKlo + travelled_NKlo).flip(2), 2).values.flip(2)
    return torch.minimum(forward, reverse - travelled_NKlo)
