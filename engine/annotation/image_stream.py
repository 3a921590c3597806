"""The pixels of a campaign's images, one after another, read ahead of whoever needs them.

    for image, pixels in read_images(campaign_images(db, campaign_id), limits):
        if isinstance(pixels, SkippedImage): ...

An image that cannot be used comes with the reason instead of pixels, and stops nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from engine.annotation.records import CampaignImage
from engine.errors import ImageError
from engine.images import (
    ImageLimits,
    content_id,
    decode_image,
    read_ahead,
    read_image_bytes,
    reading_depth,
)
from engine.records import SkippedImage

__all__ = ["read_images"]

_READ_AHEAD_BYTES = 512 * 1024 * 1024


def read_images(
    images: Sequence[CampaignImage], limits: ImageLimits
) -> Iterator[tuple[CampaignImage, NDArray[np.uint8] | SkippedImage]]:
    """Yield each image with its pixels (H, W, 3) RGB, or with why it cannot be used.

    Args:
        images: in this order.
        limits: what is too large to be decoded.
    """
    return read_ahead(
        images,
        partial(_read, limits=limits),
        depth=reading_depth(image.uri for image in images),
        size_bytes=lambda image: 2 * 3 * image.width * image.height,  # the file is there too
        budget_bytes=_READ_AHEAD_BYTES,
    )


def _read(image: CampaignImage, limits: ImageLimits) -> NDArray[np.uint8] | SkippedImage:
    try:
        data = read_image_bytes(image.uri, limits)
        if content_id(data)[0] != image.image_id:
            raise ImageError("changed", "the file is not the one that was ingested; ingest it anew")
        pixels = decode_image(data, limits)
        if pixels.shape[:2] != (image.height, image.width):
            raise ImageError(
                "changed",
                f"the image has {pixels.shape[1]} x {pixels.shape[0]} pixels, the campaign says "
                f"{image.width} x {image.height}",
            )
        return pixels
    except ImageError as error:
        return SkippedImage(image.uri, error.reason, str(error))
