"""The timing model, the simulated clock, and brush strokes as simulated people draw them."""

from __future__ import annotations

import numpy as np
import pytest

from engine.annotation.client_values import DecodedMasks
from engine.annotation.records import BoxPrompt, PointPrompt
from engine.annotation.simulation.answers import (
    anchored,
    candidates,
    logits_of_mask,
    mask_from_logits,
    overlap,
)
from engine.annotation.simulation.strokes import mending_stroke, stroke_mask
from engine.annotation.simulation.timing import Pace, SimulatedClock, TimeIsUpError, Timing
from engine.errors import BadInputError
from model.preprocess import input_frame


def disc(height: int, width: int, x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width] + 0.5
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)


def test_a_seed_gives_the_same_times_and_their_mean_is_the_stated_one() -> None:
    first, again = (Pace(Timing(spread_of_people=0), np.random.default_rng(1)) for _ in range(2))
    clicks = [first.seconds("click") for _ in range(2000)]
    assert clicks == [again.seconds("click") for _ in range(2000)]
    assert np.mean(clicks) == pytest.approx(Timing().click, rel=0.03)
    assert np.median(clicks) < np.mean(clicks)


def test_longer_strokes_take_longer() -> None:
    pace = Pace(Timing(spread=0, spread_of_people=0), np.random.default_rng(0))
    assert pace.stroke_seconds(1, 38) == pytest.approx(Timing().click + 0.9 + 0.16)
    assert pace.stroke_seconds(3, 380) > pace.stroke_seconds(1, 38)


def test_people_differ_in_speed_but_each_keeps_their_own() -> None:
    means = [
        np.mean([pace.seconds("click") for _ in range(300)])
        for pace in (Pace(Timing(), np.random.default_rng(seed)) for seed in range(40))
    ]
    assert 0.15 < np.std(np.log(means)) < 0.4


def test_at_speed_zero_time_passes_without_waiting() -> None:
    clock = SimulatedClock(start_ms=1_000)
    clock.spend(3600)
    with clock.waiting(iter([0.0, 5.0]).__next__):
        pass
    assert clock.now_ms == 3_601_000


def test_waiting_for_the_service_counts_where_time_is_real() -> None:
    clock = SimulatedClock(start_ms=0, speed=1e6)
    clock.spend(2)
    with clock.waiting(iter([0.0, 5.0]).__next__):
        pass
    assert clock.now_ms == 7_000


def test_a_person_stops_when_their_time_is_up() -> None:
    clock = SimulatedClock(0, working_seconds=10)
    clock.spend(9)
    with pytest.raises(TimeIsUpError):
        clock.spend(2)


@pytest.mark.parametrize("speed", [-1, float("nan")])
def test_time_does_not_run_backwards(speed: float) -> None:
    with pytest.raises(BadInputError, match="speed of 0 or more"):
        SimulatedClock(0, speed)


def test_timing_must_be_seconds() -> None:
    with pytest.raises(BadInputError, match="click must be 0 or more"):
        Timing(click=-1)


def test_a_stroke_of_one_point_is_a_disc_and_a_line_is_a_capsule() -> None:
    dot = stroke_mask(np.array([[20.0, 15.0]]), 6, (40, 50))
    assert (dot == disc(40, 50, 20, 15, 6)).all()
    line = stroke_mask(np.array([[10.0, 15.0], [30.0, 15.0]]), 4, (40, 50))
    swept = np.any([disc(40, 50, x, 15, 4) for x in np.linspace(10, 30, 400)], axis=0)
    assert (line == swept).all()


def test_a_mask_prompt_comes_with_a_click_inside_unless_there_is_one() -> None:
    frame = input_frame((120, 160), 512, 32)
    size = (frame.padded_size[0] // 4, frame.padded_size[1] // 4)
    logits = logits_of_mask(disc(120, 160, 50, 60, 30), frame, size)
    beside = PointPrompt(110.5, 60.5, 0)
    (anchor, *rest) = anchored([beside], logits, frame)
    assert rest == [beside]
    assert isinstance(anchor, PointPrompt)
    assert np.hypot(anchor.x - 50, anchor.y - 60) < 2
    assert anchor.label == 1
    assert logits.max() > 0  # the prompt itself is left as it was
    (away, _) = anchored([PointPrompt(50.0, 60.0, 0)], logits, frame)
    assert isinstance(away, PointPrompt)
    assert np.hypot(away.x - 50, away.y - 60) > 8
    for prompts in ([beside, PointPrompt(40.0, 60.0, 1)], [BoxPrompt(20, 30, 80, 90)]):
        assert anchored(prompts, logits, frame) == tuple(prompts)
    assert anchored([beside], None, frame) == (beside,)


def test_strokes_outside_the_image_paint_nothing() -> None:
    assert not stroke_mask(np.array([[-30.0, -30.0], [-20.0, -40.0]]), 5, (40, 50)).any()


def test_the_thickest_mistake_is_mended_first_with_the_right_tool() -> None:
    wanted = disc(80, 120, 40, 40, 25)
    missing = wanted & ~disc(80, 120, 50, 40, 12)
    stroke = mending_stroke(wanted, missing)
    assert stroke is not None
    assert stroke.mode == "brush"
    assert overlap(stroke.apply(missing), wanted) > overlap(missing, wanted) + 0.05
    spilled = wanted | disc(80, 120, 100, 40, 12)
    stroke = mending_stroke(wanted, spilled)
    assert stroke is not None
    assert stroke.mode == "eraser"
    assert overlap(stroke.apply(spilled), wanted) > overlap(spilled, wanted) + 0.05
    assert mending_stroke(wanted, wanted) is None


def test_strokes_follow_a_long_mistake() -> None:
    wanted = np.zeros((60, 200), dtype=np.bool_)
    wanted[20:40, 10:190] = True
    answer = wanted.copy()
    answer[25:40, 10:190] = False
    stroke = mending_stroke(wanted, answer)
    assert stroke is not None
    assert len(stroke.points_P2) > 5
    assert stroke.length_px > 100
    assert overlap(stroke.apply(answer), wanted) > overlap(answer, wanted) + 0.4
    assert stroke.pieces <= 3


def test_the_trusted_mask_comes_first_and_several_prompts_trust_mask_0() -> None:
    frame = input_frame((64, 96), 96, 32)
    logits = np.full((4, 16, 24), -5, np.float32)
    for token in range(4):
        logits[token, 2 : 4 + 3 * token, 3:9] = 5
    answer = DecodedMasks(np.array([0.2, 0.5, 0.9, 0.7], np.float32), logits)
    single = candidates(answer, frame, several_prompts=False)
    assert [round(shown.predicted_iou, 3) for shown in single] == [0.9, 0.7, 0.5]
    several = candidates(answer, frame, several_prompts=True)
    assert [round(shown.predicted_iou, 3) for shown in several] == [0.2, 0.9, 0.7, 0.5]
    assert single[0].mask_HW.shape == (64, 96)
    with pytest.raises(BadInputError, match="4 scores and 4 masks"):
        DecodedMasks(np.zeros(3, np.float32), logits)


def test_strokes_go_around_a_ring() -> None:
    wanted, answer = disc(120, 120, 60, 60, 30), disc(120, 120, 60, 60, 42)
    stroke = mending_stroke(wanted, answer)
    assert stroke is not None
    assert stroke.mode == "eraser"
    assert overlap(stroke.apply(answer), wanted) > overlap(answer, wanted) + 0.25
    assert stroke.pieces >= 6


@pytest.mark.parametrize("size", [(90, 131), (480, 320), (33, 64)])
def test_a_mask_survives_the_way_to_logits_and_back(size: tuple[int, int]) -> None:
    frame = input_frame(size, 512, 32)
    mask = disc(*size, size[1] * 0.4, size[0] * 0.6, min(size) * 0.3)
    low = (frame.padded_size[0] // 4, frame.padded_size[1] // 4)
    logits = logits_of_mask(mask, frame, low)
    assert logits.shape == low
    assert overlap(mask_from_logits(logits, frame), mask) > 0.97
    inside = frame.input_size[0] // 4, frame.input_size[1] // 4
    share = (logits[: inside[0], : inside[1]].mean() / 8 + 1) / 2
    assert share == pytest.approx(mask.mean(), abs=0.01)
    assert logits.min() == pytest.approx(-8, abs=0.01)
    assert logits.max() == pytest.approx(8, abs=0.01)
