"""Scores of simulated prompts against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest

from model import Prompts
from model.evaluate import ClickResult, answer_quality, box_prompt, centre_click
from tests.model.small_models import SMALL_COMPACT, random_image, small_sam


def test_scores_are_the_ious_of_the_answers() -> None:
    sam = small_sam(SMALL_COMPACT)
    embedding = sam.encode(random_image(40, 50))
    wanted = np.zeros((2, 40, 50), dtype=bool)
    wanted[0, 5:25, 5:30] = True
    wanted[1, 20:, 10:] = True
    points = np.array([[[15.0, 15.0]], [[30.0, 30.0]]])
    prompts = Prompts(points_xy=points, point_labels=np.ones((2, 1), dtype=np.int64))
    result = answer_quality(sam, embedding, prompts, wanted)
    answer = sam.predict(embedding, prompts)
    masks = answer.masks_NMHW.numpy()
    for n in range(2):
        ious = [(m & wanted[n]).sum() / max(1, (m | wanted[n]).sum()) for m in masks[n]]
        trusted = int(answer.iou_NM[n].argmax())
        assert result.trusted_iou_N[n] == pytest.approx(ious[trusted])
        assert result.oracle_iou_N[n] == pytest.approx(max(ious))
        assert result.predicted_iou_N[n] == pytest.approx(float(answer.iou_NM[n, trusted]))


def test_clicks_and_boxes_come_from_the_wanted_masks() -> None:
    sam = small_sam(SMALL_COMPACT)
    embedding = sam.encode(random_image(40, 50))
    wanted = np.zeros((1, 40, 50), dtype=bool)
    wanted[0, 10:21, 20:41] = True
    box = Prompts(boxes_xyxy=np.array([[20, 10, 40, 20]]))
    expected = answer_quality(sam, embedding, box, wanted)
    assert box_prompt(sam, embedding, wanted).oracle_iou_N == expected.oracle_iou_N
    assert len(centre_click(sam, embedding, wanted).oracle_iou_N) == 1


def test_results_join() -> None:
    one, two = (ClickResult(*(np.full(n, v) for v in (0.1, 0.2, 0.3))) for n in (1, 2))
    assert len(ClickResult.joined([one, two]).trusted_iou_N) == 3
