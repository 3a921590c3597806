"""Embeddings as files: what a browser's or a server's decoder reads of an image.

    data = embedding_bytes(sam, image_HWC3)           # safetensors, float16
    embedding = read_embedding(data)                  # numpy; needs no torch

The tensors are the inputs of the exported decoder's `prepare`, by name; the metadata say how the
image was laid into the model's input.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.errors import TerminalError, WorkspaceError

if TYPE_CHECKING:
    from model import Sam

__all__ = [
    "EmbeddingFrame",
    "StoredEmbedding",
    "embedding_bytes",
    "embedding_key",
    "read_embedding",
]

_MAX_HEADER_BYTES = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingFrame:
    """How an image was laid into the model's input: resized, then padded right and below.

    Attributes:
        original_size: (height, width) of the image in pixels.
        input_size: (height, width) after resizing, before padding.
        padded_size: (height, width) of the model's input.
    """

    original_size: tuple[int, int]
    input_size: tuple[int, int]
    padded_size: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredEmbedding:
    """An embedding as it was read.

    Attributes:
        model_id: of the model that made it.
        frame: how the image was laid into the model's input.
        tensors: float16, by the names of the decoder's inputs.
    """

    model_id: str
    frame: EmbeddingFrame
    tensors: dict[str, NDArray[np.float16]]


def embedding_key(model_id: str, image_id: int) -> str:
    """Return where a workspace's store keeps an embedding."""
    return f"embeddings/{model_id}/{image_id}.safetensors"


def embedding_bytes(sam: Sam, image_HWC3: NDArray[np.uint8], model_id: str | None = None) -> bytes:
    """Encode an image and return the file.

    Args:
        sam: the model.
        image_HWC3: RGB, uint8.
        model_id: of the model, where it is known; computing it reads all weights.

    Raises:
        TerminalError: features that float16 cannot hold.
    """
    from safetensors.numpy import save

    from model.export import embedding_tensors

    embedding = sam.encode(image_HWC3)
    tensors = {
        name: tensor.numpy() for name, tensor in embedding_tensors(embedding.features).items()
    }
    broken = [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]
    if broken:
        raise TerminalError(f"the embedding's {broken[0]} is not finite in float16: a broken model")
    frame = embedding.frame
    sizes = {
        "original_size": frame.original_size,
        "input_size": frame.input_size,
        "padded_size": frame.padded_size,
    }
    metadata = {"model_id": model_id or sam.model_id(), "frame": json.dumps(sizes)}
    return _in_order(save(tensors, metadata))


def _in_order(data: bytes) -> bytes:
    """Sort the header's keys: the library writes metadata in an order that changes between runs."""
    end = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()
    padded = header.ljust(-(-len(header) // 8) * 8)  # tensors begin at a multiple of eight bytes
    return struct.pack("<Q", len(padded)) + padded + data[end:]


def read_embedding(data: bytes) -> StoredEmbedding:
    """Read what `embedding_bytes` returned.

    Raises:
        WorkspaceError: other bytes, or damaged ones.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        (header_bytes,) = struct.unpack("<Q", data[:8])
        if header_bytes > min(_MAX_HEADER_BYTES, len(data)):
            raise ValueError(f"a header of {header_bytes} bytes")
        metadata = json.loads(data[8 : 8 + header_bytes])["__metadata__"]
        sizes = json.loads(metadata["frame"])
        frame = EmbeddingFrame(**{name: (int(h), int(w)) for name, (h, w) in sizes.items()})
        return StoredEmbedding(model_id=metadata["model_id"], frame=frame, tensors=load(data))
    except (struct.error, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise WorkspaceError(f"damaged embedding ({error!r}): remove it to make it anew") from error
