"""AP of masks given boxes: with a model that knows the answers, and with one that does not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine.dataset.labelled_sets import CocoMasks
from engine.errors import BadInputError
from engine.evaluation.instances import (
    Detection,
    InstanceConfig,
    evaluate_instances,
    read_detections,
)
from model import ImageEmbedding, MaskPrediction, Prompts, SamConfig
from model.preprocess import input_frame
from model.types import ImageFeatures
from tests.evaluation.labelled_builders import labelled_mask, labelled_set, rectangle
from tests.model.small_models import SMALL_COMPACT, SMALL_VIT, small_sam

SQUARE, DISC = rectangle(10, 10, 30, 30), np.zeros((160, 240), dtype=bool)
_y, _x = np.mgrid[:160, :240]
DISC[np.hypot(_y - 90, _x - 150) < 50] = True


@dataclass(frozen=True)
class KnowingSegmenter:
    """Answers a box with the mask that has this box; asked anew with its logits, with less of it.

    Attributes:
        masks: what it knows.
        iou: its scores for the three masks of a box: an empty one, the right one, the box.
        rounds: for each call, whether a mask went in and whether several came out.
    """

    masks: Sequence[NDArray[np.bool_]]
    iou: tuple[float, float, float] = (0.1, 0.9, 0.5)
    rounds: list[tuple[bool, bool]] = field(default_factory=list)

    def encode(self, image_HWC3: NDArray[np.uint8]) -> ImageEmbedding:
        frame = input_frame(image_HWC3.shape[:2], 256, 256)
        return ImageEmbedding(ImageFeatures(torch.empty(0)), frame)

    def predict(
        self, embedding: ImageEmbedding, prompts: Prompts, *, multimask: bool = True
    ) -> MaskPrediction:
        assert prompts.boxes_xyxy is not None
        self.rounds.append((prompts.mask_logits is not None, multimask))
        answers = []
        for x0, y0, x1, y1 in prompts.boxes_xyxy.round().astype(int):
            box = np.zeros(embedding.frame.original_size, dtype=bool)
            box[y0 : y1 + 1, x0 : x1 + 1] = True
            right = [m for m in self.masks if np.array_equal(_box(m), (x0, y0, x1, y1))]
            answers.append([np.zeros_like(box), right[0] if right else box, box])
        masks = torch.from_numpy(np.array(answers))
        iou = torch.tensor([self.iou]).repeat(len(masks), 1)
        kept = slice(0, 3) if multimask else slice(1, 2)
        logits = torch.zeros(len(masks), 3, 64, 64)
        return MaskPrediction(masks[:, kept], iou[:, kept], logits[:, kept])


def _box(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    ys, xs = np.nonzero(mask)
    return np.array([xs.min(), ys.min(), xs.max(), ys.max()])


def squares_and_discs(folder: Path) -> CocoMasks:
    square, disc = labelled_mask(SQUARE, category_id=3), labelled_mask(DISC, category_id=8)
    return labelled_set(folder, [[square, disc], [disc]])


def test_a_model_that_knows_the_answers_has_ap_1(tmp_path: Path) -> None:
    sam = KnowingSegmenter([SQUARE, DISC])
    seen: list[tuple[str, int]] = []
    result = evaluate_instances(
        sam,
        squares_and_discs(tmp_path),
        InstanceConfig(),
        on_image=lambda path, boxes: seen.append((Path(path).name, boxes)),
        name="knowing",
    )
    assert result.ap.ap == pytest.approx(1)
    assert (result.images, result.wanted, result.boxes, result.categories) == (2, 3, 3, 2)
    assert {method for method, _, _ in result.rows()} == {"knowing"}
    figures = {name: value for _, name, value in result.rows()}
    assert figures == pytest.approx(dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm"), 1.0))
    assert seen == [("000.jpg", 2), ("001.jpg", 1)]


def test_the_most_trusted_mask_is_taken_and_goes_back_in_once(tmp_path: Path) -> None:
    for refinements in (0, 1, 2):
        sam = KnowingSegmenter([SQUARE, DISC])
        config = InstanceConfig(refinements=refinements)
        result = evaluate_instances(sam, squares_and_discs(tmp_path), config)
        assert result.ap.ap == pytest.approx(1)
        assert sam.rounds == 2 * ([(False, True)] + [(True, False)] * refinements)
    misled = KnowingSegmenter([SQUARE, DISC], iou=(0.1, 0.5, 0.9))  # trusts the box itself
    without = evaluate_instances(misled, squares_and_discs(tmp_path), InstanceConfig(refinements=0))
    assert without.ap.ap50 == pytest.approx(1)
    assert without.ap.ap == pytest.approx((1 + 0.6) / 2)  # a disc has an IoU of .78 with its box


def test_categories_count_unless_they_are_unknown_or_unwanted(tmp_path: Path) -> None:
    sam = KnowingSegmenter([SQUARE])  # draws the disc's box for the disc
    data = squares_and_discs(tmp_path)
    by_category = evaluate_instances(sam, data, InstanceConfig())
    together = evaluate_instances(sam, data, InstanceConfig(class_agnostic=True))
    assert (by_category.categories, together.categories) == (2, 1)
    assert by_category.ap.ap == pytest.approx((1 + 0.6) / 2)
    assert together.ap.ap < by_category.ap.ap
    unnamed = labelled_set(tmp_path, [[labelled_mask(SQUARE)]])
    assert evaluate_instances(sam, unnamed, InstanceConfig()).categories == 1


def test_a_detectors_boxes_and_scores_are_used_where_given(tmp_path: Path) -> None:
    data = squares_and_discs(tmp_path)
    sam = KnowingSegmenter([SQUARE, DISC])
    disc_box = tuple(float(side) for side in _box(DISC))
    assert len(disc_box) == 4
    nowhere = (200.0, 5.0, 220.0, 15.0)
    found = [Detection(100, 8, disc_box, 0.6), Detection(101, 8, disc_box, 0.6)]
    sure = evaluate_instances(
        sam, data, InstanceConfig(), [*found, Detection(100, 8, nowhere, 0.9)]
    )
    unsure = evaluate_instances(
        sam, data, InstanceConfig(), [*found, Detection(100, 8, nowhere, 0.2)]
    )
    assert unsure.boxes == 3
    assert unsure.ap.ap == pytest.approx(0.5)  # all discs, no square
    assert sure.ap.ap == pytest.approx(0.5 * 2 / 3)
    with pytest.raises(BadInputError, match="no detection belongs to an image"):
        evaluate_instances(sam, data, InstanceConfig(), [Detection(7, 8, disc_box, 0.6)])


def test_detections_are_read_from_coco_results(tmp_path: Path) -> None:
    path = tmp_path / "detections.json"
    rows = [{"image_id": 100, "category_id": 8, "bbox": [10, 20, 30, 40], "score": 0.5}]
    path.write_text(json.dumps(rows))
    assert read_detections(path) == (Detection(100, 8, (10.0, 20.0, 40.0, 60.0), 0.5),)
    for text in ("{", '{"a": 1}', '[{"image_id": 1, "bbox": [1, 2, 3], "score": 1}]', "[3]"):
        path.write_text(text)
        with pytest.raises(BadInputError, match="not a JSON list of detections"):
            read_detections(path)


def test_only_masks_with_enough_votes_are_asked_for(tmp_path: Path) -> None:
    data = labelled_set(tmp_path, [[labelled_mask(SQUARE), labelled_mask(DISC, votes=2)]])
    sam = KnowingSegmenter([SQUARE, DISC])
    assert evaluate_instances(sam, data, InstanceConfig(min_votes=2)).wanted == 1
    with pytest.raises(BadInputError, match="3 or more people"):
        evaluate_instances(sam, data, InstanceConfig(min_votes=3))


@pytest.mark.parametrize("size", [SMALL_VIT, SMALL_COMPACT], ids=lambda size: size.name)
def test_real_models_go_through_and_are_judged(size: SamConfig, tmp_path: Path) -> None:
    result = evaluate_instances(small_sam(size), squares_and_discs(tmp_path), InstanceConfig())
    assert 0 <= result.ap.ap <= 1
    assert result.boxes == 3


@pytest.mark.parametrize("arguments", [{"refinements": -1}, {"min_votes": 0}, {"max_images": 0}])
def test_settings_out_of_range_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(BadInputError, match="or more"):
        InstanceConfig(**arguments)  # type: ignore[arg-type]
