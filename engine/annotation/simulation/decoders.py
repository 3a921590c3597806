"""Where simulated people get their answers: from the service, or from its decoder in this process.

    decoder, frame = Decoders("local").of_task(client, lease)

The local one is what the page does in the browser: it loads the embedding of the image and the
decoder's files through the API, and asks the service no more.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from engine.annotation.client import AnnotationClient
from engine.annotation.client_values import DecodedMasks, TaskLease
from engine.annotation.embeddings import read_embedding
from engine.annotation.onnx_decoder import DecoderPrompts, OnnxDecoder, PreparedImage
from engine.annotation.records import BoxPrompt, DecoderKind, PointPrompt, Prompt
from engine.annotation.simulation.page import PromptDecoder, ServerDecoder
from model.preprocess import input_frame
from model.types import Frame

__all__ = ["DecoderPlace", "Decoders", "LocalDecoder"]

DecoderPlace = Literal["server", "local"]


class LocalDecoder:
    """The exported decoder in this process, at one image."""

    # For the service it is what a browser's decoder is: none of its own work.
    kind: DecoderKind = "browser"

    def __init__(self, decoder: OnnxDecoder, prepared: PreparedImage) -> None:
        """Take a decoder and what it has prepared of the image."""
        self._decoder, self._prepared = decoder, prepared

    def decode(
        self, prompts: Sequence[Prompt], mask_logits_hw: NDArray[np.float32] | None
    ) -> DecodedMasks:
        """Answer the prompts for one mask; of several boxes the last one counts, as on the page."""
        boxes = [(p.x0, p.y0, p.x1, p.y1) for p in prompts if isinstance(p, BoxPrompt)]
        answer = self._decoder.decode(
            self._prepared,
            DecoderPrompts(
                points=tuple((p.x, p.y, p.label) for p in prompts if isinstance(p, PointPrompt)),
                box=boxes[-1] if boxes else None,
                mask_logits=mask_logits_hw,
            ),
        )
        return DecodedMasks(answer.iou_4, answer.logits_4hw)


class Decoders:
    """Hands out decoders for tasks; loads what belongs to a model once. Threads may share it."""

    def __init__(self, place: DecoderPlace) -> None:
        """Take where answers are computed."""
        self._place = place
        self._lock = threading.Lock()
        self._sizes: dict[str, tuple[int, int]] = {}
        self._loaded: dict[str, OnnxDecoder] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="maskwheel-decoders-")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._folder.cleanup()

    def of_task(self, client: AnnotationClient, lease: TaskLease) -> tuple[PromptDecoder, Frame]:
        """Return what answers about a task's image, and how the image lies in the model's input."""
        with self._lock:
            if lease.model_id not in self._sizes:
                self._load(client, lease)
        size = (lease.image.height, lease.image.width)
        frame = input_frame(size, *self._sizes[lease.model_id])
        if self._place == "server":
            return ServerDecoder(client, lease), frame
        decoder = self._loaded[lease.model_id]
        prepared = decoder.prepare(read_embedding(client.embedding(lease)))
        return LocalDecoder(decoder, prepared), frame

    def _load(self, client: AnnotationClient, lease: TaskLease) -> None:
        description = client.decoder_description(lease)
        if self._place == "local":
            folder = Path(self._folder.name) / lease.model_id
            folder.mkdir()
            for file in description.files:
                (folder / file).write_bytes(client.decoder_file(lease, file))
            (folder / "decoder.json").write_bytes(description.text)
            self._loaded[lease.model_id] = OnnxDecoder(folder)
        self._sizes[lease.model_id] = (description.image_size, description.pad_multiple)
