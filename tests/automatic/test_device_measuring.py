"""Masks measured where they lie are the masks that the processor measures, value by value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from engine.automatic import device_measuring
from engine.automatic.device_measuring import MaskOutline, draw_together, measure_on_device
from engine.automatic.measuring import measure_masks
from engine.masks import encode_mask
from model import Frame, Region, transfers
from model.preprocess import input_frame
from model.tiles import TILE_PX, tile_grid
from model.upsample import upsample_logits

# (height, width) of the image, long side of the input, what its sides are padded to.
SIZES = [
    ((480, 640), 512, 32),  # upsampled, no padding below
    ((333, 500), 1024, 1024),  # upsampled, padded
    ((40, 150), 1024, 1024),  # smaller than its logits
    ((1, 5), 1024, 1024),
    ((900, 33), 512, 32),  # narrower than a tile of the padded input
]


def varied_logits(frame: Frame) -> Tensor:
    """Smooth blobs, one map of noise, one nowhere and one everywhere above 0: (12, h, w)."""
    rng = np.random.default_rng(0)
    size = (frame.padded_size[0] // 4, frame.padded_size[1] // 4)
    coarse = torch.from_numpy(rng.normal(size=(12, 1, 9, 9)).astype(np.float32))
    logits_Mhw = F.interpolate(coarse, size, mode="bicubic")[:, 0] * 6 - 2
    logits_Mhw[3], logits_Mhw[4] = -9.0, 9.0
    logits_Mhw[5] = torch.from_numpy(rng.normal(size=size).astype(np.float32) * 5)
    return logits_Mhw


@pytest.mark.parametrize("stability_thresh", [0.0, 0.8])
@pytest.mark.parametrize(("size", "side", "multiple"), SIZES)
def test_counts_boxes_and_pixels_are_those_of_the_processor(
    size: tuple[int, int], side: int, multiple: int, stability_thresh: float
) -> None:
    frame = input_frame(size, side, multiple)
    logits_Mhw = varied_logits(frame)
    settings = {"offset": 1.0, "stability_thresh": stability_thresh}
    here = measure_masks(logits_Mhw, frame, **settings)
    there = measure_on_device(logits_Mhw, frame, **settings)
    assert [m is None for m in there] == [m is None for m in here]
    assert any(m is None for m in here)
    pairs = [(a, b) for a, b in zip(here, there, strict=True) if a is not None and b is not None]
    assert pairs
    drawn = draw_together([found for _, found in pairs])
    for (expected, found), final in zip(pairs, drawn, strict=True):
        assert (final.region, final.area) == (expected.region, expected.area)
        np.testing.assert_array_equal(final.kept.draw(), expected.kept.draw())
        assert (found.region, found.area) == (expected.region, expected.area)
        assert found.stability == expected.stability
        np.testing.assert_array_equal(found.kept.draw(), expected.kept.draw())


def test_work_in_small_parts_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = input_frame((333, 500), 1024, 1024)
    logits_Mhw = varied_logits(frame)

    def measured() -> list[Any]:
        found = measure_on_device(logits_Mhw, frame, offset=1.0, stability_thresh=0.0)
        drawn = draw_together([mask for mask in found if mask is not None])
        numbers = [mask and (mask.region, mask.area, mask.stability) for mask in found]
        return [numbers, [mask.kept.draw().tolist() for mask in drawn]]

    whole = measured()
    monkeypatch.setattr(device_measuring, "_VALUES_AT_ONCE", 1)
    monkeypatch.setattr(device_measuring, "_PIXELS_DRAWN_AT_ONCE", 1)
    assert measured() == whole


def test_a_tile_has_the_logits_of_the_whole_image_within_rounding() -> None:
    frame = input_frame((333, 500), 1024, 1024)
    logits_Mhw = varied_logits(frame)
    whole_MHW = upsample_logits(logits_Mhw.unsqueeze(1), frame)[:, 0]
    grid = tile_grid(frame, torch.device("cpu"))
    places = torch.cartesian_prod(
        torch.arange(len(logits_Mhw)),
        torch.arange(len(grid.rows.pixels_L)),
        torch.arange(len(grid.columns.pixels_L)),
    )
    values_KTT = grid.values(logits_Mhw, *places.unbind(1))
    for (mask, row, column), values_TT in zip(places.tolist(), values_KTT, strict=True):
        y, x = row * TILE_PX, column * TILE_PX
        expected = whole_MHW[mask, y : y + TILE_PX, x : x + TILE_PX]
        height, width = expected.shape
        torch.testing.assert_close(values_TT[:height, :width], expected, rtol=1e-6, atol=2e-5)
        assert values_TT[height:].eq(-torch.inf).all()
        assert values_TT[:, width:].eq(-torch.inf).all()


def test_tiles_that_are_not_looked_at_are_on_one_side_of_the_thresholds() -> None:
    frame = input_frame((333, 500), 1024, 1024)
    logits_Mhw = varied_logits(frame)
    tiles = tile_grid(frame, torch.device("cpu")).classify(logits_Mhw, -1.0, 1.0)
    whole_MHW = upsample_logits(logits_Mhw.unsqueeze(1), frame)[:, 0]
    looked_at = 0
    for mask, row, column in np.ndindex(*tiles.mixed_MYX.shape):
        y, x = row * TILE_PX, column * TILE_PX
        pixels = whole_MHW[mask, y : y + TILE_PX, x : x + TILE_PX]
        if tiles.mixed_MYX[mask, row, column]:
            looked_at += 1
        elif tiles.full_MYX[mask, row, column]:
            assert (pixels > 1).all()
        else:
            assert (pixels <= -1).all()
    assert 0 < looked_at < tiles.mixed_MYX.numel()


@given(
    mask_hw=arrays(np.bool_, st.tuples(st.integers(1, 6), st.integers(1, 6)))
    | arrays(np.bool_, (4, 5), fill=st.just(True)),
    corner_xy=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    beyond=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_an_outline_draws_and_encodes_what_its_crop_shows(
    mask_hw: NDArray[np.bool_], corner_xy: tuple[int, int], beyond: tuple[int, int]
) -> None:
    h, w = mask_hw.shape
    (x0, y0), height, width = corner_xy, corner_xy[1] + h + beyond[0], corner_xy[0] + w + beyond[1]
    changes = np.flatnonzero(np.diff(mask_hw.T.ravel(), prepend=False)).astype(np.int32)
    for region in (Region(0, h, 0, w), Region(h // 2, h, w - 1, w)):
        drawn = MaskOutline(changes, (h, w), region).draw()
        np.testing.assert_array_equal(drawn, mask_hw[region.y0 : region.y1, region.x0 : region.x1])
    image_HW = np.zeros((height, width), dtype=bool)
    image_HW[y0 : y0 + h, x0 : x0 + w] = mask_hw
    outline = MaskOutline(changes, (h, w), Region(1, h, 1, w))
    assert outline.encode(x0 + 1, y0 + 1, height, width) == encode_mask(image_HW)


WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2"}


class WaitingOperations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what makes the processor wait for an accelerator, as it would happen on one."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().split(".")[0]
        indices = args[1] if name in ("aten::index", "aten::index_put_") else ()
        by_mask = any(i is not None and i.dtype == torch.bool for i in indices)
        if name in WAITING or by_mask:
            self.counted[name] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Count waits for the device: operations whose result has no known size, and copies."""
    mode = WaitingOperations()

    def counted(tensor: Tensor) -> Any:
        mode.counted["download"] += 1
        return transfers.download(tensor)

    monkeypatch.setattr(device_measuring, "download", counted)
    with mode:
        yield mode.counted


@pytest.mark.parametrize("masks", [1, 12, 60])
def test_the_number_of_waits_does_not_depend_on_the_number_of_masks(
    monkeypatch: pytest.MonkeyPatch, masks: int
) -> None:
    frame = input_frame((97, 143), 1024, 1024)
    logits_Mhw = varied_logits(frame).repeat(5, 1, 1)[:masks]
    tile_grid(frame, logits_Mhw.device)  # made once for a size
    with waits(monkeypatch) as counted:
        measured = measure_on_device(logits_Mhw, frame, offset=1.0, stability_thresh=0.0)
        assert counted == {"aten::nonzero": 1, "download": 1}
        draw_together([mask for mask in measured if mask is not None])
        assert counted == {"aten::nonzero": 3, "download": 2}
