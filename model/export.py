"""The decoder as ONNX files, for browsers and servers: what answers clicks without torch.

>>> export_decoder(sam, Path("decoder"))     # prepare_*.onnx, decode_*.onnx, decoder.json

`prepare` runs once per image and takes the embedding as it is stored (float16); its outputs, by
name, are the inputs of `decode`, which answers one prompt:

    points_xy     (1, K, 2) float32, pixels of the padded input: original * input size / original
                  size, no half-pixel shift; K >= 1
    point_labels  (1, K) float32: 1 foreground, 0 background, -1 padding, 2 and 3 the corners of a
                  box; a prompt without a box ends with one padding point, as SAM was trained
    mask_logits   (1, 1, h, w) float32, an earlier answer's logits; any size when has_mask is 0
    has_mask      (1,) float32, 1 or 0
    -> iou        (1, 4) float32
    -> logits     (1, 4, h, w) float32 at a quarter of the padded input, > 0 inside the mask

Token 0 answers several prompts (more than one point, or a box); 1 to 3 are the ambiguous ones:
whole, part, sub-part.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from model.decoder_graphs import decode_graph, embedding_shapes, named_features, prepare_graph
from model.onnx_graph import Graph
from model.sam import Sam
from model.types import ImageFeatures
from model.upsample import LOW_RES_STRIDE

DESCRIPTION_FILE = "decoder.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorDescription:
    """A tensor of an embedding; None in its shape is a size that depends on the image."""

    name: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderFile:
    """One of the two graphs."""

    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderFiles:
    """What an exported decoder is; `decoder.json` holds the same.

    Attributes:
        model_id: of the model that it was made from.
        image_size: long side of the model's input in pixels.
        pad_multiple: the input's sides are padded to a multiple of this.
        low_res_stride: input pixels per pixel of the logits.
        points: the coordinates that prompts are given in.
        inputs: tensors of an embedding, float16, the inputs of `prepare`.
        prepare: runs once per image.
        decode: runs once per prompt.
    """

    model_id: str
    image_size: int
    pad_multiple: int
    low_res_stride: int
    points: str
    inputs: tuple[TensorDescription, ...]
    prepare: DecoderFile
    decode: DecoderFile

    def to_json(self) -> str:
        """Return the description that is kept beside the files."""
        fields = asdict(self)
        fields["files"] = {name: fields.pop(name) for name in ("prepare", "decode")}
        return json.dumps(fields, indent=2) + "\n"


def export_decoder(sam: Sam, folder: Path, *, half_weights: bool = True) -> DecoderFiles:
    """Write a model's decoder; existing files are replaced.

    Args:
        sam: the model, on any device.
        folder: where the graphs and then their description, `decoder.json`, go; created if needed.
        half_weights: keep large weights as float16, for files of half the size; the graphs compute
            in float32 all the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    prepare = _write_graph(folder, prepare_graph(sam, half_weights=half_weights))
    decode = _write_graph(folder, decode_graph(sam, half_weights=half_weights))
    described = DecoderFiles(
        model_id=sam.model_id(),
        image_size=sam.config.image_size,
        pad_multiple=sam.config.pad_multiple,
        low_res_stride=LOW_RES_STRIDE,
        points="input frame, float32",
        inputs=tuple(TensorDescription(name=n, shape=s) for n, s in embedding_shapes(sam).items()),
        prepare=prepare,
        decode=decode,
    )
    _write(folder / DESCRIPTION_FILE, described.to_json().encode())
    return described


def embedding_tensors(features: ImageFeatures) -> dict[str, torch.Tensor]:
    """Name the tensors of one image's features as `prepare` takes them, float16."""
    return {
        name: tensor.detach().cpu().to(torch.float16).contiguous()
        for name, tensor in named_features(features).items()
    }


def _write_graph(folder: Path, graph: Graph) -> DecoderFile:
    """Write a graph under a name that changes with it: browsers may keep such a file for good."""
    data = graph.to_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    name = f"{graph.name}_{sha256[:12]}.onnx"
    _write(folder / name, data)
    return DecoderFile(name=name, sha256=sha256, bytes=len(data))


def _write(path: Path, data: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(data)
    partial.replace(path)
