"""A release as a torch ``IterableDataset``: shared out to ranks and workers, shuffled by a seed.

>>> data = reader.torch(StreamConfig(seed=0, pixels=True, masks=True))
>>> loader = DataLoader(data, batch_size=8, num_workers=4, collate_fn=crop_and_stack)
>>> for epoch in range(3):
...     data.set_epoch(epoch)
...     for batch in loader: ...

`collate_fn` runs in the workers: what makes samples smaller belongs there. Images near each other
in the order of ids lie in the same row groups, so they are read in pieces of neighbours; the order
of the pieces is shuffled, and a buffer mixes them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from engine.dataset.reader import ReleaseReader
from engine.dataset.released_images import ReleasedImage
from engine.errors import BadInputError, ImageError, InvalidMaskError
from engine.masks import decode_mask

__all__ = ["MaskDataset", "MaskSample", "StreamConfig"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """Which images come, in which order, with what.

    Attributes:
        seed: of the order; None: ordered by image id.
        split: only images that were ingested with this split.
        masked_only: leave out images without masks.
        pixels: decode the images.
        masks: decode the masks.
        piece_images: neighbours that are read together; small ones mix better and read more.
        buffer_images: images that wait in memory to be mixed, in each worker.
        equal_ranks: give all ranks the same number of images, leaving out up to ``ranks - 1``;
            otherwise numbers differ by one, and ranks that wait for each other hang at the end.
        rank: this process's number; None: that of torch.distributed, if it is initialised.
        ranks: how many processes share the release.
    """

    seed: int | None = None
    split: str | None = None
    masked_only: bool = False
    pixels: bool = False
    masks: bool = False
    piece_images: int = 128
    buffer_images: int = 256
    equal_ranks: bool = True
    rank: int | None = None
    ranks: int | None = None

    def __post_init__(self) -> None:
        if self.piece_images < 1 or self.buffer_images < 1:
            raise BadInputError(
                f"got pieces of {self.piece_images} and a buffer of {self.buffer_images} images; "
                "expected at least 1 of each"
            )
        if (self.rank is None) != (self.ranks is None):
            raise BadInputError(f"got rank {self.rank} of {self.ranks} ranks; give both or none")
        if self.rank is not None and self.ranks is not None and not 0 <= self.rank < self.ranks:
            raise BadInputError(f"got rank {self.rank} of {self.ranks} ranks; they count from 0")


@dataclass(frozen=True, slots=True, eq=False)
class MaskSample:
    """One image of the stream.

    Attributes:
        image: its records.
        pixels_HWC3: uint8 RGB; None unless asked for.
        masks_NHW: bool, in the order of ``image.masks``; None unless asked for.
    """

    image: ReleasedImage
    pixels_HWC3: torch.Tensor | None
    masks_NHW: torch.Tensor | None


class MaskDataset(IterableDataset[MaskSample]):
    """The images of a release; every rank and worker gets a part of its own.

    An image that cannot be decoded is left out, with a warning in the log. Which rank and worker
    sees which image, and in which order, depends on the settings, the epoch and their numbers.
    """

    def __init__(self, reader: ReleaseReader, config: StreamConfig | None = None) -> None:
        """Choose the images. With torch.distributed: after its process group is there.

        Raises:
            WorkspaceError: a file of the release that is missing or damaged.
        """
        self._reader, self._config = reader, config or StreamConfig()
        self._rank, self._ranks = _process(self._config)
        self._positions_I = _chosen(reader, self._config)
        # Shared memory, for workers that live on from epoch to epoch.
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int) -> None:
        """Shuffle the next iteration by this number too."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[MaskSample]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        epoch = int(self._epoch)
        for image in self._mixed(epoch, number, self._own(epoch, number, workers)):
            sample = self._sample(image)
            if sample is not None:
                yield sample

    def _own(self, epoch: int, worker: int, workers: int) -> Iterator[NDArray[np.int64]]:
        """Yield this worker's images as positions, each array ascending."""
        config, total = self._config, len(self._positions_I)
        starts = np.arange(0, total, config.piece_images)
        if config.seed is not None:
            starts = np.random.default_rng([config.seed, epoch]).permutation(starts)
        ends = np.minimum(starts + config.piece_images, total)
        if config.equal_ranks:
            total -= total % self._ranks
        first, last = _share(0, total, self._rank, self._ranks)
        first, last = _share(first, last, worker, workers)
        passed = 0
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            # Pieces are cut where the part of a rank or worker ends inside them.
            low, high = max(first - passed, 0), min(last - passed, end - start)
            if low < high:
                yield self._positions_I[start + low : start + high]
            passed += end - start

    def _mixed(
        self, epoch: int, worker: int, pieces: Iterator[NDArray[np.int64]]
    ) -> Iterator[ReleasedImage]:
        config = self._config
        images = (image for piece in pieces for image in self._reader.images_at(piece))
        if config.seed is None:
            yield from images
            return
        draw = np.random.default_rng([config.seed, epoch, self._rank, worker])
        waiting: list[ReleasedImage] = []
        for image in images:
            if len(waiting) < config.buffer_images:
                waiting.append(image)
                continue
            place = int(draw.integers(len(waiting)))
            waiting[place], image = image, waiting[place]
            yield image
        for place in draw.permutation(len(waiting)).tolist():
            yield waiting[place]

    def _sample(self, image: ReleasedImage) -> MaskSample | None:
        try:
            pixels = torch.from_numpy(image.read()) if self._config.pixels else None
            masks = _decoded(image) if self._config.masks else None
        except (ImageError, InvalidMaskError) as error:
            logger.warning("%s is left out: %s", image.record.uri, error)
            return None
        return MaskSample(image, pixels, masks)


def _process(config: StreamConfig) -> tuple[int, int]:
    if config.rank is not None and config.ranks is not None:
        return config.rank, config.ranks
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def _chosen(reader: ReleaseReader, config: StreamConfig) -> NDArray[np.int64]:
    rows = reader.image_rows
    chosen = np.arange(len(rows)) if config.split is None else rows.in_split(config.split)
    if config.masked_only:
        chosen = np.intersect1d(chosen, np.searchsorted(rows.sorted_ids, reader.masked_ids()))
    return chosen


def _share(first: int, last: int, part: int, parts: int) -> tuple[int, int]:
    size = last - first
    return first + size * part // parts, first + size * (part + 1) // parts


def _decoded(image: ReleasedImage) -> torch.Tensor:
    masks_NHW = np.zeros((len(image.masks), image.record.height, image.record.width), np.bool_)
    for place, mask in enumerate(image.masks):
        mask_HW = decode_mask(mask.rle)
        if mask_HW.shape != masks_NHW.shape[1:]:
            raise InvalidMaskError(
                f"mask {image.mask_ids[place]} has {mask_HW.shape} (rows, columns), its image "
                f"{masks_NHW.shape[1:]}"
            )
        masks_NHW[place] = mask_HW
    return torch.from_numpy(masks_NHW)
