"""The comparison with peers compares what it says, and what stands in for torchvision is exact."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine.automatic import AutomaticConfig
from engine.masks import encode_mask
from model import save_sam
from tests.automatic.oracle_segmenter import paint_scene
from tests.benchmarks.bench_peers import agreement, compare, ratios, table
from tests.benchmarks.peers import Answer, FoundMask, Job, answer, shared_settings
from tests.benchmarks.plausible_weights import PassRates, plausible_sam
from tests.benchmarks.stopwatch import Spent, Stopwatch
from tests.benchmarks.torchvision_stand_in import batched_nms, nms
from tests.model.small_models import SMALL_VIT

# Large enough for masks that are no specks.
SMALL = replace(SMALL_VIT, image_size=256, dim=128, decoder_heads=8)
CHECKOUTS = {
    "public": "MASKWHEEL_SEGMENT_ANYTHING",
    "fast": "MASKWHEEL_SEGMENT_ANYTHING_FAST",
}


@pytest.fixture(scope="module")
def job_and_rates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, PassRates]:
    folder = tmp_path_factory.mktemp("peers")
    image = paint_scene(1, 192, 256, 12)
    sam, rates = plausible_sam(SMALL, image)
    save_sam(sam, folder / "weights.safetensors")
    np.save(folder / "image.npy", image)
    config = AutomaticConfig(points_per_side=4, crop_n_layers=1, min_mask_region_area=30)
    job = Job(
        weights=str(folder / "weights.safetensors"),
        image=str(folder / "image.npy"),
        settings=shared_settings(config),
        threads=1,
        checkouts={
            side: os.environ[name] for side, name in CHECKOUTS.items() if name in os.environ
        },
    )
    return job, rates


def plain_nms(
    boxes_N4: NDArray[np.float32], scores_N: NDArray[np.float32], threshold: float
) -> list[int]:
    """Compare every box with every better one that stays."""
    kept: list[int] = []
    for i in sorted(range(len(scores_N)), key=lambda i: -scores_N[i]):
        x0, y0, x1, y1 = boxes_N4[i]
        for j in kept:
            a0, b0, a1, b1 = boxes_N4[j]
            shared = max(0, min(x1, a1) - max(x0, a0)) * max(0, min(y1, b1) - max(y0, b0))
            together = (x1 - x0) * (y1 - y0) + (a1 - a0) * (b1 - b0) - shared
            if together > 0 and shared / together > threshold:
                break
        else:
            kept.append(i)
    return kept


@pytest.mark.parametrize("count", [0, 1, 60, 1001])  # above 1,000 torchvision goes another way
def test_the_stand_in_suppresses_as_a_plain_loop_does(count: int) -> None:
    rng = np.random.default_rng(count)
    corners = rng.integers(0, 25, (count, 2)).astype(np.float32)
    sides = rng.integers(0, 30, (count, 2)).astype(np.float32)  # some boxes are lines
    boxes = np.concatenate([corners, corners + sides], axis=1)
    scores = rng.permutation(count).astype(np.float32)
    for threshold in (0.3, 0.7):
        wanted = plain_nms(boxes, scores, threshold)
        given = torch.from_numpy(boxes), torch.from_numpy(scores)
        assert nms(*given, threshold).tolist() == wanted
        assert batched_nms(*given, torch.zeros(count), threshold).tolist() == wanted
    assert count < 60 or len(wanted) < count


def test_classes_do_not_suppress_each_other() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 9]])
    scores = torch.tensor([0.5, 0.9, 0.7])
    assert batched_nms(boxes, scores, torch.tensor([0, 1, 1]), 0.5).tolist() == [1, 0]


def test_the_weights_pass_the_shares_that_they_were_fitted_to(
    job_and_rates: tuple[Job, PassRates],
) -> None:
    _, rates = job_and_rates
    assert rates.prompts == pytest.approx(0.82, abs=0.03)
    assert rates.stable == pytest.approx(0.75, abs=0.1)


def test_our_side_says_where_its_time_went(job_and_rates: tuple[Job, PassRates]) -> None:
    given = answer("ours", job_and_rates[0])
    assert len(given.masks) > 5
    assert {"encode", "decode", "rest"} <= set(given.stages)
    assert given.stages["encode"].calls >= 1
    assert given.wall > 0
    assert given.peak_bytes > 1e8


def found(mask: NDArray[np.bool_]) -> FoundMask:
    return FoundMask(rle=encode_mask(mask), bbox_xywh=(0.0, 0.0, 1.0, 1.0), predicted_iou=0.9)


def test_agreement_tells_a_flipped_pixel_from_another_order() -> None:
    left, right = np.zeros((2, 20, 20), dtype=bool)
    left[2:12, 2:12] = True
    right[5:18, 5:18] = True
    nearly = left.copy()
    nearly[2, 2] = False
    wanted = [found(left), found(right)]
    assert agreement(wanted, wanted).same_place == 2
    assert "all 2 identical" in str(agreement(wanted, wanted))
    swapped = agreement(wanted[::-1], wanted)
    assert (swapped.same_place, swapped.same_anywhere, swapped.flipped_pixels) == (0, 2, 0)
    flipped = agreement([found(nearly), found(right)], wanted)
    assert (flipped.same_place, flipped.flipped_pixels, flipped.covered) == (1, 1, 2)
    fewer = agreement(wanted[:1], wanted)
    assert fewer.flipped_pixels == 0
    assert "1 of 1 identical" in str(fewer)


def test_the_table_has_medians_and_ratios_round_by_round() -> None:
    mask = found(np.ones((4, 4), dtype=bool))

    def took(seconds: float, peak: int) -> Answer:
        stages = {
            "encode": Spent(wall=seconds / 2, processor=seconds / 2),
            "decode": Spent(wall=seconds / 4, processor=seconds / 4),
            "rest": Spent(wall=seconds / 4, processor=seconds / 4),
        }
        return Answer(stages=stages, peak_bytes=peak, masks=[mask])

    answers = {
        "ours": [took(1, 10**9), took(2, 10**9), took(4, 10**9)],
        "public": [took(4, 3 * 10**9), took(6, 3 * 10**9), took(20, 3 * 10**9)],
    }
    assert "| ours | 2.0 | 2.0 | 1.0 / 0.5 / 0.5 | 1.00 | all 1 identical" in table(answers)
    assert "takes 4.00 times our wall time, 4.00 times our processor time and 3.00" in "".join(
        ratios(answers)
    )


def test_the_stopwatch_counts_a_stage_without_those_inside_it() -> None:
    now = [0.0]

    class Parts:
        def outer(self) -> None:
            now[0] += 1
            self.inner()
            self.inner()

        def inner(self) -> None:
            now[0] += 10

    parts, clock = Parts(), Stopwatch(lambda: (now[0], 2 * now[0]))
    clock.wrap(parts, "outer", "outer")
    clock.wrap(parts, "inner", "inner")
    with clock.stage("rest"):
        now[0] += 100
        parts.outer()
    assert clock.spent == {
        "rest": Spent(wall=100, processor=200, calls=1),
        "outer": Spent(wall=1, processor=2, calls=1),
        "inner": Spent(wall=20, processor=40, calls=2),
    }
    clock.restore()
    parts.outer()
    assert clock.spent["outer"].calls == 1
    with pytest.raises(AttributeError):
        clock.wrap(parts, "moved", "outer")


@pytest.mark.slow
@pytest.mark.parametrize("side", ["public", "transformers"])
def test_ours_equals_a_peer_in_a_process_of_its_own(
    side: str, job_and_rates: tuple[Job, PassRates], tmp_path: Path
) -> None:
    job, _ = job_and_rates
    if side in CHECKOUTS and side not in job.checkouts:
        pytest.skip(f"no public code; set {CHECKOUTS[side]} to a checkout of it")
    if side == "transformers":  # it has no removal of small regions and no NMS within a crop
        job = replace(job, settings={**job.settings, "min_mask_region_area": 0, "crop_n_layers": 0})
    answers, reasons = compare(job, ["ours", side], 1, tmp_path)
    assert not reasons
    ours, theirs = answers["ours"][0], answers[side][0]
    agreed = agreement(ours.masks, theirs.masks)
    assert len(ours.masks) > 3
    assert agreed.same_place == len(ours.masks) == len(theirs.masks), agreed
    assert agreed.score_difference < 1e-3
    assert [m.point_xy for m in theirs.masks] == [
        m.point_xy if side == "public" else None for m in ours.masks
    ]


@pytest.mark.slow
def test_a_peer_that_fails_is_named_with_its_reason(
    job_and_rates: tuple[Job, PassRates], tmp_path: Path
) -> None:
    job = replace(job_and_rates[0], checkouts={"public": str(tmp_path)})
    answers, reasons = compare(job, ["public"], 1, tmp_path)
    assert not answers
    assert "has no package segment_anything" in reasons["public"]
