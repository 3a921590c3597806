"""Writing S3 objects once: by one conditional request, or by parts that one such request joins.

created = put_file(Target("team-data", "birds/runs/r/masks-00000.parquet", options), path)
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from engine.errors import EngineError, TransientError, WorkspaceError
from engine.objects.s3_client import (
    Answer,
    S3Object,
    S3Options,
    TryAgainError,
    refusal_status,
    request_errors,
    s3_client,
    send,
)
from engine.objects.s3_reading import SHA256_FIELD
from engine.objects.store import temporary_name

__all__ = ["Target", "check_conditions", "put_bytes", "put_file"]

log = logging.getLogger(__name__)

_WRITER_FIELD = "maskwheel-writer"
_MAX_PUT_BYTES = 5 * 1024**3
_MAX_PARTS = 10_000
_UPLOADERS = 4
_COPY_BYTES = 1024 * 1024
_PROBE = b"A test whether this server refuses a second write.\n"
_NO_CONDITIONS = (
    "writes to a key that is taken are not refused (If-None-Match: *), so two writers would "
    "overwrite each other; use AWS S3, Ceph, a current MinIO, or another server that has "
    "conditional writes"
)


@dataclass(frozen=True, slots=True)
class Target(S3Object):
    """An object to write."""

    def head(self) -> Answer | None:
        """Return what the server knows about the object; None without one."""

        def attempt() -> Answer | None:
            try:
                return s3_client(self.options).head_object(**self.place)
            except request_errors() as error:
                if refusal_status(error) == 404:
                    return None
                raise

        return send(attempt, "look up", self.uri, self.options)

    def holds(self, writer: str) -> bool:
        """Return whether the object that is there is this writer's.

        Raises:
            TryAgainError: there is none.
        """
        head = self.head()
        if head is None:
            raise TryAgainError("refused for an object that is not there")
        return bool(head.get("Metadata", {}).get(_WRITER_FIELD) == writer)

    def remove(self) -> None:
        """Delete the object; nothing happens when it is absent."""

        def attempt() -> None:
            try:
                s3_client(self.options).delete_object(**self.place)
            except request_errors() as error:
                if refusal_status(error) != 404 or "NoSuchBucket" in str(error):
                    raise

        send(attempt, "remove", self.uri, self.options)

    def abort(self, upload_id: str) -> bool:
        """Drop the parts of an upload; return False when it is gone already."""

        def attempt() -> bool:
            try:
                s3_client(self.options).abort_multipart_upload(**self.place, UploadId=upload_id)
            except request_errors() as error:
                if refusal_status(error) == 404:
                    return False
                raise
            return True

        return send(attempt, "drop an unfinished upload of", self.uri, self.options)


@dataclass(frozen=True, slots=True)
class _Digest:
    sha256: str
    md5: str


def put_bytes(target: Target, data: bytes) -> bool:
    """Write an object unless its key is taken; return whether this call created it.

    Raises:
        WorkspaceError: the server refused for good.
        TransientError: it stayed out of reach; the object may be there or not.
    """
    sha256 = hashlib.sha256(data).hexdigest()
    return _put(target, data, _Digest(sha256, _md5(data)), uuid.uuid4().hex)


def put_file(target: Target, local_path: Path) -> bool:
    """Upload a file unless its key is taken; return whether this call created the object.

    Large files go in parts, where the server joins them conditionally.

    Raises:
        WorkspaceError: the file cannot be read, or the server refused for good.
        TransientError: the server stayed out of reach; the object may be there or not.
    """
    try:
        with local_path.open("rb") as stream:
            if target.head() is not None:
                return False  # without sending it all to be refused
            size_bytes = os.fstat(stream.fileno()).st_size
            digest = _digest(stream)
            if size_bytes > target.options.multipart_bytes and _joins_conditionally(target):
                return _put_in_parts(target, local_path, size_bytes, digest)
            if size_bytes > _MAX_PUT_BYTES:
                raise WorkspaceError(
                    f"{local_path} has {size_bytes:,} bytes; {target.options.endpoint or 'S3'} "
                    f"takes {_MAX_PUT_BYTES:,} in one request and has no conditional uploads in "
                    "parts: make smaller shards"
                )
            return _put(target, stream, digest, uuid.uuid4().hex)
    except OSError as error:
        raise WorkspaceError(f"{local_path} cannot be read: {error}") from error


def check_conditions(target: Target) -> None:
    """Write the target twice; the second request must be refused. The object stays.

    Raises:
        WorkspaceError: it was not, or the server refused for good.
        TransientError: the server stayed out of reach.
    """
    for _ in range(2):
        try:
            created = put_bytes(target, _PROBE)
        except WorkspaceError as error:
            if _is_unknown_to_server(error):
                raise WorkspaceError(f"{target.uri}: {_NO_CONDITIONS}") from error
            raise
        if not created:
            return
    raise WorkspaceError(f"{target.uri}: {_NO_CONDITIONS}")


def _put(target: Target, body: bytes | BinaryIO, digest: _Digest, writer: str) -> bool:
    def attempt() -> bool:
        if not isinstance(body, bytes):
            body.seek(0)
        try:
            s3_client(target.options).put_object(
                **target.place,
                Body=body,
                IfNoneMatch="*",
                ContentMD5=digest.md5,
                Metadata=_metadata(digest, writer),
            )
        except request_errors() as error:
            if refusal_status(error) != 412:
                raise
            # Another's object; or ours, when the answer to an earlier attempt was lost.
            return target.holds(writer)
        return True

    return send(attempt, "write", target.uri, target.options)


def _put_in_parts(target: Target, local_path: Path, size_bytes: int, digest: _Digest) -> bool:
    """Upload parts side by side, and join them unless the key is taken."""
    for _ in range(target.options.backoff.attempts):
        writer = uuid.uuid4().hex
        upload_id = _begin(target, digest, writer)
        joined: bool | None = None
        try:
            etags = _send_parts(target, upload_id, local_path, size_bytes)
            joined = _join(target, upload_id, etags, writer)
        finally:
            if not joined:
                _drop(target, upload_id)
        if joined is not None:
            return joined
    raise TransientError(
        f"could not write {target.uri}: other writers were in the way each time; run the command "
        "again"
    )


def _begin(target: Target, digest: _Digest, writer: str) -> str:
    def attempt() -> str:
        answer = s3_client(target.options).create_multipart_upload(
            **target.place, Metadata=_metadata(digest, writer)
        )
        if "UploadId" not in answer:
            raise TryAgainError("an upload without a name")
        return str(answer["UploadId"])

    return send(attempt, "begin to write", target.uri, target.options)


def _send_parts(target: Target, upload_id: str, local_path: Path, size_bytes: int) -> list[str]:
    """Return the parts' ETags, in order."""
    part_bytes = max(target.options.part_bytes, -(-size_bytes // _MAX_PARTS))

    def send_part(index: int) -> str:
        with local_path.open("rb") as stream:
            stream.seek(index * part_bytes)
            return _send_part(target, upload_id, index + 1, stream.read(part_bytes))

    pool = ThreadPoolExecutor(_UPLOADERS, thread_name_prefix="upload")
    try:
        return list(pool.map(send_part, range(-(-size_bytes // part_bytes))))
    finally:
        pool.shutdown(cancel_futures=True)


def _send_part(target: Target, upload_id: str, number: int, data: bytes) -> str:
    """Upload one part; return its ETag."""
    md5 = _md5(data)

    def attempt() -> str:
        answer = s3_client(target.options).upload_part(
            **target.place, UploadId=upload_id, PartNumber=number, Body=data, ContentMD5=md5
        )
        return str(answer["ETag"])

    return send(attempt, f"write part {number} of", target.uri, target.options)


def _join(target: Target, upload_id: str, etags: list[str], writer: str) -> bool | None:
    """Return whether the parts became the object; None when they must be sent again."""
    parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]

    def attempt() -> bool | None:
        try:
            answer = s3_client(target.options).complete_multipart_upload(
                **target.place,
                UploadId=upload_id,
                MultipartUpload={"Parts": parts},
                IfNoneMatch="*",
            )
        except request_errors() as error:
            status = refusal_status(error)
            if status == 409:  # S3 wants a new upload after a conflict
                return None
            # 404: an earlier attempt joined the parts and its answer was lost, or somebody
            # dropped the upload.
            if status not in (404, 412) or "NoSuchBucket" in str(error):
                raise
            if status == 404 and target.head() is None:
                return None
            return target.holds(writer)
        if "ETag" not in answer:
            raise TryAgainError("no word whether the parts were joined")
        return True

    return send(attempt, "write", target.uri, target.options)


def _drop(target: Target, upload_id: str) -> None:
    try:
        target.abort(upload_id)
    except EngineError as error:
        # The parts are invisible, and `remove_unfinished` finds them later.
        log.warning("%s", error)


# Whether a bucket's server joins parts conditionally, as far as this process knows.
_joins: dict[tuple[str, S3Options], bool] = {}


def _joins_conditionally(target: Target) -> bool:
    """Return whether the server refuses to join parts to a key that is taken.

    Older servers know the condition for single writes only. A process asks once, by joining one
    part to a hidden object that is there.
    """
    question = (target.bucket, target.options)
    if question not in _joins:
        folder = target.key.rpartition("/")[0]
        name = temporary_name()
        probe = Target(target.bucket, f"{folder}/{name}" if folder else name, target.options)
        try:
            put_bytes(probe, _PROBE)
            _joins[question] = _is_join_refused(probe)
        finally:
            probe.remove()
        if not _joins[question]:
            log.info("s3://%s joins no parts conditionally: files go in one piece", target.bucket)
    return _joins[question]


def _is_join_refused(probe: Target) -> bool:
    writer = uuid.uuid4().hex
    upload_id = _begin(probe, _Digest(hashlib.sha256(_PROBE).hexdigest(), _md5(_PROBE)), writer)
    try:
        etag = _send_part(probe, upload_id, 1, _PROBE)
        return _join(probe, upload_id, [etag], writer) is False
    except WorkspaceError as error:
        if _is_unknown_to_server(error):
            return False
        raise
    finally:
        _drop(probe, upload_id)


def _is_unknown_to_server(error: WorkspaceError) -> bool:
    cause = error.__cause__
    return isinstance(cause, Exception) and refusal_status(cause) == 501


def _metadata(digest: _Digest, writer: str) -> dict[str, str]:
    return {SHA256_FIELD: digest.sha256, _WRITER_FIELD: writer}


def _digest(stream: BinaryIO) -> _Digest:
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    while piece := stream.read(_COPY_BYTES):
        sha256.update(piece)
        md5.update(piece)
    return _Digest(sha256.hexdigest(), base64.b64encode(md5.digest()).decode())


def _md5(data: bytes) -> str:
    """Return the checksum that every S3 server compares an upload with."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
