"""What the annotation service needs of models: embeddings, decoders for browsers, and answers.

    with ModelService(workspace.store, workspace.local_folder) as models:
        folder = models.decoder_folder(model_id)                       # .onnx files for the page
        data = models.embedding(model_id, image, wait_seconds=20)
        answer = models.decode(model_id, image, prompts, None)         # for browsers too slow

Models are versions of the workspace's registry. Only the worker thread touches torch, and only when
something is to be encoded or exported for the first time.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.annotation.decoder_files import (
    export_decoder_files,
    find_decoder_files,
)
from engine.annotation.embedding_service import EmbeddingService
from engine.annotation.embeddings import embedding_bytes, read_embedding
from engine.annotation.onnx_decoder import DecoderPrompts, OnnxDecoder, PreparedImage
from engine.annotation.records import BoxPrompt, CampaignImage, PointPrompt
from engine.annotation.work_queue import WorkQueue
from engine.closing import Closing
from engine.errors import BadInputError, ImageError
from engine.images import ImageLimits, content_id, decode_image, read_image_bytes
from engine.objects import ObjectStore

if TYPE_CHECKING:
    from model import Sam

__all__ = ["ModelService"]

log = logging.getLogger(__name__)

_WAITING = 1000
_PREPARED = 8  # 14 MB each for SAM
_DECODE_WAITS_SECONDS = 5.0


class ModelService(Closing):
    """Models of a workspace at work; close it, or use it as a context manager. Threads share it."""

    def __init__(
        self,
        store: ObjectStore,
        local_folder: Path,
        *,
        image_limits: ImageLimits | None = None,
        device: str | None = None,
        threads: int | None = None,
    ) -> None:
        """Start the worker; loads nothing yet.

        Args:
            store: of the workspace.
            local_folder: where exported decoders are kept, see `Workspace.local_folder`.
            image_limits: larger images are refused.
            device: to encode on; by default the best there is.
            threads: to encode with; by default as many as there are cores.
        """
        limits = image_limits or ImageLimits()
        self._models = _Models(store, device, threads)
        self._local_folder = local_folder
        self._embeddings = EmbeddingService(
            store, lambda model_id, image: self._models.encode(model_id, image, limits)
        )
        self._exports: WorkQueue[Path] = WorkQueue("decoders", limit=_WAITING)
        self._lock = threading.Lock()
        self._decoders: dict[str, OnnxDecoder] = {}
        self._prepared: OrderedDict[tuple[str, int], PreparedImage] = OrderedDict()

    @property
    def alive(self) -> bool:
        """Whether embeddings are still being made."""
        return self._embeddings.alive

    def embedding(self, model_id: str, image: CampaignImage, wait_seconds: float) -> bytes | None:
        """Return an image's embedding; None when it is not ready in time, but on its way.

        Raises:
            ImageError: the image cannot be used.
            BadInputError: an unknown model.
            TransientError: too many wait already, or the service is closing.
        """
        return self._embeddings.get(model_id, image, timeout_seconds=wait_seconds)

    def embedding_later(self, model_id: str, image: CampaignImage) -> Future[bytes]:
        """Ask for an embedding that a person waits for; see `EmbeddingService.request`."""
        return self._embeddings.request(model_id, image, urgent=True)

    def prepare_ahead(self, model_id: str, images: Sequence[CampaignImage]) -> int:
        """Make embeddings when nothing is more urgent; returns at once how many are taken on."""
        return self._embeddings.prefetch(model_id, images)

    def forget_ahead(self, model_id: str, images: Sequence[CampaignImage]) -> None:
        """Make embeddings no more that nobody waits for."""
        self._embeddings.withdraw(model_id, images)

    def decoder_folder(self, model_id: str) -> Path:
        """Return the folder with ``decoder.json`` and the .onnx files; exported once per model.

        Raises:
            BadInputError: an unknown model.
            TransientError: the service is closing.
        """
        folder = find_decoder_files(self._local_folder, model_id)
        if folder is not None:
            return folder
        return self._exports.submit(
            model_id,
            lambda: export_decoder_files(self._models.get(model_id), self._local_folder, model_id),
            urgent=True,
        ).result()

    def decode(
        self,
        model_id: str,
        image: CampaignImage,
        prompts: Sequence[PointPrompt | BoxPrompt],
        mask_logits: bytes | None,
    ) -> bytes | None:
        """Answer prompts for one mask.

        Args:
            model_id: which model.
            image: which image.
            prompts: points and at most one box, in pixels of the image.
            mask_logits: float16, row by row: logits of an earlier answer.

        Returns:
            safetensors with ``iou`` (4) and ``logits`` (4, h, w), float16; None when the embedding
            is not ready.

        Raises:
            BadInputError: an unknown model, no prompt, or logits of the wrong size.
            ImageError: the image cannot be used.
        """
        from safetensors.numpy import save

        decoder = self._decoder(model_id)
        prepared = self._prepared_image(decoder, model_id, image)
        if prepared is None:
            return None
        wanted = DecoderPrompts(
            points=tuple((p.x, p.y, p.label) for p in prompts if isinstance(p, PointPrompt)),
            box=_only_box(prompts),
            mask_logits=_logits(mask_logits, decoder.low_res_size(prepared)),
        )
        answer = decoder.decode(prepared, wanted)
        half = {"iou": answer.iou_4, "logits": answer.logits_4hw}
        # Logits beyond float16's range say nothing more than its largest number.
        return save({name: _to_half(value) for name, value in half.items()})

    def close(self) -> None:
        """Finish what is being encoded or exported; whoever waits for more is told."""
        self._embeddings.close()
        self._exports.close()

    def _decoder(self, model_id: str) -> OnnxDecoder:
        with self._lock:
            found = self._decoders.get(model_id)
        if found is None:
            found = OnnxDecoder(self.decoder_folder(model_id))
            with self._lock:
                found = self._decoders.setdefault(model_id, found)
        return found

    def _prepared_image(
        self, decoder: OnnxDecoder, model_id: str, image: CampaignImage
    ) -> PreparedImage | None:
        key = (model_id, image.image_id)
        with self._lock:
            if (found := self._prepared.get(key)) is not None:
                self._prepared.move_to_end(key)
                return found
        data = self._embeddings.get(model_id, image, timeout_seconds=_DECODE_WAITS_SECONDS)
        if data is None:
            return None
        prepared = decoder.prepare(read_embedding(data))
        with self._lock:
            self._prepared[key] = prepared
            while len(self._prepared) > _PREPARED:
                self._prepared.popitem(last=False)
        return prepared


class _Models:
    """The registry's models, the latest one kept in memory; for several threads."""

    def __init__(self, store: ObjectStore, device: str | None, threads: int | None) -> None:
        self._store, self._device, self._threads = store, device, threads
        self._lock = threading.Lock()
        self._loaded: tuple[str, Sam] | None = None

    def get(self, model_id: str) -> Sam:
        """Return a model by its id.

        Raises:
            BadInputError: there is none.
        """
        import torch

        if self._threads is not None:  # a setting of the calling thread
            torch.set_num_threads(self._threads)
        with self._lock:
            if self._loaded is None or self._loaded[0] != model_id:
                self._loaded = (model_id, self._load(model_id))
            return self._loaded[1]

    def encode(self, model_id: str, image: CampaignImage, limits: ImageLimits) -> bytes:
        """Return the embedding of an image as bytes."""
        data = read_image_bytes(image.uri, limits)
        if content_id(data)[0] != image.image_id:
            raise ImageError(
                "changed", "the image's file is not the one that was ingested any more"
            )
        return embedding_bytes(self.get(model_id), decode_image(data, limits), model_id)

    def _load(self, model_id: str) -> Sam:
        from engine.learning.registry import find_version, load_model

        version = find_version(self._store, model_id)
        log.info("loading model %s (%s)", version.name, model_id)
        return load_model(self._store, version, device=self._device)


def _only_box(
    prompts: Sequence[PointPrompt | BoxPrompt],
) -> tuple[float, float, float, float] | None:
    boxes = [(p.x0, p.y0, p.x1, p.y1) for p in prompts if isinstance(p, BoxPrompt)]
    if len(boxes) > 1:
        raise BadInputError(f"prompts for one mask have at most one box; got {len(boxes)}")
    return boxes[0] if boxes else None


def _logits(data: bytes | None, size: tuple[int, int]) -> NDArray[np.float32] | None:
    if data is None:
        return None
    height, width = size
    if len(data) != height * width * 2:
        raise BadInputError(
            f"mask_logits must be {height} x {width} float16, {height * width * 2} bytes; "
            f"got {len(data)}"
        )
    logits = np.frombuffer(data, dtype="<f2").astype(np.float32).reshape(height, width)
    if not np.isfinite(logits).all():
        raise BadInputError("mask_logits must be finite numbers")
    return logits


def _to_half(values: NDArray[np.float32]) -> NDArray[np.float16]:
    largest = np.finfo(np.float16).max
    return np.clip(values, -largest, largest).astype(np.float16)
