from __future__ import annotations

import re
from datetime import UTC, datetime

import numpy as np
import pytest

from engine.errors import BadInputError
from engine.images import mask_contours, resize_to_fit
from engine.masks import decode_mask
from engine.quality.gallery import MAX_SIDE_PX, picture_figure
from engine.quality.pictures import Picture
from engine.records import ImageRecord, MaskRecord
from tests.quality.release_builders import mask, photo


def test_the_largest_imaginable_picture_keeps_to_its_share_of_the_page() -> None:
    noise = np.random.default_rng(0)
    image_HWC3 = noise.integers(0, 256, (720, 960, 3), dtype=np.uint8)
    speckled = [mask(_speckles(noise, 0.5 - i / 50)) for i in range(20)] * 5
    figure = picture_figure(_picture(image_HWC3, speckled), 1)
    assert len(figure.html) * 24 < 5_800_000
    shown = len(re.findall("<path", figure.html))
    assert 0 < shown < 100
    assert f"100 masks, the {shown} largest shown" in figure.html


def test_a_usual_picture_is_shown_with_all_its_masks() -> None:
    y, x = np.mgrid[:750, :1125]
    discs = []
    for i in range(100):
        cx, cy, r = 100 * (i % 10) + 75, 70 * (i // 10) + 50, 20 + 2 * (i % 17)
        discs.append(mask((x - cx) ** 2 + (y - cy) ** 2 < r * r))
    figure = picture_figure(_picture(photo(3, 750, 1125), discs), 1)
    assert len(re.findall("<path", figure.html)) == 100
    assert len(figure.html) < 230_000


def test_paths_follow_their_masks_holes_included() -> None:
    mask_HW = np.zeros((400, 600), dtype=np.bool_)
    y, x = np.mgrid[:400, :600]
    mask_HW |= (x - 300) ** 2 / 4 + (y - 200) ** 2 < 120**2
    mask_HW &= ~((x - 250) ** 2 + (y - 180) ** 2 < 40**2)
    record = mask(mask_HW)
    html = picture_figure(_picture(photo(1, 400, 600), [record]), 1).html
    d = re.search(r'<path class="c\d+" d="([^"]*)"', html)
    assert d is not None
    filled_HW = _fill(d[1], 400, 600)
    truth_HW = decode_mask(record.rle)
    iou = (filled_HW & truth_HW).sum() / (filled_HW | truth_HW).sum()
    assert iou > 0.98


def _picture(image_HWC3: np.ndarray, masks: list[MaskRecord]) -> Picture:
    height, width = image_HWC3.shape[:2]
    image = ImageRecord(
        image_id=1,
        uri="/photos/a.png",
        sha256="",
        width=width,
        height=height,
        format="png",
        ingested_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    ordered = tuple(sorted(masks, key=lambda m: -m.area))
    return Picture(image, ordered, resize_to_fit(image_HWC3, MAX_SIDE_PX))


def _fill(d: str, height: int, width: int) -> np.ndarray:
    """Fill an SVG path of relative lines by the even-odd rule, at pixel centres."""
    inside_HW = np.zeros((height, width), dtype=np.bool_)
    for start, steps in re.findall(r"M(\d+ \d+)l([^z]*)z", d):
        numbers = [int(n) for n in re.findall(r"-?\d+", steps)]
        moves = np.array(numbers).reshape(-1, 2)
        first = np.array([int(n) for n in start.split()])
        points = np.vstack([first, first + np.cumsum(moves, axis=0)]) / 2
        for row in range(height):
            y0, y1 = points[:, 1], np.roll(points[:, 1], -1)
            crosses = (y0 <= row + 0.5) != (y1 <= row + 0.5)
            t = (row + 0.5 - y0[crosses]) / (y1 - y0)[crosses]
            xs = points[crosses, 0] + t * (np.roll(points[:, 0], -1) - points[:, 0])[crosses]
            inside_HW[row] ^= (np.arange(width)[:, None] + 0.5 > xs).sum(axis=1) % 2 == 1
    return inside_HW


def test_contours_enclose_components_and_holes() -> None:
    mask_HW = np.zeros((12, 14), dtype=np.bool_)
    mask_HW[1:9, 1:9] = True
    mask_HW[3:6, 3:6] = False
    mask_HW[11, 13] = True
    found = sorted(mask_contours(mask_HW), key=len)
    assert [contour.shape[1] for contour in found] == [2, 2, 2]
    assert found[0].tolist() == [[13, 11]]
    assert all(contour.dtype == np.int32 for contour in found)
    assert {tuple(p) for p in found[1].tolist()} == {(1, 1), (1, 8), (8, 8), (8, 1)}
    with pytest.raises(BadInputError, match="expected a bool or uint8 mask"):
        mask_contours(mask_HW.astype(np.float64))  # type: ignore[arg-type]  # the point
    assert mask_contours(np.zeros((0, 5), dtype=np.bool_)) == []


def _speckles(noise: np.random.Generator, share: float) -> np.ndarray:
    mask_HW = np.zeros((720, 960), dtype=np.bool_)
    mask_HW[:150, :200] = noise.random((150, 200)) < share
    return mask_HW
