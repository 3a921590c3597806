"""SAM's decoder as the public export writes it: torch's tracer over modules that fold nothing.

    write_public_style(sam, path, upscale=True, checkout=Path("segment-anything"))

The public script (segment-anything, `scripts/export_onnx_model.py`) traces prompt encoder and mask
decoder for one prompt, opset 17, computes the mask prompt whether there is one or not, and scales
the masks to the original image inside the graph. With a checkout its own code is traced, without
one the decoder of the package transformers in its place. Only benchmarks compare with it.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from model import Sam
from tests.benchmarks.peers import from_checkout, public_model
from tests.model.transformers_names import transformers_names

LOW_RES_INPUTS = ("image_embeddings", "points_xy", "point_labels", "mask_logits", "has_mask")


@cache
def _package(checkout: str) -> ModuleType:
    return from_checkout("segment_anything", checkout)


class _Public(nn.Module):
    """The code of a checkout; four masks at a quarter of the input."""

    def __init__(self, sam: Sam, checkout: Path) -> None:
        super().__init__()
        public = public_model(_package(str(checkout)), sam.config)
        public.load_state_dict(sam.state_dict())
        onnx = import_module("segment_anything.utils.onnx")
        self.wrapper: Any = onnx.SamOnnxModel(public.eval(), return_single_mask=False)

    def forward(
        self,
        image_embeddings: Tensor,
        points_xy: Tensor,
        point_labels: Tensor,
        mask_logits: Tensor,
        has_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return predicted IoUs and logits, as the wrapper does before it scales them."""
        masks, iou = self.wrapper.mask_decoder.predict_masks(
            image_embeddings=image_embeddings,
            image_pe=self.wrapper.model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=self.wrapper._embed_points(points_xy, point_labels),
            dense_prompt_embeddings=self.wrapper._embed_masks(mask_logits, has_mask),
        )
        return iou, masks


class _Transformers(nn.Module):
    """The decoder of transformers; its three masks of an ambiguous click."""

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = transformers.SamConfig(
            vision_config={**vision, "global_attn_indexes": []},
            mask_decoder_config={"layer_norm_eps": 1e-5},
            attn_implementation="eager",
        )
        peer = transformers.SamModel(config).eval()
        encoder = {k: v for k, v in peer.state_dict().items() if k.startswith("vision_encoder")}
        wanted = {k: v for k, v in peer.state_dict().items() if k not in encoder}
        peer.load_state_dict({**encoder, **transformers_names(sam.state_dict(), wanted)})
        self.prompts, self.decoder = peer.prompt_encoder, peer.mask_decoder
        self.image_size = sam.config.image_size
        self.register_buffer("positions", peer.get_image_wide_positional_embeddings())

    def forward(
        self,
        image_embeddings: Tensor,
        points_xy: Tensor,
        point_labels: Tensor,
        mask_logits: Tensor,
        has_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return predicted IoUs and logits of masks 1 to 3."""
        size = (self.image_size, self.image_size)
        tokens = self.prompts.shared_embedding((points_xy + 0.5).unsqueeze(1), size)
        labels = point_labels[:, None, :, None]
        tokens = tokens * (labels != -1) + self.prompts.not_a_point_embed.weight * (labels == -1)
        for label, embedding in enumerate(self.prompts.point_embed):
            tokens = tokens + embedding.weight * (labels == label)
        no_mask = self.prompts.no_mask_embed.weight.reshape(1, -1, 1, 1)
        dense = has_mask * self.prompts.mask_embed(mask_logits) + (1 - has_mask) * no_mask
        masks, iou = self.decoder(image_embeddings, self.positions, tokens, dense, True)
        return iou[:, 0], masks[:, 0]


class _Upscaling(nn.Module):
    """A decoder with its masks scaled to the original image, as the public export does it."""

    def __init__(self, low_res: nn.Module, image_size: int) -> None:
        super().__init__()
        self.low_res, self.image_size = low_res, image_size

    def forward(
        self,
        image_embeddings: Tensor,
        points_xy: Tensor,
        point_labels: Tensor,
        mask_logits: Tensor,
        has_mask: Tensor,
        orig_im_size: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return predicted IoUs, masks at full size, and low-res logits."""
        click = (image_embeddings, points_xy, point_labels, mask_logits, has_mask)
        iou, logits = self.low_res(*click)
        size = [self.image_size, self.image_size]
        masks = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        original = orig_im_size.to(torch.int64)
        scale = self.image_size / torch.max(original)
        height, width = (torch.floor(side * scale + 0.5).to(torch.int64) for side in original)
        masks = masks[..., :height, :width]
        shape = original.unbind()
        # The tracer takes tensors as sizes; the types of torch do not say so.
        masks = F.interpolate(masks, size=shape, mode="bilinear")  # type: ignore[arg-type]
        return iou, masks, logits


def write_public_style(
    sam: Sam, path: Path, *, upscale: bool, checkout: Path | None = None
) -> None:
    """Trace a decoder that folds nothing to an ONNX file, float32.

    Args:
        sam: its weights; SAM's decoder at its official size.
        path: of the file.
        upscale: scale the masks to the original image, inside the graph.
        checkout: of segment-anything; None: transformers' decoder is traced.
    """
    side = sam.config.image_size // 16
    example = [
        torch.randn(1, sam.config.dim, side, side),
        torch.rand(1, 3, 2) * sam.config.image_size,
        torch.tensor([[1.0, 0.0, -1.0]]),
        torch.randn(1, 1, 4 * side, 4 * side),
        torch.zeros(1),
    ]
    names = list(LOW_RES_INPUTS)
    outputs = ["iou", "logits"]
    decoder: nn.Module = _Transformers(sam) if checkout is None else _Public(sam, checkout)
    if upscale:
        example.append(torch.tensor([1500.0, 2250.0]))
        names.append("orig_im_size")
        outputs = ["iou", "masks", "logits"]
        decoder = _Upscaling(decoder, sam.config.image_size)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's remarks on constants and on its own age
        torch.onnx.export(
            decoder.eval(),
            tuple(example),
            str(path),
            input_names=names,
            output_names=outputs,
            dynamic_axes={"points_xy": {1: "points"}, "point_labels": {1: "points"}},
            opset_version=17,
            dynamo=False,
        )
