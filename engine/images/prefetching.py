"""Read ahead: the next items are read by threads while the consumer works on the current one.

    for image, pixels in read_ahead(images, read, depth=16, size_bytes=..., budget_bytes=2**29):
        ...

Bounded twice: by the number of items, which hides the waiting for a disk or a network, and by
bytes, which keeps large images from filling the memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from engine.errors import BadInputError

__all__ = ["read_ahead", "reading_depth"]

# What benchmarks found enough to keep one consumer busy (tests/benchmarks/bench_reading.py): a
# folder has no latency to hide, only decoding; a request over the network waits tens of ms.
_LOCAL_DEPTH, _REMOTE_DEPTH = 4, 16

T = TypeVar("T")
R = TypeVar("R")


def reading_depth(uris: Iterable[str]) -> int:
    """Return how many images to read at once: few from folders, many over a network."""
    remote = any("://" in uri and not uri.startswith("file:") for uri in uris)
    return _REMOTE_DEPTH if remote else _LOCAL_DEPTH


def read_ahead(
    items: Iterable[T],
    read: Callable[[T], R],
    *,
    depth: int,
    size_bytes: Callable[[T], int],
    budget_bytes: int,
) -> Iterator[tuple[T, R]]:
    """Yield each item with what `read` returns for it, in order, reading ahead of the consumer.

    Args:
        items: taken only as they are needed.
        read: called in threads. What it raises is raised here, when the item's turn comes.
        depth: items that are being read or wait for the consumer, beside the one it has.
        size_bytes: what an item is expected to occupy from its reading until the consumer is done.
        budget_bytes: for all items together, the consumer's included. An item that alone is larger
            is read when nothing else is there.

    Raises:
        BadInputError: `depth` below 1.
    """
    if depth < 1:
        raise BadInputError(f"got a reading depth of {depth}; expected at least 1")
    return _Window(iter(items), read, depth, size_bytes, budget_bytes).run()


class _Window(Generic[T, R]):
    """The items between the first that the consumer has not finished and the last being read."""

    def __init__(
        self,
        items: Iterator[T],
        read: Callable[[T], R],
        depth: int,
        size_bytes: Callable[[T], int],
        budget_bytes: int,
    ) -> None:
        self._items = ((item, size_bytes(item)) for item in items)
        self._read = read
        self._depth = depth
        self._budget_bytes = budget_bytes
        self._pool = ThreadPoolExecutor(depth, thread_name_prefix="read-ahead")
        self._waiting: deque[tuple[T, int, Future[R]]] = deque()
        self._held_bytes = 0  # of what waits and of what the consumer has
        self._next = next(self._items, None)

    def run(self) -> Iterator[tuple[T, R]]:
        """Yield items with their results."""
        try:
            self._fill()
            while self._waiting:
                item, size, future = self._waiting.popleft()
                result = future.result()
                self._fill()
                yield item, result
                del result  # else it would live on while the next one is waited for
                self._held_bytes -= size
                self._fill()
        finally:  # a consumer that stops early must not wait for items that nobody wants
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _fill(self) -> None:
        while self._next is not None and len(self._waiting) < self._depth:
            item, size = self._next
            if self._held_bytes and self._held_bytes + size > self._budget_bytes:
                return
            self._waiting.append((item, size, self._pool.submit(self._read, item)))
            self._held_bytes += size
            self._next = next(self._items, None)
