"""SAM's image encoder: a plain ViT with windowed attention and decomposed relative positions.

Paper: Segment Anything (arXiv 2304.02643), section 3; ViTDet (arXiv 2203.16527) for the backbone.
Shapes: B images, H W tokens along height and width, C channels, N heads, D channels per head.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.fast_linear import linear
from model.host_memory import keep_freed_memory
from model.layers import LayerNorm2d, TwoLayerMlp
from model.relative_attention import attend_folded, attend_in_parts, relative_positions
from model.types import ImageFeatures

_TOKENS_AT_ONCE = 512  # their hidden layer fits the processor's cache


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
    """Pixels (B, 3, S, S) to features (B, out_dim, S/16, S/16).

    The square's padding is computed like the photo: each of its tokens has a position of its own,
    and global blocks attend to all of them, so none can be left out without changing the answer.
    """

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
        if branch_scales_BL2 is None and on_cpu_without_gradients(pixels_B3HW):
            keep_freed_memory()
            each = [self._encode(image) for image in torch.split(pixels_B3HW, 1)]
            return ImageFeatures(each[0] if len(each) == 1 else torch.cat(each))
        return ImageFeatures(self._encode(pixels_B3HW, branch_scales_BL2))

    def _encode(self, pixels_B3HW: Tensor, branch_scales_BL2: Tensor | None = None) -> Tensor:
        x_BHWC = self.patch_embed(pixels_B3HW) + self.pos_embed
        for i, block in enumerate(self.blocks):
            x_BHWC = block(x_BHWC, None if branch_scales_BL2 is None else branch_scales_BL2[:, i])
        out_BCHW: Tensor = self.neck(x_BHWC.permute(0, 3, 1, 2))
        return out_BCHW


class PatchEmbed(nn.Module):
    """Non-overlapping patches to tokens."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, pixels_B3HW: Tensor) -> Tensor:
        """Return (B, H, W, C): the convolution, which is one matrix product for all patches."""
        B, _, height, width = pixels_B3HW.shape
        side = self.proj.kernel_size[0]
        H, W = height // side, width // side
        patches = pixels_B3HW[:, :, : H * side, : W * side].reshape(B, 3, H, side, W, side)
        patches_BHWP = patches.permute(0, 2, 4, 1, 3, 5).reshape(B, H, W, -1)
        return linear(patches_BHWP, self.proj.weight.flatten(1), self.proj.bias)


class Block(nn.Module):
    """Pre-norm transformer block; a window size of 0 means global attention."""

    def __init__(self, config: VitConfig, grid: int, window_size: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=1e-6)
        self.attn = Attention(config.width, config.heads, grid, window_size)
        self.norm2 = nn.LayerNorm(config.width, eps=1e-6)
        self.mlp = TwoLayerMlp(config.width, 4 * config.width, nn.GELU())
        self.window_size = window_size

    def forward(self, x_BHWC: Tensor, branch_scales_B2: Tensor | None = None) -> Tensor:
        """Apply attention and feed-forward with residuals; scale both branches of each image."""
        attended = self.attn(self.norm1(x_BHWC))
        if branch_scales_B2 is not None:
            attention_scale, mlp_scale = branch_scales_B2[:, :, None, None, None].unbind(1)
            x_BHWC = x_BHWC + attention_scale * attended
            scaled: Tensor = x_BHWC + mlp_scale * self.mlp(self.norm2(x_BHWC))
            return scaled
        x_BHWC = (x_BHWC + attended).contiguous()
        if on_cpu_without_gradients(x_BHWC):
            for tokens_TC in torch.split(x_BHWC.view(-1, x_BHWC.shape[-1]), _TOKENS_AT_ONCE):
                tokens_TC += self.mlp(self.norm2(tokens_TC))
            return x_BHWC
        out: Tensor = x_BHWC + self.mlp(self.norm2(x_BHWC))
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

    A window size above 0 cuts the grid into windows that attend within themselves. They start at
    the upper left; those that overhang the grid to the right and below see zeros there, as tokens
    that count like any other.
    """

    def __init__(self, width: int, heads: int, grid: int, window_size: int = 0) -> None:
        super().__init__()
        head_dim = width // heads
        self.heads = heads
        self.window_size = window_size
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * (window_size or grid) - 1, head_dim))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * (window_size or grid) - 1, head_dim))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Attend within each of the B grids."""
        if on_cpu_without_gradients(x_BHWC):
            return self._forward_in_parts(x_BHWC)
        if not self.window_size:
            return self._forward_at_once(x_BHWC)
        attended = self._forward_at_once(split_windows(x_BHWC, self.window_size))
        return merge_windows(attended, self.window_size, *x_BHWC.shape[1:3])

    def _forward_at_once(self, x_BHWC: Tensor) -> Tensor:
        B, H, W, C = x_BHWC.shape
        qkv = self.qkv(x_BHWC).view(B, H, W, 3, self.heads, -1).permute(3, 0, 4, 1, 2, 5)
        q_BNHWD, k_BNHWD, v_BNHWD = qkv.unbind(0)
        attended_BNHWD = attend_folded(q_BNHWD, k_BNHWD, v_BNHWD, *self._positions(H, W))
        out: Tensor = self.proj(attended_BNHWD.permute(0, 2, 3, 1, 4).reshape(B, H, W, C))
        return out

    def _forward_in_parts(self, x_BHWC: Tensor) -> Tensor:
        """Do the same window by window; tokens of the overhang are keys but never queries."""
        B, H, W, C = x_BHWC.shape
        height, width = (self.window_size or side for side in (H, W))
        biases = self.qkv.bias.chunk(3)
        q, k, v = (
            linear(x_BHWC, weight, bias)
            for weight, bias in zip(self.qkv.weight.chunk(3), biases, strict=True)
        )
        k, v = _overhang(k, biases[1], height, width), _overhang(v, biases[2], height, width)
        q_BHWND, k_BHWND, v_BHWND = (x.view(*x.shape[:3], self.heads, -1) for x in (q, k, v))
        attended = torch.empty_like(q_BHWND)
        rows, columns = self._positions(height, width)
        for image, top, left in product(range(B), range(0, H, height), range(0, W, width)):
            window = (image, slice(top, top + height), slice(left, left + width))
            h, w = q_BHWND[window].shape[:2]
            attended[window] = attend_in_parts(
                q_BHWND[window], k_BHWND[window], v_BHWND[window], rows[:h], columns[:w]
            )
        return linear(attended.view(B, H, W, C), self.proj.weight, self.proj.bias)

    def _positions(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        return (
            relative_positions(self.rel_pos_h, height),
            relative_positions(self.rel_pos_w, width),
        )


def on_cpu_without_gradients(x: Tensor) -> bool:
    """Whether to work in parts that fit the cache, which saves nothing elsewhere."""
    return (
        x.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    )


def _overhang(x_BHWC: Tensor, value_C: Tensor, height: int, width: int) -> Tensor:
    """Make a grid's sides multiples of a window's, filled with what zeros are mapped to."""
    B, H, W, C = x_BHWC.shape
    if H % height == 0 and W % width == 0:
        return x_BHWC
    padded = value_C.expand(B, H + -H % height, W + -W % width, C).clone()
    padded[:, :H, :W] = x_BHWC
    return padded


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
