"""Work on parts of an image side by side, each on a thread of its own, with results in order.

    yield from side_by_side(lambda part: prompted(sam, points_P2[part]), parts)

Torch spreads every operation over all threads by itself. For operations on a few prompts, which
take microseconds, most of that is waiting for one another: two threads bring 1.25 times the work of
one. A thread for each part brings nearly twice, and a part has the same bits on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")


def side_by_side(
    work: Callable[[Part], Iterable[Result]], parts: Sequence[Part]
) -> Iterator[Result]:
    """Yield the results of all parts, in order.

    Args:
        work: called in other threads, several at a time, in inference mode.
        parts: more than there are threads, so that all end together.
    """
    threads = min(torch.get_num_threads(), len(parts))
    if threads < 2:
        for part in parts:
            yield from work(part)
        return

    @torch.inference_mode()
    def whole(part: Part) -> list[Result]:
        return list(work(part))

    at_once = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "part", initializer=torch.set_num_threads, initargs=(1,))
    try:
        for results in pool.map(whole, parts):
            yield from results
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(at_once)  # new threads take the number that was set last
