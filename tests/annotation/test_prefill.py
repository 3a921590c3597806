"""Proposals are sure, of a fitting size, and beside one another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.annotation.prefill import (
    AutomaticMasks,
    Candidate,
    PrefillConfig,
    propose,
    select_proposals,
)
from engine.annotation.steadiness import mirrored_agreement
from engine.automatic import Segmenter
from engine.dataset.scenes.drawing import draw_scene
from engine.errors import BadInputError
from engine.masks import decode_mask, encode_mask, mask_area, mask_box_xyxy
from engine.records import Rle
from model import SIZES, Sam, build_sam

HEIGHT, WIDTH = 40, 60
CONFIG = PrefillConfig(
    min_iou=0.5, done_iou=0.8, min_agreement=0.0, min_area_ratio=0.0, max_area_ratio=1.0
)


def rectangle(x0: int, y0: int, x1: int, y1: int) -> Rle:
    mask_HW = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    mask_HW[y0:y1, x0:x1] = True
    return encode_mask(mask_HW)


def candidate(x0: int, y0: int, x1: int, y1: int, iou: float) -> Candidate:
    return Candidate(rle=rectangle(x0, y0, x1, y1), predicted_iou=iou)


def ious(chosen: Sequence[Candidate]) -> list[float]:
    return [one.predicted_iou for one in chosen]


@dataclass(frozen=True)
class KnownMasks:
    """A source that finds what it was given."""

    found: tuple[Candidate, ...]

    @property
    def name(self) -> str:
        return "known"

    def settings(self) -> str:
        return "{}"

    def candidates(
        self, segmenter: Segmenter, image_HWC3: NDArray[np.uint8]
    ) -> Sequence[Candidate]:
        return self.found


@pytest.fixture(scope="module")
def sam() -> Sam:
    return build_sam("bundled", device="cpu")


def test_the_surest_come_first_and_unsure_masks_are_left_out() -> None:
    found = [candidate(0, 0, 5, 5, 0.6), candidate(10, 0, 15, 5, 0.9), candidate(20, 0, 25, 5, 0.5)]
    assert ious(select_proposals(found, CONFIG)) == [0.9, 0.6]


def test_a_mask_that_lies_on_a_surer_one_is_left_out() -> None:
    found = [candidate(0, 0, 20, 20, 0.9), candidate(2, 2, 12, 12, 0.8)]
    assert ious(select_proposals(found, CONFIG)) == [0.9]


def test_a_mask_that_swallows_a_surer_one_is_left_out() -> None:
    # The small one covers 4 % of the large one only, but lies on it whole.
    found = [candidate(0, 0, 50, 40, 0.8), candidate(2, 2, 11, 11, 0.9)]
    assert ious(select_proposals(found, CONFIG)) == [0.9]


def test_masks_that_share_an_edge_of_pixels_stay_both() -> None:
    found = [candidate(0, 0, 20, 20, 0.9), candidate(19, 0, 39, 20, 0.8)]
    assert ious(select_proposals(found, CONFIG)) == [0.9, 0.8]


def test_a_mask_covered_by_several_together_is_left_out() -> None:
    found = [
        candidate(0, 0, 20, 10, 0.9),
        candidate(0, 30, 20, 40, 0.85),
        candidate(0, 9, 20, 31, 0.8),  # 1 of 22 rows on each: 9 % together
        candidate(0, 9, 40, 11, 0.7),
    ]
    assert ious(select_proposals(found, CONFIG)) == [0.9, 0.85, 0.8]
    strict = PrefillConfig(min_iou=0.5, done_iou=0.8, max_overlap=0.08)
    assert ious(select_proposals(found, strict)) == [0.9, 0.85]


def test_specks_and_whole_images_are_left_out() -> None:
    found = [
        candidate(0, 0, 2, 1, 0.9),
        candidate(0, 0, WIDTH, HEIGHT, 0.95),
        candidate(30, 10, 50, 30, 0.6),
    ]
    config = PrefillConfig(min_iou=0.5, done_iou=0.8, min_area_ratio=0.001, max_area_ratio=0.95)
    assert ious(select_proposals(found, config)) == [0.6]


def test_no_more_than_so_many_are_proposed() -> None:
    found = [candidate(6 * i, 0, 6 * i + 5, 5, 0.6 + 0.01 * i) for i in range(8)]
    config = PrefillConfig(min_iou=0.5, done_iou=0.8, max_proposals=3)
    assert ious(select_proposals(found, config)) == pytest.approx([0.67, 0.66, 0.65])
    assert not select_proposals([], config)


boxes = st.tuples(
    st.integers(0, WIDTH - 2),
    st.integers(0, HEIGHT - 2),
    st.integers(1, 30),
    st.integers(1, 30),
    st.integers(0, 100),
)


@settings(max_examples=60)
@given(st.lists(boxes, max_size=12), st.floats(0, 0.5))
def test_whatever_is_found_what_is_proposed_hardly_overlaps(
    found: list[tuple[int, int, int, int, int]], max_overlap: float
) -> None:
    candidates = [
        candidate(x, y, min(x + w, WIDTH), min(y + h, HEIGHT), percent / 100)
        for x, y, w, h, percent in found
    ]
    config = PrefillConfig(min_iou=0.3, done_iou=0.8, max_overlap=max_overlap, min_area_ratio=0.0)
    chosen = select_proposals(candidates, config)
    assert ious(chosen) == sorted(ious(chosen), reverse=True)
    masks = [decode_mask(one.rle) for one in chosen]
    for i, mask in enumerate(masks):
        for surer in masks[:i]:
            shared = np.count_nonzero(mask & surer)
            assert shared <= max_overlap * min(mask.sum(), surer.sum()) + 1e-6
    assert select_proposals(chosen, config) == chosen


def test_a_proposal_says_what_found_it_where_it_is_and_whether_it_is_done(sam: Sam) -> None:
    source = KnownMasks((candidate(3, 4, 13, 24, 0.9), candidate(20, 4, 30, 9, 0.7)))
    image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    first, second = propose(sam, image, source, CONFIG)
    assert (first.source, first.box_xyxy, first.done) == ("known", (3, 4, 13, 24), True)
    assert (second.predicted_iou, second.done, second.score) == (0.7, False, None)


@pytest.mark.parametrize(("size", "least"), [("bundled", 0.38), ("vit_h", 0.88)])
def test_thresholds_count_from_what_the_models_predicted_iou_means(
    sam: Sam, size: str, least: float
) -> None:
    model = sam if size == "bundled" else _Thresholds(size)
    assert PrefillConfig.for_model(model, strictness=0.0, done=1.0).min_iou == least  # type: ignore[arg-type]
    config = PrefillConfig.for_model(model, strictness=0.5, done=0.75)  # type: ignore[arg-type]
    assert config.min_iou == pytest.approx((1 + least) / 2)
    assert config.done_iou == pytest.approx(least + 0.75 * (1 - least))


class _Thresholds:
    """SAM's sizes without the weights."""

    def __init__(self, size: str) -> None:
        self.config = SIZES[size]


def test_automatic_masks_are_asked_for_at_the_strict_threshold_only(sam: Sam) -> None:
    config = PrefillConfig.for_model(sam)
    source = AutomaticMasks.of(sam, config, points_per_side=8)
    recommended = sam.config.recommended
    assert source.config.pred_iou_thresh == config.min_iou > recommended.pred_iou_thresh
    assert source.config.stability_score_thresh == recommended.stability_score_thresh
    assert json.loads(source.settings())["points_per_side"] == 8


def test_the_model_proposes_masks_of_a_scene_that_are_sure_and_apart(sam: Sam) -> None:
    scene = draw_scene(np.random.default_rng(3), 128, 160, "objects")
    config = PrefillConfig(min_iou=0.5, done_iou=0.7)
    source = AutomaticMasks.of(sam, config, points_per_side=8)
    proposals = propose(sam, scene.image_HWC3, source, config)
    assert proposals
    assert proposals == propose(sam, scene.image_HWC3, source, config)
    for proposal in proposals:
        assert proposal.predicted_iou > config.min_iou
        assert proposal.agreement is not None
        assert proposal.agreement >= config.min_agreement == 0.9
        assert mask_area(proposal.rle) >= config.min_area_ratio * 128 * 160
        x0, y0, x1, y1 = proposal.box_xyxy
        assert mask_box_xyxy(proposal.rle) == (x0, y0, x1 - 1, y1 - 1)
    taken_HW = np.sum([decode_mask(p.rle) for p in proposals], axis=0)
    assert np.mean(taken_HW > 1) < config.max_overlap


def test_masks_that_the_mirrored_image_does_not_give_are_left_out(sam: Sam) -> None:
    scene = draw_scene(np.random.default_rng(4), 96, 96, "objects")
    config = PrefillConfig(min_iou=0.3, done_iou=0.7, min_agreement=0.8)
    source = AutomaticMasks.of(sam, config, points_per_side=6)
    found = source.candidates(sam, scene.image_HWC3)
    agreement = mirrored_agreement(sam, scene.image_HWC3, found)
    steady = [one for one, share in zip(found, agreement, strict=True) if share >= 0.8]
    assert 0 < len(steady) < len(found)
    proposals = propose(sam, scene.image_HWC3, source, config)
    assert [p.rle for p in proposals] == [c.rle for c in select_proposals(steady, config)]
    anyhow = propose(sam, scene.image_HWC3, source, replace(config, min_agreement=0.0))
    assert [p.rle for p in anyhow] == [c.rle for c in select_proposals(found, config)]
    assert {one.agreement for one in anyhow} == {None}


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_iou": 0.9, "done_iou": 0.8},
        {"min_iou": -0.1, "done_iou": 0.8},
        {"min_iou": 0.5, "done_iou": 0.8, "max_overlap": 1.5},
        {"min_iou": 0.5, "done_iou": 0.8, "min_agreement": -0.5},
        {"min_iou": 0.5, "done_iou": 0.8, "max_proposals": -1},
        {"min_iou": 0.5, "done_iou": 0.8, "min_area_ratio": 0.9, "max_area_ratio": 0.5},
        {"min_iou": float("nan"), "done_iou": 0.8},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(BadInputError, match="got"):
        PrefillConfig(**wrong)  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match="strictness"):
        PrefillConfig.for_model(build_sam("bundled", device="cpu"), strictness=0.8, done=0.5)
