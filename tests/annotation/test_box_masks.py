"""A detector's boxes become masks of the model."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.annotation.box_masks import DetectorBoxes, masks_in_boxes
from engine.annotation.prefill import PrefillConfig, propose
from engine.dataset.scenes.drawing import SyntheticScene, draw_scene
from engine.errors import BadInputError
from engine.evaluation.instances import fill_boxes
from engine.images import connected_components
from engine.masks import decode_mask, encode_mask, mask_box_xyxy, mask_iou
from model import Sam, build_sam

Boxes = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class KnownBoxes:
    """A proposer that finds what it was given."""

    boxes_N4: Boxes
    scores_N: NDArray[np.float32]
    name: str = "p7"

    def boxes(self, image_HWC3: NDArray[np.uint8]) -> tuple[Boxes, NDArray[np.float32]]:
        return self.boxes_N4, self.scores_N


@pytest.fixture(scope="module")
def sam() -> Sam:
    return build_sam("bundled", device="cpu")


@pytest.fixture(scope="module")
def scene() -> SyntheticScene:
    return draw_scene(np.random.default_rng(5), 120, 160, "objects")


def true_boxes(scene: SyntheticScene, count: int = 6) -> Boxes:
    """Return the boxes of the largest things."""
    largest = np.argsort(-scene.masks_NHW.sum((1, 2)), kind="stable")[:count]
    edges = [mask_box_xyxy(encode_mask(scene.masks_NHW[i])) for i in largest]
    return np.array([[b[0], b[1], b[2] + 1, b[3] + 1] for b in edges if b], dtype=np.float64)


def known(boxes_N4: Boxes, *scores: float) -> KnownBoxes:
    given = scores or tuple(0.9 - 0.01 * i for i in range(len(boxes_N4)))
    return KnownBoxes(boxes_N4, np.array(given, dtype=np.float32))


def test_masks_in_boxes_are_those_of_the_evaluation_pixel_by_pixel(
    sam: Sam, scene: SyntheticScene
) -> None:
    boxes_N4 = true_boxes(scene)
    embedding = sam.encode(scene.image_HWC3)
    wanted_NHW, iou_N = fill_boxes(sam, embedding, boxes_N4, refinements=0)
    scores = np.linspace(0.9, 0.5, len(boxes_N4), dtype=np.float32)
    drawn = list(masks_in_boxes(sam, embedding, boxes_N4, scores))
    assert len(drawn) == len(boxes_N4) > 3
    for one, wanted_HW, iou, box, score in zip(
        drawn, wanted_NHW, iou_N, boxes_N4.tolist(), scores, strict=True
    ):
        np.testing.assert_array_equal(decode_mask(one.rle), wanted_HW)
        assert one.predicted_iou == pytest.approx(float(iou), abs=1e-6)
        assert one.box_xyxy == tuple(box)
        assert one.score == pytest.approx(float(score))


def test_specks_and_pinholes_are_removed(sam: Sam, scene: SyntheticScene) -> None:
    embedding = sam.encode(scene.image_HWC3)
    boxes_N4 = true_boxes(scene)
    scores = np.ones(len(boxes_N4), dtype=np.float32)
    for one in masks_in_boxes(sam, embedding, boxes_N4, scores, min_region_area=60):
        mask_HW = decode_mask(one.rle)
        islands = connected_components(mask_HW)[1][1:]
        holes = connected_components(~mask_HW)[1][1:]
        assert len(islands) == 1 or islands.min() >= 60
        assert not len(holes) or holes.min() >= 60


def test_a_detector_proposes_what_is_in_its_boxes(sam: Sam, scene: SyntheticScene) -> None:
    boxes_N4 = true_boxes(scene, 4)
    source = DetectorBoxes(known(boxes_N4))
    config = PrefillConfig(min_iou=0.3, done_iou=0.6, min_agreement=0.5)
    proposals = propose(sam, scene.image_HWC3, source, config)
    assert proposals
    truth = [encode_mask(mask_HW) for mask_HW in scene.masks_NHW]
    best = mask_iou([proposal.rle for proposal in proposals], truth).max(axis=1)
    assert best.mean() > 0.5
    asked = {tuple(box) for box in boxes_N4.tolist()}
    assert {proposal.prompt_xyxy for proposal in proposals} <= asked
    assert {proposal.source for proposal in proposals} == {"detector p7"}


def test_weak_doubled_and_empty_boxes_prompt_nothing(sam: Sam, scene: SyntheticScene) -> None:
    one = true_boxes(scene, 1)[0]
    boxes_N4 = np.stack([one, one + 1, [5, 5, 5, 30], one])
    source = DetectorBoxes(known(boxes_N4, 0.9, 0.8, 0.7, 0.1), min_score=0.3, box_nms_thresh=0.6)
    found = source.candidates(sam, scene.image_HWC3)
    assert [candidate.box_xyxy for candidate in found] == [tuple(one.tolist())]
    nothing = DetectorBoxes(known(boxes_N4[:1], 0.2), min_score=0.3)
    assert nothing.candidates(sam, scene.image_HWC3) == []


def test_no_more_boxes_than_asked_for_prompt_the_model(sam: Sam, scene: SyntheticScene) -> None:
    source = DetectorBoxes(known(true_boxes(scene)), max_boxes=2, box_nms_thresh=1.0)
    assert len(source.candidates(sam, scene.image_HWC3)) == 2
    assert json.loads(source.settings())["max_boxes"] == 2


def test_settings_out_of_range_are_refused() -> None:
    proposer = known(np.zeros((0, 4)))
    with pytest.raises(BadInputError, match="min_score"):
        DetectorBoxes(proposer, min_score=1.2)
    with pytest.raises(BadInputError, match="max_boxes"):
        DetectorBoxes(proposer, max_boxes=0)
