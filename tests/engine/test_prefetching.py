"""Reading ahead: in order, bounded by number and by bytes, errors at their own item."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from engine.errors import BadInputError
from engine.images import read_ahead, reading_depth

WAIT = 10.0  # seconds until a test that hangs fails


def ahead(
    items: list[int],
    read: Callable[[int], int],
    *,
    depth: int = 4,
    size: Callable[[int], int] = lambda item: 1,
    budget: int = 10**9,
) -> Iterator[tuple[int, int]]:
    return read_ahead(items, read, depth=depth, size_bytes=size, budget_bytes=budget)


class Gate:
    """A reader that lets the test see what has begun and decide when it ends."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.changed = threading.Condition()
        self.open = threading.Event()

    def __call__(self, item: int) -> int:
        with self.changed:
            self.begun.append(item)
            self.changed.notify_all()
        assert self.open.wait(WAIT)
        return item

    def wait_until_begun(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.begun) >= count, WAIT)


def test_results_come_in_order_however_long_each_takes() -> None:
    last_is_read = threading.Event()

    def read(item: int) -> int:
        if item == 3:
            last_is_read.set()
        elif item == 0:
            assert last_is_read.wait(WAIT)
        return item * item

    assert list(ahead([0, 1, 2, 3], read)) == [(0, 0), (1, 1), (2, 4), (3, 9)]


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_than_the_depth_is_read_beside_the_consumer(depth: int) -> None:
    gate = Gate()
    gate.open.set()
    results = ahead(list(range(20)), gate, depth=depth)
    next(results)
    gate.wait_until_begun(1 + depth)
    next(results)
    gate.wait_until_begun(2 + depth)
    results.close()  # type: ignore[attr-defined]  # a generator
    assert sorted(gate.begun) == list(range(2 + depth))


def test_bytes_bound_what_is_held_with_the_consumers_item() -> None:
    gate = Gate()
    gate.open.set()
    results = ahead([40, 40, 40, 40], gate, depth=4, size=lambda item: item, budget=100)
    next(results)
    gate.wait_until_begun(2)
    next(results)
    gate.wait_until_begun(3)
    assert len(gate.begun) == 3
    assert len(list(results)) == 2


def test_an_item_over_the_budget_is_read_alone() -> None:
    held = 0
    most = 0
    lock = threading.Lock()

    def read(item: int) -> int:
        nonlocal held, most
        with lock:
            held += item
            most = max(most, held)
        return item

    for item, _ in ahead([500, 60, 500, 10], read, size=lambda item: item, budget=100):
        with lock:
            held -= item
    assert most == 500


def test_an_error_comes_at_its_items_turn() -> None:
    def read(item: int) -> int:
        if item == 2:
            raise OSError("broken")
        return item

    results = ahead([0, 1, 2, 3], read)
    assert [next(results), next(results)] == [(0, 0), (1, 1)]
    with pytest.raises(OSError, match="broken"):
        next(results)


def test_a_consumer_that_stops_waits_for_nobody() -> None:
    gate = Gate()
    results = ahead(list(range(50)), lambda item: item if item == 0 else gate(item), depth=3)
    next(results)
    gate.wait_until_begun(3)
    results.close()  # type: ignore[attr-defined]  # a generator
    assert len(gate.begun) == 3
    gate.open.set()


def test_nothing_to_read_yields_nothing() -> None:
    assert list(ahead([], lambda item: item)) == []


def test_a_depth_below_one_is_refused() -> None:
    with pytest.raises(BadInputError, match="depth of 0"):
        ahead([], lambda item: item, depth=0)


def test_networks_are_read_further_ahead_than_folders() -> None:
    local = reading_depth(["/photos/a.jpg", "file:///photos/b.jpg"])
    assert 1 <= local < reading_depth(["/photos/a.jpg", "s3://bucket/b.jpg"])
    assert reading_depth(["https://example.org/a.jpg"]) == reading_depth(["s3://bucket/b.jpg"])
