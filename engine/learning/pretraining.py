"""Photos without masks as batches for pre-training and distillation.

    photos = Photos.listed(["photos", "more/*.jpg"])          # or Photos.of_release(workspace, r3)
    pretrain(sam, mae_batches(sam, photos, images_per_batch=64), MaeConfig(), Path("mae.pt"))
    distill(student, teacher, distillation_batches(photos, images_per_batch=4), ...)

A batch depends on its number and the seed alone, so a resumed run sees what an undisturbed one
sees. Photos are read when their turn comes; those that cannot be decoded are skipped and counted,
and the next photo of the epoch takes their place.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from engine.dataset.catalog import Workspace
from engine.dataset.ingest import expand_inputs
from engine.dataset.releases import scan
from engine.errors import BadInputError, ImageError
from engine.images import decode_image, read_image_bytes
from engine.records import Release, SkippedImage
from model import Sam
from model.mae import crop_px

__all__ = [
    "CropConfig",
    "Photos",
    "distillation_batches",
    "image_batches",
    "mae_batches",
]

logger = logging.getLogger(__name__)

_BATCHES_AHEAD = 3
_EPOCHS_REMEMBERED = 2  # reading ahead works on the end of one and the start of the next
_TRIES = 10


@dataclass(frozen=True, slots=True)
class Photos:
    """Photos by address; the pixels stay where they are until asked for.

    Attributes:
        uris: paths and addresses, in a fixed order.
    """

    uris: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.uris:
            raise BadInputError("got no photos to learn from; name folders, globs or a release")

    @classmethod
    def listed(cls, inputs: Sequence[str]) -> Photos:
        """Find the photos that files, folders, globs and lists stand for; see `expand_inputs`.

        Raises:
            BadInputError: an input that does not exist or matches nothing.
        """
        return cls(tuple(image.uri for image in expand_inputs(inputs)))

    @classmethod
    def of_release(cls, workspace: Workspace, release: Release, split: str | None = None) -> Photos:
        """Take all images of a release, with masks or without.

        Args:
            workspace: where the release is; may be closed afterwards.
            release: the state to read.
            split: only the images that were ingested with this split.

        Raises:
            BadInputError: there are none.
        """
        rows = scan(workspace, release, "images", columns=("uri", "split"))
        pairs = zip(rows["uri"].to_pylist(), rows["split"].to_pylist(), strict=True)
        return cls(tuple(sorted(uri for uri, given in pairs if split in (None, given))))


@dataclass(frozen=True, slots=True, kw_only=True)
class CropConfig:
    """How crops are cut: at random places, sizes and proportions, then resized to a square.

    Attributes:
        size_px: side of the crops.
        images_per_batch: crops in a batch, each of another photo.
        area_range: share of the photo that a crop shows, uniform.
        aspect_range: width by height of the part shown, log-uniform.
        flip_probability: share that is mirrored left to right.
    """

    size_px: int = 224
    images_per_batch: int = 32
    area_range: tuple[float, float] = (0.2, 1.0)
    aspect_range: tuple[float, float] = (3 / 4, 4 / 3)
    flip_probability: float = 0.5

    def __post_init__(self) -> None:
        low, high = self.area_range
        if self.size_px < 1 or self.images_per_batch < 1 or not 0 < low <= high <= 1:
            raise BadInputError(
                "expected size_px and images_per_batch of at least 1 and an area_range within "
                f"(0, 1]; got {self.size_px}, {self.images_per_batch}, {self.area_range}"
            )
        if not 0 < self.aspect_range[0] <= self.aspect_range[1]:
            raise BadInputError(f"aspect_range must be above 0 and ascend; got {self.aspect_range}")


def mae_batches(
    sam: Sam,
    photos: Photos,
    images_per_batch: int = 32,
    seed: int = 0,
    on_skip: Callable[[SkippedImage], None] | None = None,
) -> Callable[[int], Iterator[Tensor]]:
    """Return what `model.mae.pretrain` asks for: crops of the size that this encoder takes."""
    config = CropConfig(size_px=crop_px(sam.config), images_per_batch=images_per_batch)
    return lambda start: image_batches(photos, config, seed, start, on_skip)


def distillation_batches(
    photos: Photos,
    size_px: int = 512,
    images_per_batch: int = 4,
    seed: int = 0,
    on_skip: Callable[[SkippedImage], None] | None = None,
) -> Callable[[int], Iterator[Tensor]]:
    """Return what `model.distill.distill` asks for: larger parts of photos, hardly distorted."""
    config = CropConfig(
        size_px=size_px,
        images_per_batch=images_per_batch,
        area_range=(0.35, 1.0),
        aspect_range=(0.9, 1.1),
    )
    return lambda start: image_batches(photos, config, seed, start, on_skip)


def image_batches(
    photos: Photos,
    config: CropConfig,
    seed: int,
    start: int = 0,
    on_skip: Callable[[SkippedImage], None] | None = None,
    *,
    threads: int = 2,
) -> Iterator[Tensor]:
    """Yield batches for ever, every photo equally often, in an order fixed by `seed`.

    Args:
        photos: at least one that can be decoded.
        config: how crops are cut.
        seed: batch number i depends on it and on i alone; processes that train together need
            different ones.
        start: number of the first batch; a resumed run asks for the rest.
        on_skip: called once for every photo that turns out to be unusable.
        threads: that read and decode ahead.

    Yields:
        (B, size, size, 3) uint8 RGB.

    Raises:
        BadInputError: no photo can be used.
    """
    reader = _Reader(photos, config, seed, on_skip)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="photos")
    upcoming: deque[list[Future[Tensor]]] = deque()
    try:
        for number in count(start):
            places = range(number * config.images_per_batch, (number + 1) * config.images_per_batch)
            upcoming.append([pool.submit(reader.crop, place) for place in places])
            if len(upcoming) > _BATCHES_AHEAD:
                yield torch.stack([crop.result() for crop in upcoming.popleft()])
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class _Reader:
    """Cuts the crop of any place in the endless order of photos; used by several threads."""

    def __init__(
        self,
        photos: Photos,
        config: CropConfig,
        seed: int,
        on_skip: Callable[[SkippedImage], None] | None,
    ) -> None:
        self._photos, self._config, self._seed, self._on_skip = photos, config, seed, on_skip
        self._order = lru_cache(_EPOCHS_REMEMBERED)(self._shuffled)
        self._skipped: set[str] = set()
        self._lock = threading.Lock()

    def crop(self, place: int) -> Tensor:
        """Return the crop at a place, of the first usable photo from there on."""
        epoch, position = divmod(place, len(self._photos.uris))
        order = self._order(epoch)
        for step in range(len(order)):
            uri = self._photos.uris[order[(position + step) % len(order)]]
            try:
                image = decode_image(read_image_bytes(uri))
            except ImageError as error:
                self._skip(SkippedImage(uri, error.reason, str(error)))
            except BadInputError as error:
                self._skip(SkippedImage(uri, "unsupported-address", str(error)))
            else:
                random = np.random.default_rng([self._seed, place])
                return random_crop(image, self._config, random)
        raise BadInputError(f"none of {len(self._photos.uris)} photos can be used; see the log")

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self._seed, epoch, 0]).permutation(len(self._photos.uris))

    def _skip(self, skipped: SkippedImage) -> None:
        with self._lock:
            if skipped.uri in self._skipped:
                return
            self._skipped.add(skipped.uri)
            logger.warning(
                "skipped %s (%s); %d of %d photos so far",
                skipped.uri,
                skipped.reason,
                len(self._skipped),
                len(self._photos.uris),
            )
            if self._on_skip:
                self._on_skip(skipped)


def random_crop(
    image_HWC3: NDArray[np.uint8], config: CropConfig, random: np.random.Generator
) -> Tensor:
    """Cut a random part of a photo and resize it: (size, size, 3) uint8."""
    x0, y0, x1, y1 = _crop_box(image_HWC3.shape[1], image_HWC3.shape[0], config, random)
    part = torch.from_numpy(image_HWC3[y0:y1, x0:x1]).permute(2, 0, 1).unsqueeze(0)
    size = (config.size_px, config.size_px)
    resized = F.interpolate(part, size, mode="bilinear", antialias=True)
    if random.random() < config.flip_probability:
        resized = resized.flip(-1)
    return resized[0].permute(1, 2, 0).contiguous()


def _crop_box(
    width: int, height: int, config: CropConfig, random: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draw a box XYXY within width x height; the largest square when nothing fits (panoramas)."""
    low, high = (math.log(ratio) for ratio in config.aspect_range)
    for _ in range(_TRIES):
        area = width * height * random.uniform(*config.area_range)
        aspect = math.exp(random.uniform(low, high))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 1 <= w <= width and 1 <= h <= height:
            break
    else:
        w = h = min(width, height)
    x, y = int(random.integers(width - w + 1)), int(random.integers(height - h + 1))
    return x, y, x + w, y + h
