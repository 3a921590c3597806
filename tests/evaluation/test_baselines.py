"""Classical methods on scenes whose answer is plain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine.evaluation.baselines import BASELINES, Disc, Felzenszwalb, GrabCut
from engine.evaluation.points import Method, PromptConfig, score_method
from engine.evaluation.robustness import SceneSet
from model import MaskPrediction, Prompts
from tests.evaluation.segmenters import HEIGHT, WIDTH, disc, image_of

SCENE = image_of([disc(20, 20, 12), disc(55, 35, 15)]).read()


def clicks(*points: tuple[int, int, int]) -> Prompts:
    """One prompt of (x, y, label)."""
    return Prompts(
        points_xy=np.array([[[x, y] for x, y, _ in points]], dtype=np.float64),
        point_labels=np.array([[label for *_, label in points]]),
    )


def box(*corners: int) -> Prompts:
    """One box XYXY."""
    return Prompts(boxes_xyxy=np.array([corners], dtype=np.float64))


def iou(answer: MaskPrediction, wanted: NDArray[np.bool_], place: int = 0) -> float:
    found = answer.masks_NMHW[0, place].numpy()
    return float((found & wanted).sum() / (found | wanted).sum())


@pytest.mark.parametrize("method", BASELINES, ids=lambda method: method.name)
@pytest.mark.parametrize("multimask", [True, False])
def test_every_method_answers_clicks_and_boxes_in_the_shape_of_a_model(
    method: Method, multimask: bool
) -> None:
    answerer = method.open(SCENE)
    boxes = Prompts(boxes_xyxy=np.array([[8.0, 8, 32, 32], [0, 0, 79, 59]]))
    points = Prompts(
        points_xy=np.array([[[20.0, 20]], [[0, 59]]]), point_labels=np.array([[1], [1]])
    )
    for prompts in (boxes, points):
        found = answerer.answer(prompts, multimask=multimask)
        n, m = found.iou_NM.shape
        assert n == 2
        assert multimask or m == 1
        assert found.masks_NMHW.shape == (2, m, HEIGHT, WIDTH)
        assert found.masks_NMHW.any(-1).any(-1).all()
        assert (found.iou_NM == 1).sum(1).tolist() == [1, 1]  # one answer is the trusted one


@pytest.mark.parametrize("method", BASELINES, ids=lambda method: method.name)
def test_every_method_holds_a_conversation(method: Method) -> None:
    data = SceneSet("scene", (image_of([disc(20, 20, 12), disc(55, 35, 15)]),))
    scores = score_method(method, data, PromptConfig(max_clicks=3, report_at=(1, 2, 3)))
    assert len(scores.by_clicks) == 3
    assert scores.by_clicks[2].oracle_iou_N.min() > 0.4


def test_a_disc_in_the_middle_of_a_disc_of_its_radius_is_right() -> None:
    answerer = Disc(radii_px=(6, 12), trusted_px=12).open(SCENE)
    found = answerer.answer(clicks((20, 20, 1)), multimask=True)
    assert iou(found, disc(20, 20, 12), place=1) == 1
    assert found.iou_NM[0].tolist() == [0, 1]


def test_between_two_discs_the_nearest_click_decides() -> None:
    found = Disc().open(SCENE).answer(clicks((20, 30, 1), (40, 30, 0)), multimask=False)
    mask = found.masks_NMHW[0, 0]
    assert mask[30, 25]
    assert not mask[30, 35]


def test_a_disc_fills_a_box_with_an_ellipse() -> None:
    found = Disc().open(SCENE).answer(box(8, 8, 32, 32), multimask=True)
    assert iou(found, disc(20, 20, 12)) > 0.88
    assert found.masks_NMHW[0, 1].sum() == 25 * 25


def test_a_region_of_one_colour_is_found_by_a_click_and_by_its_box() -> None:
    answerer = Felzenszwalb().open(SCENE)
    for prompts in (clicks((20, 20, 1)), box(8, 8, 32, 32)):
        assert iou(answerer.answer(prompts, multimask=False), disc(20, 20, 12)) > 0.6


def test_clicks_add_and_remove_regions() -> None:
    answerer = Felzenszwalb().open(SCENE)
    both = answerer.answer(clicks((20, 20, 1), (55, 35, 1)), multimask=False)
    assert iou(both, disc(20, 20, 12) | disc(55, 35, 15)) > 0.6
    one = answerer.answer(clicks((20, 20, 1), (55, 35, 0)), multimask=False)
    assert iou(one, disc(20, 20, 12)) > 0.6


def test_a_region_with_clicks_of_both_kinds_is_taken_apart_at_a_finer_scale() -> None:
    halves = np.full((HEIGHT, WIDTH, 3), 100, dtype=np.uint8)
    halves[:, WIDTH // 2 :] = 110
    answerer = Felzenszwalb(scales=(20, 500_000), trusted_scale=500_000).open(halves)
    alone = answerer.answer(clicks((10, 30, 1)), multimask=False).masks_NMHW[0, 0]
    apart = answerer.answer(clicks((10, 30, 1), (70, 30, 0)), multimask=False).masks_NMHW[0, 0]
    assert alone[30, 70]
    assert apart[30, 10]
    assert not apart[30, 70]


def test_grabcut_cuts_out_a_coloured_disc_and_takes_corrections() -> None:
    wanted = disc(55, 35, 15)
    answerer = GrabCut().open(SCENE)
    first = answerer.answer(clicks((55, 35, 1)), multimask=True)
    assert iou(first, wanted) > 0.8
    again = replace(clicks((55, 35, 1), (20, 20, 1)), mask_logits=first.low_res_logits_NMhw)
    second = answerer.answer(again, multimask=False).masks_NMHW[0, 0]
    assert second[20, 20]
    assert second[35, 55]
    assert iou(answerer.answer(box(40, 20, 70, 50), multimask=False), wanted) > 0.9


def test_grabcut_answers_with_the_box_where_there_is_nothing_to_cut() -> None:
    grey = np.full((HEIGHT, WIDTH, 3), 128, dtype=np.uint8)
    found = GrabCut().open(grey).answer(box(10, 10, 12, 11), multimask=False)
    assert 0 < found.masks_NMHW[0, 0].sum() <= 6


def test_a_prompt_without_click_or_box_is_refused() -> None:
    nothing = Prompts(mask_logits=torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match="clicks or boxes"):
        Disc().open(SCENE).answer(nothing, multimask=False)
