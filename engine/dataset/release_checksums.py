"""The checksums of a release's data files, recorded when it is published.

    checksums = record_checksums(workspace, snapshots, known=[parent])     # before the release
    recorded_checksums(workspace, release)["runs/a/masks-00000.parquet"].sha256

Data files never change, so each is hashed once: a release's list, an object named after its own
sha256, holds the files that no release before it had. The record of the release holds that name,
and so vouches, through its parents, for every byte of the data set.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import BinaryIO

from engine.dataset.catalog import Workspace
from engine.dataset.release_files import DataFile, release_files
from engine.dataset.releases import load_release
from engine.errors import WorkspaceError
from engine.records import Release

__all__ = [
    "CHECKSUMS_PREFIX",
    "Checksum",
    "checksums_key",
    "hash_stream",
    "record_checksums",
    "recorded_checksums",
]

CHECKSUMS_PREFIX = "releases/files/"
_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, order=True)
class Checksum:
    """What a data file was when it was published.

    Attributes:
        key: object key below the workspace's root.
        size_bytes: of the file.
        sha256: hex digest of its bytes.
    """

    key: str
    size_bytes: int
    sha256: str


def record_checksums(
    workspace: Workspace,
    snapshots: Mapping[str, int],
    known: Sequence[Release],
    threads: int = 8,
) -> str:
    """Hash the data files that are new in a state, and keep the list; replayable.

    Args:
        workspace: where the files are.
        snapshots: of each table, of the release to be.
        known: releases whose files are not hashed again: the parent, and what a rollback restores.
        threads: files read at the same time.

    Returns:
        What goes into `Release.checksums`.

    Raises:
        WorkspaceError: a file that is missing or not as long as its table says.
        TransientError: the store failed for now.
    """
    before = {
        file.key
        for release in known
        if release.checksums is not None
        for file in release_files(workspace, release.snapshots)
    }
    new = [file for file in release_files(workspace, snapshots) if file.key not in before]

    def measure(file: DataFile) -> Checksum:
        with workspace.store.open(file.key) as stream:
            size_bytes, sha256 = hash_stream(stream)
        if size_bytes != file.size_bytes:
            raise WorkspaceError(
                f"{workspace.store.uri(file.key)} has {size_bytes:,} bytes, table {file.table} "
                f"says {file.size_bytes:,}; something outside Maskwheel changed it: restore it"
            )
        return Checksum(file.key, size_bytes, sha256)

    with ThreadPoolExecutor(threads, "hash") as pool:
        checksums = sorted(pool.map(measure, new))
    text = json.dumps({"format": 1, "files": [asdict(c) for c in checksums]}, indent=0).encode()
    name = hashlib.sha256(text).hexdigest()
    workspace.store.put_if_absent(checksums_key(name), text)
    return name


def recorded_checksums(workspace: Workspace, release: Release) -> dict[str, Checksum]:
    """Return the checksums of a release's files by key; of old releases some or all are absent.

    Raises:
        WorkspaceError: a list, or the record of an earlier release, that is missing or damaged.
    """
    found: dict[str, Checksum] = {}
    for name in _lists(workspace, release):
        key = checksums_key(name)
        text = workspace.store.get(key)
        if hashlib.sha256(text).hexdigest() != name:
            raise WorkspaceError(f"{workspace.store.uri(key)} was changed; restore it")
        try:
            files = [Checksum(**fields) for fields in json.loads(text)["files"]]
        except (KeyError, TypeError, ValueError) as error:
            raise WorkspaceError(f"{workspace.store.uri(key)} is damaged: {error!r}") from error
        # The first record of a file counts: nothing that came later may replace it.
        found |= {file.key: file for file in files}
    return found


def checksums_key(name: str) -> str:
    """Return the object key of a list of checksums."""
    return f"{CHECKSUMS_PREFIX}{name}.json"


def hash_stream(stream: BinaryIO) -> tuple[int, str]:
    """Read a stream to its end; return its length in bytes and its sha256 as hex digits."""
    digest = hashlib.sha256()
    size_bytes = 0
    while chunk := stream.read(_CHUNK_BYTES):
        digest.update(chunk)
        size_bytes += len(chunk)
    return size_bytes, digest.hexdigest()


def _lists(workspace: Workspace, release: Release) -> Iterator[str]:
    """Yield the names of the lists behind a release, newest first."""
    current: Release | None = release
    while current is not None:
        if current.checksums is not None:
            yield current.checksums
        current = load_release(workspace, current.parent) if current.parent else None
