"""Settings: the public names, the paper's preset, whose value wins."""

from __future__ import annotations

import dataclasses

import pytest

from engine.automatic import AutomaticConfig
from engine.errors import BadInputError
from model import RecommendedThresholds, Sam
from tests.automatic.segmenters import small_vit_sam


@pytest.fixture(scope="module")
def sam() -> Sam:
    sam = small_vit_sam()
    thresholds = RecommendedThresholds(pred_iou_thresh=0.4, stability_score_thresh=0.6)
    sam.config = dataclasses.replace(sam.config, recommended=thresholds)
    return sam


def test_the_defaults_are_the_public_generators() -> None:
    config = AutomaticConfig()
    assert (config.points_per_side, config.pred_iou_thresh) == (32, 0.88)
    assert (config.stability_score_thresh, config.box_nms_thresh) == (0.95, 0.7)
    assert (config.crop_n_layers, config.min_mask_region_area) == (0, 0)
    assert config.crop_overlap_ratio == pytest.approx(512 / 1500)


def test_the_paper_uses_21_crops_and_its_own_rules() -> None:
    config = AutomaticConfig.paper()
    assert (config.crop_n_layers, config.crop_n_points_downscale_factor) == (2, 2)
    assert (config.max_mask_area_ratio, config.drop_small_masks) == (0.95, True)


def test_a_model_brings_its_thresholds_and_explicit_values_win(sam: Sam) -> None:
    config = AutomaticConfig.for_model(sam, {"stability_score_thresh": 0.9})
    assert (config.pred_iou_thresh, config.stability_score_thresh) == (0.4, 0.9)


def test_the_papers_preset_keeps_the_models_thresholds(sam: Sam) -> None:
    config = AutomaticConfig.for_model(sam, {"min_mask_region_area": 7}, preset="paper")
    assert (config.pred_iou_thresh, config.crop_n_layers) == (0.4, 2)
    assert config.min_mask_region_area == 7


@pytest.mark.parametrize(
    ("settings", "preset"),
    [
        ({"points_per_side": 0}, None),
        ({"pred_iou_thresh": -0.1}, None),
        ({"pred_iou_tresh": 0.5}, None),
        ({}, "faster"),
        ({"adaptive_cells": -1}, "fast"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(
    sam: Sam, settings: dict[str, float | int | bool], preset: str | None
) -> None:
    with pytest.raises(BadInputError, match="|".join(settings) or "preset"):
        AutomaticConfig.for_model(sam, settings, preset)


def test_the_fast_preset_keeps_the_models_thresholds_and_goes_with_explicit_values(
    sam: Sam,
) -> None:
    config = AutomaticConfig.for_model(sam, {"crop_n_layers": 1}, preset="fast")
    assert (config.pred_iou_thresh, config.crop_n_layers) == (0.4, 1)
    assert config.adaptive_cells > 0
    assert config.half_precision
    assert AutomaticConfig.for_model(sam, {"adaptive_cells": 0}, "fast").adaptive_cells == 0
    paper = AutomaticConfig.for_model(sam, {"half_precision": True}, "paper")
    assert (paper.crop_n_layers, paper.half_precision) == (2, True)


def test_the_batch_size_is_no_part_of_the_result() -> None:
    one, other = AutomaticConfig(points_per_batch=1), AutomaticConfig(points_per_batch=99)
    assert one.result_fields() == other.result_fields()
