"""Many images through one model: it never waits for what the processor alone can do.

    for result in mask_images(images, sam, config, limits, images_at_once=4):
        ...                                    # one per image, in the order of the images

Three things overlap, each bounded: images are read and decoded ahead, few from a folder and many
over a network; several images are masked at once, so that an accelerator works on one while the
processor filters and packs the masks of others; and both go on while the consumer writes. An image
takes the same steps alone or in company, so the results do not depend on any of this.

On CUDA all of them use one stream: who waits for an image's numbers waits while the accelerator
works on the others', and the memory of a step that is over is free for whose step comes next.

On a processor the model itself wants all cores and waits for nobody: images go one by one there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.automatic.config import AutomaticConfig
from engine.automatic.crop_encoding import EncodesTogether
from engine.automatic.generator import Segmenter, generate_masks
from engine.automatic.precision import in_precision
from engine.automatic.worker_process import device_memory_bytes, usable_cores
from engine.dataset.shards import ImageMasks
from engine.errors import ImageError
from engine.images import (
    ImageLimits,
    content_id,
    decode_image,
    read_ahead,
    read_image_bytes,
    reading_depth,
)
from engine.records import ImageRecord, MaskRecord, SkippedImage
from model import ImageEmbedding, Prompts, ScoredPrompts

__all__ = ["best_images_at_once", "mask_images"]

logger = logging.getLogger(__name__)

# Twice: for what is decoded and waits, and for what is being masked.
_READ_AHEAD_BYTES = 512 * 1024 * 1024
_MASKED_AT_ONCE_BYTES = 512 * 1024 * 1024
# More threads than this only wait for each other: Python runs one at a time between array calls.
_MOST_AT_ONCE = 8
# Logits that wait on the device to be measured, twice while they are joined.
_DEVICE_BYTES_PER_IMAGE = 6 * 2**30

Pixels = NDArray[np.uint8]
_Read = tuple[ImageRecord, Pixels | SkippedImage]


def best_images_at_once(device: torch.device) -> int:
    """Return how many images to mask at once with a model on this device."""
    if device.type == "cpu":
        return 1
    memory = device_memory_bytes(device)
    fit = _MOST_AT_ONCE if memory is None else 1 + memory // _DEVICE_BYTES_PER_IMAGE
    return min(_MOST_AT_ONCE, usable_cores() + 1, fit)


def mask_images(
    images: Sequence[ImageRecord],
    sam: Segmenter,
    config: AutomaticConfig,
    limits: ImageLimits,
    *,
    images_at_once: int = 1,
) -> Iterator[ImageMasks]:
    """Yield what each image holds, or why it could not be used, in the order of the images.

    Args:
        images: what to mask.
        sam: the model.
        config: grids, crops and thresholds.
        limits: what is too large to be decoded.
        images_at_once: images between the model and the consumer; 1 takes no threads beside those
            that read. Memory grows with it: an image's pixels, and its masks before they are RLE.
    """
    segmenter = in_precision(sam, config)
    read = read_ahead(
        images,
        partial(_read, limits=limits),
        depth=reading_depth(image.uri for image in images),
        size_bytes=_held_bytes,
        budget_bytes=_READ_AHEAD_BYTES,
    )
    for (image, pixels), masks in _masked(read, segmenter, config, images_at_once):
        if isinstance(pixels, SkippedImage):
            logger.warning("skipped %s (%s): %s", image.uri, pixels.reason, pixels.message)
            yield ImageMasks(image.image_id, skipped=pixels)
        else:
            yield ImageMasks(image.image_id, masks)


def _masked(
    read: Iterable[_Read], sam: Segmenter, config: AutomaticConfig, at_once: int
) -> Iterator[tuple[_Read, list[MaskRecord]]]:
    if at_once == 1:
        return ((one, _masks_of(one, sam, config)) for one in read)
    return read_ahead(
        read,
        partial(_masks_of, sam=_TakingTurns(sam), config=config),
        depth=at_once,
        size_bytes=lambda one: _held_bytes(one[0]),
        budget_bytes=_MASKED_AT_ONCE_BYTES,
    )


def _masks_of(one: _Read, sam: Segmenter, config: AutomaticConfig) -> list[MaskRecord]:
    _, pixels = one
    return [] if isinstance(pixels, SkippedImage) else generate_masks(sam, pixels, config)


class _TakingTurns:
    """A model that many threads ask: the memory of one question at a time is enough."""

    def __init__(self, sam: Segmenter) -> None:
        self._sam = sam
        self._turn = Lock()

    def encode(self, image_HWC3: Pixels) -> ImageEmbedding:
        with self._turn:
            return self._sam.encode(image_HWC3)

    def encode_batch(self, images: Sequence[Pixels]) -> list[ImageEmbedding]:
        with self._turn:
            if isinstance(self._sam, EncodesTogether):
                return self._sam.encode_batch(images)
            return [self._sam.encode(image) for image in images]

    def score(self, embedding: ImageEmbedding, prompts: Prompts) -> ScoredPrompts:
        with self._turn:
            return self._sam.score(embedding, prompts)

    def draw(self, scored: ScoredPrompts, chosen: Tensor) -> Tensor:
        with self._turn:
            return self._sam.draw(scored, chosen)


def _held_bytes(image: ImageRecord) -> int:
    """Bytes of the pixels, twice: while they are decoded the file is there too."""
    return 2 * 3 * image.width * image.height


def _read(image: ImageRecord, limits: ImageLimits) -> Pixels | SkippedImage:
    try:
        data = read_image_bytes(image.uri, limits)
        if content_id(data)[0] != image.image_id:
            raise ImageError("changed", "the file is not the one that was ingested; ingest it anew")
        return decode_image(data, limits)
    except ImageError as error:
        return SkippedImage(image.uri, error.reason, str(error))
