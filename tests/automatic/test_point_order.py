"""`--preset fast`: fewer prompts where nothing small was found, and half precision."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine.automatic import AutomaticConfig, generate_masks
from engine.automatic import precision as precision_module
from engine.automatic.crops import Crop, layered_crops
from engine.automatic.point_grid import layer_point_grids, point_grid
from engine.automatic.point_order import crop_rounds, everywhere, point_rounds, where_new
from engine.automatic.precision import in_precision
from engine.dataset.runs import Recipe
from engine.masks import mask_iou
from model import Prompts, ScoredPrompts, build_sam
from model.half_precision import in_bfloat16
from tests.automatic.oracle_segmenter import OracleScene
from tests.automatic.segmenters import OracleSegmenter

_SURE = np.float32(0.9)
WHOLE = Crop(0, 0, 320, 320, 0)
ADAPTIVE = AutomaticConfig(points_per_side=8, adaptive_cells=4)


@dataclass(frozen=True)
class Box:
    box_xyxy: tuple[int, int, int, int]
    predicted_iou: np.float32 = _SURE


@dataclass
class Counting:
    segmenter: Any
    points: list[tuple[float, float]] = field(default_factory=list)

    def encode(self, image_HWC3: Any) -> Any:
        return self.segmenter.encode(image_HWC3)

    def score(self, embedding: Any, prompts: Prompts) -> Any:
        assert prompts.points_xy is not None
        self.points += [tuple(xy) for xy in prompts.points_xy[:, 0]]
        return self.segmenter.score(embedding, prompts)

    def draw(self, scored: ScoredPrompts, chosen: Any) -> Any:
        return self.segmenter.draw(scored, chosen)


@dataclass(frozen=True)
class Objects:
    """A scene in place of `OracleScene`: a point selects the object of its colour."""

    image_HWC3: NDArray[np.uint8] = field(init=False)

    def __post_init__(self) -> None:
        colour_HW = np.zeros((256, 256), dtype=np.uint8)
        colour_HW[:128, :128] = 10
        colour_HW[200:240, 200:240] = 20
        for k in range(9):  # 12 px in squares of 16 px: between the points of the first round
            y, x = 20 + 16 * (k // 3), 20 + 16 * (k % 3)
            colour_HW[y : y + 12, x : x + 12] = 30 + k
        object.__setattr__(self, "image_HWC3", np.repeat(colour_HW[..., None], 3, axis=2))

    def encode(self, image_HWC3: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return image_HWC3[..., 0]

    def decode(
        self, colour_HW: NDArray[np.uint8], points_N2: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        x, y = (points_N2 // 4).astype(int).T
        same_NHW = colour_HW == colour_HW[y, x][:, None, None]
        logits = np.where(same_NHW[:, None], 9, -9).repeat(3, axis=1).astype(np.float32)
        return logits, np.tile(np.array([0.95, 0, 0], dtype=np.float32), (len(x), 1))


def test_everywhere_means_all_points_at_once_in_order() -> None:
    rounds = list(everywhere(point_grid(5)))
    assert [one.tolist() for one in rounds] == [list(range(25))]
    exact = list(point_rounds(point_grid(5), WHOLE, [], AutomaticConfig()))
    assert [one.tolist() for one in exact] == [list(range(25))]


@pytest.mark.parametrize("side", [1, 2, 7, 8])
def test_where_small_masks_are_everywhere_every_point_is_prompted_once(side: int) -> None:
    small = [Box((x, y, x + 9, y + 9)) for x in range(0, 320, 10) for y in range(0, 320, 10)]
    rounds = list(where_new(point_grid(side), WHOLE, small, cells=4, box_nms_thresh=0.7))
    assert sorted(np.concatenate(rounds)) == list(range(side * side))
    assert len(rounds[0]) == (-(-side // 2)) ** 2


def test_between_points_only_those_within_a_step_of_a_small_mask_are_prompted() -> None:
    # A grid of 8 has a point every 40 px, from 20 on. The box is one cell, at the third point.
    found = [Box((80, 80, 119, 119)), Box((0, 0, 319, 319))]
    first, second, third = where_new(point_grid(8), WHOLE, found, cells=4, box_nms_thresh=0.7)
    assert len(first) == 16
    rows_columns = sorted(divmod(int(p), 8) for p in (*second, *third))
    assert rows_columns == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2), (3, 3)]


def test_a_mask_that_a_better_one_suppresses_promises_nothing() -> None:
    nearly = Box((80, 80, 158, 160), np.float32(0.5))  # 3.999 cells; its better one 4.1
    found = [nearly, Box((80, 80, 160, 160))]
    for boxes, promising in ((found, False), ([nearly], True)):
        rounds = list(where_new(point_grid(8), WHOLE, boxes, cells=4, box_nms_thresh=0.7))
        assert (len(rounds[1]) > 0) is promising


def test_what_the_rounds_before_found_decides_the_next() -> None:
    found: list[Box] = []
    rounds = where_new(point_grid(8), WHOLE, found, cells=4, box_nms_thresh=0.7)
    assert len(next(rounds)) == 16
    assert len(next(rounds)) == 0
    found.append(Box((80, 80, 119, 119)))
    assert len(next(rounds)) == 4


def test_crops_without_a_small_mask_are_left_out() -> None:
    crops = layered_crops(320, 320, 1, 0.0)
    grids = layer_point_grids(8, 1, 1)
    found: list[Box] = []
    rounds = crop_rounds(crops, grids, found, ADAPTIVE)
    assert next(rounds) == crops[:1]
    found.append(Box((10, 10, 25, 25)))
    assert next(rounds) == [crop for crop in crops[1:] if (crop.x0, crop.y0) == (0, 0)]
    assert list(crop_rounds(crops, grids, [], AutomaticConfig())) == [crops]


def test_in_a_crop_the_first_round_too_keeps_to_what_the_whole_image_showed() -> None:
    corner = Crop(0, 0, 160, 160, 1)
    rounds = where_new(point_grid(8), corner, [Box((10, 10, 25, 25))], cells=4, box_nms_thresh=0.7)
    assert next(rounds).tolist() == [0]


def test_all_objects_are_found_with_a_fraction_of_the_prompts() -> None:
    objects = Objects()
    exact = AutomaticConfig(points_per_side=16)
    everywhere_asked, asked = (
        Counting(OracleSegmenter(cast(OracleScene, objects))) for _ in range(2)
    )
    wanted = generate_masks(everywhere_asked, objects.image_HWC3, exact)
    found = generate_masks(asked, objects.image_HWC3, replace(exact, adaptive_cells=9))
    assert len(wanted) == 12  # the ground, the lake, a thing beyond it, nine boats
    assert sorted(m.area for m in found) == sorted(m.area for m in wanted)
    assert len(asked.points) < 0.5 * len(everywhere_asked.points)
    assert set(asked.points) < set(everywhere_asked.points)


def test_old_recipes_stay_and_fast_ones_differ() -> None:
    exact, fast = AutomaticConfig(), AutomaticConfig(adaptive_cells=256, half_precision=True)
    assert not {"adaptive_cells", "half_precision"} & set(exact.result_fields())
    assert Recipe.of("m", exact.result_fields()).recipe_id == "0fb391e4676bf80a"
    assert AutomaticConfig.for_thresholds({}, exact.result_fields()) == exact
    assert AutomaticConfig.for_thresholds({}, fast.result_fields()) == fast
    assert Recipe.of("m", fast.result_fields()) != Recipe.of("m", exact.result_fields())


def test_half_precision_moves_few_masks_and_leaves_the_model_alone() -> None:
    sam = build_sam("bundled", device="cpu")
    image = OracleScene(seed=2, height=96, width=128, n_shapes=6).image_HWC3
    config = AutomaticConfig.recommended(
        sam, points_per_side=8, pred_iou_thresh=0.3, stability_score_thresh=0.3
    )
    before = sam.model_id()
    half = in_bfloat16(sam)
    assert (half.dtype, sam.dtype, sam.model_id()) == (torch.bfloat16, torch.float32, before)
    wanted, found = generate_masks(sam, image, config), generate_masks(half, image, config)
    iou = mask_iou([m.rle for m in found], [m.rle for m in wanted])
    assert len(wanted) > 10
    assert (iou.max(axis=0) > 0.9).mean() > 0.8
    assert generate_masks(half, image, config) == found


@pytest.mark.parametrize("possible", [True, False])
def test_what_precision_is_used_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, possible: bool
) -> None:
    monkeypatch.setattr(precision_module, "computes_in_bfloat16", lambda device: possible)
    precision_module._tell.cache_clear()
    sam = build_sam("bundled", device="cpu")
    half = AutomaticConfig(half_precision=True)
    with caplog.at_level(logging.INFO):
        used = in_precision(sam, half)
        in_precision(sam, half)
    assert (used is sam) is not possible
    assert len(caplog.records) == 1
    assert ("bfloat16 on cpu" if possible else "decoded in float32") in caplog.text
    assert in_precision(sam, AutomaticConfig()) is sam
    assert in_precision(used, half) is used or not possible
