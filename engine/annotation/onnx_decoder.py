"""The exported decoder on the server: answers prompts without torch; the home of onnxruntime.

    decoder = OnnxDecoder(folder)
    prepared = decoder.prepare(read_embedding(data))                     # once per image
    answer = decoder.decode(prepared, DecoderPrompts(points=((320.5, 240.5, 1),)))

The page runs the same files (`engine/annotation/web/src/lib/decoder`). See `model.export` for what
goes in and out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray

from engine.annotation.decoder_files import read_description
from engine.annotation.embeddings import EmbeddingFrame, StoredEmbedding
from engine.errors import BadInputError, WorkspaceError

__all__ = ["DecoderAnswer", "DecoderPrompts", "OnnxDecoder", "PreparedImage"]

_PADDING_LABEL, _TOP_LEFT_LABEL, _BOTTOM_RIGHT_LABEL = -1.0, 2.0, 3.0
_ONLY_ERRORS = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecoderPrompts:
    """What is wanted, in pixels of the original image; together they ask for one mask.

    Attributes:
        points: (x, y, label), label 1 foreground, 0 background.
        box: (x0, y0, x1, y1).
        mask_logits: (h, w), logits of an earlier answer.
    """

    points: tuple[tuple[float, float, int], ...] = ()
    box: tuple[float, float, float, float] | None = None
    mask_logits: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if not self.points and self.box is None:
            raise BadInputError("a prompt needs a point or a box; got neither")
        if any(label not in (0, 1) for _, _, label in self.points):
            raise BadInputError(f"labels are 1 or 0; got {[p[2] for p in self.points]}")
        numbers = [xy for point in self.points for xy in point[:2]] + list(self.box or ())
        if not np.isfinite(numbers).all():
            raise BadInputError(f"coordinates must be finite numbers; got {numbers}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreparedImage:
    """What prompts read of an image; belongs to the decoder that made it."""

    model_id: str
    frame: EmbeddingFrame
    tensors: dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecoderAnswer:
    """Four masks: token 0 for several prompts, 1 to 3 for an ambiguous one.

    Attributes:
        iou_4: predicted IoU.
        logits_4hw: at a quarter of the padded input, > 0 inside the mask.
    """

    iou_4: NDArray[np.float32]
    logits_4hw: NDArray[np.float32]


class OnnxDecoder:
    """An exported decoder; threads may share it."""

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        """Load the files of a folder.

        Args:
            folder: see `engine.annotation.decoder_files`.
            threads: that one answer is computed by.

        Raises:
            WorkspaceError: no exported decoder, or damaged files.
        """
        self.description = read_description(folder)
        self._prepare = _session(self.description.prepare, threads)
        self._decode = _session(self.description.decode, threads)

    def prepare(self, embedding: StoredEmbedding) -> PreparedImage:
        """Compute what does not depend on a prompt.

        Raises:
            BadInputError: an embedding of another model.
        """
        if embedding.model_id != self.description.model_id:
            raise BadInputError(
                f"the embedding is of {embedding.model_id}; "
                f"this decoder is of {self.description.model_id}"
            )
        names = [output.name for output in self._prepare.get_outputs()]
        tensors = self._prepare.run(names, embedding.tensors)
        return PreparedImage(
            model_id=embedding.model_id,
            frame=embedding.frame,
            tensors=dict(zip(names, tensors, strict=True)),
        )

    def decode(self, prepared: PreparedImage, prompts: DecoderPrompts) -> DecoderAnswer:
        """Answer a prompt.

        Raises:
            BadInputError: mask logits of the wrong size.
        """
        points_xy, labels = _points(prompts, prepared.frame)
        feeds = {
            **prepared.tensors,
            "points_xy": points_xy,
            "point_labels": labels,
            "mask_logits": self._mask(prompts, prepared),
            "has_mask": np.array([prompts.mask_logits is not None], dtype=np.float32),
        }
        iou, logits = self._decode.run(["iou", "logits"], feeds)
        return DecoderAnswer(iou_4=iou[0], logits_4hw=logits[0])

    def low_res_size(self, prepared: PreparedImage) -> tuple[int, int]:
        """Return (height, width) of an image's logits."""
        height, width = (
            side // self.description.low_res_stride for side in prepared.frame.padded_size
        )
        return height, width

    def _mask(self, prompts: DecoderPrompts, prepared: PreparedImage) -> NDArray[np.float32]:
        logits = prompts.mask_logits
        if logits is None:
            return np.zeros((1, 1, 1, 1), dtype=np.float32)
        expected = self.low_res_size(prepared)
        if logits.shape != expected:
            raise BadInputError(f"mask_logits must be {expected}; got {logits.shape}")
        return np.ascontiguousarray(logits, dtype=np.float32)[None, None]


def _points(
    prompts: DecoderPrompts, frame: EmbeddingFrame
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return points and labels as the graph takes them: in the input frame, a box as corners."""
    scale_xy = [frame.input_size[axis] / frame.original_size[axis] for axis in (1, 0)]
    xy = [point[:2] for point in prompts.points]
    labels = [float(point[2]) for point in prompts.points]
    if prompts.box is None:
        xy, labels = [*xy, (0.0, 0.0)], [*labels, _PADDING_LABEL]
    else:
        xy = [*xy, prompts.box[:2], prompts.box[2:]]
        labels = [*labels, _TOP_LEFT_LABEL, _BOTTOM_RIGHT_LABEL]
    points = (np.array(xy, dtype=np.float64) * scale_xy).astype(np.float32)
    return points[None], np.array([labels], dtype=np.float32)


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ONLY_ERRORS
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise WorkspaceError(
            f"{path} is no usable ONNX file ({error}); remove its folder, and it is exported anew"
        ) from error
