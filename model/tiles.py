"""Upsampled logits of many masks at once, only in the tiles of the image where they are needed.

    grid = tile_grid(frame, device)
    tiles = grid.classify(logits_Mhw, low=-1.0, high=1.0)
    values_KTS = grid.values(logits_Mhw, masks_K, rows_K, columns_K)   # K tiles of some masks

Interpolation stays between the values it lies between. So where all low-resolution logits that a
tile depends on are at most `low`, none of its pixels is above it; where all are above `high`, all
of its pixels are. Only tiles that are neither have to be looked at: those along the mask's outline.
The arithmetic is `upsample_logits`' within rounding, as two small matrix products for each tile.

Shapes: M masks, h w low-resolution logits, Y X tiles in a column and in a row, T S rows and columns
of a tile, r c low-resolution rows and columns that a tile depends on, K tiles chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from model.types import Frame
from model.upsample import LOW_RES_STRIDE, axis_reach

TILE_PX = 32
_MASKS_CLASSIFIED_AT_ONCE = 256


@dataclass(frozen=True, slots=True, eq=False)
class TileAxis:
    """One axis of an image in tiles; L tiles.

    Attributes:
        size_px: pixels of the image along the axis.
        taps_Lr: low-resolution indices that each tile depends on; the last is repeated.
        weights_LTr: share of each of them in each pixel; 0 for pixels beyond the image.
        inside_LT: which pixels lie in the image.
        pixels_L: how many they are.
    """

    size_px: int
    taps_Lr: Tensor
    weights_LTr: Tensor
    inside_LT: Tensor
    pixels_L: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class ClassifiedTiles:
    """What is known of each tile without its pixels.

    Attributes:
        full_MYX: all pixels are above the high threshold.
        mixed_MYX: pixels may be on either side of a threshold.
    """

    full_MYX: Tensor
    mixed_MYX: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class TileGrid:
    """An image in square tiles of `TILE_PX`, the last ones cut."""

    rows: TileAxis
    columns: TileAxis

    @property
    def values_per_tile(self) -> int:
        """How many numbers a tile's values take while they are computed."""
        r, c = self.rows.taps_Lr.shape[1], self.columns.taps_Lr.shape[1]
        return max(TILE_PX, r) * max(TILE_PX, c)

    def classify(self, logits_Mhw: Tensor, low: float, high: float) -> ClassifiedTiles:
        """Sort the tiles of M masks by whether their pixels need to be looked at."""
        parts = [
            (self._reached(part > high, every=True), self._reached(part > low, every=False))
            for part in torch.split(logits_Mhw, _MASKS_CLASSIFIED_AT_ONCE)
        ]
        full_MYX, touched_MYX = (torch.cat(maps) for maps in zip(*parts, strict=True))
        return ClassifiedTiles(full_MYX, touched_MYX & ~full_MYX)

    def _reached(self, above_Mhw: Tensor, *, every: bool) -> Tensor:
        """Tell whether any, or every, logit that a tile depends on is above: (M, Y, X)."""
        reduce = torch.all if every else torch.any
        by_row_MYw = reduce(above_Mhw[:, self.rows.taps_Lr], 2)
        return reduce(by_row_MYw[:, :, self.columns.taps_Lr], 3)

    def values(
        self, logits_Mhw: Tensor, masks_K: Tensor, rows_K: Tensor, columns_K: Tensor
    ) -> Tensor:
        """Upsample K tiles.

        Args:
            logits_Mhw: float32 low-resolution logits.
            masks_K: which mask each tile is of.
            rows_K: its place from the top, in tiles.
            columns_K: its place from the left, in tiles.

        Returns:
            (K, T, S) float32; -inf beyond the image.
        """
        taps_Kr1 = self.rows.taps_Lr[rows_K].unsqueeze(2)
        taps_K1c = self.columns.taps_Lr[columns_K].unsqueeze(1)
        patches_Krc = logits_Mhw[masks_K[:, None, None], taps_Kr1, taps_K1c]
        tall_KTc = torch.bmm(self.rows.weights_LTr[rows_K], patches_Krc)
        values_KTS = torch.bmm(tall_KTc, self.columns.weights_LTr[columns_K].transpose(1, 2))
        inside_KT1 = self.rows.inside_LT[rows_K].unsqueeze(2)
        inside_K1S = self.columns.inside_LT[columns_K].unsqueeze(1)
        return values_KTS.masked_fill_(~(inside_KT1 & inside_K1S), -torch.inf)


@lru_cache(maxsize=64)
def tile_grid(frame: Frame, device: torch.device) -> TileGrid:
    """Lay tiles over an image that was laid into the model's input."""
    return TileGrid(_tile_axis(frame, 0, device), _tile_axis(frame, 1, device))


def _tile_axis(frame: Frame, axis: int, device: torch.device) -> TileAxis:
    size = frame.original_size[axis]
    first_L, weights_3L = axis_reach(frame, axis, torch.device("cpu"))
    tiles = -(-size // TILE_PX)
    padding = tiles * TILE_PX - size
    # Pixels beyond the image take the last one's place, with no weight.
    first_LT = torch.cat([first_L, first_L[-1:].expand(padding)]).view(tiles, TILE_PX)
    weights_3LT = torch.cat([weights_3L, weights_3L.new_zeros(3, padding)], dim=1)
    inside_LT = (torch.arange(tiles * TILE_PX) < size).view(tiles, TILE_PX)
    last_index = frame.padded_size[axis] // LOW_RES_STRIDE - 1
    start_L = first_LT[:, 0]
    stop_L = (first_LT[:, -1] + 2).clamp(max=last_index)
    length = int((stop_L - start_L).max()) + 1
    taps_Lr = torch.minimum(start_L[:, None] + torch.arange(length), stop_L[:, None])
    weights_LTr = torch.zeros(tiles, TILE_PX, length)
    for tap, weights_LT in enumerate(weights_3LT.view(3, tiles, TILE_PX)):
        place_LT = (first_LT + tap).clamp(max=last_index) - start_L[:, None]
        weights_LTr.scatter_add_(2, place_LT.unsqueeze(2), weights_LT.unsqueeze(2))
    return TileAxis(
        size,
        taps_Lr.to(device),
        weights_LTr.to(device),
        inside_LT.to(device),
        inside_LT.sum(1).to(device),
    )
