"""Batches prepared beside the training, in a thread or in processes, with the books kept.

>>> stream = SampleStream(plan, start=step, workers=2)
>>> batch = next(stream)
>>> stream.waited_seconds, stream.skipped

Which batches come, and in which order, does not depend on who prepares them.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Self

import torch
from torch.utils.data import DataLoader, Dataset

from engine.dataset.training_samples import CACHE_BYTES, BatchMaker, BatchPlan, prefetch
from engine.errors import BadInputError, TerminalError, WorkspaceError
from engine.records import SkippedImage
from model import TrainBatch

__all__ = ["SampleStream"]

_AHEAD_PER_WORKER = 2


class SampleStream(Iterator[TrainBatch]):
    """The batches of a plan from number `start` on, without end; close it when done.

    Attributes:
        waited_seconds: time that `next` has kept its caller waiting.
        batches: how many have been given out.
        skipped: photos that could not be used so far, by address.
    """

    def __init__(
        self,
        plan: BatchPlan,
        start: int = 0,
        *,
        workers: int = 0,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """Begin to prepare batches.

        Args:
            plan: what is in them.
            start: number of the first one.
            workers: processes that prepare them; 0: a thread of this one.
            cache_bytes: memory for decoded photos, of all workers together.
        """
        if workers < 0:
            raise BadInputError(f"got {workers} data workers; expected 0 or more")
        self.waited_seconds, self.batches = 0.0, 0
        self.skipped: dict[str, SkippedImage] = {}
        if workers:
            numbered = _NumberedBatches(plan, cache_bytes // workers)
            self._prepared = _in_processes(numbered, start, workers)
        else:
            numbered = _NumberedBatches(plan, cache_bytes)
            self._prepared = prefetch(numbered[number] for number in count(start))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TrainBatch:
        began = time.monotonic()
        prepared = next(self._prepared)
        self.waited_seconds += time.monotonic() - began
        if isinstance(prepared, TerminalError):
            raise prepared
        self.batches += 1
        self.skipped |= {image.uri: image for image in prepared.skipped}
        return prepared.batch

    def close(self) -> None:
        """Stop preparing batches; worker processes end."""
        self._prepared.close()


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    """A batch, and the photos that were found unusable while making it."""

    batch: TrainBatch
    skipped: tuple[SkippedImage, ...]


class _NumberedBatches(Dataset[_Prepared | TerminalError]):
    """The batches of a plan by number; each process makes a maker of its own."""

    def __init__(self, plan: BatchPlan, cache_bytes: int) -> None:
        self._plan, self._cache_bytes = plan, cache_bytes
        self._maker: BatchMaker | None = None

    def __getitem__(self, number: int) -> _Prepared | TerminalError:
        if self._maker is None:
            self._maker = BatchMaker(self._plan, self._cache_bytes)
        told = len(self._maker.skipped)
        try:
            batch = self._maker.make(number)
        except (BadInputError, WorkspaceError) as error:
            return error  # torch would raise it with the worker's traceback as its message
        return _Prepared(batch, tuple(islice(self._maker.skipped.values(), told, None)))


def _in_processes(
    batches: _NumberedBatches, start: int, workers: int
) -> Generator[_Prepared | TerminalError, None, None]:
    loader: DataLoader[_Prepared | TerminalError] = DataLoader(
        batches,
        batch_size=None,
        sampler=count(start),
        num_workers=workers,
        prefetch_factor=_AHEAD_PER_WORKER,
        collate_fn=_unchanged,
        generator=torch.Generator(),  # without it the loader draws from the training's generator
    )
    yield from loader


def _unchanged(prepared: object) -> object:
    return prepared
