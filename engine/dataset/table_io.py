"""Iceberg's files through the object store: durable when local, whole or absent on S3.

    io = TableIO(workspace.store)
    with io.new_output(location).create() as stream: stream.write(...)

pyiceberg leaves its files in the page cache, while SQLite syncs the row that names them: after a
power cut the catalog would point to empty files. On S3, pyarrow publishes what was written so far
when a writer fails. Here a file is synced before it is closed, and an object is one conditional
PUT of a finished file; reads go through the store, its retries and resumed downloads.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

from pyarrow.fs import LocalFileSystem
from pyiceberg.io import FileIO, InputFile, OutputFile, OutputStream
from pyiceberg.io.pyarrow import PyArrowFile
from pyiceberg.typedef import EMPTY_DICT, Properties

from engine.objects import ObjectStore, arrow_filesystem, sync_folder

__all__ = ["TableIO"]

_BUFFER_BYTES = 1024 * 1024
_FILE = "file://"


class TableIO(FileIO):
    """pyiceberg's file access for one workspace; it reads files elsewhere too."""

    def __init__(self, store: ObjectStore, properties: Properties = EMPTY_DICT) -> None:
        super().__init__(properties)
        self._store = store

    def new_input(self, location: str) -> InputFile:
        """Return the file to read at a location."""
        return self._file(location)

    def new_output(self, location: str) -> OutputFile:
        """Return the file to write at a location in the workspace."""
        return self._file(location)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        """Delete a file of the workspace.

        Raises:
            FileNotFoundError: it is absent, in a folder; in a bucket that is fine.
        """
        where = location if isinstance(location, str) else location.location
        if where.startswith(_FILE):
            Path(where.removeprefix(_FILE)).unlink()
        else:
            self._store.delete(where.removeprefix(self._store.uri("x").removesuffix("x")))

    def _file(self, location: str) -> PyArrowFile:
        if location.startswith(_FILE):
            path = location.removeprefix(_FILE)
            return _LocalFile(location=location, path=path, fs=LocalFileSystem())
        return _StoredFile(location=location, path=location, fs=arrow_filesystem(self._store))


class _LocalFile(PyArrowFile):
    def create(self, overwrite: bool = False) -> OutputStream:
        path = Path(self._path)
        path.parent.mkdir(parents=True, exist_ok=True)
        return _SyncedStream(path, overwrite=overwrite)


class _SyncedStream(io.BufferedWriter):
    def __init__(self, path: Path, *, overwrite: bool) -> None:
        super().__init__(io.FileIO(path, "wb" if overwrite else "xb"), _BUFFER_BYTES)
        self._folder = path.parent

    def close(self) -> None:
        if self.closed:
            return
        self.flush()
        os.fsync(self.fileno())
        super().close()
        sync_folder(self._folder)


class _StoredFile(PyArrowFile):
    def create(self, overwrite: bool = False) -> OutputStream:
        # The store refuses a key that is taken; pyiceberg would only ask first. Its names are
        # unique, so that there is never anything to overwrite.
        stream: OutputStream = self._filesystem.open_output_stream(self._path)
        return stream
