"""Image files on their way into an export.

    photo = load_photo(image, "copy", limits)

A file is copied byte for byte, so that it keeps its identity, where every reader sees in it what
the masks were drawn on. Many readers ignore EXIF orientation and take another frame of a GIF:
such files are decoded and written anew, upright.
"""

from __future__ import annotations

from engine.dataset.exports.protocol import ExportImage, ImageMode, Photo
from engine.errors import BadInputError, ImageError, TransientError
from engine.images import (
    ImageLimits,
    content_id,
    decode_image,
    encode_jpeg,
    encode_png,
    probe_image,
    read_image_bytes,
)
from engine.objects import is_remote

__all__ = ["load_photo"]

_SUFFIXES = {"jpeg": "jpg", "tiff": "tif"}
_JPEG_QUALITY = 95


def load_photo(image: ExportImage, mode: ImageMode, limits: ImageLimits) -> Photo | None:
    """Read an image's file as it goes into the export; None for ``"none"``.

    Args:
        image: the image.
        mode: ``"copy"`` or ``"jpeg"``: whatever is no JPEG becomes one.
        limits: what is too large to be read.

    Raises:
        ImageError: a file that is missing, damaged, or not the one that was ingested.
        TransientError: its bucket does not answer.
    """
    if mode == "none":
        return None
    try:
        data = read_image_bytes(image.uri, limits)
    except BadInputError as error:
        raise ImageError("unsupported-address", str(error)) from error
    except ImageError as error:
        # Dead web addresses are a fact of life. A bucket that does not answer comes back, and what
        # is left out of an export once is left out for good.
        if error.reason == "unreachable" and is_remote(image.uri):
            raise TransientError(f"{error}; the same command goes on with the export") from error
        raise
    if content_id(data)[1] != image.sha256:
        raise ImageError(
            "changed", f"{image.uri} is not the file that was masked: its content has changed"
        )
    info = probe_image(data, limits)
    upright = info.orientation == 1 and info.format != "gif"
    if upright and (mode == "copy" or info.format == "jpeg"):
        return Photo(data, _SUFFIXES.get(info.format, info.format))
    pixels_HWC3 = decode_image(data, limits)
    if mode == "copy" and info.format != "jpeg":
        return Photo(encode_png(pixels_HWC3), "png")
    try:
        return Photo(encode_jpeg(pixels_HWC3, _JPEG_QUALITY), "jpg")
    except BadInputError as error:
        raise ImageError("too-large", f"{image.uri} cannot be a JPEG: {error}") from error
