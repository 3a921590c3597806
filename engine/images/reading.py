"""An image's file by its address: a path, ``file://``, ``s3://`` or ``http(s)://``.

    data = read_image_bytes("s3://photos/2024/cat.jpg")

Every failure is an ImageError whose reason a run records. ``"not-found"``, ``"forbidden"``,
``"unreadable"`` and ``"unreachable"`` are about the place, not about the image: the next run tries
it again.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.request import url2pathname

from engine.errors import BadInputError, MissingObjectError, TransientError, WorkspaceError
from engine.image_formats import image_error
from engine.objects import parse_s3_address, read_address

__all__ = ["ImageLimits", "check_bytes", "read_image_bytes"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What is refused before any pixel is decoded.

    Pillow has a ceiling of its own, 178,956,970 pixels, that holds for WebP and TIFF in any case.

    Attributes:
        max_pixels: width x height.
        max_bytes: size of the file.
    """

    max_pixels: int = 200_000_000
    max_bytes: int = 512 * 1024 * 1024


_DEFAULT_LIMITS = ImageLimits()


def read_image_bytes(uri: str, limits: ImageLimits = _DEFAULT_LIMITS) -> bytes:
    """Read an image's file, undecoded and whole.

    Args:
        uri: a local path, a ``file://`` URI with percent escapes, ``s3://bucket/key`` (the key as
            it is, without escapes) or ``http(s)://``.
        limits: files above `max_bytes` are refused, and not read further than that.

    Raises:
        ImageError: ``"not-found"``, ``"forbidden"``, ``"unreadable"``, ``"unreachable"`` or
            ``"too-large"``.
        BadInputError: any other scheme, or a ``file://`` URI of another host.
    """
    scheme = _SCHEME.match(uri)
    match scheme and scheme[1].lower():
        case "http" | "https":
            from engine.images.web import download  # few read from the web, and urllib3 is slow

            return download(uri, limits.max_bytes)
        case "s3":
            return _read_object(uri, limits)
        case _:
            return _read_file(uri, limits)


def check_bytes(data: bytes, limits: ImageLimits) -> None:
    """Raise ImageError ``"too-large"`` for more bytes than the limit."""
    if len(data) > limits.max_bytes:
        raise image_error(
            "too-large", f"the file is larger than the limit of {limits.max_bytes:,} bytes"
        )


def _read_file(uri: str, limits: ImageLimits) -> bytes:
    path = _local_path(uri)
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise image_error("unreadable", f"{uri} is not a file but a folder or a device")
        with path.open("rb") as file:
            data = file.read(limits.max_bytes + 1)
    except FileNotFoundError as error:
        raise image_error("not-found", f"there is no file {uri}") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise image_error("unreadable", f"{uri} cannot be read: {error}") from error
    check_bytes(data, limits)
    return data


def _read_object(uri: str, limits: ImageLimits) -> bytes:
    if not parse_s3_address(uri).key:
        raise BadInputError(f"got {uri!r}, which names a bucket; expected s3://bucket/key")
    try:
        return read_address(uri, limits.max_bytes)
    except MissingObjectError as error:
        raise image_error("not-found", f"there is no object {uri}") from error
    except TransientError as error:
        message = f"{uri} cannot be had now: {error}; it is tried again by the next run"
        raise image_error("unreachable", message) from error
    except WorkspaceError as error:
        raise image_error("forbidden", f"{uri} may not be read: {error}") from error
    except BadInputError as error:  # the address was found good above
        raise image_error("too-large", str(error)) from error


def _local_path(uri: str) -> Path:
    """Turn a path or a file:// URI into a path; raises BadInputError for anything else."""
    scheme = _SCHEME.match(uri)
    if scheme is None:
        return Path(uri)
    host, _, path = uri[scheme.end() :].partition("/")
    if scheme[1].lower() != "file" or host.lower() not in ("", "localhost") or not path:
        raise BadInputError(
            f"cannot read an image from {uri!r}; supported are local paths, file:///..., "
            "s3://bucket/key, https://... and http://..."
        )
    return Path(url2pathname("/" + path))
