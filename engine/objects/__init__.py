"""Object storage: immutable keys that are written once, in a folder or in a bucket.

    store = open_store("s3://team-data/birds")                  # or a folder
    created = store.put_if_absent("runs/r/run.json", b"{}")    # False: somebody was first

A key's existence is a checkpoint, so an object appears whole or not at all, and is never
rewritten. Nothing here imports boto3 or pyarrow before the first request that needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.objects.address import (
    S3Address,
    absolute_address,
    is_remote,
    open_address,
    open_store,
    parse_s3_address,
    read_address,
)
from engine.objects.local import LocalStore, file_uri, sync_folder
from engine.objects.s3 import S3Store
from engine.objects.s3_client import Backoff, S3Options
from engine.objects.store import ObjectStore, StoredObject

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

__all__ = [
    "Backoff",
    "LocalStore",
    "ObjectStore",
    "S3Address",
    "S3Options",
    "S3Store",
    "StoredObject",
    "absolute_address",
    "arrow_filesystem",
    "file_uri",
    "is_remote",
    "open_address",
    "open_store",
    "parse_s3_address",
    "read_address",
    "sync_folder",
]


def arrow_filesystem(store: ObjectStore) -> FileSystem:
    """Return a store as pyarrow and pyiceberg take it; its paths are whole addresses.

    What it reads goes through the store, with its retries. A file that is written appears at its
    key, once, when it is closed; one that an exception leaves does not. See
    `engine.objects.filesystem.StoreHandler`.
    """
    from pyarrow.fs import PyFileSystem

    from engine.objects.filesystem import StoreHandler

    return PyFileSystem(StoreHandler(store))
