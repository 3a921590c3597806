"""Work on parts of an image side by side, each on a thread of its own, with results in order.

    yield from side_by_side(lambda part: prompted(sam, points_P2[part]), parts)

Torch spreads every operation over all threads by itself. For operations on a few prompts, which
take microseconds, most of that is waiting for one another: two threads bring 1.25 times the work of
one. A thread for each part brings 1.25 times that again, and a part has the same bits on any number
of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from threading import Barrier, Lock
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")

_one_pool_begins = Lock()


def side_by_side(
    work: Callable[[Part], Iterable[Result]], parts: Sequence[Part]
) -> Iterator[Result]:
    """Yield the results of all parts, in order.

    Args:
        work: called in other threads, several at a time, in inference mode. Those threads are the
            same for all callers in a process, so that together they use each core once.
        parts: more than there are threads, so that all end together.

    Raises:
        Exception: what `work` raised; parts that were not begun are not begun any more.
    """
    threads = torch.get_num_threads()
    if min(threads, len(parts)) < 2:
        for part in parts:
            yield from work(part)
        return

    @torch.inference_mode()
    def whole(part: Part) -> list[Result]:
        return list(work(part))

    with _one_pool_begins:
        pool = _pool(os.getpid(), threads)
    results = [pool.submit(whole, part) for part in parts]
    try:
        for result in results:
            yield from result.result()
    finally:
        for result in results:
            result.cancel()
        wait(results)


@cache
def _pool(_process: int, threads: int) -> ThreadPoolExecutor:
    """Return threads in which torch does not spread anything further; a fork has none of them."""
    pool = ThreadPoolExecutor(threads, "part", initializer=_keep_to_this_thread)
    all_have_begun = Barrier(threads + 1)
    for _ in range(threads):
        pool.submit(all_have_begun.wait)
    all_have_begun.wait()
    # Threads that others begin take the number that was set last, in whatever thread: they must not
    # take 1. This happens once, as the bits of some operations depend on it.
    torch.set_num_threads(threads)
    return pool


def _keep_to_this_thread() -> None:
    torch.get_num_threads()  # else the first operation would take the common number
    torch.set_num_threads(1)
