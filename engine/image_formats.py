"""What a file's bytes alone say about an image: its format, and whether the file ends too early.

    image_format = identify_format(data)

No pixel is decoded here; that is the work of `engine.images`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Literal

from engine.errors import ImageError

__all__ = [
    "SUPPORTED_FORMATS",
    "ImageReason",
    "ends_early",
    "identify_format",
    "image_error",
    "jpeg_has_end",
    "png_exif",
]

ImageReason = Literal[
    "empty",  # no bytes at all
    "not-an-image",  # no known image format
    "unsupported",  # an image, but of a format or a kind of samples that is not read
    "truncated",  # the file ends before the image does
    "corrupt",  # damaged in another way
    "too-large",  # more bytes or pixels than the limits allow
    "not-found",  # no file at that address
    "unreadable",  # a folder, a device, a failing disk, a request that a server refuses
    "forbidden",  # a bucket or a server that does not let this user read it
    "unreachable",  # a network or a server that did not answer, however often it was asked
]
"""Every reason that reading an image gives: `ImageError.reason` is one of these."""

SUPPORTED_FORMATS = "JPEG, PNG, WebP, TIFF, BMP and GIF"

_SIGNATURES: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"\xff\xd8\xff"), "jpeg"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "png"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "webp"),
    (re.compile(rb"II[*+]\x00|MM\x00[*+]"), "tiff"),
    (re.compile(rb"GIF8[79]a"), "gif"),
    # "BM" alone is two letters; the header that follows has one of seven sizes.
    (re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00", re.DOTALL), "bmp"),
)
_UNSUPPORTED_SIGNATURES: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"....ftyp(?:avif|avis)", re.DOTALL), "AVIF"),
    (re.compile(rb"....ftyp(?:hei[cmsx]|hev[cmsx]|mif1|msf1)", re.DOTALL), "HEIF"),
    (re.compile(rb"....ftypcrx", re.DOTALL), "camera raw (CR3)"),
    (re.compile(rb"\x00\x00\x00\x0cJXL |\xff\x0a"), "JPEG XL"),
    (re.compile(rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51"), "JPEG 2000"),
    (re.compile(rb"8BPS"), "Photoshop"),
    (re.compile(rb"\x76\x2f\x31\x01"), "OpenEXR"),
    (re.compile(rb"#\?RADIANCE"), "Radiance HDR"),
    (re.compile(rb"%PDF"), "PDF"),
    (re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?<svg"), "SVG"),
    (re.compile(rb".{128}DICM", re.DOTALL), "DICOM"),
)

_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_JPEG_START_OF_IMAGE, _JPEG_END_OF_IMAGE, _JPEG_TEMPORARY = 0xD8, 0xD9, 0x01

# Tags that place the samples: of strips and of tiles, the offsets and then the byte counts.
_TIFF_DATA_TAGS = ((273, 279), (324, 325))
_TIFF_PLACES = {tag for pair in _TIFF_DATA_TAGS for tag in pair}
_TIFF_VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_TIFF_VALUE_BYTES |= {13: 4, 16: 8, 17: 8, 18: 8}  # as BigTIFF adds them
_TIFF_INTEGERS = {3: "H", 4: "I", 16: "Q"}


def image_error(reason: ImageReason, message: str) -> ImageError:
    """Make an ImageError whose reason is one of the closed set."""
    return ImageError(reason, message)


def identify_format(data: bytes) -> str:
    """Name the format by the file's first bytes.

    Returns:
        ``"jpeg"``, ``"png"``, ``"webp"``, ``"tiff"``, ``"gif"`` or ``"bmp"``.

    Raises:
        ImageError: ``"empty"``, ``"unsupported"`` (a known format that is not read) or
            ``"not-an-image"``.
    """
    if not data:
        raise image_error("empty", "the file is empty")
    for signature, image_format in _SIGNATURES:
        if signature.match(data):
            return image_format
    for signature, name in _UNSUPPORTED_SIGNATURES:
        if signature.match(data):
            raise image_error(
                "unsupported", f"{name} files are not read; convert to one of {SUPPORTED_FORMATS}"
            )
    raise image_error(
        "not-an-image",
        f"the first bytes {data[:8]!r} are of no known image; read are {SUPPORTED_FORMATS}",
    )


def ends_early(data: bytes, image_format: str) -> bool:
    """Whether bytes that failed to decode end before their own structure says that they end.

    Args:
        data: the file's bytes.
        image_format: as `identify_format` named it.
    """
    match image_format:
        case "jpeg":
            return not jpeg_has_end(data)
        case "png":
            return b"IEND" not in data
        case "webp":
            return int.from_bytes(data[4:8], "little") + 8 > len(data)
        case "bmp":
            return int.from_bytes(data[2:6], "little") > len(data)
        case "gif":
            return not data.rstrip(b"\x00").endswith(b";")
        case _:
            return _tiff_ends_early(data)


def jpeg_has_end(data: bytes) -> bool:
    """Whether a JPEG's end marker is there: a file with a cut or zero-filled tail has none.

    Segments, thumbnails inside them included, are skipped by their length; entropy-coded data by
    the search, as it cannot contain a marker. Images appended behind the first do not count.
    """
    position = 2
    while found := _JPEG_MARKER.search(data, position):
        position = found.end()
        marker = data[position - 1]
        if marker == _JPEG_END_OF_IMAGE:
            return True
        if marker not in (_JPEG_START_OF_IMAGE, _JPEG_TEMPORARY):
            position += int.from_bytes(data[position : position + 2], "big")
    return False


def png_exif(data: bytes) -> bytes | None:
    """The content of a PNG's eXIf chunk, which may come before or after the pixels."""
    position = 8
    while position + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        if name == b"eXIf":
            return data[position + 8 : position + 8 + length]
        position += 12 + length
    return None


def _tiff_ends_early(data: bytes) -> bool:
    """Whether the first directory, or what it points to, reaches behind the end of the file."""
    try:
        return max(_tiff_extents(data)) > len(data)
    except (struct.error, OverflowError):  # the directory itself is cut, or placed nowhere
        return True


def _tiff_extents(data: bytes) -> Iterator[int]:
    """Yield where the parts of a TIFF end: its first directory, tag values, strips and tiles.

    Raises:
        struct.error, OverflowError: the directory reaches behind the end of the data.
    """
    order, is_big = ("<" if data[:1] == b"I" else ">"), b"+" in data[2:4]
    offset_format, count_format, entry_format, inline_bytes = (
        ("8xQ", "Q", "HHQ8s", 8) if is_big else ("4xI", "H", "HHI4s", 4)
    )
    (start,) = struct.unpack_from(order + offset_format, data)
    (entries,) = struct.unpack_from(order + count_format, data, start)
    start += struct.calcsize(order + count_format)
    placed: dict[int, list[int]] = {}
    for index in range(entries):
        at = start + index * struct.calcsize(order + entry_format)
        tag, kind, count, value = struct.unpack_from(order + entry_format, data, at)
        size = count * _TIFF_VALUE_BYTES.get(kind, 0)
        if size > inline_bytes:
            (at_value,) = struct.unpack(order + offset_format[-1], value)
            yield at_value + size
            value = data[at_value : at_value + size]
        if tag in _TIFF_PLACES and kind in _TIFF_INTEGERS:
            numbers = struct.iter_unpack(order + _TIFF_INTEGERS[kind], value[:size])
            placed[tag] = [number for (number,) in numbers]
    # Behind the entries stands the place of the next directory.
    directory_bytes = struct.calcsize(f"{order}{entry_format}") * entries + inline_bytes
    yield start + directory_bytes
    for offsets, lengths in _TIFF_DATA_TAGS:
        for offset, length in zip(placed.get(offsets, ()), placed.get(lengths, ()), strict=False):
            yield offset + length
