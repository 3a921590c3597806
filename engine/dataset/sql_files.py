"""Files of a store as DuckDB opens them: by names of ours, through the store's retries.

    files = StoredFiles(store)
    connection.register_filesystem(files)
    path = files.add("r3/masks/0", data_file)          # "release://r3/masks/0"

Not pyarrow's data sets, which DuckDB reads too: they hang when a file system in Python fails
(pyarrow 26 holds the interpreter's lock while it starts a scan, and needs it to report the error).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, BinaryIO

from fsspec import AbstractFileSystem

from engine.dataset.release_files import DataFile
from engine.errors import EngineError
from engine.objects import ObjectStore

__all__ = ["StoredFiles"]

_PREFIX = "release://"


class StoredFiles(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A read-only file system with just the files that were added.

    Attributes:
        failure: what the store raised last, for DuckDB keeps no more of it than its text.
    """

    protocol = "release"
    cachable = False

    def __init__(self, store: ObjectStore) -> None:
        """Take the store that has the files."""
        super().__init__()
        self.failure: EngineError | None = None
        self._store = store
        self._files: dict[str, DataFile] = {}

    def add(self, name: str, file: DataFile) -> str:
        """Show a file under a name; return the path that DuckDB opens it by."""
        self._files[name] = file
        return f"{_PREFIX}{name}"

    def info(self, path: str, **_: object) -> dict[str, object]:
        """Return size and kind of a file; FileNotFoundError without one. Asks no store."""
        name = path.removeprefix(_PREFIX)
        if name not in self._files:
            raise FileNotFoundError(path)
        return {"name": name, "size": self._files[name].size_bytes, "type": "file"}

    def glob(self, path: str, **_: object) -> list[str]:
        """Return the path itself, if it is there: names have no patterns."""
        return [path] if path.removeprefix(_PREFIX) in self._files else []

    def ls(self, path: str, detail: bool = True, **_: object) -> list[Any]:
        """Return one file."""
        return [self.info(path) if detail else path]

    def modified(self, path: str) -> datetime:
        """Return always the same time: a file never changes."""
        return datetime.fromtimestamp(0, UTC)

    def _open(self, path: str, mode: str = "rb", **_: object) -> _WatchedFile:
        if mode != "rb":
            raise PermissionError(f"{path} is part of a release, which never changes")
        file = self._files[path.removeprefix(_PREFIX)]
        try:
            return _WatchedFile(self._store.open(file.key), self)
        except EngineError as error:
            self.failure = error
            raise


class _WatchedFile:
    """A file that tells its file system of errors. DuckDB drops files without closing them."""

    def __init__(self, stream: BinaryIO, files: StoredFiles) -> None:
        self._stream, self._files = stream, files

    def __del__(self) -> None:
        self._stream.close()

    def read(self, size: int = -1) -> bytes:
        try:
            return self._stream.read(size)
        except EngineError as error:
            self._files.failure = error
            raise

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)
