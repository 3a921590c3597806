"""Where objects are: a folder, or ``s3://bucket/prefix``, as users write it.

store = open_store("s3://team-data/birds")
data = read_address("s3://photos/2024/a.jpg", max_bytes=50_000_000)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from engine.config import load_settings
from engine.errors import BadInputError
from engine.objects.local import LocalStore, file_uri, open_file
from engine.objects.s3 import S3Store
from engine.objects.s3_client import S3Object, S3Options
from engine.objects.s3_reading import ObjectReader, read_object
from engine.objects.store import ObjectStore

__all__ = [
    "S3Address",
    "absolute_address",
    "is_remote",
    "open_address",
    "open_store",
    "parse_s3_address",
    "read_address",
]

_S3 = "s3://"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
# Names of old buckets may have capitals and underscores, and those of access points colons.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{1,253}[A-Za-z0-9]")


@dataclass(frozen=True, slots=True)
class S3Address:
    """A bucket and what follows it: a key, or the prefix of a store (no slash at its ends)."""

    bucket: str
    key: str


def is_remote(address: str | Path) -> bool:
    """Return whether the address is a bucket's, not a folder's."""
    return str(address).startswith(_S3)


def parse_s3_address(address: str) -> S3Address:
    """Split ``s3://bucket/key``; the key is literal, without percent signs.

    Raises:
        BadInputError: no such address.
    """
    bucket, _, key = address.removeprefix(_S3).partition("/")
    if not address.startswith(_S3) or not _BUCKET.fullmatch(bucket):
        raise BadInputError(f"got the address {address!r}; expected s3://bucket/name")
    return S3Address(bucket, key)


def absolute_address(address: str | Path) -> str:
    """Return the one spelling of a store's address: an absolute folder, or ``s3://bucket/prefix``.

    ``~`` and relative folders are resolved (and links followed); slashes at the end of a prefix go.

    Raises:
        BadInputError: neither a folder nor a bucket, or one that data-set addresses cannot hold.
    """
    text = str(address)
    if is_remote(text):
        where = parse_s3_address(text)
        prefix = where.key.rstrip("/")
        if any(part in ("", ".", "..") for part in prefix.split("/")) and prefix:
            raise BadInputError(f"got {text!r}; expected single slashes between names")
        if any(letter in "?#" or ord(letter) < 32 for letter in prefix):
            raise BadInputError(
                f"got {text!r}; expected a prefix without '?', '#' and control characters, which "
                "data-set addresses cannot hold: choose another prefix"
            )
        return f"{_S3}{where.bucket}/{prefix}".rstrip("/")
    folder = _folder(text)
    file_uri(folder)
    return str(folder)


def open_store(address: str | Path) -> ObjectStore:
    """Return the store of a folder or of ``s3://bucket/prefix``; nothing is touched yet.

    The S3 endpoint and addressing style come from the settings (`Settings.s3_endpoint`), region
    and credentials from the usual AWS places.

    Raises:
        BadInputError: neither a folder nor a bucket, or settings that cannot be used.
    """
    absolute = absolute_address(address)
    if not is_remote(absolute):
        return LocalStore(Path(absolute))
    where = parse_s3_address(absolute)
    return S3Store(where.bucket, where.key, s3_options())


def open_address(uri: str) -> BinaryIO:
    """Open one object, wherever it is, for seekable reading.

    Args:
        uri: ``s3://bucket/key`` of any bucket, ``file:///path``, or a path.

    Raises:
        MissingObjectError: there is no such object.
        WorkspaceError: it may not be read.
        TransientError: the storage cannot be reached for now.
        BadInputError: another kind of address.
    """
    if is_remote(uri):
        where = parse_s3_address(uri)
        return cast(BinaryIO, ObjectReader(S3Object(where.bucket, where.key, s3_options())))
    return open_file(_folder(uri))


def read_address(uri: str, max_bytes: int | None = None) -> bytes:
    """Return one object, wherever it is (see `open_address`).

    Args:
        uri: ``s3://bucket/key`` of any bucket, ``file:///path``, or a path.
        max_bytes: refuse larger objects, before they are read.

    Raises:
        BadInputError: it is larger than `max_bytes`; and what `open_address` raises.
    """
    if is_remote(uri):
        where = parse_s3_address(uri)
        return read_object(S3Object(where.bucket, where.key, s3_options()), max_bytes)
    with open_address(uri) as stream:
        size_bytes = stream.seek(0, 2)
        if max_bytes is not None and size_bytes > max_bytes:
            raise BadInputError(f"{uri} has {size_bytes:,} bytes; expected at most {max_bytes:,}")
        stream.seek(0)
        return stream.read()


def s3_options() -> S3Options:
    """Return how to reach S3, from the settings."""
    settings = load_settings()
    return S3Options(endpoint=settings.s3_endpoint, addressing=settings.s3_addressing)


def _folder(text: str) -> Path:
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    scheme = _SCHEME.match(text)
    if not text or scheme is not None:
        hint = " (written as a path, s3:// loses a slash)" if text.startswith("s3:/") else ""
        raise BadInputError(f"got {text!r}; expected a folder or s3://bucket/prefix{hint}")
    return Path(text).expanduser().resolve()
