"""Embeddings of a workspace's images, made once, in the order in which people need them.

    with EmbeddingService(store, encode) as service:
        service.prefetch(model_id, images)                            # when nothing else waits
        data = service.get(model_id, image, timeout_seconds=30)       # somebody looks at it now
        future = service.request(model_id, image, urgent=True)        # the same without waiting

They are kept as objects of the store, so that a workspace encodes an image once per model, and the
latest in memory too.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from engine.annotation.embeddings import embedding_key
from engine.annotation.records import CampaignImage
from engine.annotation.work_queue import WorkQueue
from engine.closing import Closing
from engine.errors import ImageError, MissingObjectError, TransientError
from engine.objects import ObjectStore

__all__ = ["EmbeddingService", "Encode"]

log = logging.getLogger(__name__)

Encode = Callable[[str, CampaignImage], bytes]
_WAITING = 1000
_MEMORY_BYTES = 128 * 1024 * 1024
_FAILURES = 1000
# What is wrong with the bytes themselves; a file that is away may come back.
_LASTING = frozenset({"empty", "not-an-image", "unsupported", "truncated", "corrupt", "too-large"})


class EmbeddingService(Closing):
    """Embeddings on demand and ahead of it; threads may share it."""

    def __init__(
        self, store: ObjectStore, encode: Encode, *, queue: WorkQueue[bytes] | None = None
    ) -> None:
        """Start the worker.

        Args:
            store: of the workspace.
            encode: takes a model id and an image, returns the file; called by one thread.
            queue: whose worker encodes, where it has other things to do too; it is closed with the
                service.
        """
        self._store = store
        self._encode = encode
        self._queue: WorkQueue[bytes] = queue or WorkQueue("embeddings", limit=_WAITING)
        self._lock = threading.Lock()
        self._recent: OrderedDict[str, bytes] = OrderedDict()
        self._failures: OrderedDict[str, ImageError] = OrderedDict()

    @property
    def alive(self) -> bool:
        """Whether embeddings are still being made."""
        return self._queue.alive

    def find(self, model_id: str, image_id: int) -> bytes | None:
        """Return an embedding that was made before, or None.

        Raises:
            TransientError: the store cannot be reached.
        """
        key = embedding_key(model_id, image_id)
        with self._lock:
            data = self._recent.get(key)
            if data is not None:
                self._recent.move_to_end(key)
                return data
        try:
            data = self._store.get(key)
        except MissingObjectError:
            return None
        self._remember(key, data)
        return data

    def request(self, model_id: str, image: CampaignImage, *, urgent: bool) -> Future[bytes]:
        """Ask for an embedding; returns at once.

        Args:
            model_id: of which model.
            image: of which image.
            urgent: a person waits for it.

        Returns:
            Its bytes, or ImageError where the image cannot be used, or another error of the
            engine's. Cancelling it takes nothing from others who asked for the same.

        Raises:
            TransientError: too many wait already, or the service is closing.
        """
        key = embedding_key(model_id, image.image_id)
        failure = self.failure(model_id, image.image_id)
        if failure is not None:
            failed: Future[bytes] = Future()
            failed.set_exception(failure)
            return failed
        return self._queue.submit(key, lambda: self._make(key, model_id, image), urgent=urgent)

    def get(self, model_id: str, image: CampaignImage, *, timeout_seconds: float) -> bytes | None:
        """Return an embedding, made now if it must be; None when that takes longer.

        Raises:
            ImageError: the image cannot be used.
            TransientError: too many wait already, or the service is closing.
        """
        found = self.find(model_id, image.image_id)
        if found is not None:
            return found
        try:
            return self.request(model_id, image, urgent=True).result(timeout_seconds)
        except TimeoutError:
            return None

    def prefetch(self, model_id: str, images: Iterable[CampaignImage]) -> int:
        """Make embeddings when nothing urgent waits; returns at once.

        Returns:
            How many are taken on: as many as the queue has room for, from the first one.
        """
        count = 0
        for image in images:
            key = embedding_key(model_id, image.image_id)
            with self._lock:
                known = key in self._recent or key in self._failures
            if not known:
                try:
                    self.request(model_id, image, urgent=False)
                except TransientError as error:
                    log.debug("no embedding ahead: %s", error)
                    break
            count += 1
        return count

    def withdraw(self, model_id: str, images: Iterable[CampaignImage]) -> None:
        """Make embeddings no more that are waited for by nobody."""
        self._queue.withdraw([embedding_key(model_id, image.image_id) for image in images])

    def failure(self, model_id: str, image_id: int) -> ImageError | None:
        """Return why an image cannot be encoded, once that is known."""
        with self._lock:
            return self._failures.get(embedding_key(model_id, image_id))

    def close(self) -> None:
        """Finish the image that is being encoded; whoever waits for others is told."""
        self._queue.close()

    def _make(self, key: str, model_id: str, image: CampaignImage) -> bytes:
        found = self.find(model_id, image.image_id)
        if found is not None:
            return found
        try:
            data = self._encode(model_id, image)
        except ImageError as error:
            log.warning("image %d cannot be encoded: %s", image.image_id, error)
            self._record_failure(key, error)
            raise
        except Exception:
            log.exception("image %d was not encoded", image.image_id)
            raise
        self._remember(key, data)
        self._keep(key, data)
        return data

    def _keep(self, key: str, data: bytes) -> None:
        try:
            self._store.put_if_absent(key, data)
        except TransientError as error:
            # Whoever waits gets it all the same; it is made again another time.
            log.warning("%s was not stored: %s", key, error)

    def _remember(self, key: str, data: bytes) -> None:
        with self._lock:
            self._recent[key] = data
            self._recent.move_to_end(key)
            while sum(map(len, self._recent.values())) > _MEMORY_BYTES and len(self._recent) > 1:
                self._recent.popitem(last=False)

    def _record_failure(self, key: str, error: ImageError) -> None:
        if error.reason not in _LASTING:
            return
        with self._lock:
            self._failures[key] = error
            while len(self._failures) > _FAILURES:
                self._failures.popitem(last=False)
