"""Measure drawn masks where they are, on an accelerator; only numbers and run lengths leave it.

    round = measure_on_device(logits_Mhw, frame, offset=1.0, stability_thresh=0.95)
    drawn = draw_together([mask for mask in round if mask is not None])

The same values as `measuring.measure_masks` but for logits that equal a threshold within rounding,
as sums run in another order here. A round, in place of a batch: all masks of a crop take one wait
for the tiles to look at, one for the numbers, and those that outlive NMS one for their outlines.

Shapes: M masks, S of them drawn, h w low-resolution logits, Y X tiles, K tiles looked at, T pixels
of a tile's side, H W pixels of the crop.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.automatic.measuring import MeasuredMask
from engine.masks import encode_runs
from engine.records import Rle
from model import Frame, Region
from model.tiles import TILE_PX, ClassifiedTiles, TileAxis, TileGrid, tile_grid
from model.transfers import download, upload

# Numbers in one step of the work: a quarter of a gigabyte in float32.
_VALUES_AT_ONCE = 2**26
_PIXELS_DRAWN_AT_ONCE = 2**28
_NOWHERE = 2**31 - 1


@dataclass(frozen=True, slots=True, eq=False)
class MaskOnDevice:
    """A mask whose logits wait on the device until it is known whether it stays."""

    logits_Mhw: Tensor
    index: int
    frame: Frame
    region: Region

    def draw(self) -> NDArray[np.bool_]:
        """Return its pixels inside its region; for many masks `draw_together` is much faster."""
        return self._outline().draw()

    def encode(self, x0: int, y0: int, height: int, width: int) -> Rle:
        """Return its RLE in an image of a size, with its region's corner at (x0, y0)."""
        return self._outline().encode(x0, y0, height, width)

    def _outline(self) -> MaskOutline:
        (changes,) = _changes([self])
        return MaskOutline(changes, self.frame.original_size, self.region)


@dataclass(frozen=True, slots=True, eq=False)
class MaskOutline:
    """A mask as the places where it begins and ends, counted down the crop's columns.

    Attributes:
        changes: pixel = x * height + y of the first pixel of every run but the first, which is
            background and may be empty; the last run of mask pixels may end with the crop.
        size_hw: of the crop.
        region: what `draw` returns.
    """

    changes: NDArray[np.int32]
    size_hw: tuple[int, int]
    region: Region

    def draw(self) -> NDArray[np.bool_]:
        """Return its pixels inside its region."""
        height, _ = self.size_hw
        start, stop = self.region.x0 * height, self.region.x1 * height
        first, last = np.searchsorted(self.changes, [start, stop], side="right")
        runs = np.diff(self.changes[first:last], prepend=start, append=stop)
        is_mask = (np.arange(first, last + 1) % 2).astype(bool)
        columns_wH = np.repeat(is_mask, runs).reshape(-1, height)
        return columns_wH[:, self.region.y0 : self.region.y1].T

    def encode(self, x0: int, y0: int, height: int, width: int) -> Rle:
        """Return its RLE in an image of a size, with its region's corner at (x0, y0)."""
        changes = self._changes_in(x0 - self.region.x0, y0 - self.region.y0, height)
        runs = np.diff(changes, prepend=0, append=height * width)
        return encode_runs(runs[: len(runs) - (runs[-1] == 0)].tolist(), height, width)

    def _changes_in(self, x0: int, y0: int, height: int) -> NDArray[np.int64]:
        """Move the changes into an image where the crop's corner is at (x0, y0)."""
        crop_height, crop_width = self.size_hw
        end = [crop_height * crop_width] if len(self.changes) % 2 else []
        changes = np.append(self.changes, end).astype(np.int64)
        if crop_height == height:
            return changes + x0 * height
        # In a higher image a run that goes on into the next column is several.
        starts, stops = changes[::2], changes[1::2]
        columns = starts // crop_height
        counts = (stops - 1) // crop_height - columns + 1
        whose = np.repeat(np.arange(len(starts)), counts)
        columns = columns[whose] + np.arange(len(whose)) - (np.cumsum(counts) - counts)[whose]
        top, moved = columns * crop_height, (columns + x0) * height + y0
        pieces_R2: NDArray[np.int64] = np.stack(
            [np.maximum(starts[whose], top), np.minimum(stops[whose], top + crop_height)], axis=1
        )
        pieces_R2 += (moved - top)[:, None]
        return pieces_R2.ravel()


def measure_on_device(
    logits_Mhw: Tensor, frame: Frame, *, offset: float, stability_thresh: float
) -> list[MeasuredMask | None]:
    """Measure masks at the crop's original size, without bringing them to the processor.

    Args:
        logits_Mhw: float32 low-resolution logits; those of masks that pass are copied.
        frame: how the crop was laid into the model's input.
        offset: distance of the two stability thresholds from the mask threshold 0.
        stability_thresh: they are kept from this on; 0 keeps all.

    Returns:
        For each mask what was measured, or None where it is unstable or empty.
    """
    if not len(logits_Mhw):
        return []
    grid = tile_grid(frame, logits_Mhw.device)
    counts_M3, boxes_M4 = _counts_and_boxes(logits_Mhw, grid, offset)
    numbers_M7 = download(torch.cat([counts_M3, boxes_M4], dim=1)).numpy()
    high_M, area_M, low_M = numbers_M7[:, :3].T.astype(np.float32)
    stability_M = np.divide(high_M, low_M, out=np.zeros_like(low_M), where=low_M > 0)
    good = np.flatnonzero((area_M > 0) & (stability_M >= np.float32(stability_thresh)))
    good_Shw = logits_Mhw[upload(torch.from_numpy(good), logits_Mhw.device)]
    measured: list[MeasuredMask | None] = [None] * len(logits_Mhw)
    for index, place in enumerate(good.tolist()):
        _, area, _, x0, y0, x1, y1 = (int(number) for number in numbers_M7[place])
        region = Region(y0, y1 + 1, x0, x1 + 1)
        kept = MaskOnDevice(good_Shw, index, frame, region)
        measured[place] = MeasuredMask(
            region=region, area=area, stability=stability_M[place], kept=kept
        )
    return measured


def draw_together(measured: Sequence[MeasuredMask]) -> list[MeasuredMask]:
    """Draw the masks that wait on a device; others stay as they are.

    Returns:
        As many masks, in the same order, none of which needs the device any more. Area and region
        are those of the pixels drawn: one that equals the threshold within rounding may have been
        counted on its other side.
    """
    drawn = list(measured)
    rounds: dict[int, list[int]] = defaultdict(list)
    waiting: dict[int, MaskOnDevice] = {}
    for place, mask in enumerate(measured):
        if isinstance(mask.kept, MaskOnDevice):
            waiting[place] = mask.kept
            rounds[id(mask.kept.logits_Mhw)].append(place)
    for places in rounds.values():
        all_changes = _changes([waiting[place] for place in places])
        for place, changes in zip(places, all_changes, strict=True):
            drawn[place] = _outlined(measured[place], waiting[place], changes)
    return drawn


def _outlined(
    mask: MeasuredMask, waiting: MaskOnDevice, changes: NDArray[np.int32]
) -> MeasuredMask:
    height, width = waiting.frame.original_size
    end = [height * width] if len(changes) % 2 else []
    starts, stops = np.append(changes, end).astype(np.int64).reshape(-1, 2).T
    if not len(starts):
        return mask
    first_columns, last_columns = starts // height, (stops - 1) // height
    y0, y1 = int((starts % height).min()), int(((stops - 1) % height).max()) + 1
    if np.any(first_columns != last_columns):
        # A run that goes on into the next column touches the bottom and the top of the crop.
        y0, y1 = 0, height
    region = Region(y0, y1, int(first_columns[0]), int(last_columns[-1]) + 1)
    outline = MaskOutline(changes, (height, width), region)
    return replace(mask, region=region, area=int((stops - starts).sum()), kept=outline)


def _counts_and_boxes(logits_Mhw: Tensor, grid: TileGrid, offset: float) -> tuple[Tensor, Tensor]:
    """Count the pixels above offset, 0 and -offset, and bound those above 0: (M, 3), (M, 4) xyxy.

    Boxes are inclusive, and inside out where there is no such pixel.
    """
    tiles = grid.classify(logits_Mhw, -offset, offset)
    pixels_YX = grid.rows.pixels_L[:, None] * grid.columns.pixels_L
    full_M = (tiles.full_MYX * pixels_YX).sum((1, 2))
    counts_M3 = full_M.unsqueeze(1).repeat(1, 3)
    x0_M, x1_M = _ends_of_full(tiles.full_MYX.any(1), grid.columns)
    y0_M, y1_M = _ends_of_full(tiles.full_MYX.any(2), grid.rows)
    for masks_K, rows_K, columns_K, values_KTT in _mixed_values(logits_Mhw, grid, tiles):
        above_KTT = values_KTT > 0
        levels = (values_KTT > offset, above_KTT, values_KTT > -offset)
        counts_K3 = torch.stack([level_KTT.sum((1, 2)) for level_KTT in levels], dim=1)
        counts_M3.index_add_(0, masks_K, counts_K3)
        for hits_KT, place_K, low_M, high_M in (
            (above_KTT.any(1), columns_K, x0_M, x1_M),
            (above_KTT.any(2), rows_K, y0_M, y1_M),
        ):
            pixel_KT = place_K.unsqueeze(1) * TILE_PX + torch.arange(TILE_PX, device=place_K.device)
            first_K = pixel_KT.masked_fill(~hits_KT, _NOWHERE).amin(1)
            last_K = pixel_KT.masked_fill(~hits_KT, -1).amax(1)
            low_M.scatter_reduce_(0, masks_K, first_K, "amin")
            high_M.scatter_reduce_(0, masks_K, last_K, "amax")
    return counts_M3, torch.stack([x0_M, y0_M, x1_M, y1_M], dim=1)


def _ends_of_full(full_ML: Tensor, axis: TileAxis) -> tuple[Tensor, Tensor]:
    """Return the first and the last pixel of the tiles that are set along an axis."""
    start_L = torch.arange(full_ML.shape[1], device=full_ML.device) * TILE_PX
    first_M = start_L.masked_fill(~full_ML, _NOWHERE).amin(1)
    last_M = (start_L + axis.pixels_L - 1).masked_fill(~full_ML, -1).amax(1)
    return first_M, last_M


def _mixed_values(
    logits_Mhw: Tensor, grid: TileGrid, tiles: ClassifiedTiles
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Yield mixed tiles, some at a time: their mask, row and column, and their pixels' logits."""
    places_K3 = tiles.mixed_MYX.nonzero()  # waits for the device, once
    at_once = max(1, _VALUES_AT_ONCE // grid.values_per_tile)
    for part_K3 in torch.split(places_K3, at_once):
        masks_K, rows_K, columns_K = part_K3.unbind(1)
        yield masks_K, rows_K, columns_K, grid.values(logits_Mhw, masks_K, rows_K, columns_K)


def _changes(masks: Sequence[MaskOnDevice]) -> Iterator[NDArray[np.int32]]:
    """Draw masks of one round and yield where each one's runs begin, see `MaskOutline`."""
    height, width = masks[0].frame.original_size
    at_once = max(1, _PIXELS_DRAWN_AT_ONCE // (height * width))
    for start in range(0, len(masks), at_once):
        part = masks[start : start + at_once]
        logits_Mhw = part[0].logits_Mhw
        chosen_S = upload(torch.tensor([mask.index for mask in part]), logits_Mhw.device)
        pixels_SP = _column_major(logits_Mhw[chosen_S], part[0].frame)
        changes_SP = pixels_SP.clone()
        changes_SP[:, 1:] ^= pixels_SP[:, :-1]
        places_C2 = changes_SP.nonzero()  # waits for the device, once
        arriving = download(torch.stack([places_C2[:, 0].int(), places_C2[:, 1].int()]))
        mask_C, pixel_C = arriving.numpy().astype(np.int32, copy=False)
        ends = np.searchsorted(mask_C, np.arange(1, len(part)))
        yield from (changes.copy() for changes in np.split(pixel_C, ends))


def _column_major(logits_Shw: Tensor, frame: Frame) -> Tensor:
    """Draw masks whole, pixel by pixel down the columns: (S, W * H) bool."""
    grid = tile_grid(frame, logits_Shw.device)
    tiles = grid.classify(logits_Shw, 0.0, 0.0)
    full_SXY = tiles.full_MYX.transpose(1, 2)
    canvas_SXTYT = full_SXY[:, :, None, :, None].expand(-1, -1, TILE_PX, -1, TILE_PX).contiguous()
    for masks_K, rows_K, columns_K, values_KTT in _mixed_values(logits_Shw, grid, tiles):
        canvas_SXTYT[masks_K, columns_K, :, rows_K, :] = (values_KTT > 0).transpose(1, 2)
    height, width = frame.original_size
    return canvas_SXTYT.flatten(3, 4).flatten(1, 2)[:, :width, :height].flatten(1)
