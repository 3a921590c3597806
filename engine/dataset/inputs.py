"""Inputs: from what a user names to the addresses of images.

    listed = expand_inputs(["photos", "more/*.png", "s3://bucket/2024/", "urls.csv"])

Nothing is read but folders, listings of buckets, and lists. Whether an image is there, and is one,
is found out when it is ingested.
"""

from __future__ import annotations

import csv
import glob
import io
import logging
import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urljoin, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from engine.dataset.catalog import WORKSPACE_FILE
from engine.errors import BadInputError, ImageError
from engine.images import ImageLimits, read_image_bytes
from engine.objects import ObjectStore, open_store

__all__ = ["IMAGE_SUFFIXES", "ListedImage", "expand_inputs"]

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"})
_LIST_SUFFIXES = frozenset({".txt", ".csv", ".parquet"})
_WEB = ("http://", "https://")
_S3 = "s3://"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+://")
_MAGIC = re.compile(r"[*?\[]")
_MAX_LIST_BYTES = 8 * 1024**3


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An image that the user named, not yet looked at.

    Attributes:
        uri: an absolute path or a URL.
        license: from the list that named it.
        split: from the list that named it, e.g. ``"train"``.
    """

    uri: str
    license: str | None = None
    split: str | None = None


def expand_inputs(inputs: Sequence[str]) -> list[ListedImage]:
    """Find the images that a user's arguments stand for.

    Args:
        inputs: any of

            - image files (of any suffix), and ``file://``, ``http(s)://`` and ``s3://`` addresses;
            - folders and ``s3://bucket/prefix/``, with all below them: image suffixes only, hidden
              names and workspaces left out;
            - globs of files or of a bucket's objects (``**`` too);
            - lists, wherever they are: ``.txt`` with one path or URL per line (``#`` starts a
              comment), ``.csv`` and ``.parquet`` with the column ``uri`` and optionally
              ``license`` and ``split``. Relative addresses in a list count from where the list is.

    Returns:
        Images in the order of the inputs, folders, prefixes and globs sorted; each address once.

    Raises:
        BadInputError: an input that does not exist, matches nothing or cannot be read. Files
            that are named one by one in a bucket, on the web or in a list are not looked for here:
            the ingest reports those that are missing.
        TransientError: a bucket that cannot be listed for now.
    """
    found: dict[str, ListedImage] = {}
    for text in inputs:
        before = len(found)
        listed = list(_expand(text))
        for image in listed:
            found.setdefault(image.uri, image)
        log.debug("%s: %d images, %d new", text, len(listed), len(found) - before)
    if not found:
        raise BadInputError("got no input; name image files, folders, globs or lists of them")
    return list(found.values())


def _expand(text: str) -> Iterator[ListedImage]:
    if text.startswith(_WEB):
        is_list = PurePosixPath(urlsplit(text).path).suffix.lower() in _LIST_SUFFIXES
        return _read_list(text) if is_list else iter([ListedImage(text)])
    if text.startswith(_S3):
        return _expand_bucket(text)
    if _SCHEME.match(text) and not text.startswith("file://"):
        raise BadInputError(
            f"got {text!r}; expected a path, or an address that begins with s3://, https://, "
            "http:// or file://"
        )
    return _expand_path(text)


def _expand_path(text: str) -> Iterator[ListedImage]:
    path = _local_path(text)
    if path.is_dir():
        return _found(map(_listed, sorted(_walk(path))), f"the folder {text!r}")
    if path.is_file():
        is_list = path.suffix.lower() in _LIST_SUFFIXES
        return _read_list(str(path.absolute())) if is_list else iter([_listed(path)])
    if glob.has_magic(str(path)):
        return _found(map(_listed, _glob(str(path))), f"the pattern {text!r}")
    raise BadInputError(
        f"got {text!r}, which does not exist; expected an image, a folder, a glob or a list "
        f"({', '.join(sorted(_LIST_SUFFIXES))}); relative paths count from {Path.cwd()}"
    )


def _local_path(text: str) -> Path:
    if not text.startswith("file://"):
        return Path(text).expanduser()
    literal = Path(text.removeprefix("file://"))
    return literal if literal.exists() else Path(unquote(str(literal)))


def _listed(path: Path) -> ListedImage:
    return ListedImage(str(path.absolute()))


def _found(images: Iterable[ListedImage], where: str) -> Iterator[ListedImage]:
    listed = list(images)
    if not listed:
        raise BadInputError(
            f"got {where}, which has no images; expected files that end in "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return iter(listed)


def _glob(pattern: str) -> list[Path]:
    found: list[Path] = []
    # Path.glob takes no absolute patterns
    for name in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207
        path = Path(name)
        if path.is_dir():
            # "**" names every folder below it as well as the files in them: each counts once,
            # by its address.
            found += sorted(_walk(path))
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            found.append(path)
    return found


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the image files below a folder; linked folders are followed, each once."""
    visited: set[str] = set()
    for base, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(base)
        if real in visited or (Path(base) / WORKSPACE_FILE).exists():
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield Path(base) / name


def _expand_bucket(text: str) -> Iterator[ListedImage]:
    bucket, _, key = text.removeprefix(_S3).partition("/")
    if not bucket:
        raise BadInputError(f"got {text!r}; expected s3://bucket/name or s3://bucket/prefix/")
    if (magic := _MAGIC.search(key)) and not _objects_of(bucket).exists(key):
        folder = key[: magic.start()].rpartition("/")[0]
        prefix = f"{folder}/" if folder else ""
        pattern = key.split("/")
        keys = [k for k in _image_keys(bucket, prefix) if _matches(k.split("/"), pattern)]
        return _found(_listed_keys(bucket, keys), f"the pattern {text!r}")
    suffix = PurePosixPath(key).suffix.lower()
    if suffix in _LIST_SUFFIXES and not key.endswith("/"):
        return _read_list(text)
    if suffix in IMAGE_SUFFIXES and not key.endswith("/"):
        return iter([ListedImage(text)])
    prefix = f"{key.rstrip('/')}/" if key else ""
    keys = _image_keys(bucket, prefix)
    if not keys and key and not key.endswith("/") and _objects_of(bucket).exists(key):
        return iter([ListedImage(text)])  # an image whose name does not say so
    return _found(_listed_keys(bucket, keys), f"the prefix '{_S3}{bucket}/{prefix}'")


def _objects_of(bucket: str) -> ObjectStore:
    return open_store(_S3 + bucket)


def _listed_keys(bucket: str, keys: Iterable[str]) -> Iterator[ListedImage]:
    return (ListedImage(f"{_S3}{bucket}/{key}") for key in keys)


def _image_keys(bucket: str, prefix: str) -> list[str]:
    """The keys of the images below a prefix, ascending, as `_walk` finds them in folders."""
    keys: list[str] = []
    workspaces: list[str] = []
    for key in _objects_of(bucket).list(prefix):
        name = key.rpartition("/")[2]
        if name == WORKSPACE_FILE:
            workspaces.append(key.removesuffix(WORKSPACE_FILE))
        hidden = any(part.startswith(".") for part in key.removeprefix(prefix).split("/"))
        if not hidden and PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES:
            keys.append(key)
    return [key for key in keys if not any(key.startswith(root) for root in workspaces)]


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Match a key part by part, as the glob of a path does; ``**`` stands for any number."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[i:], pattern[1:]) for i in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _read_list(address: str) -> Iterator[ListedImage]:
    readers = {".txt": _txt_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}
    suffix = PurePosixPath(urlsplit(address).path if address.startswith(_WEB) else address).suffix
    try:
        data = read_image_bytes(address, ImageLimits(max_bytes=_MAX_LIST_BYTES))
        rows = list(readers[suffix.lower()](address, data))
    except (ImageError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise BadInputError(f"the list {address} cannot be read: {error}") from error
    if not rows:
        raise BadInputError(f"the list {address} names no images; expected one path or URL per row")
    return iter(rows)


def _txt_rows(address: str, data: bytes) -> Iterator[ListedImage]:
    for line in data.decode("utf-8-sig").splitlines():
        if (uri := line.strip()) and not uri.startswith("#"):
            yield ListedImage(_address(uri, address))


def _csv_rows(address: str, data: bytes) -> Iterator[ListedImage]:
    reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    _require_uri_column(address, reader.fieldnames or ())
    yield from _table_rows(address, reader)


def _parquet_rows(address: str, data: bytes) -> Iterator[ListedImage]:
    parquet = pq.ParquetFile(pa.BufferReader(data))
    names = parquet.schema_arrow.names
    _require_uri_column(address, names)
    columns = [name for name in ("uri", "license", "split") if name in names]
    for batch in parquet.iter_batches(columns=columns):
        yield from _table_rows(address, batch.to_pylist())


def _require_uri_column(address: str, names: Sequence[str]) -> None:
    if "uri" not in names:
        raise BadInputError(
            f"the list {address} has the columns {list(names)}; expected 'uri' (a path or URL) and "
            "optionally 'license' and 'split'"
        )


def _table_rows(address: str, rows: Iterable[dict[str, str | None]]) -> Iterator[ListedImage]:
    for row in rows:
        if uri := (row["uri"] or "").strip():
            yield ListedImage(
                _address(uri, address), row.get("license") or None, row.get("split") or None
            )


def _address(uri: str, list_address: str) -> str:
    """Return what a list names as an address of its own; relative ones count from the list."""
    if _SCHEME.match(uri) and not uri.startswith("file://"):
        return uri  # of a kind that cannot be read, too: the ingest reports it
    if list_address.startswith(_WEB):
        return urljoin(list_address, uri)
    if list_address.startswith(_S3) and not uri.startswith(("/", "~", "file://")):
        bucket, _, key = list_address.removeprefix(_S3).partition("/")
        joined = posixpath.normpath(posixpath.join(posixpath.dirname(key), uri))
        if joined.startswith("../"):
            raise BadInputError(f"the list {list_address} names {uri!r}, which is above its bucket")
        return f"{_S3}{bucket}/{joined}"
    return os.path.normpath(Path(list_address).parent / _local_path(uri))
