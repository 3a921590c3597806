"""Changed images keep their masks; drawn scenes are a labelled set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engine.dataset.labelled_sets import CocoMasks
from engine.evaluation.points import PromptConfig, score_model
from engine.evaluation.robustness import other_looks, scene_set
from engine.learning.looks import LOOKS
from engine.masks import decode_mask
from tests.dataset.coco_builders import write_coco
from tests.model.small_models import SMALL_COMPACT, small_sam


def test_every_look_changes_the_pixels_and_nothing_else(tmp_path: Path) -> None:
    data = CocoMasks.load(write_coco(tmp_path / "set", 2))
    seen = dict(other_looks(data))
    assert [*seen] == [*LOOKS]
    for changed in seen.values():
        assert changed.name == data.name
        assert len(changed) == 2
        image, original = changed[0], data[0]
        assert image.masks == original.masks
        assert image.path == original.path
        assert image.read().shape == original.read().shape
        assert (image.read() != original.read()).any()


def test_a_look_is_the_same_each_time_and_differs_between_seeds_and_images(tmp_path: Path) -> None:
    data = CocoMasks.load(write_coco(tmp_path / "set", 1))
    noisy = dict(other_looks(data))["noisy"][0].read()
    assert (noisy == dict(other_looks(data))["noisy"][0].read()).all()
    assert (noisy != dict(other_looks(data, seed=1))["noisy"][0].read()).any()


def test_scenes_are_images_with_their_masks() -> None:
    scenes = scene_set(2)
    assert len(scenes) == 2
    assert len({scenes[i].path for i in range(2)}) == 2
    for image in (scenes[0], scenes[1]):
        assert image.read().shape == (image.height, image.width, 3)
        for mask in image.masks:
            pixels = decode_mask(mask.rle)
            ys, xs = np.nonzero(pixels)
            assert pixels.shape == (image.height, image.width)
            assert mask.area == pixels.sum() > 0
            box = [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            assert np.array_equal(mask.bbox_xywh, box)


def test_a_model_is_scored_on_scenes_and_looks_as_on_photos(tmp_path: Path) -> None:
    sam = small_sam(SMALL_COMPACT)
    data = CocoMasks.load(write_coco(tmp_path / "set", 1))
    config = PromptConfig(max_clicks=1)
    clean = score_model(sam, data, config)
    grey = score_model(sam, dict(other_looks(data))["grey"], config)
    assert (clean.area_N == grey.area_N).all()
    assert (clean.after(1).iou_NM != grey.after(1).iou_NM).any()
    assert len(score_model(sam, scene_set(1), config)) >= 3
