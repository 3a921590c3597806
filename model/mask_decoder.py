"""SAM's mask decoder: output tokens look at the image, then draw masks and estimate their IoU.

Paper: Segment Anything, section 3 and appendix A. Decoding has two halves: `score` runs the
transformer and the IoU head, `draw` upscales the image tokens of chosen prompts and draws their
masks.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.fast_linear import products
from model.layers import HeadMlp, LayerNorm2d, subpixels
from model.prompt_groups import prompt_groups
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
        self.output_upscaling: nn.Sequential = Upscaling(dim)
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
            outputs=1 + MASK_TOKENS,  # nobody reads the prompt's own tokens afterwards
        )
        return ScoredPrompts(
            iou_N4=self.iou_prediction_head(tokens_NTC[:, 0]),
            mask_tokens_N4C=tokens_NTC[:, 1:],
            image_NCHW=image_NPC.transpose(1, 2).unflatten(-1, grid),
            features=features,
            guidance_NGhw=prompts.guidance_NGhw,
        )

    def draw(self, scored: ScoredPrompts, chosen: Tensor | slice = slice(None)) -> Tensor:
        """Draw the masks of the chosen prompts: low-res logits (chosen, 4, 4H, 4W)."""
        tokens_N4C = scored.mask_tokens_N4C[chosen]
        brushes = [mlp(tokens_N4C[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)]
        return self._paint(torch.stack(brushes, dim=1), scored, chosen)

    def _paint(self, brushes_N4c: Tensor, scored: ScoredPrompts, chosen: Tensor | slice) -> Tensor:
        """Upscale the chosen prompts' image tokens, and multiply each pixel by the brushes.

        The pixels stay sorted by image token throughout; only the finished masks are put in rows.
        """
        image_NhwC = scored.image_NCHW.permute(0, 2, 3, 1)
        _, h, w, _ = image_NhwC.shape
        masks: list[Tensor] = []
        # What is made of them on the way takes four times their memory.
        for rows in prompt_groups(chosen, len(image_NhwC), image_NhwC[:4]):
            canvas_NKc: Tensor = self.output_upscaling(image_NhwC[rows]).flatten(1, 4)
            n, drawn = len(canvas_NKc), sum(map(len, masks))
            painted_N4K = products(brushes_N4c[drawn : drawn + n], canvas_NKc)
            masks.append(_in_rows(painted_N4K.view(n, MASK_TOKENS, h, w, 2, 2, 2, 2)))
        return masks[0] if len(masks) == 1 else torch.cat(masks)


class Upscaling(nn.Sequential):
    """Two transposed convolutions; what an image token becomes depends on it alone."""

    def __init__(self, dim: int) -> None:
        super().__init__(
            nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )

    def forward(self, image_NhwC: Tensor) -> Tensor:
        """Make 16 pixels of each image token, sorted by image token: (N, h, w, 4, 4, c)."""
        to_stride8, norm, _, to_stride4, _ = cast(
            "tuple[nn.ConvTranspose2d, LayerNorm2d, nn.GELU, nn.ConvTranspose2d, nn.GELU]",
            tuple(self),
        )
        canvas8_Nhw4c = F.gelu(norm.rows(subpixels(image_NhwC, to_stride8)))
        return subpixels(canvas8_Nhw4c, to_stride4, "gelu")


def _in_rows(pixels_N4hwijkl: Tensor) -> Tensor:
    """Put pixels that are sorted by image token in the rows of masks: (N, 4, 4h, 4w).

    Args:
        pixels_N4hwijkl: row and column of the image token, of a quarter of it, and of the quarter's
            pixel.
    """
    # Two steps: one that moves every axis copies number by number, and takes four times as long.
    pixels_N4hiwjkl = pixels_N4hwijkl.transpose(3, 4).contiguous()
    pixels_N4hikwjl = pixels_N4hiwjkl.permute(0, 1, 2, 3, 6, 4, 5, 7)
    N, M, h, _, _, w, _, _ = pixels_N4hikwjl.shape
    return pixels_N4hikwjl.reshape(N, M, 4 * h, 4 * w)
