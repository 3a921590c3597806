"""Parts on threads of their own: in order, in inference mode, with nothing left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from engine.automatic.config import AutomaticConfig
from engine.automatic.point_grid import layer_point_grids
from engine.automatic.prompting import prompt_on_processor
from engine.automatic.side_by_side import side_by_side
from model import build_sam
from tests.automatic.oracle_segmenter import paint_scene


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Give torch so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order_and_the_first_waits_for_no_later_part(threads: int) -> None:
    later = threading.Event()

    def work(part: int) -> list[str]:
        if part == 0 and threads > 1:
            assert later.wait(60), "the other parts run meanwhile"
        if part > 0:
            later.set()
        return [f"{part}a", f"{part}b"]

    found = list(side_by_side(work, range(5)))
    assert found == [f"{part}{letter}" for part in range(5) for letter in "ab"]
    assert list(side_by_side(work, [])) == []


def test_each_part_has_one_thread_of_torch_and_the_caller_keeps_its_own(threads: int) -> None:
    def work(_: int) -> list[tuple[int, bool]]:
        return [(torch.get_num_threads(), torch.is_inference_mode_enabled())]

    with torch.inference_mode():
        assert set(side_by_side(work, range(6))) == {(1, True)}
    assert torch.get_num_threads() == threads
    seen: list[int] = []
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert seen == [threads], "threads that others start later"


def test_threads_that_others_begin_meanwhile_keep_their_number(threads: int) -> None:
    seen: list[int] = []

    def work(_: int) -> list[int]:
        other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        other.start()
        other.join()
        return [0]

    list(side_by_side(work, range(4)))  # its threads begin here, once
    seen.clear()
    list(side_by_side(work, range(20)))
    assert seen == [threads] * 20


def test_what_runs_ends_before_the_caller_goes_on(threads: int) -> None:
    running = set[int]()

    def work(part: int) -> Iterator[int]:
        running.add(part)
        yield part
        time.sleep(0.05)
        running.remove(part)

    results = side_by_side(work, range(20))
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert running == (set() if threads > 1 else {0})


def test_an_error_ends_it_and_is_told(threads: int) -> None:
    begun: list[int] = []

    def work(part: int) -> list[int]:
        begun.append(part)
        if part == 1:
            raise ValueError("part 1 is broken")
        time.sleep(0.01)  # all of them: seconds, in which the error is noticed
        return [part]

    with pytest.raises(ValueError, match="part 1 is broken"):
        list(side_by_side(work, range(1000)))
    assert len(begun) < 1000, "what was not begun is not begun any more"
    assert torch.get_num_threads() == threads


def test_the_masks_of_an_embedding_are_the_same_on_any_number_of_threads() -> None:
    sam = build_sam("bundled", device="cpu")
    config = AutomaticConfig.recommended(sam)
    embedding = sam.encode(paint_scene(4, 180, 240, 8))
    points_P2 = layer_point_grids(14, 0, 1)[0] * (240, 180)
    before = torch.get_num_threads()
    found: list[list[Any]] = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with torch.inference_mode():
                masks = list(prompt_on_processor(sam, embedding, points_P2, config))
            found.append([(m.prompt, m.predicted_iou, m.measured.stability) for m in masks])
            drawn = [mask.measured.kept.draw() for mask in masks]
            found[-1].append([mask.tobytes() for mask in drawn])
    finally:
        torch.set_num_threads(before)
    assert len(found[0]) > 100
    assert found[0] == found[1] == found[2]
