"""SAM's decoder as the public export writes it: torch's tracer over the unfolded modules.

The public script (segment-anything, `scripts/export_onnx_model.py`) traces prompt encoder and mask
decoder for one prompt, opset 17, computes the mask prompt whether there is one or not, and scales
the masks to the original image inside the graph. Only benchmarks compare with it.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import Sam
from model.types import EncodedPrompts, ImageFeatures

LOW_RES_INPUTS = ("image_embeddings", "points_xy", "point_labels", "mask_logits", "has_mask")


class UnfoldedDecoder(nn.Module):
    """Prompt encoder and mask decoder with the public export's inputs; masks at a quarter."""

    positions: Tensor

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.encoder, self.decoder = sam.prompt_encoder, sam.mask_decoder
        self.image_size = sam.config.image_size
        side = sam.config.image_size // 16
        self.register_buffer("positions", self.encoder.image_positions(side, side))

    def forward(
        self,
        image_embeddings: Tensor,
        points_xy: Tensor,
        point_labels: Tensor,
        mask_logits: Tensor,
        has_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return predicted IoU (1, 4) and logits (1, 4, h, w)."""
        tokens = self.encoder.pe_layer((points_xy + 0.5) / self.image_size)
        labels = point_labels.unsqueeze(-1)
        tokens = tokens * (labels != -1)
        embeddings = [self.encoder.not_a_point_embed, *self.encoder.point_embeddings]
        for label, embedding in zip((-1, 0, 1, 2, 3), embeddings, strict=True):
            tokens = tokens + embedding.weight * (labels == label)
        dense = has_mask * self.encoder.mask_downscaling(mask_logits)
        no_mask = self.encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        prompts = EncodedPrompts(tokens, dense + (1 - has_mask) * no_mask)
        scored = self.decoder.score(ImageFeatures(image_embeddings), self.positions, prompts)
        return scored.iou_N4, self.decoder.draw(scored)


class UpscalingDecoder(UnfoldedDecoder):
    """The same with masks at the size of the original image, as the public export has them."""

    def forward(  # type: ignore[override]
        self,
        image_embeddings: Tensor,
        points_xy: Tensor,
        point_labels: Tensor,
        mask_logits: Tensor,
        has_mask: Tensor,
        orig_im_size: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return predicted IoU (1, 4), masks (1, 4, H, W) and low-res logits (1, 4, h, w)."""
        iou, logits = super().forward(
            image_embeddings, points_xy, point_labels, mask_logits, has_mask
        )
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


def write_public_style(sam: Sam, path: Path, *, upscale: bool) -> None:
    """Trace the unfolded decoder to an ONNX file, float32."""
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
    if upscale:
        example.append(torch.tensor([1500.0, 2250.0]))
        names.append("orig_im_size")
        outputs = ["iou", "masks", "logits"]
    decoder = UpscalingDecoder(sam) if upscale else UnfoldedDecoder(sam)
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
