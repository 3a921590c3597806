"""The reference generator is checked by hand-worked values before anything is compared with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.automatic.oracle_segmenter import OracleFeatures, OracleScene
from tests.automatic.reference_generator import (
    BoolArray,
    BoxXYXY,
    Float32Array,
    Float64Array,
    ReferenceConfig,
    ReferenceMask,
    UInt8Array,
    box_area,
    box_iou,
    crop_boxes,
    cut_by_crop,
    fill_small_holes,
    input_size,
    mask_box,
    nms,
    point_grid,
    reference_masks,
    reference_pixels,
    remove_small_islands,
    stability_score,
)

EVERYTHING = ReferenceConfig(points_per_side=1, pred_iou_thresh=0, stability_score_thresh=0)


def mask_of(*rows: str) -> BoolArray:
    """A mask drawn with # and . characters."""
    return np.array([[character == "#" for character in row] for row in rows], dtype=np.bool_)


def blank_image(height: int = 256, width: int = 256) -> UInt8Array:
    return np.zeros((height, width, 3), dtype=np.uint8)


def rectangle_logits(x0: int, y0: int, x1: int, y1: int) -> Float32Array:
    """+10 inside a half-open rectangle of the 256 x 256 map, -10 outside."""
    logits = np.full((256, 256), -10, dtype=np.float32)
    logits[y0:y1, x0:x1] = 10
    return logits


def always(
    *logits: Float32Array, iou: tuple[float, float, float] = (0.95, 0.94, 0.93)
) -> Callable[[Any, Float64Array], tuple[Float32Array, Float32Array]]:
    """A decoder that answers every point with the same three maps (the last is repeated)."""
    three = [logits[min(k, len(logits) - 1)] for k in range(3)]

    def decode(features: Any, points_N2: Float64Array) -> tuple[Float32Array, Float32Array]:
        n_points = len(points_N2)
        return np.stack([three] * n_points), np.array([iou] * n_points, dtype=np.float32)

    return decode


def no_features(crop_HWC3: UInt8Array) -> None:
    return None


class TestPointGrid:
    def test_two_points_per_side_lie_at_the_quarters_with_x_fastest(self) -> None:
        expected = [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
        assert point_grid(2).tolist() == expected

    def test_one_point_per_side_lies_in_the_centre(self) -> None:
        assert point_grid(1).tolist() == [[0.5, 0.5]]

    def test_a_grid_without_points_is_refused(self) -> None:
        with pytest.raises(ValueError, match="got 0 points per side"):
            point_grid(0)

    def test_deeper_layers_get_fewer_points(self) -> None:
        seen: list[int] = []

        def decode(features: Any, points_N2: Float64Array) -> tuple[Float32Array, Float32Array]:
            seen.append(len(points_N2))
            return always(rectangle_logits(0, 0, 0, 0))(features, points_N2)

        config = ReferenceConfig(
            points_per_side=3, crop_n_layers=1, crop_n_points_downscale_factor=2
        )
        reference_masks(blank_image(), config, no_features, decode)
        assert seen == [9, 1, 1, 1, 1]


class TestCropBoxes:
    def test_without_layers_the_only_crop_is_the_image(self) -> None:
        assert crop_boxes(100, 150, 0, 512 / 1500) == [(0, (0, 0, 150, 100))]

    def test_two_layers_match_boxes_worked_out_by_hand(self) -> None:
        # Layer 1: overlap int(.3413 * 100) = 34; width ceil((34 + 150) / 2) = 92; height 67.
        # Layer 2: overlap int(17.07) = 17; width ceil(201 / 4) = 51; height ceil(151 / 4) = 38.
        layer_1 = [(0, 0, 92, 67), (0, 33, 92, 100), (58, 0, 150, 67), (58, 33, 150, 100)]
        columns = [(0, 51), (34, 85), (68, 119), (102, 150)]
        rows = [(0, 38), (21, 59), (42, 80), (63, 100)]
        layer_2 = [(x0, y0, x1, y1) for x0, x1 in columns for y0, y1 in rows]
        expected = [(0, (0, 0, 150, 100))]
        expected += [(1, box) for box in layer_1] + [(2, box) for box in layer_2]
        assert crop_boxes(100, 150, 2, 512 / 1500) == expected

    def test_crops_of_a_tiny_image_that_have_no_pixel_are_skipped(self) -> None:
        assert crop_boxes(1, 1, 1, 512 / 1500) == [(0, (0, 0, 1, 1)), (1, (0, 0, 1, 1))]


class TestPrompts:
    def test_points_are_scaled_to_the_input_frame_without_the_half_pixel(self) -> None:
        seen: list[Float64Array] = []

        def decode(features: Any, points_N2: Float64Array) -> tuple[Float32Array, Float32Array]:
            seen.append(points_N2)
            return always(rectangle_logits(0, 0, 0, 0))(features, points_N2)

        config = ReferenceConfig(points_per_side=2, points_per_batch=3)
        reference_masks(blank_image(100, 200), config, no_features, decode)
        assert [batch.tolist() for batch in seen] == [
            [[256.0, 128.0], [768.0, 128.0], [256.0, 384.0]],
            [[768.0, 384.0]],
        ]
        assert seen[0].dtype == np.float64

    def test_the_encoder_sees_each_crop_once_as_raw_pixels(self) -> None:
        image = np.arange(100 * 150 * 3, dtype=np.int64).reshape(100, 150, 3).astype(np.uint8)
        crops: list[UInt8Array] = []
        config = ReferenceConfig(points_per_side=1, crop_n_layers=1)
        decode = always(rectangle_logits(0, 0, 0, 0))
        reference_masks(image, config, crops.append, decode)
        assert len(crops) == 5
        np.testing.assert_array_equal(crops[0], image)
        np.testing.assert_array_equal(crops[3], image[0:67, 58:150])


class TestPixels:
    def test_sides_are_rounded_half_up(self) -> None:
        assert input_size(97, 143) == (695, 1024)
        assert input_size(2048, 3) == (1024, 2)

    def test_the_mean_colour_becomes_about_zero_and_the_padding_exactly_zero(self) -> None:
        crop = np.empty((10, 20, 3), dtype=np.uint8)
        crop[:] = (124, 116, 104)
        pixels = reference_pixels(crop)
        assert pixels.shape == (1, 3, 1024, 1024)
        assert pixels.dtype == torch.float32
        assert torch.all(pixels[:, :, 512:] == 0)
        red, blue = pixels[0, 0, 100, 100].item(), pixels[0, 2, 511, 1023].item()
        assert red == pytest.approx((124 - 123.675) / 58.395, abs=1e-6)
        assert blue == pytest.approx((104 - 103.53) / 57.375, abs=1e-6)

    def test_a_tall_crop_is_padded_on_the_right(self) -> None:
        pixels = reference_pixels(np.full((20, 10, 3), 255, dtype=np.uint8))
        assert torch.all(pixels[:, :, :, :512] > 0)
        assert torch.all(pixels[:, :, :, 512:] == 0)


class TestFilters:
    def test_stability_is_the_ratio_of_the_two_areas(self) -> None:
        logits = torch.tensor([[2.0, 1.0, 0.5, -0.5, -1.0, -2.0]])
        assert stability_score(logits, 1.0) == 1 / 4

    def test_stability_without_any_pixel_is_zero(self) -> None:
        assert stability_score(torch.full((3, 3), -5.0), 1.0) == 0.0

    def test_a_box_ends_on_its_last_pixel(self) -> None:
        assert mask_box(mask_of("....", ".##.", ".#..")) == (1, 1, 2, 2)
        with pytest.raises(ValueError, match="empty mask"):
            mask_box(mask_of("..."))

    @pytest.mark.parametrize(
        ("box_xyxy", "expected"),
        [
            ((150, 150, 170, 170), False),
            ((120, 150, 170, 170), True),
            ((121, 150, 170, 170), False),
            ((150, 150, 180, 170), True),
            ((150, 150, 170, 200), True),
            ((150, 81, 170, 170), True),
        ],
    )
    def test_an_inner_crop_side_within_20_px_cuts_a_mask(
        self, box_xyxy: BoxXYXY, expected: bool
    ) -> None:
        assert cut_by_crop(box_xyxy, (100, 100, 200, 200), (0, 0, 400, 400)) is expected

    def test_a_crop_side_on_the_images_side_cuts_nothing(self) -> None:
        assert not cut_by_crop((0, 0, 50, 50), (0, 0, 100, 100), (0, 0, 400, 400))

    def test_a_crop_side_near_the_images_side_spares_masks_near_both(self) -> None:
        assert not cut_by_crop((20, 40, 50, 50), (10, 0, 100, 100), (0, 0, 400, 400))
        assert cut_by_crop((21, 40, 50, 50), (10, 0, 100, 100), (0, 0, 400, 400))

    @pytest.mark.parametrize(("thresh", "expected"), [(0.949, 1), (0.95, 0), (0.0, 1)])
    def test_the_predicted_iou_must_be_strictly_above_its_threshold(
        self, thresh: float, expected: int
    ) -> None:
        decode = always(rectangle_logits(20, 30, 90, 80), iou=(0.95, -1.0, -1.0))
        config = ReferenceConfig(points_per_side=1, pred_iou_thresh=thresh)
        assert len(reference_masks(blank_image(), config, no_features, decode)) == expected

    def test_a_threshold_of_zero_keeps_even_negative_predicted_ious(self) -> None:
        decode = always(rectangle_logits(20, 30, 90, 80), iou=(-0.5, -0.5, -0.5))
        (mask,) = reference_masks(blank_image(), EVERYTHING, no_features, decode)
        assert mask.predicted_iou == -0.5

    @pytest.mark.parametrize(("thresh", "expected"), [(0.5, 1), (0.501, 0), (0.0, 1)])
    def test_the_stability_may_equal_its_threshold(self, thresh: float, expected: int) -> None:
        # 64 rows are above +1 and 128 above -1, also at full size: there a row beside a step is
        # 15/16 itself and 1/16 its neighbour; 0.5 stays below 1 beside 3 and above -1 beside -20.
        logits = np.full((256, 256), -20, dtype=np.float32)
        logits[:128] = 0.5
        logits[:64] = 3
        decode = always(logits)
        config = ReferenceConfig(points_per_side=1, stability_score_thresh=thresh)
        assert len(reference_masks(blank_image(), config, no_features, decode)) == expected


class TestNms:
    def test_areas_are_plain_differences(self) -> None:
        assert box_area((2, 3, 12, 8)) == 50
        assert box_area((2, 3, 2, 8)) == 0

    def test_iou_of_half_overlapping_boxes_is_a_third(self) -> None:
        assert box_iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
        assert box_iou((0, 0, 10, 10), (20, 0, 30, 10)) == 0

    def test_the_better_of_two_similar_boxes_survives(self) -> None:
        boxes = [(0, 0, 10, 10), (0, 0, 10, 9), (50, 50, 60, 60)]
        assert nms(boxes, [0.5, 0.9, 0.7], 0.7) == [1, 2]

    def test_an_iou_equal_to_the_threshold_does_not_suppress(self) -> None:
        boxes = [(0, 0, 10, 10), (0, 0, 10, 5)]
        assert nms(boxes, [0.9, 0.8], 0.5) == [0, 1]
        assert nms(boxes, [0.9, 0.8], 0.49) == [0]

    def test_a_suppressed_box_suppresses_nothing(self) -> None:
        boxes = [(0, 0, 10, 10), (2, 0, 12, 10), (4, 0, 14, 10)]
        assert nms(boxes, [0.9, 0.8, 0.7], 0.6) == [0, 2]

    def test_equal_scores_are_taken_in_order(self) -> None:
        boxes = [(0, 0, 10, 10), (0, 0, 10, 10), (50, 50, 60, 60)]
        assert nms(boxes, [0.5, 0.5, 0.5], 0.7) == [0, 2]

    def test_boxes_one_pixel_wide_are_never_suppressed(self) -> None:
        boxes = [(5, 0, 5, 10), (5, 0, 5, 10), (0, 0, 10, 10)]
        assert nms(boxes, [0.5, 0.6, 0.7], 0.1) == [2, 1, 0]

    def test_no_boxes_give_no_survivors(self) -> None:
        assert nms([], [], 0.7) == []


class TestSmallRegions:
    def test_a_small_hole_is_filled_and_a_large_one_stays(self) -> None:
        mask = mask_of("#######", "#.##..#", "####..#", "#######")
        filled, changed = fill_small_holes(mask, 2)
        assert changed
        np.testing.assert_array_equal(filled, mask_of("#######", "####..#", "####..#", "#######"))

    def test_a_hole_of_exactly_the_threshold_stays(self) -> None:
        mask = mask_of("####", "#..#", "####")
        filled, changed = fill_small_holes(mask, 2)
        assert not changed
        np.testing.assert_array_equal(filled, mask)

    def test_holes_that_touch_at_a_corner_are_one_hole(self) -> None:
        mask = mask_of("####", "#.##", "##.#", "####")
        assert not fill_small_holes(mask, 2)[1]
        assert fill_small_holes(mask, 3)[1]

    def test_small_background_at_the_border_is_a_hole_too(self) -> None:
        filled, changed = fill_small_holes(mask_of("#.#", "###"), 2)
        assert changed
        assert filled.all()

    def test_small_islands_go_and_large_ones_stay(self) -> None:
        mask = mask_of("##..#", "##...", "....#", "###.#")
        remaining, changed = remove_small_islands(mask, 3)
        assert changed
        np.testing.assert_array_equal(remaining, mask_of("##...", "##...", ".....", "###.."))

    def test_islands_that_touch_at_a_corner_are_one_island(self) -> None:
        mask = mask_of("#..", ".#.", "..#")
        remaining, changed = remove_small_islands(mask, 3)
        assert not changed
        np.testing.assert_array_equal(remaining, mask)

    def test_when_all_islands_are_small_the_largest_stays(self) -> None:
        remaining, changed = remove_small_islands(mask_of("#..##", "#...#"), 10)
        assert changed
        np.testing.assert_array_equal(remaining, mask_of("...##", "....#"))

    def test_of_equally_large_islands_the_first_in_reading_order_stays(self) -> None:
        remaining, _ = remove_small_islands(mask_of("...#", "#..#", "#..."), 10)
        np.testing.assert_array_equal(remaining, mask_of("...#", "...#", "...."))

    def test_a_small_hole_is_filled_before_islands_are_weighed(self) -> None:
        logits = rectangle_logits(100, 100, 103, 103)
        logits[101, 101] = -10
        logits[10:40, 10:40] = 10
        config = ReferenceConfig(
            points_per_side=1, stability_score_thresh=0, min_mask_region_area=9
        )
        masks = reference_masks(blank_image(), config, no_features, always(logits))
        assert [mask.area for mask in masks] == [909]

    def test_unchanged_masks_come_before_changed_ones(self) -> None:
        holed = rectangle_logits(20, 20, 60, 60)
        holed[30:32, 30:32] = -10
        also_holed = rectangle_logits(100, 20, 140, 60)
        also_holed[30:32, 110:112] = -10
        decode = always(
            holed, also_holed, rectangle_logits(20, 100, 60, 140), iou=(0.99, 0.95, 0.9)
        )
        config = ReferenceConfig(
            points_per_side=1, stability_score_thresh=0, min_mask_region_area=50
        )
        masks = reference_masks(blank_image(), config, no_features, decode)
        assert [round(mask.predicted_iou, 2) for mask in masks] == [0.9, 0.99, 0.95]
        assert [mask.area for mask in masks] == [1600, 1600, 1600]

    @pytest.mark.parametrize(
        ("box_nms_thresh", "crop_nms_thresh", "expected"),
        [(0.7, 0.7, [0.9]), (0.7, 1.0, [0.9, 0.99]), (1.0, 0.7, [0.9, 0.99])],
    )
    def test_a_mask_that_becomes_another_without_its_island_is_suppressed(
        self, box_nms_thresh: float, crop_nms_thresh: float, expected: list[float]
    ) -> None:
        with_island = rectangle_logits(20, 20, 60, 60)
        with_island[150:152, 150:152] = 10
        decode = always(with_island, rectangle_logits(20, 20, 60, 60), iou=(0.99, 0.9, 0.1))
        config = ReferenceConfig(
            points_per_side=1,
            stability_score_thresh=0,
            box_nms_thresh=box_nms_thresh,
            crop_nms_thresh=crop_nms_thresh,
            min_mask_region_area=50,
        )
        masks = reference_masks(blank_image(), config, no_features, decode)
        assert [round(mask.predicted_iou, 2) for mask in masks] == expected
        assert all(mask.bbox_xywh == (20, 20, 39, 39) for mask in masks)


class TestWholeGenerator:
    def test_a_rectangle_of_logits_comes_back_as_that_rectangle(self) -> None:
        decode = always(rectangle_logits(20, 30, 90, 80))
        (mask,) = reference_masks(blank_image(), EVERYTHING, no_features, decode)
        expected = np.zeros((256, 256), dtype=np.bool_)
        expected[30:80, 20:90] = True
        np.testing.assert_array_equal(mask.mask_HW, expected)
        assert mask.bbox_xywh == (20, 30, 69, 49)
        assert mask.area == 70 * 50
        assert mask.predicted_iou == pytest.approx(0.95)
        assert mask.crop_box_xywh == (0, 0, 256, 256)
        assert mask.point_xy == (128.0, 128.0)

    def test_the_padding_of_a_wide_image_is_cut_off(self) -> None:
        decode = always(rectangle_logits(20, 30, 90, 200))
        (mask,) = reference_masks(blank_image(128, 256), EVERYTHING, no_features, decode)
        assert mask.mask_HW.shape == (128, 256)
        assert mask.bbox_xywh == (20, 30, 69, 97)
        assert mask.area == 70 * 98

    def test_a_mask_holds_every_pixel_above_logit_zero(self) -> None:
        logits = np.full((256, 256), -0.5, dtype=np.float32)
        logits[:100] = 0.5
        (mask,) = reference_masks(blank_image(), EVERYTHING, no_features, always(logits))
        assert mask.area == 100 * 256
        assert mask.stability_score == 0

    def test_masks_come_by_falling_predicted_iou(self) -> None:
        decode = always(
            rectangle_logits(10, 10, 50, 50),
            rectangle_logits(100, 10, 150, 50),
            rectangle_logits(10, 100, 50, 150),
            iou=(0.9, 0.99, 0.95),
        )
        masks = reference_masks(blank_image(), EVERYTHING, no_features, decode)
        assert [mask.bbox_xywh[:2] for mask in masks] == [(100, 10), (10, 100), (10, 10)]

    def test_of_the_same_mask_in_two_crops_the_smaller_crop_wins(self) -> None:
        image = blank_image(256, 256)
        image[40:60, 40:60] = 255

        def encode(crop_HWC3: UInt8Array) -> UInt8Array:
            return crop_HWC3

        def decode(
            crop_HWC3: UInt8Array, points_N2: Float64Array
        ) -> tuple[Float32Array, Float32Array]:
            bright = torch.from_numpy((crop_HWC3[None, None, ..., 0] > 0).astype(np.float32))
            enlarged = torch.nn.functional.interpolate(bright, (256, 256), mode="nearest")
            logits = np.where(enlarged[0, 0].numpy() > 0, 10, -10).astype(np.float32)
            return always(logits)(None, points_N2)

        config = ReferenceConfig(points_per_side=1, stability_score_thresh=0, crop_n_layers=1)
        (mask,) = reference_masks(image, config, encode, decode)
        assert mask.crop_box_xywh == (0, 0, 172, 172)
        assert mask.point_xy == (86.0, 86.0)
        np.testing.assert_allclose(mask.bbox_xywh, (40, 40, 19, 19), atol=1)

    def test_masks_of_an_inner_crop_carry_its_offset(self) -> None:
        config = ReferenceConfig(points_per_side=1, stability_score_thresh=0, crop_n_layers=1)
        decode = always(rectangle_logits(100, 100, 130, 130))
        masks = reference_masks(blank_image(), config, no_features, decode)
        # Overlap int(87.4) = 87, side ceil(343 / 2) = 172, second start 85: clipped to 171 px.
        # The smaller crop comes first; of the two 171 x 172 ones that of the first column.
        assert [mask.crop_box_xywh for mask in masks] == [
            (85, 85, 171, 171),
            (0, 85, 172, 171),
            (85, 0, 171, 172),
            (0, 0, 172, 172),
            (0, 0, 256, 256),
        ]
        # 100 of 256 cells are 67 px of a crop, 30 cells are 20 px.
        np.testing.assert_allclose(masks[0].bbox_xywh, (85 + 67, 85 + 67, 19, 19), atol=1)
        assert masks[0].point_xy == (85 + 85.5, 85 + 85.5)

    def test_empty_masks_give_an_empty_list_even_without_thresholds(self) -> None:
        decode = always(rectangle_logits(0, 0, 0, 0))
        assert reference_masks(blank_image(), EVERYTHING, no_features, decode) == []

    def test_a_mask_that_is_possible_but_nowhere_likely_is_dropped(self) -> None:
        decode = always(np.full((256, 256), -0.5, dtype=np.float32))
        assert reference_masks(blank_image(), EVERYTHING, no_features, decode) == []

    def test_crops_and_small_regions_without_any_mask_give_an_empty_list(self) -> None:
        config = ReferenceConfig(points_per_side=2, crop_n_layers=1, min_mask_region_area=50)
        decode = always(rectangle_logits(20, 20, 60, 60), iou=(0.1, 0.1, 0.1))
        assert reference_masks(blank_image(), config, no_features, decode) == []


class TestOracleScene:
    @pytest.mark.parametrize(
        ("crop_n_layers", "min_mask_region_area"), [(0, 0), (1, 0), (2, 0), (0, 30), (2, 30)]
    )
    def test_a_scene_yields_masks_with_and_without_crops_and_cleaning(
        self, crop_n_layers: int, min_mask_region_area: int
    ) -> None:
        masks = scene_masks(
            OracleScene(),
            crop_n_layers=crop_n_layers,
            min_mask_region_area=min_mask_region_area,
        )
        assert len(masks) > 5
        assert len({mask.crop_box_xywh for mask in masks}) > crop_n_layers
        for mask in masks:
            assert mask.mask_HW.shape == (97, 143)
            assert mask.area == mask.mask_HW.sum()
            assert mask.predicted_iou > 0.8
            assert 0.9 <= mask.stability_score <= 1.0

    def test_the_same_seed_gives_the_same_scene_and_another_seed_another(self) -> None:
        np.testing.assert_array_equal(OracleScene(5).image_HWC3, OracleScene(5).image_HWC3)
        assert (OracleScene(5).image_HWC3 != OracleScene(6).image_HWC3).any()

    def test_answers_do_not_depend_on_how_points_are_batched(self) -> None:
        scene = OracleScene()
        features = scene.encode(scene.image_HWC3)
        points = np.array([[100, 50], [511.5, 300.25], [1000, 690]], dtype=np.float64)
        logits, iou = scene.decode(features, points)
        assert logits.shape == (3, 3, 256, 256)
        assert logits.dtype == iou.dtype == np.float32
        for i in range(3):
            one_logits, one_iou = scene.decode(features, points[i : i + 1])
            np.testing.assert_array_equal(one_logits[0], logits[i])
            np.testing.assert_array_equal(one_iou[0], iou[i])

    def test_no_points_give_empty_answers(self) -> None:
        scene = OracleScene()
        features = scene.encode(scene.image_HWC3)
        logits, iou = scene.decode(features, np.empty((0, 2), dtype=np.float64))
        assert logits.shape == (0, 3, 256, 256)
        assert iou.shape == (0, 3)

    def test_a_last_bit_of_a_point_changes_only_last_bits_of_the_answer(self) -> None:
        scene = OracleScene()
        features = scene.encode(scene.image_HWC3)
        points = point_grid(4) * np.array([1024, 695])
        # A float32 step: the largest difference that a generator's own rounding may make.
        single = points.astype(np.float32)
        nudged = np.nextafter(single, np.float32(2000)).astype(np.float64)
        logits, iou = scene.decode(features, points)
        nudged_logits, nudged_iou = scene.decode(features, nudged)
        np.testing.assert_allclose(nudged_logits, logits, atol=0.05)
        np.testing.assert_allclose(nudged_iou, iou, atol=1e-4)

    def test_logits_islands_holes_stability_and_scores_vary(self) -> None:
        config = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "box_nms_thresh": 1.0}
        masks = scene_masks(OracleScene(), **config)
        stabilities = [mask.stability_score for mask in masks]
        scores = [mask.predicted_iou for mask in masks]
        assert min(stabilities) < 0.85
        assert max(stabilities) > 0.97
        assert min(scores) < 0.6
        assert max(scores) > 0.95
        with_islands = [remove_small_islands(mask.mask_HW, 30)[1] for mask in masks]
        with_holes = [fill_small_holes(mask.mask_HW, 30)[1] for mask in masks]
        assert any(with_islands)
        assert not all(with_islands)
        assert any(with_holes)
        assert not all(with_holes)

    def test_rounded_scores_make_ties(self) -> None:
        scene = OracleScene(iou_steps=32)
        points = point_grid(4) * np.array([1024, 695])
        _, iou = scene.decode(scene.encode(scene.image_HWC3), points)
        assert len(np.unique(iou)) < iou.size
        np.testing.assert_array_equal(iou * 32, np.rint(iou * 32))

    def test_padding_never_belongs_to_a_mask(self) -> None:
        scene = OracleScene()
        features = scene.encode(scene.image_HWC3)
        assert isinstance(features, OracleFeatures)
        assert (features.height_cells, features.width_cells) == (174, 256)
        logits, _ = scene.decode(features, np.array([[500, 690]], dtype=np.float64))
        assert (logits[:, :, 174:] < -1).all()


def scene_masks(scene: OracleScene, **overrides: Any) -> list[ReferenceMask]:
    """Masks of a scene with a small grid and thresholds that leave enough of them."""
    settings: dict[str, Any] = {
        "points_per_side": 6,
        "points_per_batch": 16,
        "pred_iou_thresh": 0.8,
        "stability_score_thresh": 0.9,
        "crop_n_points_downscale_factor": 2,
    }
    config = ReferenceConfig(**{**settings, **overrides})
    return reference_masks(scene.image_HWC3, config, scene.encode, scene.decode)
