from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import wait

import pytest

from engine.annotation.work_queue import WorkQueue
from engine.errors import TransientError


class Gate:
    """Work that holds the worker until it is opened."""

    def __init__(self, queue: WorkQueue[str]) -> None:
        self._started, self._open = threading.Event(), threading.Event()
        self.future = queue.submit("gate", self._work, urgent=True)
        assert self._started.wait(10)

    def open(self) -> None:
        self._open.set()

    def _work(self) -> str:
        self._started.set()
        assert self._open.wait(10)
        return "gate"


def noting(done: list[str], name: str) -> Callable[[], str]:
    def work() -> str:
        done.append(name)
        return name

    return work


def test_what_is_urgent_comes_first_and_the_rest_in_the_order_asked() -> None:
    done: list[str] = []
    with WorkQueue[str]("test", limit=10) as queue:
        gate = Gate(queue)
        futures = [
            queue.submit(name, noting(done, name), urgent=name.isupper()) for name in "abCdE"
        ]
        gate.open()
        assert [future.result(10) for future in futures] == list("abCdE")
    assert done == list("CEabd")


def test_a_thing_that_waits_moves_up_when_it_becomes_urgent() -> None:
    done: list[str] = []
    with WorkQueue[str]("test", limit=10) as queue:
        gate = Gate(queue)
        for name in "abc":
            queue.submit(name, noting(done, name), urgent=False)
        moved = queue.submit("c", noting(done, "c again"), urgent=True)
        gate.open()
        assert moved.result(10) == "c"
        queue.submit("end", noting(done, "end"), urgent=False).result(10)
    assert done == ["c", "a", "b", "end"]


def test_who_asks_for_what_is_being_done_joins_it() -> None:
    with WorkQueue[str]("test", limit=10) as queue:
        gate = Gate(queue)
        joined = queue.submit("gate", lambda: "done twice", urgent=False)
        gate.open()
        assert joined.result(10) == gate.future.result(10) == "gate"


def test_what_was_done_is_done_again_when_asked_again() -> None:
    done: list[str] = []
    with WorkQueue[str]("test", limit=10) as queue:
        for _ in range(2):
            queue.submit("a", noting(done, "a"), urgent=False).result(10)
    assert done == ["a", "a"]


def test_an_error_reaches_everyone_who_asked_and_stops_nothing() -> None:
    def fail() -> str:
        raise ValueError("broken")

    with WorkQueue[str]("test", limit=10) as queue:
        gate = Gate(queue)
        asked = [queue.submit("bad", fail, urgent=False) for _ in range(2)]
        gate.open()
        for future in asked:
            with pytest.raises(ValueError, match="broken"):
                future.result(10)
        assert queue.submit("good", lambda: "fine", urgent=False).result(10) == "fine"


def test_cancelling_takes_nothing_from_others() -> None:
    with WorkQueue[str]("test", limit=10) as queue:
        gate = Gate(queue)
        mine, theirs = (queue.submit("a", lambda: "a", urgent=False) for _ in range(2))
        assert mine.cancel()
        gate.open()
        assert theirs.result(10) == "a"


def test_a_full_queue_refuses_what_is_not_urgent_and_drops_it_for_what_is() -> None:
    with WorkQueue[str]("test", limit=2) as queue:
        gate = Gate(queue)
        kept, dropped = (queue.submit(name, lambda: "x", urgent=False) for name in "ab")
        with pytest.raises(TransientError, match="2 things wait already"):
            queue.submit("c", lambda: "c", urgent=False)
        urgent = queue.submit("d", lambda: "d", urgent=True)
        with pytest.raises(TransientError, match="more urgent"):
            dropped.result(10)
        gate.open()
        assert urgent.result(10) == "d"
        assert kept.result(10) == "x"


def test_what_moved_up_does_not_take_two_places() -> None:
    with WorkQueue[str]("test", limit=3) as queue:
        gate = Gate(queue)
        asked = [("a", False), ("a", True), ("b", False), ("b", True), ("c", False)]
        futures = [queue.submit(name, lambda: "x", urgent=urgent) for name, urgent in asked]
        gate.open()
        assert not wait(futures, 10).not_done


def test_closing_finishes_what_is_being_done_and_tells_who_waits_for_more() -> None:
    queue = WorkQueue[str]("test", limit=10)
    gate = Gate(queue)
    waiting = queue.submit("a", lambda: "a", urgent=True)
    closing = threading.Thread(target=queue.close)
    closing.start()
    while queue.alive:
        closing.join(0.001)
    gate.open()
    closing.join(10)
    assert gate.future.result(10) == "gate"
    with pytest.raises(TransientError, match="closing"):
        waiting.result(10)
    with pytest.raises(TransientError, match="closing"):
        queue.submit("b", lambda: "b", urgent=True)
    assert not queue.alive
    queue.close()


def test_what_nobody_needs_any_more_is_withdrawn_unless_somebody_waits_for_it() -> None:
    done: list[str] = []
    with WorkQueue[str]("test", limit=10) as queue:
        gate = Gate(queue)
        waited_for, withdrawn, kept = (
            queue.submit(name, noting(done, name), urgent=name == "a") for name in "abc"
        )
        queue.withdraw(["a", "b", "gate", "unknown"])
        again = queue.submit("b", noting(done, "b again"), urgent=False)
        gate.open()
        assert [one.result(10) for one in (waited_for, kept, again)] == ["a", "c", "b again"]
        with pytest.raises(TransientError, match="nobody needs it any more"):
            withdrawn.result(10)
    assert done == ["a", "c", "b again"]
