"""The decoder's two-way transformer: prompt tokens and image tokens attend to each other.

Paper: Segment Anything, appendix A. Shapes: N prompts, T tokens, P image positions, C channels.

Image tokens may have batch size 1 for N prompts of the same image: as long as nothing of a prompt
has flowed into them, keys and values are projected once and shared, which gives the same numbers
for less.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from model.layers import TwoLayerMlp


class TwoWayTransformer(nn.Module):
    """Blocks of self-attention, token-to-image, feed-forward and image-to-token attention."""

    def __init__(self, dim: int, depth: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayBlock(dim, heads, mlp_dim, is_first=i == 0) for i in range(depth)
        )
        self.final_attn_token_to_image = Attention(dim, heads, dim // 2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(
        self, image_1PC: Tensor, positions_1PC: Tensor, tokens_NTC: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return tokens (N, T, C) and image tokens (N, P, C).

        Args:
            image_1PC: image tokens, batch 1 or N.
            positions_1PC: their positional encoding, batch 1.
            tokens_NTC: output tokens followed by prompt tokens; also used as their own positions.
        """
        queries, image = tokens_NTC, image_1PC
        for layer in self.layers:
            queries, image = layer(queries, image, tokens_NTC, positions_1PC)
        attended = self.final_attn_token_to_image(
            queries + tokens_NTC, image + positions_1PC, image
        )
        return self.norm_final_attn(queries + attended), image


class TwoWayBlock(nn.Module):
    """One layer; the first has neither positions nor a residual in its self-attention."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, *, is_first: bool) -> None:
        super().__init__()
        self.self_attn = Attention(dim, heads, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, heads, dim // 2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = TwoLayerMlp(dim, mlp_dim, nn.ReLU())
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, heads, dim // 2)
        self.is_first = is_first

    def forward(
        self, queries: Tensor, image: Tensor, query_positions: Tensor, image_positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return updated tokens and image tokens."""
        if self.is_first:
            queries = self.self_attn(queries, queries, queries)
        else:
            placed = queries + query_positions
            queries = queries + self.self_attn(placed, placed, queries)
        queries = self.norm1(queries)
        placed_image = image + image_positions
        queries = self.norm2(
            queries + self.cross_attn_token_to_image(queries + query_positions, placed_image, image)
        )
        queries = self.norm3(queries + self.mlp(queries))
        image = self.norm4(
            image + self.cross_attn_image_to_token(placed_image, queries + query_positions, queries)
        )
        return queries, image


class Attention(nn.Module):
    """Multi-head attention with projections to a smaller inner dimension."""

    def __init__(self, dim: int, heads: int, inner_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(dim, inner_dim)
        self.k_proj = nn.Linear(dim, inner_dim)
        self.v_proj = nn.Linear(dim, inner_dim)
        self.out_proj = nn.Linear(inner_dim, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend; a batch of 1 on either side is shared by the other side's batch."""
        q, k, v = (
            self._split(p(x)) for p, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        batch = len(q) if len(k) == 1 else len(k)
        q, k, v = (x.expand(batch, -1, -1, -1) for x in (q, k, v))
        attended = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return out

    def _split(self, x_NTC: Tensor) -> Tensor:
        N, T, C = x_NTC.shape  # all said: with N = 0 there is nothing to infer a size from
        return x_NTC.view(N, T, self.heads, C // self.heads).transpose(1, 2)
