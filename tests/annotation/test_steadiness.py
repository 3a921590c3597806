"""What a model says of the mirrored image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.annotation.prefill import Candidate
from engine.annotation.steadiness import mirrored_agreement, mirrored_mask
from engine.dataset.scenes.drawing import draw_scene
from engine.masks import decode_mask, encode_mask
from model import ImageEmbedding, Prompts, Sam, build_sam

HEIGHT, WIDTH = 90, 130


@pytest.fixture(scope="module")
def sam() -> Sam:
    return build_sam("bundled", device="cpu")


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return draw_scene(np.random.default_rng(2), HEIGHT, WIDTH, "objects").image_HWC3


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("with_box", [False, True])
def test_agreement_is_that_of_the_best_answer_to_the_mirrored_prompt(
    sam: Sam, image: NDArray[np.uint8], with_box: bool
) -> None:
    points = [(20.5, 30.0), (90.0, 60.25), (64.0, 45.0)]
    boxes = [(5.0, 10.0, 50.0, 60.0), (70.0, 40.0, 120.0, 85.0), (40.0, 20.0, 90.0, 70.0)]
    embedding = sam.encode(image)
    mirrored = sam.encode(np.ascontiguousarray(image[:, ::-1]))
    candidates, wanted = [], []
    for (x, y), (x0, y0, x1, y1) in zip(points, boxes, strict=True):
        if with_box:
            here = Prompts(boxes_xyxy=[[x0, y0, x1, y1]])  # type: ignore[arg-type]
            there = Prompts(boxes_xyxy=[[WIDTH - x1, y0, WIDTH - x0, y1]])  # type: ignore[arg-type]
        else:
            here = Prompts(points_xy=[[[x, y]]], point_labels=[[1]])  # type: ignore[arg-type]
            there = Prompts(points_xy=[[[WIDTH - x, y]]], point_labels=[[1]])  # type: ignore[arg-type]
        mask_HW = sam.predict(embedding, here).masks_NMHW[0, 0].numpy()
        answers_MHW = sam.predict(mirrored, there).masks_NMHW[0].numpy()
        wanted.append(max(iou(mask_HW, answer[:, ::-1]) for answer in answers_MHW))
        candidates.append(
            Candidate(
                rle=encode_mask(mask_HW),
                predicted_iou=0.9,
                point_xy=None if with_box else (x, y),
                box_xyxy=(x0, y0, x1, y1) if with_box else None,
            )
        )
    np.testing.assert_allclose(mirrored_agreement(sam, image, candidates), wanted, atol=1e-9)


@dataclass(frozen=True)
class Deaf:
    """A segmenter that must not be asked."""

    def encode(self, image_HWC3: NDArray[np.uint8]) -> ImageEmbedding:
        raise AssertionError("asked without a prompt")


def test_a_mask_without_a_prompt_agrees_with_nothing() -> None:
    mask = Candidate(rle=encode_mask(np.ones((4, 5), dtype=np.bool_)), predicted_iou=0.9)
    image = np.zeros((4, 5, 3), dtype=np.uint8)
    assert mirrored_agreement(Deaf(), image, [mask, mask]).tolist() == [0, 0]  # type: ignore[arg-type]
    assert mirrored_agreement(Deaf(), image, []).tolist() == []  # type: ignore[arg-type]


def test_a_mask_is_mirrored_left_to_right() -> None:
    mask_HW = np.zeros((3, 4), dtype=np.bool_)
    mask_HW[0, 0] = mask_HW[2, 1] = True
    np.testing.assert_array_equal(
        decode_mask(mirrored_mask(encode_mask(mask_HW))), mask_HW[:, ::-1]
    )
