"""The generator against the plain restatement of the public one: same masks, scores, order."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine.automatic import AutomaticConfig, Segmenter, generate_masks
from engine.masks import decode_mask
from engine.records import MaskRecord
from tests.automatic.oracle_segmenter import OracleScene
from tests.automatic.reference_generator import (
    Decode,
    Encode,
    ReferenceConfig,
    ReferenceMask,
    reference_masks,
)
from tests.automatic.segmenters import OracleSegmenter, PlainSam, small_vit_sam

SIZES = [(97, 143), (64, 64), (31, 200)]


def both(
    image: NDArray[np.uint8],
    options: dict[str, float | int],
    segmenter: Segmenter,
    encode: Encode,
    decode: Decode,
) -> tuple[list[MaskRecord], list[ReferenceMask]]:
    config = AutomaticConfig(**options)  # type: ignore[arg-type]
    reference = reference_masks(image, ReferenceConfig(**options), encode, decode)  # type: ignore[arg-type]
    return generate_masks(segmenter, image, config), reference


def assert_equal(ours: list[MaskRecord], reference: list[ReferenceMask]) -> None:
    assert len(ours) == len(reference)
    for mine, theirs in zip(ours, reference, strict=True):
        np.testing.assert_array_equal(decode_mask(mine.rle), theirs.mask_HW)
        assert mine.bbox_xywh == theirs.bbox_xywh
        assert mine.area == theirs.area
        assert mine.predicted_iou == pytest.approx(theirs.predicted_iou, abs=1e-6)
        assert mine.stability_score == np.float32(theirs.stability_score)
        assert mine.crop_box_xywh == theirs.crop_box_xywh
        assert mine.point_xy == pytest.approx(theirs.point_xy, abs=1e-9)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop_n_layers", [0, 1, 2])
@pytest.mark.parametrize("min_mask_region_area", [0, 30])
def test_oracle_logits_give_the_masks_of_the_reference(
    size: tuple[int, int], crop_n_layers: int, min_mask_region_area: int
) -> None:
    scene = OracleScene(seed=sum(size), height=size[0], width=size[1])
    options: dict[str, float | int] = {
        "points_per_side": 6,
        "points_per_batch": 10,
        "pred_iou_thresh": 0.7,
        "stability_score_thresh": 0.8,
        "crop_n_layers": crop_n_layers,
        "crop_n_points_downscale_factor": 2,
        "min_mask_region_area": min_mask_region_area,
    }
    ours, reference = both(
        scene.image_HWC3, options, OracleSegmenter(scene), scene.encode, scene.decode
    )
    assert len(reference) > 1
    assert_equal(ours, reference)


def test_equal_scores_keep_the_order_of_the_reference() -> None:
    scene = OracleScene(seed=5, height=80, width=120, iou_steps=10)
    options: dict[str, float | int] = {
        "points_per_side": 7,
        "pred_iou_thresh": 0.6,
        "stability_score_thresh": 0.7,
        "crop_n_layers": 1,
    }
    ours, reference = both(
        scene.image_HWC3, options, OracleSegmenter(scene), scene.encode, scene.decode
    )
    assert len({m.predicted_iou for m in reference}) < len(reference)
    assert_equal(ours, reference)


def test_thresholds_of_zero_switch_their_filters_off_as_in_the_reference() -> None:
    scene = OracleScene(seed=8, height=60, width=90)
    options: dict[str, float | int] = {
        "points_per_side": 5,
        "pred_iou_thresh": 0.0,
        "stability_score_thresh": 0.0,
    }
    ours, reference = both(
        scene.image_HWC3, options, OracleSegmenter(scene), scene.encode, scene.decode
    )
    assert_equal(ours, reference)


@pytest.mark.parametrize(
    ("size", "crop_n_layers", "min_mask_region_area"),
    [((97, 143), 0, 0), ((75, 50), 1, 12), ((61, 61), 2, 0)],
)
def test_a_real_decoder_gives_the_masks_of_the_reference(
    size: tuple[int, int], crop_n_layers: int, min_mask_region_area: int
) -> None:
    torch.set_num_threads(1)
    sam = small_vit_sam(seed=1)
    image = OracleScene(seed=2, height=size[0], width=size[1]).image_HWC3
    options: dict[str, float | int] = {
        "points_per_side": 4,
        "points_per_batch": 16,
        "pred_iou_thresh": 0.7,
        "stability_score_thresh": 0.5,
        "stability_score_offset": 0.3,
        "box_nms_thresh": 1.0,  # random weights give noise that fills the image: keep duplicates
        "crop_nms_thresh": 1.0,
        "crop_n_layers": crop_n_layers,
        "crop_n_points_downscale_factor": 2,
        "min_mask_region_area": min_mask_region_area,
    }
    plain = PlainSam(sam)
    ours, reference = both(image, options, sam, plain.encode, plain.decode)
    assert len(reference) > 2
    assert_equal(ours, reference)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 2), (2000, 20)])
@pytest.mark.parametrize("crop_n_layers", [0, 2])
def test_extreme_image_sizes_work(size: tuple[int, int], crop_n_layers: int) -> None:
    scene = OracleScene(seed=3, height=max(size[0], 8), width=max(size[1], 8))
    image = np.ascontiguousarray(scene.image_HWC3[: size[0], : size[1]])
    config = AutomaticConfig(
        points_per_side=3,
        pred_iou_thresh=0.0,
        stability_score_thresh=0.0,
        crop_n_layers=crop_n_layers,
        min_mask_region_area=5,
    )
    for record in generate_masks(OracleSegmenter(scene), image, config):
        mask = decode_mask(record.rle)
        assert mask.shape == size
        assert mask.sum() == record.area > 0


@pytest.mark.parametrize("crop_n_layers", [0, 1])
def test_an_image_in_which_nothing_passes_gives_an_empty_list(crop_n_layers: int) -> None:
    scene = OracleScene(seed=1)
    config = AutomaticConfig(
        points_per_side=3, pred_iou_thresh=1.9, crop_n_layers=crop_n_layers, min_mask_region_area=9
    )
    assert generate_masks(OracleSegmenter(scene), scene.image_HWC3, config) == []


def test_the_batch_size_changes_nothing() -> None:
    scene = OracleScene(seed=11)
    options = {"points_per_side": 7, "pred_iou_thresh": 0.7, "stability_score_thresh": 0.7}
    masks = [
        generate_masks(
            OracleSegmenter(scene),
            scene.image_HWC3,
            AutomaticConfig(points_per_batch=size, **options),  # type: ignore[arg-type]
        )
        for size in (1, 13, 1000)
    ]
    assert masks[0]
    assert masks[0] == masks[1] == masks[2]


def test_the_papers_rules_drop_what_covers_nearly_everything_and_what_is_tiny() -> None:
    scene = OracleScene(seed=4)
    options = {"points_per_side": 8, "pred_iou_thresh": 0.5, "stability_score_thresh": 0.5}
    loose = AutomaticConfig(**options, min_mask_region_area=60)  # type: ignore[arg-type]
    strict = AutomaticConfig(
        **{
            **asdict(loose),
            "max_mask_area_ratio": 0.1,
            "drop_small_masks": True,
        }
    )
    total = scene.height * scene.width
    kept_loose = generate_masks(OracleSegmenter(scene), scene.image_HWC3, loose)
    kept_strict = generate_masks(OracleSegmenter(scene), scene.image_HWC3, strict)
    assert any(m.area > 0.1 * total for m in kept_loose)
    assert any(m.area < 60 for m in kept_loose)
    assert kept_strict
    assert all(60 <= m.area <= 0.1 * total + 60 for m in kept_strict)
