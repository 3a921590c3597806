"""A store as a file system of pyarrow's, which pyiceberg and pyarrow's data sets read and write.

    files = arrow_filesystem(store)
    table = pyarrow.parquet.read_table(store.uri("runs/r/masks-00000.parquet"), filesystem=files)

Paths are whole addresses (``s3://bucket/key``, ``file:///folder/key``). Reading works for every
address that `open_address` takes, writing below the store only.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import pyarrow as pa
from pyarrow.fs import FileInfo, FileSelector, FileSystemHandler, FileType

from engine.errors import MissingObjectError
from engine.objects.address import open_address
from engine.objects.store import ObjectStore

__all__ = ["StoreHandler"]

log = logging.getLogger(__name__)

_IN_MEMORY_BYTES = 8 * 1024 * 1024


class StoreHandler(FileSystemHandler):  # type: ignore[misc]  # pyarrow has no types
    """What pyarrow calls; folders are what keys have in common up to a slash.

    A missing object is a FileNotFoundError here and a taken key a FileExistsError, as pyarrow's
    callers expect; other errors of the store stay as they are.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._root = store.uri("x").removesuffix("x")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoreHandler) and other._root == self._root

    def __hash__(self) -> int:
        return hash(self._root)

    def get_type_name(self) -> str:
        """Return the name that pyarrow shows."""
        return "maskwheel"

    def normalize_path(self, path: str) -> str:
        """Return the path as it is: keys are literal."""
        return path

    def get_file_info(self, paths: Sequence[str]) -> list[FileInfo]:
        """Return what is at each address: a file, a folder, nothing."""
        return [self._info(path) for path in paths]

    def get_file_info_selector(self, selector: FileSelector) -> list[FileInfo]:
        """Return what is below a folder."""
        base = selector.base_dir.rstrip("/") + "/"
        found: dict[str, FileInfo] = {}
        for item in self._store.objects(self._prefix(base)):
            path = self._root + item.key
            *folders, _ = path.removeprefix(base).split("/")
            for depth in range(len(folders) if selector.recursive else min(1, len(folders))):
                folder = base + "/".join(folders[: depth + 1])
                found.setdefault(folder, FileInfo(folder, FileType.Directory))
            if selector.recursive or not folders:
                found[path] = FileInfo(
                    path, FileType.File, size=item.size_bytes, mtime=item.modified_at
                )
        if not found and not selector.allow_not_found:
            raise FileNotFoundError(errno.ENOENT, "no such folder", selector.base_dir)
        return list(found.values())

    def open_input_file(self, path: str) -> pa.NativeFile:
        """Open an object for random access."""
        if path.startswith("file://"):
            return pa.OSFile(path.removeprefix("file://"), "rb")
        with _as_os_error(path):
            ours = path.startswith(self._root)
            stream = self._store.open(self._key(path)) if ours else open_address(path)
            return pa.PythonFile(stream, mode="r")

    def open_input_stream(self, path: str) -> pa.NativeFile:
        """Open an object for reading from front to back."""
        return self.open_input_file(path)

    def open_output_stream(self, path: str, metadata: object) -> pa.NativeFile:
        """Open a new object, which appears when the stream is closed without an exception."""
        return pa.PythonFile(_NewObject(self._store, self._key(path)), mode="w")

    def delete_file(self, path: str) -> None:
        """Remove an object; FileNotFoundError without one."""
        key = self._key(path)
        if not self._store.exists(key):
            raise FileNotFoundError(errno.ENOENT, "no such object", path)
        self._store.delete(key)

    def create_dir(self, path: str, recursive: bool) -> None:
        """Do nothing: a folder is there as soon as something is in it."""

    def delete_dir(self, path: str) -> None:
        """Refuse: see `_refuse`."""
        _refuse("delete the folder", path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        """Refuse: see `_refuse`."""
        _refuse("empty the folder", path)

    def delete_root_dir_contents(self) -> None:
        """Refuse: see `_refuse`."""
        _refuse("empty", self._root)

    def move(self, src: str, dest: str) -> None:
        """Refuse: see `_refuse`."""
        _refuse("move", src)

    def copy_file(self, src: str, dest: str) -> None:
        """Refuse: see `_refuse`."""
        _refuse("copy", src)

    def open_append_stream(self, path: str, metadata: object) -> pa.NativeFile:
        """Refuse: see `_refuse`."""
        _refuse("append to", path)

    def _key(self, path: str) -> str:
        if not path.startswith(self._root):
            raise FileNotFoundError(errno.ENOENT, f"not below {self._root}", path)
        return path.removeprefix(self._root)

    def _prefix(self, base: str) -> str:
        return "" if self._root.startswith(base) else self._key(base)

    def _info(self, path: str) -> FileInfo:
        if path.rstrip("/") == self._root.rstrip("/"):
            return FileInfo(path, FileType.Directory)
        if not path.startswith(self._root):
            return _info_elsewhere(path)
        key = self._key(path).rstrip("/")
        if not path.endswith("/") and (item := self._store.stat(key)) is not None:
            return FileInfo(path, FileType.File, size=item.size_bytes, mtime=item.modified_at)
        inside = next(self._store.list(f"{key}/"), None)
        return FileInfo(path, FileType.NotFound if inside is None else FileType.Directory)


class _NewObject:
    """The file object of a write: collected in memory or a local file, then put in one piece.

    pyarrow closes a stream when an exception leaves its ``with`` block, just as after success.
    The exception is then being handled, and was not when the stream was opened: that tells the
    two apart. A stream that is never closed publishes nothing.
    """

    def __init__(self, store: ObjectStore, key: str) -> None:
        self._store, self._key = store, key
        self._before = sys.exc_info()[1]
        self._stream: BinaryIO = io.BytesIO()
        self._path: Path | None = None
        self.closed = False

    def __del__(self) -> None:
        self._discard()

    def write(self, data: Any) -> int:  # noqa: ANN401  (bytes, or a buffer of pyarrow's)
        view = memoryview(data)
        if self._path is None and self._stream.tell() + view.nbytes > _IN_MEMORY_BYTES:
            self._move_to_disk()
        self._stream.write(view)
        return view.nbytes

    def tell(self) -> int:
        return self._stream.tell()

    def flush(self) -> None:
        """Do nothing: the object appears whole."""

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        error = sys.exc_info()[1]
        try:
            if error is not None and error is not self._before:
                log.debug("%s is not written: %r", self._store.uri(self._key), error)
            elif not self._put():
                raise FileExistsError(
                    errno.EEXIST, "objects are written once", self._store.uri(self._key)
                )
        finally:
            self._discard()

    def _put(self) -> bool:
        if isinstance(self._stream, io.BytesIO):
            return self._store.put_if_absent(self._key, self._stream.getvalue())
        if self._path is None:
            raise ValueError("a stream on disk has a path")
        self._stream.flush()
        return self._store.put_file_if_absent(self._key, self._path)

    def _move_to_disk(self) -> None:
        collected = self._stream
        descriptor, name = tempfile.mkstemp(prefix="maskwheel-")
        self._path, self._stream = Path(name), os.fdopen(descriptor, "wb")
        if isinstance(collected, io.BytesIO):
            self._stream.write(collected.getbuffer())

    def _discard(self) -> None:
        self._stream.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None


def _info_elsewhere(path: str) -> FileInfo:
    try:
        with open_address(path) as stream:
            return FileInfo(path, FileType.File, size=stream.seek(0, io.SEEK_END))
    except MissingObjectError:
        return FileInfo(path, FileType.NotFound)


@contextmanager
def _as_os_error(path: str) -> Iterator[None]:
    try:
        yield
    except MissingObjectError as error:
        raise FileNotFoundError(errno.ENOENT, str(error), path) from error


def _refuse(act: str, path: str) -> NoReturn:
    raise NotImplementedError(f"cannot {act} {path}: objects are written once")
