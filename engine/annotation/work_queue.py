"""One worker thread that does each thing once, the most urgent first.

    queue = WorkQueue("encoding", limit=100)
    future = queue.submit(key, lambda: encode(image), urgent=True)
    result = future.result(timeout=30)

Whoever asks for what is already waiting or being done joins it.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections.abc import Callable, Collection, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from engine.closing import Closing
from engine.errors import TransientError

__all__ = ["WorkQueue"]

log = logging.getLogger(__name__)

T = TypeVar("T")
_URGENT, _AHEAD = 0, 1


@dataclass(slots=True, eq=False)
class _Job(Generic[T]):
    work: Callable[[], T]
    urgency: int
    askers: list[Future[T]] = field(default_factory=list)


class WorkQueue(Closing, Generic[T]):
    """Work for one thread; close it, or use it as a context manager."""

    def __init__(self, name: str, *, limit: int) -> None:
        """Start the thread.

        Args:
            name: of the thread.
            limit: how many things may wait.
        """
        self._limit = limit
        self._changed = threading.Condition()
        self._jobs: dict[Hashable, _Job[T]] = {}
        self._order: list[tuple[int, int, Hashable]] = []
        self._count = itertools.count()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether work is still being done."""
        return self._thread.is_alive() and not self._closed

    def submit(self, key: Hashable, work: Callable[[], T], *, urgent: bool) -> Future[T]:
        """Ask for something; returns at once.

        Args:
            key: names the thing: equal keys are done once.
            work: does it; what it raises, the future raises.
            urgent: before everything that is not; a thing that waits already moves up.

        Returns:
            A future of the caller's own: cancelling it takes nothing from others.

        Raises:
            TransientError: too much waits already, or the queue is closed.
        """
        future: Future[T] = Future()
        urgency = _URGENT if urgent else _AHEAD
        with self._changed:
            if self._closed:
                raise TransientError("the service is closing; ask again in a moment")
            job = self._jobs.get(key)
            if job is None:
                self._make_room(urgency)
                job = self._jobs[key] = _Job(work, urgency)
                heapq.heappush(self._order, (urgency, next(self._count), key))
            elif urgency < job.urgency:
                job.urgency = urgency
                heapq.heappush(self._order, (urgency, next(self._count), key))
            job.askers.append(future)
            self._changed.notify()
        return future

    def withdraw(self, keys: Collection[Hashable]) -> None:
        """Forget things that wait and are not urgent; whoever asked gets a TransientError."""
        with self._changed:
            for key in keys:
                job = self._jobs.get(key)
                if job is not None and job.urgency == _AHEAD:
                    del self._jobs[key]
                    _fail(job, TransientError("nobody needs it any more; ask again if you do"))
            self._forget_moved()

    def close(self) -> None:
        """Finish what is being done; whoever waits for more gets a TransientError."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _make_room(self, urgency: int) -> None:
        """Drop what was asked for last and is less urgent, or refuse."""
        if len(self._order) < self._limit:
            return
        self._forget_moved()
        if len(self._order) < self._limit:
            return
        last = max(self._order)
        if last[0] <= urgency:
            raise TransientError(f"{self._limit} things wait already; ask again in a moment")
        self._order.remove(last)
        heapq.heapify(self._order)
        dropped = self._jobs.pop(last[2])
        _fail(dropped, TransientError("more urgent work took its place; ask again in a moment"))

    def _forget_moved(self) -> None:
        """Remove the places of things that moved up or were withdrawn."""
        self._order = [item for item in self._order if self._is_current(item)]
        heapq.heapify(self._order)

    def _is_current(self, item: tuple[int, int, Hashable]) -> bool:
        job = self._jobs.get(item[2])
        return job is not None and job.urgency == item[0]

    def _work(self) -> None:
        while (taken := self._take()) is not None:
            key, job = taken
            try:
                result = job.work()
            except Exception as error:  # whatever it is, who waits must hear of it
                log.debug("%s failed", key, exc_info=True)
                self._finish(key)
                _fail(job, error)
            else:
                self._finish(key)
                for asker in job.askers:
                    if asker.set_running_or_notify_cancel():
                        asker.set_result(result)

    def _take(self) -> tuple[Hashable, _Job[T]] | None:
        """Wait for the next thing; None at the end. It stays in `_jobs`, to be joined."""
        with self._changed:
            while True:
                if self._closed:
                    self._fail_all()
                    return None
                while self._order:
                    item = heapq.heappop(self._order)
                    if self._is_current(item):
                        self._jobs[item[2]].urgency = -1  # in work: nothing is more urgent
                        return item[2], self._jobs[item[2]]
                self._changed.wait()

    def _finish(self, key: Hashable) -> None:
        """Nobody joins any more."""
        with self._changed:
            del self._jobs[key]

    def _fail_all(self) -> None:
        for job in self._jobs.values():
            _fail(job, TransientError("the service is closing; ask again in a moment"))
        self._jobs.clear()
        self._order.clear()


def _fail(job: _Job[T], error: Exception) -> None:
    for asker in job.askers:
        if asker.set_running_or_notify_cancel():
            asker.set_exception(error)
