"""Prompts put to models that know the answer, that trust the wrong one, that learn it late."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine.errors import BadInputError
from engine.evaluation.labelled import Selection
from engine.evaluation.points import ModelScores, PromptConfig, score_method, score_model
from engine.evaluation.robustness import SceneSet
from model import MaskPrediction, Prompts
from model.evaluate import Answerer, AnswerQuality
from tests.evaluation.segmenters import KnowingSegmenter, disc, disc_set, image_of
from tests.model.small_models import SMALL_COMPACT, small_sam

MASKS = [disc(20, 20, 6), disc(50, 30, 15), disc(70, 10, 4)]
ONE_IMAGE = SceneSet("one", (image_of(MASKS),))
SHORT = PromptConfig(max_clicks=2, report_at=(1, 2))


def test_a_perfect_segmenter_gets_a_hundred() -> None:
    scores = score_model(KnowingSegmenter(MASKS), ONE_IMAGE, SHORT)
    assert len(scores) == 3
    assert scores.box is not None
    for quality in (*scores.by_clicks, scores.box):
        assert quality.trusted_iou_N.tolist() == [1, 1, 1]
        assert quality.oracle_iou_N.tolist() == [1, 1, 1]
        assert quality.predicted_iou_N.tolist() == [1, 1, 1]
    assert sorted(scores.area_N) == sorted(int(mask.sum()) for mask in MASKS)


def test_who_trusts_the_wrong_answer_keeps_the_oracle() -> None:
    scores = score_model(KnowingSegmenter(MASKS, trusts=0), ONE_IMAGE, SHORT)
    assert scores.after(1).trusted_iou_N.tolist() == [0, 0, 0]
    assert scores.after(1).oracle_iou_N.tolist() == [1, 1, 1]


def test_an_image_is_encoded_once_and_prompted_in_batches() -> None:
    model = KnowingSegmenter(MASKS)
    score_model(model, ONE_IMAGE, PromptConfig(max_clicks=2, report_at=(1,)))
    assert model.encoded == 1
    assert model.prompts == [3, 3, 3]  # one click, two clicks, boxes


def test_more_masks_than_a_batch_holds_are_all_asked_for() -> None:
    masks = [disc(8 + 7 * (i % 10), 8 + 6 * (i // 10), 3) for i in range(70)]
    model = KnowingSegmenter(masks)
    data = SceneSet("many", (image_of(masks),))
    config = PromptConfig(max_clicks=1, box=False, selection=Selection(masks_per_image=0))
    assert score_model(model, data, config).after(1).trusted_iou_N.tolist() == [1] * 70
    assert model.prompts == [64, 6]
    assert model.encoded == 1


@dataclass
class LearnsAfter:
    """Answers with nothing until it has had so many clicks, then with the mask itself."""

    clicks: int
    mask: NDArray[np.bool_]
    name: str = "slow"
    firsts: list[list[float]] = field(default_factory=list)

    def open(self, image_HWC3: NDArray[np.uint8]) -> Answerer:
        return self

    def answer(self, prompts: Prompts, *, multimask: bool) -> MaskPrediction:
        assert prompts.points_xy is not None
        self.firsts += prompts.points_xy[:, 0].tolist()
        right = self.mask & (prompts.points_xy.shape[1] >= self.clicks)
        shape = (len(prompts), 3 if multimask else 1)
        masks = torch.from_numpy(np.broadcast_to(right, (*shape, *right.shape)).copy())
        return MaskPrediction(masks, torch.ones(shape), torch.zeros(*shape, 2, 2))


@pytest.mark.parametrize(
    ("needs", "counted", "reached"), [(1, 1, True), (3, 3, True), (9, 4, False)]
)
def test_clicks_are_counted_until_the_mask_is_good(needs: int, counted: int, reached: bool) -> None:
    mask = disc(40, 30, 12)
    data = SceneSet("one", (image_of([mask]),))
    config = PromptConfig(max_clicks=4, box=False)
    scores = score_method(LearnsAfter(needs, mask), data, config)
    assert scores.clicks_to(0.85).tolist() == [counted]
    assert scores.reached(0.85).tolist() == [reached]
    assert [q.trusted_iou_N[0] for q in scores.by_clicks] == [
        float(i >= needs) for i in range(1, 5)
    ]


def test_first_clicks_lie_in_the_middle_or_anywhere() -> None:
    mask = disc(40, 30, 12)
    data = SceneSet("one", (image_of([mask]),))
    found = {}
    for first in ("centre", "random"):
        for seed in (0, 1):
            method = LearnsAfter(1, mask)
            selection = Selection(seed=seed)
            config = PromptConfig(max_clicks=1, box=False, first_click=first, selection=selection)
            score_method(method, data, config)
            found[first, seed] = method.firsts
    assert found["centre", 0] == found["centre", 1] == [[40, 30]]
    assert found["random", 0] != found["random", 1]
    ((x, y),) = found["random", 0]
    assert mask[int(y), int(x)]


def test_two_models_are_asked_the_same_and_a_model_twice_says_the_same() -> None:
    data = disc_set(images=2)
    sam = small_sam(SMALL_COMPACT)
    first, second = (score_model(sam, data, SHORT) for _ in range(2))
    other = score_model(small_sam(SMALL_COMPACT, seed=5), data, SHORT)
    assert (first.area_N == other.area_N).all()
    assert (first.image_N == other.image_N).all()
    for one, two in zip(first.by_clicks, second.by_clicks, strict=True):
        assert (one.iou_NM == two.iou_NM).all()


def test_progress_hears_of_every_image() -> None:
    heard: list[tuple[str, int]] = []
    score_model(
        KnowingSegmenter(MASKS), ONE_IMAGE, SHORT, lambda uri, masks: heard.append((uri, masks))
    )
    assert heard == [("0.jpg", 3)]


def scores_of(images: list[int], votes: list[int]) -> ModelScores:
    n = len(images)
    quality = AnswerQuality(
        np.linspace(0, 1, n)[:, None], np.ones((n, 1)), np.zeros(n, dtype=np.int64)
    )
    return ModelScores(
        method="m",
        data="d",
        image_N=np.array(images),
        area_N=np.arange(n),
        votes_N=np.array(votes),
        by_clicks=(quality,),
        box=quality,
    )


def test_levels_of_agreement_keep_the_first_masks_of_each_image() -> None:
    scores = scores_of([0, 0, 0, 0, 3, 3, 3], [1, 2, 1, 2, 2, 2, 2])
    assert scores.agreed(1, 2).area_N.tolist() == [0, 1, 4, 5]
    assert scores.agreed(2, 2).area_N.tolist() == [1, 3, 4, 5]
    assert scores.agreed(2, 0).area_N.tolist() == [1, 3, 4, 5, 6]
    assert len(scores.agreed(3, 2)) == 0
    two = scores.agreed(2, 1)
    assert two.images == 2
    assert two.box is not None
    assert two.box.trusted_iou_N == pytest.approx([1 / 6, 4 / 6])


def test_only_counts_of_clicks_that_happened_are_known() -> None:
    with pytest.raises(BadInputError, match="1 to 1 clicks are known; got 2"):
        scores_of([0], [1]).after(2)


def test_a_set_without_agreed_masks_is_refused_by_name() -> None:
    config = PromptConfig(selection=Selection(votes=(9,)))
    with pytest.raises(BadInputError, match=r"one has no mask that 9 or more people .*--min-votes"):
        score_model(KnowingSegmenter(MASKS), ONE_IMAGE, config)


def test_masks_of_another_size_than_their_image_are_refused() -> None:
    image = image_of(MASKS)
    small = type(image)("0.jpg", 30, 40, image.masks, image_HWC3=image.image_HWC3[:30, :40])
    with pytest.raises(BadInputError, match="30 x 40 pixels, but its masks are 60 x 80"):
        score_model(KnowingSegmenter(MASKS), SceneSet("cut", (small,)), SHORT)


@pytest.mark.parametrize("clicks", [-1, 0])
def test_there_must_be_something_to_ask(clicks: int) -> None:
    with pytest.raises(BadInputError, match="a click or a box"):
        PromptConfig(max_clicks=clicks, box=False)
