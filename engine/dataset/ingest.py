"""Ingest: from files, folders, globs and lists to rows of table ``images``.

    listed = expand_inputs(["photos", "more/*.png", "urls.csv"])
    result = ingest(workspace, listed, limits, now)

Images are known by their content: the same bytes under two names are one image, and a second
ingest of the same folder adds nothing. Images are not copied.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyiceberg.expressions import In, Reference
from pyiceberg.expressions.literals import literal
from pyiceberg.table import Table

from engine.dataset.catalog import WORKSPACE_FILE, Workspace
from engine.dataset.schemas import arrow_schema
from engine.errors import BadInputError, ImageError, WorkspaceError
from engine.images import ImageLimits, content_id, probe_image, read_image_bytes
from engine.records import ImageRecord, SkippedImage

__all__ = [
    "IMAGE_SUFFIXES",
    "IngestResult",
    "ListedImage",
    "expand_inputs",
    "ingest",
    "load_images",
]

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"})
_LIST_SUFFIXES = frozenset({".txt", ".csv", ".parquet"})
_URL_PREFIXES = ("http://", "https://", "s3://")
# Commits cost more the more there are: large inputs are cut into about a hundred.
_IMAGES_PER_COMMIT = 2000
_COMMITS = 100


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


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What an ingest found.

    Attributes:
        image_ids: every usable image that was listed, new or known before; ascending.
        new: how many of them were not in the data set.
        duplicates: listed images whose content another listed image has.
        skipped: listed images that cannot be used, in the order of the list.
    """

    image_ids: tuple[int, ...]
    new: int
    duplicates: int
    skipped: tuple[SkippedImage, ...]


def expand_inputs(inputs: Sequence[str]) -> list[ListedImage]:
    """Find the images that a user's arguments stand for.

    Args:
        inputs: any of: image files (of any suffix), ``file://``, ``http(s)://`` and ``s3://``
            addresses, folders (with subfolders; image suffixes only; hidden ones and
            workspaces left out), globs (``**`` too), and lists: ``.txt`` with one path or URL
            per line (``#`` starts a comment), ``.csv`` and ``.parquet`` with the column ``uri``
            and optionally ``license`` and ``split``. Relative paths in a list count from the
            list's folder.

    Returns:
        Images in the order of the inputs, folders and globs sorted; each address once.

    Raises:
        BadInputError: an input that does not exist, matches nothing or cannot be read. Files
            that a list names are not looked for here: the ingest reports those that are missing.
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


def ingest(
    workspace: Workspace,
    images: Sequence[ListedImage],
    limits: ImageLimits,
    now: datetime,
    on_image: Callable[[str], None] | None = None,
    *,
    threads: int = 8,
) -> IngestResult:
    """Read every listed image once and add those that are new to table ``images``.

    Killed at any point and run again, it gives the table that an undisturbed run gives.

    Args:
        workspace: the data set.
        images: as `expand_inputs` returns them; of equal content the first listed one counts.
        limits: what is too large to be used.
        now: UTC; becomes ``ingested_at`` of the new rows.
        on_image: called with each image's URI when it has been read; for progress bars.
        threads: files read at the same time.

    Raises:
        TransientError: an address or the catalog stayed unreachable.
        WorkspaceError: the workspace cannot be written.
    """
    per_commit = max(_IMAGES_PER_COMMIT, len(images) // _COMMITS)
    known = _KnownImages()
    usable: set[int] = set()
    skipped: list[SkippedImage] = []
    new = duplicates = 0
    with ThreadPoolExecutor(threads, thread_name_prefix="ingest") as pool:
        for start in range(0, len(images), per_commit):
            records: list[ImageRecord] = []
            chunk = images[start : start + per_commit]
            for outcome in pool.map(lambda image: _read(image, limits, now), chunk):
                if isinstance(outcome, SkippedImage):
                    log.info("skipped %s (%s): %s", outcome.uri, outcome.reason, outcome.message)
                    skipped.append(outcome)
                elif outcome.image_id in usable:
                    duplicates += 1
                else:
                    usable.add(outcome.image_id)
                    records.append(outcome)
                if on_image is not None:
                    on_image(outcome.uri)
            new += _append_unknown(workspace, records, known)
    return IngestResult(tuple(sorted(usable)), new, duplicates, tuple(skipped))


def load_images(workspace: Workspace, image_ids: Sequence[int]) -> list[ImageRecord]:
    """Return the records of images, in the order of their ids as given.

    Raises:
        WorkspaceError: an id that table ``images`` does not have.
    """
    chosen = In(term=Reference("image_id"), values={literal(i) for i in image_ids})
    rows = workspace.table("images").scan(row_filter=chosen).to_arrow()
    found = {row["image_id"]: ImageRecord(**row) for row in rows.to_pylist()}
    if missing := [image_id for image_id in image_ids if image_id not in found]:
        raise WorkspaceError(
            f"table images lacks {len(missing)} of {len(image_ids)} images, e.g. {missing[0]}; "
            "ingest them first"
        )
    return [found[image_id] for image_id in image_ids]


def _read(image: ListedImage, limits: ImageLimits, now: datetime) -> ImageRecord | SkippedImage:
    try:
        data = read_image_bytes(image.uri, limits)
        info = probe_image(data, limits)
    except ImageError as error:
        return SkippedImage(image.uri, error.reason, str(error))
    except BadInputError as error:
        # One address of a kind that cannot be read does not stop the others of its list.
        return SkippedImage(image.uri, "unsupported-address", str(error))
    image_id, sha256 = content_id(data)
    return ImageRecord(
        image_id=image_id,
        uri=image.uri,
        sha256=sha256,
        width=info.width,
        height=info.height,
        format=info.format,
        license=image.license,
        split=image.split,
        ingested_at=now,
    )


class _KnownImages:
    """The ids in table ``images``, kept up with its history by reading only what is new."""

    def __init__(self) -> None:
        self._ids: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._snapshot_id: int | None = None

    def refresh(self, table: Table) -> None:
        head = table.current_snapshot()
        if head is None or head.snapshot_id == self._snapshot_id:
            return
        rows = table.incremental_append_scan(
            from_snapshot_id_exclusive=self._snapshot_id, selected_fields=("image_id",)
        ).to_arrow()
        self._ids = np.union1d(self._ids, rows["image_id"].to_numpy())
        self._snapshot_id = head.snapshot_id

    def lacks(self, image_id: int) -> bool:
        position = int(np.searchsorted(self._ids, image_id))
        return position == len(self._ids) or int(self._ids[position]) != image_id


def _append_unknown(
    workspace: Workspace, records: Sequence[ImageRecord], known: _KnownImages
) -> int:
    """Append the images that the table lacks, also when others append meanwhile; count them."""
    if not records:
        return 0
    appended = 0

    def unknown(table: Table) -> pa.Table:
        nonlocal appended
        known.refresh(table)
        rows = [asdict(record) for record in records if known.lacks(record.image_id)]
        appended = len(rows)
        return pa.Table.from_pylist(rows, schema=arrow_schema("images"))

    digest = hashlib.sha256(" ".join(str(record.image_id) for record in records).encode())
    workspace.append_rows("images", unknown, f"ingest-{digest.hexdigest()[:24]}")
    return appended


def _expand(text: str) -> Iterator[ListedImage]:
    if text.startswith(_URL_PREFIXES):
        yield ListedImage(text)
        return
    path = _local_path(text)
    if path.is_dir():
        yield from _found(sorted(_walk(path)), f"the folder {text!r}")
    elif path.is_file():
        yield from _read_list(path) if path.suffix.lower() in _LIST_SUFFIXES else [_listed(path)]
    elif glob.has_magic(str(path)):
        yield from _found(_glob(str(path)), f"the pattern {text!r}")
    else:
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


def _found(paths: Iterable[Path], where: str) -> Iterator[ListedImage]:
    listed = [_listed(path) for path in paths]
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


def _read_list(path: Path) -> Iterator[ListedImage]:
    readers = {".txt": _txt_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}
    try:
        rows = list(readers[path.suffix.lower()](path))
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise BadInputError(f"the list {path} cannot be read: {error}") from error
    if not rows:
        raise BadInputError(f"the list {path} names no images; expected one path or URL per row")
    return iter(rows)


def _txt_rows(path: Path) -> Iterator[ListedImage]:
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        if (uri := line.strip()) and not uri.startswith("#"):
            yield ListedImage(_address(uri, path))


def _csv_rows(path: Path) -> Iterator[ListedImage]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        _require_uri_column(path, reader.fieldnames or ())
        yield from _table_rows(path, reader)


def _parquet_rows(path: Path) -> Iterator[ListedImage]:
    names = pq.read_schema(path).names
    _require_uri_column(path, names)
    columns = [name for name in ("uri", "license", "split") if name in names]
    yield from _table_rows(path, pq.read_table(path, columns=columns).to_pylist())


def _require_uri_column(path: Path, names: Sequence[str]) -> None:
    if "uri" not in names:
        raise BadInputError(
            f"the list {path} has the columns {list(names)}; expected 'uri' (a path or URL) and "
            "optionally 'license' and 'split'"
        )


def _table_rows(path: Path, rows: Iterable[dict[str, str | None]]) -> Iterator[ListedImage]:
    for row in rows:
        if uri := (row["uri"] or "").strip():
            yield ListedImage(
                _address(uri, path), row.get("license") or None, row.get("split") or None
            )


def _address(uri: str, list_path: Path) -> str:
    if uri.startswith(_URL_PREFIXES):
        return uri
    return os.path.normpath(list_path.absolute().parent / _local_path(uri))
