"""Encode the crops of an image: one by one on a processor, several at once on an accelerator.

    for crop, embedding in zip(crops, encode_crops(sam, image_HWC3, crops), strict=True):
        ...

One crop does not fill a large accelerator, and a processor gains nothing from a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from engine.automatic.crops import Crop
from engine.automatic.worker_process import device_memory_bytes
from model import ImageEmbedding

if TYPE_CHECKING:
    from engine.automatic.generator import Segmenter

_MOST_AT_ONCE = 8
_MEMORY_BYTES_PER_CROP = 16 * 2**30


@runtime_checkable
class EncodesTogether(Protocol):
    """A segmenter that also takes several images at once, as `model.Sam` does."""

    def encode_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[ImageEmbedding]:
        """Encode RGB images or crops."""
        ...


def encode_crops(
    sam: Segmenter, image_HWC3: NDArray[np.uint8], crops: Sequence[Crop]
) -> Iterator[ImageEmbedding]:
    """Yield the embedding of each crop, in their order; encodes as they are asked for."""
    if not crops:
        return
    pixels = [image_HWC3[crop.y0 : crop.y1, crop.x0 : crop.x1] for crop in crops]
    first = sam.encode(pixels[0])
    yield first
    at_once = _crops_at_once(first.features.coarse_BCHW.device)
    if at_once == 1 or not isinstance(sam, EncodesTogether):
        yield from map(sam.encode, pixels[1:])
        return
    for start in range(1, len(pixels), at_once):
        yield from sam.encode_batch(pixels[start : start + at_once])


def _crops_at_once(device: torch.device) -> int:
    """Decide by the memory that the device has, not by what is free: the same in every run."""
    memory = device_memory_bytes(device)
    return 1 if memory is None else min(_MOST_AT_ONCE, max(1, memory // _MEMORY_BYTES_PER_CROP))
