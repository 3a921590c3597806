"""SAM's mask decoder: output tokens look at the image, then draw masks and estimate their IoU.

Paper: Segment Anything, section 3 and appendix A. Decoding has two halves: `score` runs the
transformer and the IoU head, `draw` upscales the image tokens of chosen prompts and draws their
masks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.layers import HeadMlp, LayerNorm2d
from model.two_way_transformer import TwoWayTransformer
from model.types import EncodedPrompts, ImageFeatures, ScoredPrompts

MASK_TOKENS = 4  # one for unambiguous prompts, three for whole, part and sub-part


class MaskDecoder(nn.Module):
    """Four masks and four IoU estimates for every prompt."""

    def __init__(self, dim: int, *, heads: int = 8, depth: int = 2, mlp_dim: int = 2048) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(dim, depth, heads, mlp_dim)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(MASK_TOKENS, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            HeadMlp(dim, dim, dim // 8, depth=3) for _ in range(MASK_TOKENS)
        )
        self.iou_prediction_head = HeadMlp(dim, 256, MASK_TOKENS, depth=3)

    def score(
        self, features: ImageFeatures, positions_1CHW: Tensor, prompts: EncodedPrompts
    ) -> ScoredPrompts:
        """Run the transformer and the IoU head for N prompts.

        Args:
            features: of the image, or of the images that the prompts belong to.
            positions_1CHW: positional encoding of the image tokens.
            prompts: N encoded prompts.
        """
        output_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        N = len(prompts.sparse_NTC)
        tokens_NTC = torch.cat([output_tokens.expand(N, -1, -1), prompts.sparse_NTC], dim=1)
        image_NCHW = features.per_prompt(features.coarse_BCHW) + prompts.dense_NCHW
        grid = image_NCHW.shape[-2:]
        tokens_NTC, image_NPC = self.transformer(
            image_NCHW.flatten(2).transpose(1, 2),
            positions_1CHW.flatten(2).transpose(1, 2),
            tokens_NTC,
        )
        return ScoredPrompts(
            iou_N4=self.iou_prediction_head(tokens_NTC[:, 0]),
            mask_tokens_N4C=tokens_NTC[:, 1 : 1 + MASK_TOKENS],
            image_NCHW=image_NPC.transpose(1, 2).unflatten(-1, grid),
            features=features,
            guidance_NGhw=prompts.guidance_NGhw,
        )

    def draw(self, scored: ScoredPrompts, chosen: Tensor | slice = slice(None)) -> Tensor:
        """Draw the masks of the chosen prompts: low-res logits (chosen, 4, 4H, 4W)."""
        canvas_NCHW = self._upscale(scored, chosen)
        tokens_N4C = scored.mask_tokens_N4C[chosen]
        brushes = [mlp(tokens_N4C[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)]
        return torch.einsum("nmc,nchw->nmhw", torch.stack(brushes, dim=1), canvas_NCHW)

    def _upscale(self, scored: ScoredPrompts, chosen: Tensor | slice) -> Tensor:
        canvas: Tensor = self.output_upscaling(scored.image_NCHW[chosen])
        return canvas
