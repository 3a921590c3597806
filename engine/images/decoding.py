"""Bytes of any photo to RGB, exact about what failed.

    image_HWC3 = decode_image(read_image_bytes("photos/cat.jpg"))

Which decoder reads what was measured (1500x2250, one core): cv2 decodes a JPEG in 15 ms, Pillow in
40, with equal pixels; but cv2 fills a cut JPEG with grey and says nothing. So cv2 gets only JPEGs
whose end marker was found, in grey or colour; Pillow, which refuses cut data in every format, reads
CMYK JPEGs and all else.

What decoding means here:

- EXIF orientation is applied; a broken EXIF block counts as upright.
- Transparent pixels show white, half-transparent ones are blended with white: the colour that a
  file hides below them does not leak.
- 16-bit samples keep their high byte (``>> 8``); nothing is stretched.
- CMYK is converted without a colour profile; JPEGs are taken as Adobe writes them (inverted).
- Of a TIFF the first page, of an animation the first frame.

What no decoder can tell: samples that were damaged inside a file that is otherwise whole. PNG has
checksums, the other formats do not.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from engine.errors import ImageError
from engine.image_formats import (
    SUPPORTED_FORMATS,
    ImageReason,
    ends_early,
    identify_format,
    image_error,
    jpeg_has_end,
    png_exif,
)
from engine.images.reading import ImageLimits, check_bytes

logger = logging.getLogger(__name__)

_READERS: dict[str, type[ImageFile]] = {
    "jpeg": JpegImageFile,
    "png": PngImageFile,
    "webp": WebPImageFile,
    "tiff": TiffImageFile,
    "gif": GifImageFile,
    "bmp": BmpImageFile,
}
# What Pillow says when a file is sound but of a kind that it does not read.
_PILLOW_SAYS_UNSUPPORTED = (
    "unsupported",
    "unknown pixel mode",
    "unknown photometric",
    "cannot handle",
)

_EXIF_ORIENTATION = 0x0112
_TIFF_IMAGE_WIDTH, _TIFF_IMAGE_LENGTH, _TIFF_NEW_SUBFILE_TYPE = 256, 257, 254

_PNG_BIT_DEPTH_AT = 24


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What an image's header says.

    Attributes:
        width: columns in pixels after EXIF orientation.
        height: rows in pixels after EXIF orientation.
        format: ``"jpeg"``, ``"png"``, ``"webp"``, ``"tiff"``, ``"gif"`` or ``"bmp"``.
        orientation: EXIF's, 1 (stored upright) to 8.
    """

    width: int
    height: int
    format: str
    orientation: int = 1


_DEFAULT_LIMITS = ImageLimits()


def content_id(data: bytes) -> tuple[int, str]:
    """Name an image by its bytes.

    Returns:
        (image id, sha256): the first 63 bits of the digest as a non-negative int63, and the digest
        in hex.
    """
    digest = hashlib.sha256(data).digest()
    return int.from_bytes(digest[:8], "big") >> 1, digest.hex()


def probe_image(data: bytes, limits: ImageLimits = _DEFAULT_LIMITS) -> ImageInfo:
    """Read an image's header; decodes no pixels.

    Raises:
        ImageError: as `decode_image`; damage behind the header is not seen.
    """
    image_format = _identify(data, limits)
    with _decoder_errors_as_image_errors(data, image_format):
        image = _open(data, image_format, limits)
        width, height = _stored_size(image)
        orientation = _orientation(image, data)
        if orientation >= 5:
            width, height = height, width
    return ImageInfo(width=width, height=height, format=image_format, orientation=orientation)


def decode_image(data: bytes, limits: ImageLimits = _DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """Decode an image to RGB, upright, all of it or not at all.

    Args:
        data: the file's bytes; JPEG, PNG, WebP, TIFF, BMP or GIF.
        limits: larger images are refused before a pixel is decoded.

    Returns:
        uint8 (H, W, 3) RGB in [0, 255], C-contiguous and writable; equal for equal bytes. What is
        done with orientation, transparency, 16-bit and CMYK samples is said at the module's head.

    Raises:
        ImageError: with `reason` one of `ImageReason`.
    """
    image_format = _identify(data, limits)
    with _decoder_errors_as_image_errors(data, image_format):
        image = _open(data, image_format, limits)
        orientation = _orientation(image, data)
        if image_format == "jpeg" and not jpeg_has_end(data):
            raise image_error("truncated", "the JPEG ends before its end marker; copy it again")
        if image_format == "jpeg" and image.mode in ("L", "RGB"):
            return _upright(_decode_jpeg(data, image.size), orientation)
        image.load()
        rgb_HWC3 = _pillow_to_rgb(image)
    # Pillow turns TIFFs on its own.
    return rgb_HWC3 if image_format == "tiff" else _upright(rgb_HWC3, orientation)


def _identify(data: bytes, limits: ImageLimits) -> str:
    check_bytes(data, limits)
    return identify_format(data)


@contextmanager
def _decoder_errors_as_image_errors(data: bytes, image_format: str) -> Iterator[None]:
    """Turn what a decoder raises on bad bytes, which may be anything, into an ImageError."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise image_error("too-large", f"Pillow refuses the image: {error}") from error
    except Exception as error:
        reason = _reason_of_failure(str(error).lower(), data, image_format)
        message = f"the {image_format} cannot be decoded ({reason}): {error}"
        raise image_error(reason, message) from error


def _reason_of_failure(said: str, data: bytes, image_format: str) -> ImageReason:
    if any(phrase in said for phrase in _PILLOW_SAYS_UNSUPPORTED):
        return "unsupported"
    if "truncated" in said or ends_early(data, image_format):
        return "truncated"
    return "corrupt"


def _open(data: bytes, image_format: str, limits: ImageLimits) -> ImageFile:
    """Read the header and hold it to the limits."""
    # The reader's class is called directly: `Image.open` would apply a global limit of its own,
    # and try fifty formats that nobody asked for.
    image = _READERS[image_format](io.BytesIO(data))
    width, height = _stored_size(image)
    if width < 1 or height < 1:
        raise image_error("corrupt", f"the {image_format} says that it is {width} x {height}")
    if width * height > limits.max_pixels:
        raise image_error(
            "too-large",
            f"the {image_format} is {width} x {height} = {width * height:,} pixels, over the "
            f"limit of {limits.max_pixels:,}; shrink or tile it, or raise the limit",
        )
    if isinstance(image, TiffImageFile) and image.tag_v2.get(_TIFF_NEW_SUBFILE_TYPE, 0) & 1:
        raise image_error(
            "unsupported",
            "the TIFF's first page is only a thumbnail, as in camera raw files; "
            f"convert to one of {SUPPORTED_FORMATS}",
        )
    key = image.info.get("transparency")
    if isinstance(image, PngImageFile) and data[_PNG_BIT_DEPTH_AT] == 16 and isinstance(key, tuple):
        # Pillow keeps the high bytes of the samples but the whole transparent colour.
        image.info["transparency"] = tuple(value >> 8 for value in key)
    return image


def _stored_size(image: ImageFile) -> tuple[int, int]:
    """(width, height) as stored, before orientation; Pillow's `size` of a TIFF is after it."""
    if isinstance(image, TiffImageFile):
        return int(image.tag_v2[_TIFF_IMAGE_WIDTH]), int(image.tag_v2[_TIFF_IMAGE_LENGTH])
    return image.size


def _orientation(image: ImageFile, data: bytes) -> int:
    """EXIF orientation, 1 (upright) to 8, without decoding pixels."""
    if isinstance(image, PngImageFile) and (exif := png_exif(data)) is not None:
        image.info["exif"] = exif
    try:
        # Called on the base class, as PNG's own method decodes the image first.
        value = Image.Image.getexif(image).get(_EXIF_ORIENTATION, 1)
    except Exception as error:
        logger.warning("unreadable EXIF block, the image is taken as upright: %s", error)
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _decode_jpeg(data: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Decode a whole grey or colour JPEG, as stored; `size` is (width, height)."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    bgr_HWC3 = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    if bgr_HWC3 is None or bgr_HWC3.shape != (size[1], size[0], 3):
        raise image_error("corrupt", "the JPEG has a sound header but its pixels do not decode")
    return np.asarray(cv2.cvtColor(bgr_HWC3, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _pillow_to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Convert a loaded image of any mode to uint8 (H, W, 3)."""
    if image.mode.startswith("I;16") or (image.mode == "I" and isinstance(image, PngImageFile)):
        return _grey16_to_rgb(image)
    if image.mode in ("I", "F"):
        raise image_error(
            "unsupported",
            "samples of 32 bits, floating point or signed, have no agreed black and white; "
            "convert to 8 or 16 bits without sign",
        )
    if not image.has_transparency_data:
        return np.array(image.convert("RGB"))
    if image.mode in ("La", "RGBa"):  # colours multiplied by alpha
        image = image.convert(image.mode.replace("a", "A"))
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return np.array(Image.alpha_composite(white, rgba).convert("RGB"))


def _grey16_to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    samples_HW = np.asarray(image)
    grey_HW = (samples_HW >> 8).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey_HW[samples_HW == transparent] = 255
    return np.repeat(grey_HW[:, :, np.newaxis], 3, axis=2)


def _upright(stored_HWC3: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn and mirror an image as its EXIF orientation asks."""
    if orientation == 1:
        return stored_HWC3
    image = cv2.transpose(stored_HWC3) if orientation >= 5 else stored_HWC3
    # 0 flips upside down, 1 left to right, -1 both.
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return np.asarray(image if flip is None else cv2.flip(image, flip), dtype=np.uint8)
