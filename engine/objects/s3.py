"""The object store in a bucket: AWS's S3, or any server that speaks it.

    store = S3Store("team-data", "birds", S3Options(endpoint="http://127.0.0.1:9000"))

A write is one conditional request (``If-None-Match: *``), which the server executes once. When its
answer is lost, the next attempt meets our own object: the writer's mark, kept as the object's
metadata, tells it from another's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

from engine.errors import WorkspaceError
from engine.objects.s3_client import (
    Answer,
    S3Object,
    S3Options,
    TryAgainError,
    s3_client,
    send,
)
from engine.objects.s3_reading import ObjectReader, read_object
from engine.objects.s3_writing import Target, check_conditions, put_bytes, put_file
from engine.objects.store import (
    TEMPORARY_PREFIX,
    StoredObject,
    check_key,
    check_link_seconds,
    temporary_name,
)

__all__ = ["S3Store"]


@dataclass(frozen=True, slots=True)
class S3Store:
    """An `ObjectStore` below a prefix of a bucket.

    Attributes:
        bucket: the bucket's name.
        prefix: what precedes every key, without slashes at its ends; "" for the whole bucket.
        options: how to reach the server.
    """

    bucket: str
    prefix: str = ""
    options: S3Options = field(default_factory=S3Options)

    @property
    def address(self) -> str:
        """``s3://bucket/prefix``."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def check(self) -> None:
        """Write and remove a probe object.

        Raises:
            WorkspaceError: the bucket cannot be written, or its server does not refuse a second
                write to a key.
            TransientError: the server stayed out of reach.
        """
        # A name of its own: another process that removes its probe must not remove this one.
        probe = Target(self.bucket, self._full(temporary_name()), self.options)
        check_conditions(probe)
        probe.remove()

    def get(self, key: str) -> bytes:
        """Return the object's bytes; MissingObjectError without such an object."""
        return read_object(self._source(key))

    def open(self, key: str) -> BinaryIO:
        """Open the object for seekable reading; MissingObjectError without such an object."""
        return cast(BinaryIO, ObjectReader(self._source(key)))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write the object unless the key is taken; return whether this call created it."""
        return put_bytes(self._target(key), data)

    def put_file_if_absent(self, key: str, local_path: Path) -> bool:
        """Upload a local file to the key unless it is taken; return whether this call did."""
        return put_file(self._target(key), local_path)

    def exists(self, key: str) -> bool:
        """Return whether the object is there, whole."""
        return self.stat(key) is not None

    def stat(self, key: str) -> StoredObject | None:
        """Return the object's size and time, or None without such an object."""
        head = self._target(key).head()
        return None if head is None else _stored(key, head["ContentLength"], head)

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that start with `prefix`, ascending."""
        for item in self.objects(prefix):
            yield item.key

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """Yield what `list` does, with sizes and times; a page of 1,000 at a time.

        Names that end in a slash, which browsers of buckets leave for folders, are not objects.

        Raises:
            WorkspaceError: the server lists out of order, or may not be asked.
            TransientError: the server stayed out of reach.
        """
        previous = ""
        for item in self._listed(self._full(prefix)):
            key = str(item["Key"])
            if key.encode() <= previous.encode() and previous:
                raise WorkspaceError(
                    f"{self.address}: the server lists {key!r} after {previous!r}; expected "
                    "ascending names: use a general-purpose bucket"
                )
            previous = key
            if not key.endswith("/") and not _is_hidden(key):
                yield _stored(key.removeprefix(self._full("")), item["Size"], item)

    def delete(self, key: str) -> None:
        """Remove the object, for garbage collection only; nothing happens when it is absent."""
        self._target(key).remove()

    def remove_unfinished(self, before: datetime) -> int:
        """Drop uploads in parts, and probes, that began before a time; return how many."""
        removed = 0
        for upload in tuple(self._uploads()):
            if cast(datetime, upload["Initiated"]) < before:
                target = Target(self.bucket, str(upload["Key"]), self.options)
                removed += target.abort(str(upload["UploadId"]))
        for item in self._listed(self._full("")):
            key = str(item["Key"])
            if _is_hidden(key) and cast(datetime, item["LastModified"]) < before:
                Target(self.bucket, key, self.options).remove()
                removed += 1
        return removed

    def uri(self, key: str) -> str:
        """Return ``s3://bucket/prefix/key``, the key as it is."""
        return f"s3://{self.bucket}/{self._full(key)}"

    def link(self, key: str, seconds: int = 3600) -> str:
        """Return a signed https address: anyone who has it can read the object until it ends.

        It ends earlier when temporary credentials that signed it do.
        """
        source = self._source(key)
        client = s3_client(self.options)
        seconds = check_link_seconds(seconds)
        return send(
            lambda: str(
                client.generate_presigned_url(
                    "get_object",
                    Params={"Bucket": source.bucket, "Key": source.key},
                    ExpiresIn=seconds,
                )
            ),
            "sign a link to",
            source.uri,
            self.options,
        )

    def _full(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _source(self, key: str) -> S3Object:
        return S3Object(self.bucket, self._full(check_key(key)), self.options)

    def _target(self, key: str) -> Target:
        return Target(self.bucket, self._full(check_key(key)), self.options)

    def _listed(self, prefix: str) -> Iterator[dict[str, Any]]:
        client, where = s3_client(self.options), f"s3://{self.bucket}/{prefix}"
        after: dict[str, str] = {}
        while True:

            def page(after: dict[str, str] = after) -> Answer:
                found = client.list_objects_v2(Bucket=self.bucket, Prefix=prefix, **after)
                return _complete_page(found, "NextContinuationToken")

            found = send(page, "list", where, self.options)
            yield from found.get("Contents", ())
            if not found["IsTruncated"]:
                return
            after = {"ContinuationToken": found["NextContinuationToken"]}

    def _uploads(self) -> Iterator[dict[str, Any]]:
        client, prefix = s3_client(self.options), self._full("")
        after: dict[str, str] = {}
        while True:

            def page(after: dict[str, str] = after) -> Answer:
                found = client.list_multipart_uploads(Bucket=self.bucket, Prefix=prefix, **after)
                return _complete_page(found, "NextKeyMarker")

            found = send(page, "list unfinished uploads of", self.address, self.options)
            yield from found.get("Uploads", ())
            if not found["IsTruncated"]:
                return
            after = {
                "KeyMarker": found["NextKeyMarker"],
                "UploadIdMarker": found["NextUploadIdMarker"],
            }


def _stored(key: str, size_bytes: int, times: Answer) -> StoredObject:
    modified_at = cast(datetime, times["LastModified"]).astimezone(UTC)
    return StoredObject(key, int(size_bytes), modified_at)


def _is_hidden(key: str) -> bool:
    return key.rpartition("/")[2].startswith(TEMPORARY_PREFIX)


def _complete_page(page: Answer, marker: str) -> Answer:
    """Return a page of a listing; a body that was cut to nothing would look like an empty one."""
    if "IsTruncated" not in page or (page["IsTruncated"] and marker not in page):
        raise TryAgainError("a listing without its end")
    return page
