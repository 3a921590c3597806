"""Reading S3 objects: in one piece, or as a seekable file; a cut answer goes on where it broke.

data = read_object(S3Object("photos", "2024/a.jpg", options))
with ObjectReader(source) as stream:
    stream.seek(-8, os.SEEK_END)
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from typing import TYPE_CHECKING, Any

from engine.errors import BadInputError, WorkspaceError
from engine.objects.s3_client import (
    Answer,
    Retries,
    S3Object,
    TryAgainError,
    refusal_status,
    request_errors,
    s3_client,
    send,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["SHA256_FIELD", "ObjectReader", "read_object"]

SHA256_FIELD = "maskwheel-sha256"
_LOOKS = 2
_PIECE_BYTES = 256 * 1024
_TAIL_BYTES = 64 * 1024
_LEAST_BYTES = 64 * 1024
_MOST_BYTES = 8 * 1024 * 1024
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


def read_object(source: S3Object, max_bytes: int | None = None) -> bytes:
    """Return an object's bytes, by one request when nothing goes wrong.

    They are compared with the checksum that our own uploads leave beside the object.

    Raises:
        BadInputError: it has more than `max_bytes`; only its size was read.
        MissingObjectError: there is no such object.
        WorkspaceError: it may not be read, is damaged, or changes while it is read.
        TransientError: the server stayed out of reach.
    """
    for _ in range(_LOOKS):
        answer = send(lambda: _get(source), "read", source.uri, source.options)
        size_bytes = int(answer["ContentLength"])
        if max_bytes is not None and size_bytes > max_bytes:
            answer["Body"].close()
            raise BadInputError(
                f"{source.uri} has {size_bytes:,} bytes; expected at most {max_bytes:,}"
            )
        data = _receive_all(source, 0, size_bytes, answer["ETag"], answer)
        expected = answer.get("Metadata", {}).get(SHA256_FIELD)
        if expected is None or hashlib.sha256(data).hexdigest() == expected:
            return data
    raise WorkspaceError(
        f"{source.uri} is damaged: its SHA-256 is not {expected}, which it was written with; "
        "restore it from a backup"
    )


class ObjectReader(io.BufferedIOBase):
    """A seekable file over an object; every request asks for a range and nothing stays open.

    Opening fetches the object's last 64 KiB: its size comes with them, small objects are whole,
    and Parquet's footer is there. Reading on from where the last read ended fetches more each
    time, up to 8 MiB; a read elsewhere fetches little more than it needs.

    Attributes:
        size_bytes: the object's length.
    """

    def __init__(self, source: S3Object) -> None:
        """Look the object up.

        Raises:
            MissingObjectError: there is no such object.
            WorkspaceError: it may not be read.
            TransientError: the server stayed out of reach.
        """
        super().__init__()
        self.name = source.uri
        self._source = source
        self.size_bytes, self._etag, self._tail = _read_tail(source)
        self._position = 0
        self._expected = 0  # where a reader from front to back reads next
        self._ahead_bytes = _LEAST_BYTES
        self._window, self._window_start = b"", 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return where the next read starts."""
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to an offset from the start, from here, or from the end."""
        self._check_open()
        bases = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size_bytes}
        if whence not in bases or bases[whence] + offset < 0:
            raise ValueError(f"cannot seek by {offset} in mode {whence}")
        self._position = bases[whence] + offset
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next `size` bytes, fewer at the end only; without a size, all that follow."""
        self._check_open()
        start = self._position
        wanted = self.size_bytes if size is None or size < 0 else start + size
        stop = min(wanted, self.size_bytes)
        if start >= stop:
            return b""
        data = self._range(start, stop)
        self._position = self._expected = stop
        return data

    def read1(self, size: int = -1, /) -> bytes:
        """Return what `read` does, at most 64 KiB when no size is given."""
        return self.read(_LEAST_BYTES if size < 0 else size)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer; return how many bytes there were."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def readinto1(self, buffer: WriteableBuffer, /) -> int:
        """Do what `readinto` does."""
        return self.readinto(buffer)

    def peek(self, size: int = 1, /) -> bytes:
        """Return what comes next, without moving; IOBase's readline asks for it."""
        position, expected = self._position, self._expected
        data = self.read(max(size, 4096))
        self._position, self._expected = position, expected
        return data

    def _range(self, start: int, stop: int) -> bytes:
        tail_start = self.size_bytes - len(self._tail)
        if start >= tail_start:
            return self._tail[start - tail_start : stop - tail_start]
        begin, end = self._window_start, self._window_start + len(self._window)
        if not (begin <= start and stop <= end):
            self._ahead_bytes = (
                min(self._ahead_bytes * 2, _MOST_BYTES) if start == self._expected else _LEAST_BYTES
            )
            kept = self._window[start - begin :] if begin <= start < end else b""
            until = min(max(stop, start + self._ahead_bytes), self.size_bytes)
            fetched = _receive_all(self._source, start + len(kept), until, self._etag)
            self._window, self._window_start = kept + fetched, start
        offset = start - self._window_start
        return self._window[offset : offset + stop - start]

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError(f"{self.name} is closed")


def _receive_all(
    source: S3Object, start: int, stop: int, etag: str, answer: Answer | None = None
) -> bytes:
    """Return the bytes from `start` to `stop`, by as many requests as it takes.

    The first of them may have been made: `answer`.
    """
    received = bytearray()
    retries = Retries("read", source.uri, source.options)
    while True:
        have = len(received)
        try:
            if answer is None:
                answer = _get_range(source, start + have, stop, etag)
            _receive(answer, stop - start, received)
            return bytes(received)
        except request_errors() as error:
            if len(received) - have >= _PIECE_BYTES:
                retries.progress()
            retries.failed(error)
            answer = None


def _get_range(source: S3Object, start: int, stop: int, etag: str) -> Answer:
    answer = _get(source, Range=f"bytes={start}-{stop - 1}", IfMatch=etag)
    if (found := _answered_range(answer)) is None or found[0] != start:
        answer["Body"].close()
        raise WorkspaceError(
            f"could not read {source.uri}: asked for the bytes from {start}, the server sent "
            f"{answer.get('ContentRange', 'all')}; use a server that answers range requests"
        )
    return answer


def _read_tail(source: S3Object) -> tuple[int, str, bytes]:
    """Return an object's size, ETag and last bytes."""
    answer = send(lambda: _get_tail(source), "read", source.uri, source.options)
    if answer is None:
        return _empty(source)
    # Small objects may come whole, without a range.
    first, size = _answered_range(answer) or (0, int(answer["ContentLength"]))
    etag = str(answer["ETag"])
    return size, etag, _receive_all(source, first, size, etag, answer)


def _get_tail(source: S3Object) -> Answer | None:
    try:
        return _get(source, Range=f"bytes=-{_TAIL_BYTES}")
    except request_errors() as error:
        if refusal_status(error) == 416:  # it has no last bytes
            return None
        raise


def _empty(source: S3Object) -> tuple[int, str, bytes]:
    client = s3_client(source.options)
    head = send(
        lambda: client.head_object(Bucket=source.bucket, Key=source.key),
        "look up",
        source.uri,
        source.options,
    )
    if (size := int(head["ContentLength"])) != 0:
        raise WorkspaceError(
            f"could not read {source.uri}: the server has no last bytes of {size}; use a server "
            "that answers range requests"
        )
    return 0, str(head["ETag"]), b""


def _get(source: S3Object, **conditions: str) -> Answer:
    return s3_client(source.options).get_object(Bucket=source.bucket, Key=source.key, **conditions)


def _answered_range(answer: Answer) -> tuple[int, int] | None:
    """Return the first byte and the object's size, or None for an answer with all of it."""
    found = _RANGE.fullmatch(answer.get("ContentRange", ""))
    return None if found is None else (int(found[1]), int(found[3]))


def _receive(answer: Answer, length: int, received: bytearray) -> None:
    """Append an answer's body, which makes `length` bytes; fewer raise a request error."""
    body: Any = answer["Body"]
    try:
        while piece := body.read(_PIECE_BYTES):
            received += piece
    finally:
        body.close()
    if len(received) < length:
        raise TryAgainError(f"got {len(received)} bytes of {length}")
    del received[length:]
