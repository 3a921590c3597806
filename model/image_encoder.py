"""SAM's image encoder: a plain ViT with windowed attention and decomposed relative positions.

Paper: Segment Anything (arXiv 2304.02643), section 3; ViTDet (arXiv 2203.16527) for the backbone.
Shapes: B images, H W tokens along height and width, C channels, N heads, D channels per head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.layers import LayerNorm2d, TwoLayerMlp
from model.types import ImageFeatures


@dataclass(frozen=True, slots=True, kw_only=True)
class VitConfig:
    """Sizes of the ViT encoder; the defaults are vit_b.

    Attributes:
        width: channels of a token.
        depth: number of blocks.
        heads: attention heads.
        global_blocks: indices of the blocks that attend to the whole image; the others use windows.
        window_size: side of a window in tokens.
        patch_size: side of a patch in pixels.
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    global_blocks: tuple[int, ...] = (2, 5, 8, 11)
    window_size: int = 14
    patch_size: int = 16

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")


class VitEncoder(nn.Module):
    """Pixels (B, 3, S, S) to features (B, out_dim, S/16, S/16)."""

    def __init__(self, config: VitConfig, image_size: int, out_dim: int) -> None:
        super().__init__()
        grid = image_size // config.patch_size
        self.patch_embed = PatchEmbed(config.patch_size, config.width)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid, grid, config.width))
        self.blocks = nn.ModuleList(
            Block(config, grid, 0 if i in config.global_blocks else config.window_size)
            for i in range(config.depth)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(config.width, out_dim, kernel_size=1, bias=False),
            LayerNorm2d(out_dim),
            nn.Conv2d(out_dim, out_dim, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(out_dim),
        )

    def forward(
        self, pixels_B3HW: Tensor, branch_scales_BL2: Tensor | None = None
    ) -> ImageFeatures:
        """Encode normalised pixels of the square input.

        Args:
            pixels_B3HW: normalised and padded.
            branch_scales_BL2: in training, from `drop_path_scales`; None leaves all branches as
                they are, as inference does.
        """
        x_BHWC = self.patch_embed(pixels_B3HW) + self.pos_embed
        for i, block in enumerate(self.blocks):
            x_BHWC = block(x_BHWC, None if branch_scales_BL2 is None else branch_scales_BL2[:, i])
        return ImageFeatures(self.neck(x_BHWC.permute(0, 3, 1, 2)))


class PatchEmbed(nn.Module):
    """Non-overlapping patches to tokens."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, pixels_B3HW: Tensor) -> Tensor:
        """Return (B, H, W, C)."""
        tokens: Tensor = self.proj(pixels_B3HW)
        return tokens.permute(0, 2, 3, 1)


class Block(nn.Module):
    """Pre-norm transformer block; a window size of 0 means global attention."""

    def __init__(self, config: VitConfig, grid: int, window_size: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=1e-6)
        self.attn = Attention(config.width, config.heads, window_size or grid)
        self.norm2 = nn.LayerNorm(config.width, eps=1e-6)
        self.mlp = TwoLayerMlp(config.width, 4 * config.width, nn.GELU())
        self.window_size = window_size

    def forward(self, x_BHWC: Tensor, branch_scales_B2: Tensor | None = None) -> Tensor:
        """Apply attention and feed-forward with residuals; scale both branches of each image."""
        normed = self.norm1(x_BHWC)
        if self.window_size:
            height, width = x_BHWC.shape[1:3]
            windows = split_windows(normed, self.window_size)
            attended = merge_windows(self.attn(windows), self.window_size, height, width)
        else:
            attended = self.attn(normed)
        if branch_scales_B2 is None:
            x_BHWC = x_BHWC + attended
            out: Tensor = x_BHWC + self.mlp(self.norm2(x_BHWC))
        else:
            attention_scale, mlp_scale = branch_scales_B2[:, :, None, None, None].unbind(1)
            x_BHWC = x_BHWC + attention_scale * attended
            out = x_BHWC + mlp_scale * self.mlp(self.norm2(x_BHWC))
        return out


def drop_path_scales(uniform_BL2: Tensor, rate: float) -> Tensor:
    """Drop whole residual branches of single images: scales for `VitEncoder`, (B, L, 2).

    The chance to be dropped grows linearly from 0 in the first block to `rate` in the last; kept
    branches are made larger, so that the mean stays. Paper: stochastic depth (arXiv 1603.09382).

    Args:
        uniform_BL2: random numbers in [0, 1) for every image, block and branch.
        rate: chance in the last block, below 1.
    """
    depth = uniform_BL2.shape[1]
    kept_L1 = 1 - torch.linspace(0, rate, depth, device=uniform_BL2.device).unsqueeze(1)
    scales_BL2: Tensor = (uniform_BL2 < kept_L1) / kept_L1
    return scales_BL2


class Attention(nn.Module):
    """Multi-head self-attention over a grid, with relative positions by row and by column.

    Queries are taken in chunks, so that a bias for all pairs of tokens is never in memory at once:
    for vit_b at 1024 px that is 200 MB in place of 800 MB.
    """

    _QUERY_CHUNK = 1024

    def __init__(self, width: int, heads: int, grid: int) -> None:
        super().__init__()
        head_dim = width // heads
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * grid - 1, head_dim))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * grid - 1, head_dim))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Attend within each of the B grids."""
        B, H, W, C = x_BHWC.shape
        qkv = self.qkv(x_BHWC).view(B, H * W, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q_BNTD, k_BNTD, v_BNTD = qkv.unbind(0)
        rows_HHD = relative_positions(self.rel_pos_h, H)
        columns_WWD = relative_positions(self.rel_pos_w, W)
        q_BNHWD = q_BNTD.reshape(B, self.heads, H, W, -1)
        rows_per_chunk = max(1, self._QUERY_CHUNK // W)
        chunks = []
        for top in range(0, H, rows_per_chunk):
            q = q_BNHWD[:, :, top : top + rows_per_chunk]
            by_row = torch.einsum("bnhwd,hkd->bnhwk", q, rows_HHD[top : top + rows_per_chunk])
            by_column = torch.einsum("bnhwd,wkd->bnhwk", q, columns_WWD)
            bias = (by_row.unsqueeze(-1) + by_column.unsqueeze(-2)).flatten(4).flatten(2, 3)
            chunks.append(
                F.scaled_dot_product_attention(q.flatten(2, 3), k_BNTD, v_BNTD, attn_mask=bias)
            )
        x_BTC = torch.cat(chunks, dim=2).transpose(1, 2).reshape(B, H * W, C)
        out: Tensor = self.proj(x_BTC).view(B, H, W, C)
        return out


def relative_positions(table: Tensor, size: int) -> Tensor:
    """Spread a table of 2*size - 1 offsets over all (query, key) pairs: (size, size, D)."""
    position = torch.arange(size, device=table.device)
    return table[position[:, None] - position[None, :] + (size - 1)]


def split_windows(x_BHWC: Tensor, size: int) -> Tensor:
    """Cut grids into windows of `size` x `size` tokens, zero-padded right and below.

    Returns:
        (B * windows, size, size, C), windows in reading order.
    """
    B, H, W, C = x_BHWC.shape
    x_BHWC = F.pad(x_BHWC, (0, 0, 0, -W % size, 0, -H % size))
    rows, columns = x_BHWC.shape[1] // size, x_BHWC.shape[2] // size
    x = x_BHWC.view(B, rows, size, columns, size, C)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, size, size, C)


def merge_windows(windows: Tensor, size: int, height: int, width: int) -> Tensor:
    """Undo `split_windows` for grids of height x width tokens."""
    rows, columns = -(-height // size), -(-width // size)
    x = windows.view(-1, rows, columns, size, size, windows.shape[-1])
    x = x.permute(0, 1, 3, 2, 4, 5).reshape(-1, rows * size, columns * size, windows.shape[-1])
    return x[:, :height, :width]
