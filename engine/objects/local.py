"""The object store in a folder.

store = LocalStore(Path("maskwheel-data").resolve())
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from engine.errors import BadInputError, MissingObjectError, WorkspaceError
from engine.objects.store import (
    TEMPORARY_PREFIX,
    StoredObject,
    check_key,
    check_link_seconds,
    temporary_name,
)

__all__ = ["LocalStore", "file_uri", "sync_folder"]

_COPY_BYTES = 1024 * 1024


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

    def __repr__(self) -> str:
        return f"LocalStore({str(self.root)!r})"

    @property
    def address(self) -> str:
        """The folder, as text."""
        return str(self.root)

    def check(self) -> None:
        """Raise WorkspaceError unless the folder can be written and has hard links."""
        probe = self.root / temporary_name()
        try:
            with self._temporary_beside(probe) as temporary:
                temporary.touch(exist_ok=False)
                _publish(temporary, probe)
        finally:
            with suppress(OSError):
                probe.unlink(missing_ok=True)

    def get(self, key: str) -> bytes:
        """Return the object's bytes; MissingObjectError without such an object."""
        with self.open(key) as stream:
            return stream.read()

    def open(self, key: str) -> BinaryIO:
        """Open the object for seekable reading; MissingObjectError without such an object."""
        return open_file(self._path(key))

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
                shutil.copyfileobj(source, stream, _COPY_BYTES)
                _sync(stream)
            return _publish(temporary, path)

    def exists(self, key: str) -> bool:
        """Return whether the object is there, whole."""
        return self._path(key).is_file()

    def stat(self, key: str) -> StoredObject | None:
        """Return the object's size and time, or None without such an object."""
        path = self._path(key)
        try:
            return _stored(key, path.stat()) if path.is_file() else None
        except FileNotFoundError:
            return None  # removed since
        except OSError as error:
            raise WorkspaceError(f"{path} cannot be looked up: {error}") from error

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that start with `prefix` (any string, as on S3), ascending."""
        for key, _ in self._entries(prefix):
            yield key

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """Yield what `list` does, with sizes and times."""
        for key, entry in self._entries(prefix):
            try:
                yield _stored(key, entry.stat())
            except FileNotFoundError:
                continue  # removed since the folder was read

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens when it is absent. Its folder stays."""
        path = self._path(key)
        try:
            path.unlink(missing_ok=True)
        except NotADirectoryError:
            return  # a name above it is itself an object
        except OSError as error:
            raise WorkspaceError(f"{path} cannot be removed: {error}") from error

    def remove_unfinished(self, before: datetime) -> int:
        """Remove hidden files that killed writers left before a time; return how many."""
        removed = 0
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = Path(folder, name)
                if not name.startswith(TEMPORARY_PREFIX):
                    continue
                try:
                    if path.stat().st_mtime < before.timestamp():
                        path.unlink()
                        removed += 1
                except FileNotFoundError:
                    continue  # its writer, or another collector, was first
                except OSError as error:
                    raise WorkspaceError(f"{path} cannot be removed: {error}") from error
        return removed

    def uri(self, key: str) -> str:
        """Return the ``file://`` address of the object."""
        return file_uri(self._path(key))

    def link(self, key: str, seconds: int = 3600) -> str:
        """Return the object's ``file://`` address as browsers take it, percent-encoded."""
        check_link_seconds(seconds)
        return self._path(key).as_uri()

    def _path(self, key: str) -> Path:
        return self.root.joinpath(*check_key(key).split("/"))

    def _entries(self, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        folder = prefix.rpartition("/")[0]
        if set(prefix.split("/")[:-1]) & {"", ".", ".."}:
            return  # no key starts like that
        yield from _walk(self.root / folder, f"{folder}/" if folder else "", prefix)

    @contextmanager
    def _temporary_beside(self, path: Path) -> Iterator[Path]:
        temporary = path.with_name(temporary_name())
        try:
            _make_folders(path.parent)
            yield temporary
        except OSError as error:
            raise _write_error(path, error) from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def open_file(path: Path) -> BinaryIO:
    """Open a file for reading; MissingObjectError, or WorkspaceError, when that fails."""
    try:
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        raise MissingObjectError(
            f"{path} is missing: something outside Maskwheel removed it; restore it"
        ) from None
    except OSError as error:
        raise WorkspaceError(f"{path} cannot be read: {error}") from error


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


def _stored(key: str, status: os.stat_result) -> StoredObject:
    return StoredObject(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


def _walk(folder: Path, base: str, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield the files below a folder whose keys start with `prefix`, ascending by key.

    One folder's names are in memory at a time. A folder sorts as its name with the slash, which
    is where the keys below it belong.
    """
    found: list[tuple[str, os.DirEntry[str]]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    found.append((f"{base}{entry.name}/", entry))
                elif entry.is_file() and not entry.name.startswith(TEMPORARY_PREFIX):
                    found.append((f"{base}{entry.name}", entry))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise WorkspaceError(f"{folder} cannot be listed: {error}") from error
    for key, entry in sorted(found, key=lambda pair: pair[0]):
        if not key.endswith("/"):
            if key.startswith(prefix):
                yield key, entry
        elif key.startswith(prefix) or prefix.startswith(key):
            yield from _walk(Path(entry.path), key, prefix)


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
