"""Iceberg's files, synced to disk before the catalog points to them.

pyiceberg leaves its data, manifest and metadata files in the page cache, while SQLite syncs the
row that names them: after a power cut the catalog would point to files that are empty. The
catalog loads this class by name (property ``py-io-impl``).
"""

from __future__ import annotations

import io
import os
from pathlib import Path

from pyiceberg.io import OutputStream
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

from engine.objects import sync_folder

__all__ = ["DurableFileIO"]


class DurableFileIO(PyArrowFileIO):
    """pyiceberg's own file access, for local folders, with synced writes."""

    def new_output(self, location: str) -> PyArrowFile:
        """Return the file to write at a ``file://`` location."""
        scheme, netloc, path = self.parse_location(location, self.properties)
        return _DurableFile(location=location, path=path, fs=self.fs_by_scheme(scheme, netloc))


class _DurableFile(PyArrowFile):
    def create(self, overwrite: bool = False) -> OutputStream:
        path = Path(self._path)
        path.parent.mkdir(parents=True, exist_ok=True)
        return _SyncedStream(path, overwrite=overwrite)


class _SyncedStream(io.BufferedWriter):
    def __init__(self, path: Path, *, overwrite: bool) -> None:
        super().__init__(io.FileIO(path, "wb" if overwrite else "xb"), 1024 * 1024)
        self._folder = path.parent

    def close(self) -> None:
        if self.closed:
            return
        self.flush()
        os.fsync(self.fileno())
        super().close()
        sync_folder(self._folder)
