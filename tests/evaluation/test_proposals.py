"""AR@k of proposals: cases worked out by hand, pycocotools, a model and the pool of regions."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from engine.automatic import AutomaticConfig, generate_masks
from engine.dataset.labelled_sets import LabelledMask
from engine.errors import BadInputError
from engine.evaluation.proposals import (
    IOU_THRESHOLDS,
    ProposalConfig,
    ProposalScores,
    Proposer,
    automatic_proposer,
    covered,
    covered_by,
    evaluate_proposals,
    pool_proposer,
    score_proposers,
)
from engine.evaluation.region_pool import PoolConfig, felzenszwalb_pool
from engine.masks import decode_mask, encode_mask, mask_area, mask_iou
from engine.records import Rle
from tests.automatic.oracle_segmenter import OracleScene
from tests.automatic.segmenters import OracleSegmenter
from tests.evaluation.labelled_builders import labelled_mask, labelled_set, rectangle
from tests.model.small_models import SMALL_COMPACT, small_sam

SMALL, MEDIUM, LARGE = (
    rectangle(5, 5, 20, 20),
    rectangle(60, 5, 50, 50),
    rectangle(120, 40, 110, 110),
)


def scores_of(
    folder: Path,
    proposals: Sequence[NDArray[np.bool_]],
    wanted: Sequence[LabelledMask],
    counts: tuple[int, ...] = (1, 2, 10),
) -> ProposalScores:
    proposer = Proposer("given", lambda _: [encode_mask(mask) for mask in proposals])
    config = ProposalConfig(counts=counts)
    return score_proposers([proposer], labelled_set(folder, [wanted]), config).scores[0]


def test_a_proposer_that_knows_the_masks_has_ar_1(tmp_path: Path) -> None:
    wanted = [labelled_mask(mask) for mask in (SMALL, MEDIUM, LARGE)]
    scores = scores_of(tmp_path, [LARGE, MEDIUM, SMALL], wanted)
    assert scores.average_recall(10) == 1
    assert scores.average_recall(1) == pytest.approx(1 / 3)
    assert scores.average_recall(2) == pytest.approx(2 / 3)
    assert [scores.average_recall(2, s) for s in ("small", "medium", "large")] == [0, 1, 1]


def test_a_mask_at_iou_70_is_covered_at_half_of_the_thresholds(tmp_path: Path) -> None:
    part = rectangle(60, 5, 35, 50)  # IoU .70 of MEDIUM
    scores = scores_of(tmp_path, [part], [labelled_mask(MEDIUM)])
    assert scores.recall_T(1).tolist() == [1] * 5 + [0] * 5
    figures = dict(scores.rows())
    assert figures["AR@1"] == pytest.approx(0.5)
    assert figures["recall@10 at IoU .50"] == 1
    assert figures["recall@10 at IoU .75"] == 0
    assert "AR@10 large" not in figures


def test_one_proposal_covers_one_mask_and_the_better_one() -> None:
    iou_DG = np.array([[0.6, 0.8]])
    covered_at = covered_by(iou_DG) < 1
    assert covered_at[:, 1].sum() == 7
    assert covered_at[:, 0].sum() == 0


def test_proposals_choose_in_their_order_even_where_that_covers_fewer() -> None:
    # The second could only have had mask 1, which the first likes better.
    iou_DG = np.array([[0.6, 0.7], [0.0, 0.9]])
    place_TG = covered_by(iou_DG)
    assert place_TG[0].tolist() == [np.iinfo(np.int64).max, 0]
    # At .75 the first can have neither, and the second gets mask 1.
    assert place_TG[5].tolist() == [np.iinfo(np.int64).max, 1]


def coco_recall(
    proposals: list[list[Rle]], wanted: list[list[Rle]], counts: tuple[int, ...]
) -> NDArray[np.float64]:
    """Recall of pycocotools without classes: (T, S, K)."""
    height, width = wanted[0][0].height, wanted[0][0].width
    coded = [
        [{"size": [r.height, r.width], "counts": r.counts.encode()} for r in w] for w in wanted
    ]
    truth = COCO()
    annotations = [
        {"image_id": i, "category_id": 1, "segmentation": rle, "iscrowd": 0, "area": mask_area(own)}
        for i, (rles, owns) in enumerate(zip(coded, wanted, strict=True))
        for rle, own in zip(rles, owns, strict=True)
    ]
    truth.dataset = {
        "info": {},
        "images": [{"id": i, "height": height, "width": width} for i in range(len(wanted))],
        "categories": [{"id": 1}],
        "annotations": [{"id": n, **a} for n, a in enumerate(annotations, start=1)],
    }
    results = [
        {
            "image_id": i,
            "category_id": 1,
            "segmentation": {"size": [r.height, r.width], "counts": r.counts.encode()},
            "score": 1 / (1 + place),
        }
        for i, rles in enumerate(proposals)
        for place, r in enumerate(rles)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "segm")
        evaluation.params.useCats = 0
        evaluation.params.maxDets = list(counts)
        evaluation.evaluate()
        evaluation.accumulate()
    return np.asarray(evaluation.eval["recall"][:, 0])


@pytest.mark.parametrize("seed", range(4))
def test_recall_equals_that_of_pycocotools(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)

    def boxes(count: int, near: list[Rle] | None = None) -> list[Rle]:
        rles = []
        for number in range(count):
            if near is None:
                x, y = int(random.integers(0, 140)), int(random.integers(0, 60))
                side = (15, 32, 60, 96)[random.integers(4)]
                mask = rectangle(x, y, side, side)
            else:  # a wanted mask, moved a little
                mask = np.roll(
                    decode_mask(near[number % len(near)]), random.integers(-6, 7, 2), (0, 1)
                )
            rles.append(encode_mask(mask))
        return rles

    wanted = [boxes(12), boxes(5)]
    proposals = [boxes(40, near=w) for w in wanted]
    counts = (3, 10, 40)
    expected_TSK = coco_recall(proposals, wanted, counts)
    total_SKT = np.zeros((4, 3, 10))
    total_S = np.zeros(4)
    for found, drawn in zip(proposals, wanted, strict=True):
        area_G = np.array([mask_area(rle) for rle in drawn])
        total_SKT += covered(mask_iou(found, drawn), area_G, counts)
        limits = ((0, 1e9), (0, 1024), (1024, 9216), (9216, 1e9))
        total_S += [((area_G >= low) & (area_G <= high)).sum() for low, high in limits]
    recall_TSK = (total_SKT / np.maximum(total_S, 1)[:, None, None]).transpose(2, 0, 1)
    known = expected_TSK >= 0  # -1 where there is no mask of the size
    assert known.sum() > 60
    assert recall_TSK[known] == pytest.approx(expected_TSK[known])


def test_thresholds_are_cocos() -> None:
    assert IOU_THRESHOLDS.tolist() == pytest.approx([0.5 + 0.05 * i for i in range(10)])


def test_only_masks_with_enough_votes_are_wanted(tmp_path: Path) -> None:
    data = labelled_set(
        tmp_path, [[labelled_mask(SMALL, votes=1), labelled_mask(LARGE, votes=3)]] * 2
    )
    proposer = Proposer("large", lambda _: [encode_mask(LARGE)])
    result = score_proposers([proposer], data, ProposalConfig(min_votes=2))
    assert (result.images, result.wanted) == (2, 2)
    assert result.scores[0].average_recall(10) == 1
    with pytest.raises(BadInputError, match="4 or more people"):
        score_proposers([proposer], data, ProposalConfig(min_votes=4))


def test_resampling_weighs_images(tmp_path: Path) -> None:
    data = labelled_set(tmp_path, [[labelled_mask(LARGE)], [labelled_mask(SMALL)]])
    proposer = Proposer("large", lambda _: [encode_mask(LARGE)])
    (scores,) = score_proposers([proposer], data, ProposalConfig()).scores
    assert scores.average_recall(10) == 0.5
    assert scores.resampled(np.array([0, 0])).average_recall(10) == 1
    assert scores.resampled(np.array([0, 0, 1])).average_recall(10) == pytest.approx(2 / 3)


def test_a_models_masks_and_the_pool_stand_in_one_table(tmp_path: Path) -> None:
    scene = OracleScene(seed=3, height=160, width=240)
    data = labelled_set(tmp_path, [[labelled_mask(MEDIUM)]])
    automatic = AutomaticConfig(points_per_side=4, pred_iou_thresh=0.5, stability_score_thresh=0)
    seen: list[tuple[str, int]] = []
    result = evaluate_proposals(
        OracleSegmenter(scene),
        data,
        ProposalConfig(automatic=automatic, pool=PoolConfig(scales=(100,))),
        lambda path, masks: seen.append((path, masks)),
        name="oracle",
    )
    assert [scores.method for scores in result.scores] == ["oracle", "felzenszwalb pool"]
    assert ("felzenszwalb pool", "masks per image", 1.0) in result.rows()  # the photo is grey
    assert result.scores[0].masks_per_image >= 1
    assert seen == [(data[0].uri, 1)]


def test_masks_are_ranked_by_predicted_iou(tmp_path: Path) -> None:
    scene = OracleScene(seed=3)
    config = AutomaticConfig(points_per_side=4, pred_iou_thresh=0.5, stability_score_thresh=0)
    masks = generate_masks(OracleSegmenter(scene), scene.image_HWC3, config)
    proposed = automatic_proposer(OracleSegmenter(scene), config).propose(scene.image_HWC3)
    predicted = {mask.rle.counts: mask.predicted_iou for mask in masks}
    ranked = [predicted[rle.counts] for rle in proposed]
    assert len(ranked) == len(masks) > 3
    assert ranked == sorted(ranked, reverse=True)


def test_a_model_is_asked_at_its_own_thresholds_unless_told_otherwise(tmp_path: Path) -> None:
    data = labelled_set(tmp_path, [[labelled_mask(MEDIUM)]])
    with pytest.raises(BadInputError, match="recommends no thresholds"):
        evaluate_proposals(OracleSegmenter(OracleScene()), data, ProposalConfig())
    result = evaluate_proposals(small_sam(SMALL_COMPACT), data, ProposalConfig())
    assert 0 <= result.scores[0].average_recall(1000) <= 1


def test_the_pool_holds_the_plain_areas_of_an_image_large_ones_first() -> None:
    image = np.full((160, 240, 3), 30, dtype=np.uint8)
    image[LARGE] = (200, 60, 60)
    image[MEDIUM] = (60, 200, 60)
    pool = felzenszwalb_pool(image)
    areas = [mask_area(rle) for rle in pool]
    assert areas == sorted(areas, reverse=True)
    wanted = [encode_mask(LARGE), encode_mask(MEDIUM)]
    assert (mask_iou(list(pool), wanted).max(axis=0) > 0.8).all()


def test_the_pool_has_no_near_duplicates_and_the_images_size() -> None:
    scene = OracleScene(seed=5, height=120, width=180)
    pool = list(felzenszwalb_pool(scene.image_HWC3, PoolConfig(long_side_px=90)))
    assert {(rle.height, rle.width) for rle in pool} == {(120, 180)}
    iou_NN = mask_iou(pool, pool)
    np.fill_diagonal(iou_NN, 0)
    assert iou_NN.max() <= 0.9
    assert pool_proposer().propose(scene.image_HWC3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ProposalConfig(counts=()), "ascending"),
        (lambda: ProposalConfig(counts=(10, 10)), "ascending"),
        (lambda: ProposalConfig(counts=(100, 10)), "ascending"),
        (lambda: ProposalConfig(min_votes=0), "1 or more"),
        (lambda: ProposalConfig(max_images=0), "1 or more"),
        (lambda: PoolConfig(scales=()), "at least one scale"),
    ],
)
def test_settings_out_of_range_are_refused(make: object, words: str) -> None:
    assert callable(make)
    with pytest.raises(BadInputError, match=words):
        make()


def test_asking_for_a_count_that_was_not_made_is_an_error(tmp_path: Path) -> None:
    scores = scores_of(tmp_path, [SMALL], [labelled_mask(SMALL)])
    with pytest.raises(BadInputError, match="got 100"):
        scores.average_recall(100)
