"""What is measured of a mask, and what is kept of it, against its pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.automatic.measuring import MaskWindow, PackedMask, measure_masks
from engine.masks import encode_mask
from model import Region, cut_window, upsample_window
from model.preprocess import input_frame
from tests.model.test_thresholding import random_logits

OFFSET = 1.0


@pytest.mark.parametrize(
    ("size", "side", "kept"), [((97, 143), 512, PackedMask), ((600, 901), 64, MaskWindow)]
)
def test_masks_are_measured_and_kept_as_their_pixels(
    size: tuple[int, int], side: int, kept: type
) -> None:
    frame = input_frame(size, side, 32)
    logits = random_logits(frame, "blocks", OFFSET, np.random.default_rng(1))
    logits[1] = -20.0  # an empty one
    everything = Region(0, size[0], 0, size[1])
    found = measure_masks(torch.from_numpy(logits), frame, offset=OFFSET, stability_thresh=0.0)
    assert found[1] is None
    for index in (0, 2):
        measured = found[index]
        assert measured is not None
        values = upsample_window(cut_window(logits[index], frame, everything), frame, everything)
        high, low = np.count_nonzero(values > OFFSET), np.count_nonzero(values > -OFFSET)
        assert measured.stability == np.float32(high) / np.float32(low)
        assert measured.area == np.count_nonzero(values > 0)
        region = measured.region
        mask = np.zeros(size, dtype=bool)
        mask[region.y0 : region.y1, region.x0 : region.x1] = measured.kept.draw()
        np.testing.assert_array_equal(mask, values > 0)
        assert isinstance(measured.kept, kept)
        assert measured.kept.encode(region.x0, region.y0, *size) == encode_mask(values > 0)


def test_masks_below_the_stability_threshold_are_none() -> None:
    frame = input_frame((97, 143), 512, 32)
    logits = torch.from_numpy(random_logits(frame, "noise", OFFSET, np.random.default_rng(1)))
    found = measure_masks(logits, frame, offset=OFFSET, stability_thresh=0.0)
    scores = sorted(float(mask.stability) for mask in found if mask is not None)
    assert len(scores) == 3
    strict = measure_masks(logits, frame, offset=OFFSET, stability_thresh=scores[1])
    assert [mask is not None for mask in strict] == [
        mask is not None and mask.stability >= scores[1] for mask in found
    ]
    assert sum(mask is None for mask in strict) == 1


def test_masks_measured_in_parts_are_as_together(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = input_frame((97, 143), 512, 32)
    logits = torch.from_numpy(random_logits(frame, "blocks", OFFSET, np.random.default_rng(2)))
    together = measure_masks(logits, frame, offset=OFFSET, stability_thresh=0.0)
    monkeypatch.setattr("engine.automatic.measuring._PIXELS_AT_ONCE", 1)
    alone = measure_masks(logits, frame, offset=OFFSET, stability_thresh=0.0)
    for one, other in zip(together, alone, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert (one.region, one.area, one.stability) == (
                other.region,
                other.area,
                other.stability,
            )
            np.testing.assert_array_equal(one.kept.draw(), other.kept.draw())
