"""Object storage: immutable keys that are written once.

    store = LocalStore(Path("maskwheel-data").resolve())
    created = store.put_if_absent("runs/r/run.json", b"{}")    # False: somebody was first

A key's existence is a checkpoint, so an object appears whole or not at all, and is never
rewritten. `LocalStore` is a folder; a bucket takes the same seam (a conditional PUT).
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from engine.errors import BadInputError, WorkspaceError

__all__ = ["LocalStore", "ObjectStore", "file_uri", "sync_folder"]

_TEMPORARY_PREFIX = ".writing-"


class ObjectStore(Protocol):
    """Write-once objects under slash-separated keys (``"runs/a/masks-00000.parquet"``).

    Every method may raise TransientError (try again) and WorkspaceError (storage that cannot be
    used, or an object that should be there and is not); a malformed key is a BadInputError.
    """

    def get(self, key: str) -> bytes:
        """Return the object's bytes; WorkspaceError without such an object."""
        ...

    def open(self, key: str) -> BinaryIO:
        """Open the object for seekable reading; WorkspaceError without such an object."""
        ...

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write the object unless the key is taken; return whether this call created it."""
        ...

    def put_file_if_absent(self, key: str, local_path: Path) -> bool:
        """Copy a local file to the key unless it is taken; return whether this call did."""
        ...

    def exists(self, key: str) -> bool:
        """Return whether the object is there, whole."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that start with `prefix`, ascending."""
        ...

    def uri(self, key: str) -> str:
        """Return the address that other tools (Iceberg, DuckDB) open the object by."""
        ...


class LocalStore:
    """An `ObjectStore` in a folder.

    A writer fills a hidden file beside the target, syncs it and hard-links it to its name: the
    link fails when the name exists, so of several writers exactly one wins, and a writer that
    is killed leaves at most a hidden file that no method shows.

    Attributes:
        root: the folder, absolute.
    """

    def __init__(self, root: Path) -> None:
        """Take a folder; it need not exist before the first write.

        Raises:
            BadInputError: a relative path, or one that a ``file://`` address cannot hold.
        """
        file_uri(root)
        self.root = root

    def get(self, key: str) -> bytes:
        """Return the object's bytes; WorkspaceError without such an object."""
        with self.open(key) as stream:
            return stream.read()

    def open(self, key: str) -> BinaryIO:
        """Open the object for seekable reading; WorkspaceError without such an object."""
        path = self._path(key)
        try:
            return path.open("rb")
        except FileNotFoundError:
            raise WorkspaceError(
                f"{path} is missing: something outside Maskwheel removed it; restore it"
            ) from None
        except OSError as error:
            raise WorkspaceError(f"{path} cannot be read: {error}") from error

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write the object unless the key is taken; return whether this call created it."""
        path = self._path(key)
        if path.exists():
            return False
        with self._temporary_beside(path) as temporary:
            with temporary.open("xb") as stream:
                stream.write(data)
                _sync(stream)
            return _publish(temporary, path)

    def put_file_if_absent(self, key: str, local_path: Path) -> bool:
        """Copy a local file to the key unless it is taken; return whether this call did.

        A copy, not a link to `local_path`: its owner may go on writing to it.
        """
        path = self._path(key)
        if path.exists():
            return False
        with self._temporary_beside(path) as temporary:
            with local_path.open("rb") as source, temporary.open("xb") as stream:
                shutil.copyfileobj(source, stream, 1024 * 1024)
                _sync(stream)
            return _publish(temporary, path)

    def exists(self, key: str) -> bool:
        """Return whether the object is there, whole."""
        return self._path(key).is_file()

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that start with `prefix` (any string, as on S3), ascending."""
        folder = self.root / prefix.rpartition("/")[0]
        keys = []
        for base, _, names in os.walk(folder):
            where = Path(base).relative_to(self.root)
            keys += [
                (where / name).as_posix()
                for name in names
                if not name.startswith(_TEMPORARY_PREFIX)
            ]
        yield from sorted(key for key in keys if key.startswith(prefix))

    def uri(self, key: str) -> str:
        """Return the ``file://`` address of the object."""
        return file_uri(self._path(key))

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if any(p in ("", ".", "..") or p.startswith(_TEMPORARY_PREFIX) for p in parts):
            raise BadInputError(
                f"got the object key {key!r}; expected names separated by single slashes"
            )
        return self.root.joinpath(*parts)

    @contextmanager
    def _temporary_beside(self, path: Path) -> Iterator[Path]:
        temporary = path.with_name(f"{_TEMPORARY_PREFIX}{uuid.uuid4().hex}")
        try:
            _make_folders(path.parent)
            yield temporary
        except OSError as error:
            raise _write_error(path, error) from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def file_uri(path: Path) -> str:
    """Return ``file://`` and the path as it is, without percent signs.

    Iceberg's readers take everything after ``file://`` literally (a space stays a space), but
    cut at ``?`` and ``#``.

    Raises:
        BadInputError: a relative path, or one with ``?``, ``#`` or control characters.
    """
    text = path.as_posix()
    if not path.is_absolute() or any(c in "?#" or ord(c) < 32 for c in text):
        raise BadInputError(
            f"got the folder {text!r}; expected an absolute path without '?', '#' and control "
            "characters, which data-set addresses cannot hold: choose another folder"
        )
    return f"file://{text}"


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _publish(temporary: Path, path: Path) -> bool:
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    sync_folder(path.parent)
    return True


def _make_folders(folder: Path) -> None:
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        sync_folder(new.parent)


def _write_error(path: Path, error: OSError) -> WorkspaceError:
    no_links = error.errno in (errno.EOPNOTSUPP, errno.ENOSYS) or (
        error.errno == errno.EPERM and error.filename2 is not None
    )
    if no_links:
        return WorkspaceError(
            f"{path} cannot be written: its file system has no hard links ({error}); put the "
            "workspace on a disk that has them (ext4, xfs, APFS, NTFS, NFS)"
        )
    return WorkspaceError(
        f"{path} cannot be written: {error}; check the folder's permissions and free space"
    )
