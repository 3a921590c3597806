"""Scores of simulated prompts against plain numpy, and conversations with a scripted answerer."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model import MaskPrediction, Prompts
from model.evaluate import (
    AnswerQuality,
    Click,
    SamOnImage,
    answer_quality,
    box_answers,
    click_rounds,
)
from tests.model.small_models import SMALL_COMPACT, random_image, small_sam

Mask = NDArray[np.bool_]


def two_masks() -> Mask:
    wanted = np.zeros((2, 40, 50), dtype=bool)
    wanted[0, 5:25, 5:30] = True
    wanted[1, 20:, 10:] = True
    return wanted


@dataclass
class Scripted:
    """Answers with three fixed masks, or with its `single`; remembers what it was asked."""

    three: Mask
    single: Mask
    scores: tuple[float, float, float] = (0.2, 0.9, 0.4)
    asked: list[tuple[Prompts, bool]] = field(default_factory=list)

    def answer(self, prompts: Prompts, *, multimask: bool) -> MaskPrediction:
        self.asked.append((prompts, multimask))
        masks = self.three if multimask else self.single[None]
        scores = torch.tensor(self.scores if multimask else [0.7])
        number = len(self.asked)
        logits = torch.arange(len(masks)).float() + 10 * number
        n = len(prompts)
        return MaskPrediction(
            torch.from_numpy(np.repeat(masks[None], n, axis=0)),
            scores.repeat(n, 1),
            logits[None, :, None, None].expand(n, -1, 2, 2),
        )


def click_at_3_4(wanted: Mask, answer: Mask, clicked: NDArray[np.float64]) -> Click:
    return Click(3, 4, 0)


def test_scores_are_the_ious_of_the_answers() -> None:
    sam = small_sam(SMALL_COMPACT)
    embedding = sam.encode(random_image(40, 50))
    wanted = two_masks()
    points = np.array([[[15.0, 15.0]], [[30.0, 30.0]]])
    prompts = Prompts(points_xy=points, point_labels=np.ones((2, 1), dtype=np.int64))
    answer = sam.predict(embedding, prompts)
    result = answer_quality(answer, wanted)
    masks = answer.masks_NMHW.numpy()
    for n in range(2):
        ious = [(m & wanted[n]).sum() / max(1, (m | wanted[n]).sum()) for m in masks[n]]
        trusted = int(answer.iou_NM[n].argmax())
        assert result.trusted_iou_N[n] == pytest.approx(ious[trusted])
        assert result.oracle_iou_N[n] == pytest.approx(max(ious))
        assert result.predicted_iou_N[n] == pytest.approx(float(answer.iou_NM[n, trusted]))


def test_two_empty_masks_have_no_overlap() -> None:
    nothing = MaskPrediction(torch.zeros(1, 1, 2, 2, dtype=torch.bool), torch.ones(1, 1), None)  # type: ignore[arg-type]
    assert answer_quality(nothing, np.zeros((1, 2, 2), dtype=bool)).trusted_iou_N == [0]


def test_boxes_are_the_tight_boxes_of_the_wanted_masks() -> None:
    wanted = np.zeros((1, 40, 50), dtype=bool)
    wanted[0, 10:21, 20:41] = True
    answerer = Scripted(np.repeat(wanted, 3, axis=0), wanted[0])
    assert box_answers(answerer, wanted).trusted_iou_N == [1]
    (prompts, multimask) = answerer.asked[0]
    assert prompts.boxes_xyxy is not None
    assert prompts.boxes_xyxy.tolist() == [[20, 10, 40, 20]]
    assert multimask


def test_one_click_gets_three_masks_and_more_clicks_one_with_the_trusted_logits() -> None:
    wanted = two_masks()
    answerer = Scripted(np.stack([wanted[0], wanted[1], wanted.any(0)]), wanted[1])
    rounds = click_rounds(answerer, wanted, np.array([[9, 9], [8, 30]]), click_at_3_4, 3)
    assert [multimask for _, multimask in answerer.asked] == [True, False, False]
    first, second, third = (prompts for prompts, _ in answerer.asked)
    assert first.mask_logits is None
    assert second.points_xy is not None
    assert second.point_labels is not None
    assert second.points_xy.tolist() == [[[9, 9], [3, 4]], [[8, 30], [3, 4]]]
    assert second.point_labels.tolist() == [[1, 0], [1, 0]]
    assert second.mask_logits is not None
    assert torch.all(second.mask_logits == 11)  # answer 1 of 3 had the highest score
    assert third.mask_logits is not None
    assert torch.all(third.mask_logits == 20)  # the one answer of the second round
    assert third.points_xy is not None
    assert third.points_xy.shape == (2, 3, 2)
    assert [r.iou_NM.shape for r in rounds] == [(2, 3), (2, 1), (2, 1)]
    assert rounds[0].trusted_N.tolist() == [1, 1]
    assert rounds[0].trusted_iou_N[1] == 1
    assert rounds[0].oracle_iou_N.tolist() == [1, 1]


def test_corrections_see_the_trusted_answer_and_the_clicks_so_far() -> None:
    wanted = two_masks()[:1]
    answerer = Scripted(np.stack([~wanted[0], wanted[0], ~wanted[0]]), ~wanted[0])
    seen: list[tuple[bool, int]] = []

    def watch(want: Mask, answer: Mask, clicked: NDArray[np.float64]) -> Click:
        seen.append((bool((answer == want).all()), len(clicked)))
        return Click(0, 0, 0)

    click_rounds(answerer, wanted, np.array([[9, 9]]), watch, 3)
    assert seen == [(True, 1), (False, 2)]


def test_the_oracle_after_several_clicks_looks_at_the_three_masks_too() -> None:
    wanted = two_masks()[:1]
    answerer = Scripted(np.stack([~wanted[0], ~wanted[0], wanted[0]]), ~wanted[0])
    rounds = click_rounds(answerer, wanted, np.array([[9, 9]]), click_at_3_4, 3, oracle_at=[3])
    assert [m for _, m in answerer.asked] == [True, False, False, True]
    assert rounds[1].oracle_iou_N == [0]
    assert rounds[2].oracle_iou_N == [1]
    assert rounds[2].trusted_iou_N == [0]
    assert rounds[2].predicted_iou_N == pytest.approx([0.7])


def test_a_conversation_with_a_model_goes_through() -> None:
    sam = small_sam(SMALL_COMPACT)
    answerer = SamOnImage(sam, sam.encode(random_image(40, 50)))
    rounds = click_rounds(
        answerer, two_masks(), np.array([[9, 9], [30, 30]]), click_at_3_4, 4, oracle_at=(1, 4)
    )
    assert [r.iou_NM.shape for r in rounds] == [(2, 3), (2, 1), (2, 1), (2, 4)]
    assert all(r.iou_NM.min() >= 0 and r.iou_NM.max() <= 1 for r in rounds)


def test_no_click_is_no_conversation() -> None:
    wanted = two_masks()
    with pytest.raises(ValueError, match="at least 1; got 0"):
        click_rounds(Scripted(wanted, wanted[0]), wanted, np.zeros((2, 2)), click_at_3_4, 0)


def test_results_join_and_come_apart() -> None:
    def quality(n: int) -> AnswerQuality:
        return AnswerQuality(np.full((n, 2), 0.1 * n), np.zeros((n, 2)), np.ones(n, dtype=np.int64))

    joined = AnswerQuality.joined([quality(1), quality(2)])
    assert joined.trusted_iou_N == pytest.approx([0.1, 0.2, 0.2])
    assert joined.rows(np.array([True, False, True])).trusted_iou_N == pytest.approx([0.1, 0.2])
