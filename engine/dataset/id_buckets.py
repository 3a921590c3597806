"""More ids than fit into memory, dealt to temporary files of which each one does.

    with IdBuckets(np.dtype([("id", "<i8"), ("place", "<i8")]), expected_rows=10**9) as buckets:
        buckets.add(records)                       # any number of times, from any thread
        for records in buckets:                    # equal ids are in one bucket
            ...

What a database calls a partitioned hash join: equal ids meet in memory, a bucket at a time. Few
records never touch the disk.
"""

from __future__ import annotations

import math
import tempfile
import threading
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from engine.closing import Closing

__all__ = ["IdBuckets"]

_BUCKET_BYTES = 64 * 1024 * 1024
_MEMORY_BYTES = 256 * 1024 * 1024
# As many temporary files may be open at once.
_MAX_BUCKETS = 256
# Fibonacci hashing: spreads ids that count up as well as ids that are hashes.
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


class IdBuckets(Closing):
    """Records with a field ``id``, by the id's hash. Memory: one bucket, or a fixed amount."""

    def __init__(
        self, dtype: np.dtype[np.void], expected_rows: int, bucket_bytes: int = _BUCKET_BYTES
    ) -> None:
        """Prepare for records.

        Args:
            dtype: of the records; ``id`` is an int64 field.
            expected_rows: about how many there will be; more only need more memory.
            bucket_bytes: how large a bucket should be at most.
        """
        wanted = max(1, expected_rows * dtype.itemsize / bucket_bytes)
        self._bits = min(math.ceil(math.log2(wanted)), int(math.log2(_MAX_BUCKETS)))
        self._dtype, self._lock = dtype, threading.Lock()
        count = 2**self._bits
        self._files = [
            tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES // count)  # noqa: SIM115
            for _ in range(count)
        ]

    def close(self) -> None:
        """Let go of what it reads or writes."""
        for file in self._files:
            file.close()

    def add(self, records: NDArray[np.void]) -> None:
        """Deal records; may be called from any thread."""
        if not self._bits:
            with self._lock:
                self._files[0].write(records.tobytes())
            return
        hashes = records["id"].astype(np.uint64) * _SPREAD
        buckets = (hashes >> np.uint64(64 - self._bits)).astype(np.int64)
        order = np.argsort(buckets, kind="stable")
        ends = np.cumsum(np.bincount(buckets, minlength=len(self._files)))
        start = 0
        with self._lock:
            for file, end in zip(self._files, ends.tolist(), strict=True):
                if end > start:
                    file.write(records[order[start:end]].tobytes())
                start = end

    def __iter__(self) -> Iterator[NDArray[np.void]]:
        """Yield the records of each bucket; nothing may be added afterwards."""
        for file in self._files:
            file.seek(0)
            records = np.frombuffer(file.read(), self._dtype)
            if len(records):
                yield records
