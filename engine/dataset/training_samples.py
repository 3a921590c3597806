"""Training batches from labelled images, endless and in an order fixed by a seed.

>>> data = CocoMasks.load(Path("annotations.json"))
>>> batches = prefetch(training_batches([data], SampleConfig(), seed=0))

Batch number n depends on the seed and on n alone: a training that continues at step n, and any
number of threads and processes that prepare batches, see the same ones. A photo that cannot be used
is replaced by the next one of its set, and recorded.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from engine.dataset.labelled_sets import CocoMasks, LabelledImage, LabelledMask, LabelledSet
from engine.dataset.sample_cutting import Sample, SampleConfig, cut_sample
from engine.dataset.synthetic_samples import scene_sample
from engine.errors import BadInputError, ImageError, InvalidMaskError
from engine.records import SkippedImage
from model import TrainBatch

__all__ = [
    "BatchMaker",
    "BatchPlan",
    "CocoMasks",
    "LabelledImage",
    "LabelledMask",
    "SampleConfig",
    "cut_sample",
    "prefetch",
    "training_batches",
]

logger = logging.getLogger(__name__)

CACHE_BYTES = 2**30
_TRIES_PER_IMAGE = 50
_IMAGES_TRIED = 1000

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """All that decides what is in a batch.

    Attributes:
        sources: images with masks.
        config: how samples are cut.
        seed: of order and chance.
        shares: how often each source is seen, relative to the others; without them every image is
            seen equally often.
        part: this process's number in a group of processes.
        parts: how many processes there are; together they see every image equally often.
    """

    sources: tuple[LabelledSet, ...]
    config: SampleConfig
    seed: int
    part: int = 0
    parts: int = 1
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not sum(map(len, self.sources)):
            names = ", ".join(source.name for source in self.sources) or "no data set"
            raise BadInputError(f"there is no image with masks to train on in {names}")
        if self.shares and len(self.shares) != len(self.sources):
            raise BadInputError(
                f"expected a share for each of {len(self.sources)} sources, got {self.shares}"
            )
        if not 0 <= self.part < self.parts:
            raise BadInputError(f"part {self.part} of {self.parts} parts")


class BatchMaker:
    """Makes the batches of a plan by number, in any order; keeps decoded photos for the next time.

    Attributes:
        skipped: photos that could not be used, by address.
    """

    def __init__(self, plan: BatchPlan, cache_bytes: int = CACHE_BYTES) -> None:
        self._plan = plan
        self._ends = np.cumsum([len(source) for source in plan.sources])
        self._cache = _PhotoCache(cache_bytes)
        self._broken: set[int] = set()
        self.skipped: dict[str, SkippedImage] = {}

    def make(self, number: int) -> TrainBatch:
        """Return batch `number`.

        Raises:
            BadInputError: hardly any photo can be used.
            WorkspaceError: the masks cannot be read.
        """
        joint = number * self._plan.parts + self._plan.part
        places = range(self._plan.config.images_per_batch)
        return _batch([self._sample(joint, place) for place in places])

    def _sample(self, batch: int, place: int) -> Sample:
        plan, total = self._plan, int(self._ends[-1])
        chance = np.random.default_rng([plan.seed, batch, place])
        if chance.random() < plan.config.scene_probability:
            return scene_sample(plan.config, chance)
        if plan.shares:
            first = self._draw_by_share(chance)
        else:
            epoch, position = divmod(batch * plan.config.images_per_batch + place, total)
            first = int(_order(plan.seed, epoch, total)[position])
        for attempt in range(min(total, _IMAGES_TRIED)):
            # Numbers from 1: numpy fills a short seed up with zeros, so 0 is the draw above.
            random = np.random.default_rng([plan.seed, batch, place, attempt + 1])
            sample = self._try((first + attempt) % total, random)
            if sample is not None:
                return sample
        example = next(iter(self.skipped.values()))
        raise BadInputError(
            f"{attempt + 1} photos in a row cannot be used, for example {example.uri}: "
            f"{example.message}; check that the photos are where the annotations say"
        )

    def _draw_by_share(self, random: np.random.Generator) -> int:
        counts = [len(source) for source in self._plan.sources]
        shares = np.array(self._plan.shares) * np.array([count > 0 for count in counts])
        source = int(random.choice(len(counts), p=shares / shares.sum()))
        return int(self._ends[source] - counts[source] + random.integers(counts[source]))

    def _try(self, index: int, random: np.random.Generator) -> Sample | None:
        if index in self._broken:
            return None
        uri = f"image {index}"
        try:
            image = self._image(index)
            uri = image.uri
            for _ in range(_TRIES_PER_IMAGE if image.masks else 0):
                # A crop can miss all masks; another one will not.
                sample = cut_sample(
                    image, lambda: self._pixels(index, image), self._plan.config, random
                )
                if sample is not None:
                    return sample
            reason, message = "no-mask-shown", "its masks are too small or too large to ask for"
        except ImageError as error:
            reason, message = error.reason, str(error)
        except InvalidMaskError as error:
            reason, message = "invalid-mask", str(error)
        if reason != "no-mask-shown":
            self._broken.add(index)
        if uri not in self.skipped:
            logger.warning("%s is left out of training (%s): %s", uri, reason, message)
            self.skipped[uri] = SkippedImage(uri, reason, message)
        return None

    def _image(self, index: int) -> LabelledImage:
        cached = self._cache.get(index)
        if cached is not None:
            return cached[0]
        source = int(np.searchsorted(self._ends, index, "right"))
        before = int(self._ends[source - 1]) if source else 0
        return self._plan.sources[source][index - before]

    def _pixels(self, index: int, image: LabelledImage) -> NDArray[np.uint8]:
        cached = self._cache.get(index)
        if cached is None:
            cached = image, image.read()
            self._cache.put(index, *cached)
        return cached[1]


def _batch(samples: Sequence[Sample]) -> TrainBatch:
    owners = [place for place, sample in enumerate(samples) for _ in sample.masks_MSS]
    centres = [s.centres_M2 for s in samples if s.centres_M2 is not None]
    boundaries = [s.boundaries_ss for s in samples if s.boundaries_ss is not None]
    return TrainBatch(
        torch.stack([sample.image_SS3 for sample in samples]),
        torch.cat([sample.masks_MSS for sample in samples]),
        torch.tensor(owners),
        torch.cat(centres) if centres else None,
        torch.stack(boundaries) if boundaries else None,
    )


class _PhotoCache:
    """Photos with their masks, the least recently used forgotten first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._kept: OrderedDict[int, tuple[LabelledImage, NDArray[np.uint8]]] = OrderedDict()

    def get(self, index: int) -> tuple[LabelledImage, NDArray[np.uint8]] | None:
        if index in self._kept:
            self._kept.move_to_end(index)
        return self._kept.get(index)

    def put(self, index: int, image: LabelledImage, pixels_HWC3: NDArray[np.uint8]) -> None:
        self._kept[index] = image, pixels_HWC3
        self._bytes += pixels_HWC3.nbytes
        while self._bytes > self._max_bytes:
            _, (_, forgotten) = self._kept.popitem(last=False)
            self._bytes -= forgotten.nbytes


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, total: int) -> NDArray[np.int64]:
    # Five words, for numpy fills shorter seeds up with zeros: no sample draws these numbers.
    return np.random.default_rng([seed, epoch, 0, 0, 1]).permutation(total)


def training_batches(
    sources: Sequence[LabelledSet],
    config: SampleConfig,
    seed: int,
    start: int = 0,
    *,
    part: int = 0,
    parts: int = 1,
    shares: Sequence[float] = (),
) -> Iterator[TrainBatch]:
    """Yield batches for ever, every image equally often, in an order fixed by `seed`.

    Args:
        sources: images with masks.
        config: how samples are cut.
        seed: batch number i depends on it and on i alone.
        start: number of the first batch; a resumed training asks for the rest.
        part: this process's number in a group of processes.
        parts: how many processes there are.
        shares: how often each source is seen; see `BatchPlan`.

    Raises:
        BadInputError: no image with masks, or hardly any that can be used.
    """
    plan = BatchPlan(
        sources=tuple(sources),
        config=config,
        seed=seed,
        part=part,
        parts=parts,
        shares=tuple(shares),
    )
    maker = BatchMaker(plan)
    return (maker.make(number) for number in count(start))


def prefetch(batches: Iterator[T], depth: int = 4) -> Generator[T, None, None]:
    """Prepare batches in a thread while the model computes; an error there is raised here."""
    ready: queue.Queue[T | BaseException] = queue.Queue(depth)
    stopped = threading.Event()

    def hand_over(item: T | BaseException) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for batch in batches:
                if not hand_over(batch):
                    return
        except BaseException as error:
            hand_over(error)

    threading.Thread(target=work, name="training-samples", daemon=True).start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
