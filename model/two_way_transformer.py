"""The decoder's two-way transformer: prompt tokens and image tokens attend to each other.

Paper: Segment Anything, appendix A. Shapes: N prompts, T tokens, P image positions, C channels, H
heads, d channels per head, K = H T.

An image has thousands of tokens and a prompt a handful. So no image token of a prompt is ever
projected: each projection of an attention meets the other side as well, and there it is small.

    logits = (x W_k) q^T = x (q W_k^T)^T        folded onto T tokens x H heads
    output = A (x W_v)   = (A x) W_v

Only in the first layer, which nothing of a prompt has flowed into, an image that N prompts share is
projected as usual, once for all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.fast_linear import linear, products
from model.layers import TwoLayerMlp
from model.prompt_groups import prompt_groups


@dataclass(frozen=True, slots=True, eq=False)
class SharedImage:
    """Image tokens of N prompts alike, and what the first layer's attentions read of them.

    Attributes:
        plain_1PC: the tokens.
        keys_HdP: for tokens that read the image, with positions.
        values_HPd: likewise, without positions.
        queries_HdP: for the image that reads tokens, with positions.
    """

    plain_1PC: Tensor
    keys_HdP: Tensor
    values_HPd: Tensor
    queries_HdP: Tensor


class TwoWayTransformer(nn.Module):
    """Blocks of self-attention, token-to-image, feed-forward and image-to-token attention."""

    def __init__(self, dim: int, depth: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayBlock(dim, heads, mlp_dim, is_first=i == 0) for i in range(depth)
        )
        self.final_attn_token_to_image = TokenToImage(dim, heads, dim // 2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(
        self,
        image_1PC: Tensor,
        positions_1PC: Tensor,
        tokens_NTC: Tensor,
        *,
        outputs: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the first `outputs` tokens (N, outputs, C), or all, and image tokens (N, P, C).

        Args:
            image_1PC: image tokens, batch 1 or N.
            positions_1PC: their positional encoding, batch 1.
            tokens_NTC: output tokens followed by prompt tokens; also used as their own positions.
            outputs: how many tokens are read afterwards.
        """
        image, positions_1PC = image_1PC.contiguous(), positions_1PC.contiguous()
        shared = None
        if len(image) == 1 < len(tokens_NTC):
            shared = self._blocks()[0].share(image, positions_1PC)
        parts = [
            self._attend(shared or image[rows], positions_1PC, tokens_NTC[rows], outputs)
            for rows in prompt_groups(slice(None), len(tokens_NTC), image[:1])
        ]
        if len(parts) == 1:
            return parts[0]
        tokens, images = zip(*parts, strict=True)
        return torch.cat(tokens), torch.cat(images)

    def _attend(
        self,
        image: Tensor | SharedImage,
        positions_1PC: Tensor,
        tokens_NTC: Tensor,
        outputs: int | None,
    ) -> tuple[Tensor, Tensor]:
        first, *others = self._blocks()
        queries, image_NPC = first(tokens_NTC, image, tokens_NTC, positions_1PC)
        for block in others:
            queries, image_NPC = block(queries, image_NPC, tokens_NTC, positions_1PC)
        queries, asking = queries[:, :outputs], (queries + tokens_NTC)[:, :outputs]
        attended = self.final_attn_token_to_image(asking, image_NPC + positions_1PC, image_NPC)
        return self.norm_final_attn(queries + attended), image_NPC

    def _blocks(self) -> list[TwoWayBlock]:
        return [block for block in self.layers if isinstance(block, TwoWayBlock)]


class TwoWayBlock(nn.Module):
    """One layer; the first has neither positions nor a residual in its self-attention."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, *, is_first: bool) -> None:
        super().__init__()
        self.self_attn = Attention(dim, heads, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = TokenToImage(dim, heads, dim // 2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = TwoLayerMlp(dim, mlp_dim, nn.ReLU())
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = ImageToToken(dim, heads, dim // 2)
        self.is_first = is_first

    def forward(
        self,
        queries: Tensor,
        image: Tensor | SharedImage,
        query_positions: Tensor,
        image_positions: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return updated tokens and image tokens."""
        if self.is_first:
            queries = self.self_attn(queries, queries, queries)
        else:
            placed = queries + query_positions
            queries = queries + self.self_attn(placed, placed, queries)
        queries = self.norm1(queries)
        to_image, to_token = self.cross_attn_token_to_image, self.cross_attn_image_to_token
        asking = queries + query_positions
        if isinstance(image, SharedImage):
            plain = image.plain_1PC
            attended = to_image.read_shared(asking, image.keys_HdP, image.values_HPd)
        else:
            plain, placed_image = image, image + image_positions
            attended = to_image(asking, placed_image, plain)
        queries = self.norm2(queries + attended)
        queries = self.norm3(queries + self.mlp(queries))
        asked = queries + query_positions
        if isinstance(image, SharedImage):
            told = to_token.added_to_shared(plain, image.queries_HdP, asked, queries)
        else:
            told = to_token.added_to(plain, placed_image, asked, queries)
        return queries, self.norm4(told)

    def share(self, image_1PC: Tensor, positions_1PC: Tensor) -> SharedImage:
        """Project what all prompts share."""
        placed_1PC = image_1PC + positions_1PC
        to_image, to_token = self.cross_attn_token_to_image, self.cross_attn_image_to_token
        return SharedImage(
            image_1PC,
            to_image.split(to_image.k_proj, placed_1PC).transpose(2, 3)[0],
            to_image.split(to_image.v_proj, image_1PC)[0],
            to_token.split(to_token.q_proj, placed_1PC).transpose(2, 3)[0],
        )


class Attention(nn.Module):
    """Multi-head attention with projections to a smaller inner dimension."""

    def __init__(self, dim: int, heads: int, inner_dim: int) -> None:
        super().__init__()
        self.dim, self.heads, self.head_dim = dim, heads, inner_dim // heads
        self.q_proj = nn.Linear(dim, inner_dim)
        self.k_proj = nn.Linear(dim, inner_dim)
        self.v_proj = nn.Linear(dim, inner_dim)
        self.out_proj = nn.Linear(inner_dim, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend; all three have batch N."""
        attended_NHTd = F.scaled_dot_product_attention(
            self.split(self.q_proj, q), self.split(self.k_proj, k), self.split(self.v_proj, v)
        )
        return self._joined(attended_NHTd)

    def split(self, projection: nn.Linear, x_NTC: Tensor) -> Tensor:
        """Project and split the heads: (N, H, T, d)."""
        projected = linear(x_NTC, projection.weight, projection.bias)
        return projected.view(*x_NTC.shape[:2], self.heads, self.head_dim).transpose(1, 2)

    def _joined(self, x_NHTd: Tensor) -> Tensor:
        """Put the heads together again and project: (N, T, C)."""
        return linear(x_NHTd.transpose(1, 2).flatten(2), self.out_proj.weight, self.out_proj.bias)

    def _scaled(self, projection: nn.Linear, x_NTC: Tensor) -> Tensor:
        """Project tokens and split the heads, such that their products are logits."""
        return self.split(projection, x_NTC) / math.sqrt(self.head_dim)

    def _logits(self, x_NHTd: Tensor, projection: nn.Linear, placed_NPC: Tensor) -> Tensor:
        """Multiply tokens by image tokens, whose projection is folded onto them: (N, K, P)."""
        weight_HdC = projection.weight.view(self.heads, self.head_dim, self.dim)
        bias_Hd = projection.bias.view(self.heads, self.head_dim)
        folded_NKC = torch.einsum("nhtd,hdc->nhtc", x_NHTd, weight_HdC).flatten(1, 2)
        folded_NK1 = torch.einsum("nhtd,hd->nht", x_NHTd, bias_Hd).flatten(1).unsqueeze(2)
        return products(folded_NKC, placed_NPC, folded_NK1)

    def _shared_logits(self, x_NHTd: Tensor, image_HdP: Tensor) -> Tensor:
        """Multiply tokens by image tokens that were projected before: (H, N T, P)."""
        # All prompts' tokens are rows of one matrix.
        return x_NHTd.transpose(0, 1).flatten(1, 2) @ image_HdP


class TokenToImage(Attention):
    """Tokens read the image."""

    def forward(self, asking_NTC: Tensor, placed_NPC: Tensor, image_NPC: Tensor) -> Tensor:
        """Return what each token reads: (N, T, C).

        A token's weights sum to one, so that the value's bias is added once.
        """
        N, T, C = asking_NTC.shape
        logits_NKP = self._logits(self._scaled(self.q_proj, asking_NTC), self.k_proj, placed_NPC)
        read_NKC = products(logits_NKP.softmax(2), image_NPC.transpose(1, 2))
        weight_HdC = self.v_proj.weight.view(self.heads, self.head_dim, C)
        values_NHTd = torch.einsum("nhtc,hdc->nhtd", read_NKC.view(N, self.heads, T, C), weight_HdC)
        return self._joined(values_NHTd + self.v_proj.bias.view(self.heads, 1, self.head_dim))

    def read_shared(self, asking_NTC: Tensor, keys_HdP: Tensor, values_HPd: Tensor) -> Tensor:
        """Return what each token reads of an image that was projected before: (N, T, C)."""
        N, T, _ = asking_NTC.shape
        logits_HMP = self._shared_logits(self._scaled(self.q_proj, asking_NTC), keys_HdP)
        read_HMd = logits_HMP.softmax(2) @ values_HPd
        return self._joined(read_HMd.view(self.heads, N, T, self.head_dim).transpose(0, 1))


class ImageToToken(Attention):
    """The image reads the tokens."""

    def added_to(
        self, image_NPC: Tensor, placed_NPC: Tensor, asked_NTC: Tensor, tokens_NTC: Tensor
    ) -> Tensor:
        """Return the image with what each position reads added: (N, P, C)."""
        N, T, _ = asked_NTC.shape
        logits_NKP = self._logits(self._scaled(self.k_proj, asked_NTC), self.q_proj, placed_NPC)
        logits_NHTP = logits_NKP.view(N, self.heads, T, placed_NPC.shape[1])
        return self._added(image_NPC, logits_NHTP, tokens_NTC)

    def added_to_shared(
        self, image_1PC: Tensor, queries_HdP: Tensor, asked_NTC: Tensor, tokens_NTC: Tensor
    ) -> Tensor:
        """Return likewise an image whose queries were projected before."""
        N, T, _ = asked_NTC.shape
        logits_HMP = self._shared_logits(self._scaled(self.k_proj, asked_NTC), queries_HdP)
        logits_HNTP = logits_HMP.view(self.heads, N, T, queries_HdP.shape[2])
        return self._added(image_1PC, logits_HNTP.transpose(0, 1), tokens_NTC)

    def _added(self, image_1PC: Tensor, logits_NHTP: Tensor, tokens_NTC: Tensor) -> Tensor:
        """Weigh the tokens' values, on which the output's projection is folded.

        A position's weights sum to one in each head: the output's bias is split among the heads.
        """
        weights_NKP = logits_NHTP.softmax(2).flatten(1, 2)
        out_CHd = self.out_proj.weight.view(self.dim, self.heads, self.head_dim)
        bias_C11 = self.out_proj.bias.view(self.dim, 1, 1) / self.heads
        values_NHTd = self.split(self.v_proj, tokens_NTC)
        values_NCHT = torch.einsum("nhtd,chd->ncht", values_NHTd, out_CHd) + bias_C11
        return products(weights_NKP.transpose(1, 2), values_NCHT.flatten(2), image_1PC)
