"""An exported decoder run as a browser runs it, and the embedding as the file holds it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray

from model import ImageEmbedding, Prompts, Sam
from model.export import embedding_tensors, export_decoder
from model.types import ImageFeatures

Floats = NDArray[np.float32]


def clicks(*points: tuple[float, float, int], box: tuple[float, ...] | None = None) -> Prompts:
    """Make one prompt of (x, y, label) points and a box."""
    rows = np.array(points, dtype=np.float64).reshape(-1, 3)
    return Prompts(
        points_xy=rows[None, :, :2] if points else None,
        point_labels=rows[None, :, 2].astype(np.int64) if points else None,
        boxes_xyxy=None if box is None else np.array([box]),
    )


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Exported:
    """Both graphs of an exported model."""

    def __init__(self, sam: Sam, folder: Path, *, half_weights: bool) -> None:
        self.files = export_decoder(sam, folder, half_weights=half_weights)
        self.prepare_session = session(folder / self.files.prepare.name)
        self.decode_session = session(folder / self.files.decode.name)

    def prepare(self, embedding: ImageEmbedding) -> dict[str, Floats]:
        """Run the graph of the image."""
        tensors = {k: v.numpy() for k, v in embedding_tensors(embedding.features).items()}
        names = [output.name for output in self.prepare_session.get_outputs()]
        return dict(zip(names, self.prepare_session.run(names, tensors), strict=True))

    def decode(
        self,
        prepared: dict[str, Floats],
        points_xy: Floats,
        labels: Floats,
        mask: Floats | None = None,
        has_mask: bool | None = None,
    ) -> tuple[Floats, Floats]:
        """Run the graph of the prompt: IoU (1, 4) and logits (1, 4, h, w)."""
        feeds = {
            **prepared,
            "points_xy": points_xy,
            "point_labels": labels,
            "mask_logits": np.zeros((1, 1, 1, 1), np.float32) if mask is None else mask,
            "has_mask": np.array([mask is not None if has_mask is None else has_mask], np.float32),
        }
        iou, logits = self.decode_session.run(["iou", "logits"], feeds)
        return iou, logits

    def answer(self, embedding: ImageEmbedding, prompts: Prompts) -> tuple[Floats, Floats]:
        """Answer one prompt given as `Sam.predict` takes it."""
        points_xy, labels = graph_points(embedding, prompts)
        logits = prompts.mask_logits
        mask = None if logits is None else logits.float().numpy()
        return self.decode(self.prepare(embedding), points_xy, labels, mask)


def graph_points(embedding: ImageEmbedding, prompts: Prompts) -> tuple[Floats, Floats]:
    """Turn points and box into the graph's points: a box as corners, else padding at the end."""
    frame = embedding.frame
    scale_xy = [frame.input_size[i] / frame.original_size[i] for i in (1, 0)]
    points, labels = np.zeros((0, 2)), np.zeros(0)
    if prompts.points_xy is not None and prompts.point_labels is not None:
        points, labels = prompts.points_xy[0] * scale_xy, prompts.point_labels[0].astype(float)
    if prompts.boxes_xyxy is None:
        points, labels = np.vstack([points, [[0, 0]]]), np.append(labels, -1)
    else:
        corners = prompts.boxes_xyxy[0].reshape(2, 2) * scale_xy
        points, labels = np.vstack([points, corners]), np.append(labels, [2, 3])
    return points[None].astype(np.float32), labels[None].astype(np.float32)


def as_stored(embedding: ImageEmbedding) -> ImageEmbedding:
    """Round an embedding to float16, as its file does."""
    features = embedding.features
    rounded = [
        level.half().to(level.dtype) for level in (features.coarse_BCHW, *features.fine_BCHW)
    ]
    return ImageEmbedding(ImageFeatures(rounded[0], tuple(rounded[1:])), embedding.frame)
