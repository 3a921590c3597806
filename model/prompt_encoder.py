"""SAM's prompt encoder: points, boxes and masks to embeddings.

Paper: Segment Anything, section 3 and appendix A. Coordinates are pixels of the padded input.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from model.layers import LayerNorm2d
from model.transfers import constant
from model.types import BACKGROUND, FOREGROUND, PADDING, EncodedPrompts, ImageFeatures, InputPrompts


class PromptEncoder(nn.Module):
    """Sparse tokens for points and box corners, a dense map for a mask prompt."""

    def __init__(self, dim: int, mask_channels: int = 16) -> None:
        super().__init__()
        self.dim = dim
        self.pe_layer = RandomFourierPositions(dim)
        # In the order of the checkpoints: background point, foreground point, box corners.
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_channels // 4, kernel_size=2, stride=2),
            LayerNorm2d(mask_channels // 4),
            nn.GELU(),
            nn.Conv2d(mask_channels // 4, mask_channels, kernel_size=2, stride=2),
            LayerNorm2d(mask_channels),
            nn.GELU(),
            nn.Conv2d(mask_channels, dim, kernel_size=1),
        )
        self.no_mask_embed = nn.Embedding(1, dim)

    def forward(
        self, prompts: InputPrompts, features: ImageFeatures, padded_size: tuple[int, int]
    ) -> EncodedPrompts:
        """Encode N prompts for an input of `padded_size` (height, width)."""
        return EncodedPrompts(self.sparse(prompts, padded_size), self._dense(prompts, features))

    def sparse(self, prompts: InputPrompts, padded_size: tuple[int, int]) -> Tensor:
        """Return a token for every point and box corner: (N, T, C)."""
        tokens = []
        if prompts.points_NK2 is not None and prompts.labels_NK is not None:
            points, labels = prompts.points_NK2, prompts.labels_NK
            if prompts.boxes_N4 is None:  # SAM was trained with a padding point where no box is
                points = torch.cat([points, points.new_zeros(len(points), 1, 2)], dim=1)
                labels = torch.cat([labels, labels.new_full((len(labels), 1), PADDING)], dim=1)
            tokens.append(self._point_tokens(points, labels, padded_size))
        if prompts.boxes_N4 is not None:
            tokens.append(self._box_tokens(prompts.boxes_N4, padded_size))
        if not tokens:
            weight: Tensor = self.not_a_point_embed.weight
            return weight[:0].expand(len(prompts), 0, self.dim)
        return torch.cat(tokens, dim=1)

    def image_positions(self, height: int, width: int) -> Tensor:
        """Return the positional encoding of the image tokens, (1, C, height, width)."""
        weight = self.not_a_point_embed.weight
        y = (torch.arange(height, device=weight.device, dtype=torch.float32) + 0.5) / height
        x = (torch.arange(width, device=weight.device, dtype=torch.float32) + 0.5) / width
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
        encoded: Tensor = self.pe_layer(grid)
        return encoded.permute(2, 0, 1).unsqueeze(0).to(weight.dtype)

    def _positions(self, points: Tensor, padded_size: tuple[int, int]) -> Tensor:
        size_xy = constant(padded_size[::-1], points.device, points.dtype)
        encoded: Tensor = self.pe_layer((points + 0.5) / size_xy)
        return encoded.to(self.not_a_point_embed.weight.dtype)

    def _point_tokens(self, points: Tensor, labels: Tensor, padded_size: tuple[int, int]) -> Tensor:
        is_padding = (labels == PADDING).unsqueeze(-1)
        tokens = self._positions(points, padded_size).masked_fill(is_padding, 0.0)
        background, foreground, *_ = self._label_embeddings()
        for label, embedding in (
            (PADDING, self.not_a_point_embed.weight),
            (BACKGROUND, background),
            (FOREGROUND, foreground),
        ):
            tokens = tokens + (labels == label).unsqueeze(-1) * embedding
        return tokens

    def _box_tokens(self, boxes_N4: Tensor, padded_size: tuple[int, int]) -> Tensor:
        corners = torch.cat(self._label_embeddings()[2:])
        return self._positions(boxes_N4.view(-1, 2, 2), padded_size) + corners

    def _label_embeddings(self) -> list[Tensor]:
        """Background point, foreground point, top left corner, bottom right corner: (1, C) each."""
        return [e.weight for e in self.point_embeddings if isinstance(e, nn.Embedding)]

    def _dense(self, prompts: InputPrompts, features: ImageFeatures) -> Tensor:
        if prompts.mask_logits_N1hw is None:
            return self.no_mask_embed.weight.view(1, -1, 1, 1).expand(
                -1, -1, *features.coarse_BCHW.shape[-2:]
            )
        dense: Tensor = self.mask_downscaling(
            prompts.mask_logits_N1hw.to(self.no_mask_embed.weight.dtype)
        )
        return dense


class RandomFourierPositions(nn.Module):
    """Positional encoding by random spatial frequencies; always computed in float32."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, dim // 2))

    def forward(self, xy: Tensor) -> Tensor:
        """Encode coordinates in [0, 1]: (..., 2) to (..., dim)."""
        projected = (2 * xy.float() - 1) @ self.positional_encoding_gaussian_matrix.float()
        angle = 2 * math.pi * projected
        return torch.cat([angle.sin(), angle.cos()], dim=-1)
