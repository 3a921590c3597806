"""Images as browsers show them: upright, in a format that every browser decodes.

    picture = as_browser_picture(data, limits)                 # the file itself where it will do
    preview = as_browser_picture(data, limits, long_px=1600)

A plain JPEG, PNG or WebP goes out byte for byte. What a browser would show in another way than
`engine.images.decode_image`, on whose pixels the model works, is decoded here and encoded as JPEG:
turned, transparent, CMYK, 16-bit, animated, TIFF, BMP and GIF.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from engine.images import ImageLimits, decode_image, encode_jpeg, probe_image, resize_to_fit

__all__ = ["Picture", "as_browser_picture"]

_QUALITY_WHOLE, _QUALITY_PREVIEW = 95, 82
_PNG_GREY, _PNG_RGB, _PNG_PALETTE = 0, 2, 3
# SOF0 ... SOF15 without DHT, JPG and DAC, which lie between them.
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WEBP_ALPHA, _WEBP_ANIMATION = 0x10, 0x02


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded image.

    Attributes:
        data: the file's bytes.
        media_type: ``image/jpeg``, ``image/png`` or ``image/webp``.
    """

    data: bytes
    media_type: str


def as_browser_picture(data: bytes, limits: ImageLimits, long_px: int | None = None) -> Picture:
    """Return an image as a browser can show it.

    Args:
        data: the file's bytes, of any format that is read.
        limits: larger images are refused before a pixel is decoded.
        long_px: shrink the longer side to this; None: the whole image.

    Raises:
        ImageError: damaged, too large, or no image.
    """
    info = probe_image(data, limits)
    fits = long_px is None or max(info.width, info.height) <= long_px
    if fits and info.orientation == 1 and _is_plain(data, info.format):
        return Picture(data, f"image/{info.format}")
    image_HWC3 = decode_image(data, limits)
    if long_px is None:
        return Picture(encode_jpeg(image_HWC3, _QUALITY_WHOLE), "image/jpeg")
    small_HWC3 = resize_to_fit(image_HWC3, long_px)
    return Picture(encode_jpeg(small_HWC3, _QUALITY_PREVIEW), "image/jpeg")


def _is_plain(data: bytes, image_format: str) -> bool:
    match image_format:
        case "jpeg":
            return _jpeg_components(data) in (1, 3)
        case "png":
            depth, colour = data[24], data[25]
            opaque = colour in (_PNG_GREY, _PNG_RGB, _PNG_PALETTE)
            chunks = data[: data.find(b"IDAT")]
            return opaque and depth <= 8 and b"tRNS" not in chunks and b"acTL" not in chunks
        case "webp":
            # A simple file has no header of flags. Lossless ones say in their own whether there
            # may be alpha: their fifth byte's bit 4.
            if data[12:16] == b"VP8X":
                return not data[20] & (_WEBP_ALPHA | _WEBP_ANIMATION)
            return data[12:16] == b"VP8 " or (data[12:16] == b"VP8L" and not data[24] & 0x10)
        case _:
            return False


def _jpeg_components(data: bytes) -> int | None:
    """Return the number of colour channels that the first frame declares."""
    position = 2
    while position + 9 < len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in _START_OF_FRAME:
            return data[position + 9]
        (length,) = struct.unpack_from(">H", data, position + 2)
        position += 2 + length
    return None
