"""SAM's mask decoder as the paper draws it: every image token of every prompt is projected.

What `model.mask_decoder` folds and shares, this spells out: the reference of its tests, and what
its benchmark compares with. Only the weights come from there.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.layers import HeadMlp, LayerNorm2d
from model.mask_decoder import MASK_TOKENS, MaskDecoder
from model.two_way_transformer import Attention, TwoWayBlock, TwoWayTransformer
from model.types import EncodedPrompts, ImageFeatures


def plain_score(
    decoder: MaskDecoder, features: ImageFeatures, positions_1CHW: Tensor, prompts: EncodedPrompts
) -> tuple[Tensor, Tensor, Tensor]:
    """Return predicted IoU (N, 4), mask tokens (N, 4, C) and image tokens (N, C, H, W)."""
    N = len(prompts.sparse_NTC)
    outputs = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([outputs.expand(N, -1, -1), prompts.sparse_NTC], dim=1)
    image = features.per_prompt(features.coarse_BCHW) + prompts.dense_NCHW
    grid = image.shape[2:]
    if len(image) != N:
        image = image.repeat_interleave(N, dim=0)
    positions = positions_1CHW.repeat_interleave(N, dim=0)
    tokens, image = plain_transformer(
        decoder.transformer,
        image.flatten(2).permute(0, 2, 1),
        positions.flatten(2).permute(0, 2, 1),
        tokens,
    )
    iou = _mlp(decoder.iou_prediction_head, tokens[:, 0])
    return iou, tokens[:, 1 : 1 + MASK_TOKENS], image.transpose(1, 2).reshape(N, -1, *grid)


def plain_transformer(
    transformer: TwoWayTransformer, image: Tensor, positions: Tensor, tokens: Tensor
) -> tuple[Tensor, Tensor]:
    """Return tokens (N, T, C) and image tokens (N, P, C); all arguments have batch N."""
    queries = tokens
    for layer in transformer.layers:
        assert isinstance(layer, TwoWayBlock)
        if layer.is_first:
            queries = _attention(layer.self_attn, queries, queries, queries)
        else:
            placed = queries + tokens
            queries = queries + _attention(layer.self_attn, placed, placed, queries)
        queries = layer.norm1(queries)
        to_image, to_token = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
        queries = queries + _attention(to_image, queries + tokens, image + positions, image)
        queries = layer.norm2(queries)
        hidden = F.linear(queries, layer.mlp.lin1.weight, layer.mlp.lin1.bias).relu()
        queries = queries + F.linear(hidden, layer.mlp.lin2.weight, layer.mlp.lin2.bias)
        queries = layer.norm3(queries)
        image = image + _attention(to_token, image + positions, queries + tokens, queries)
        image = layer.norm4(image)
    last = transformer.final_attn_token_to_image
    queries = queries + _attention(last, queries + tokens, image + positions, image)
    return transformer.norm_final_attn(queries), image


def plain_draw(decoder: MaskDecoder, mask_tokens_N4C: Tensor, image_NCHW: Tensor) -> Tensor:
    """Return low-resolution logits (N, 4, 4H, 4W)."""
    to_stride8, norm, _, to_stride4, _ = cast(
        "tuple[nn.ConvTranspose2d, LayerNorm2d, nn.GELU, nn.ConvTranspose2d, nn.GELU]",
        tuple(decoder.output_upscaling),
    )
    x = to_stride8(image_NCHW)
    centred = x - x.mean(1, keepdim=True)
    x = centred / (centred.pow(2).mean(1, keepdim=True) + norm.eps).sqrt()
    x = F.gelu(norm.weight[:, None, None] * x + norm.bias[:, None, None])
    canvas = F.gelu(to_stride4(x))
    mlps = cast("list[HeadMlp]", list(decoder.output_hypernetworks_mlps))
    brushes = [_mlp(mlp, mask_tokens_N4C[:, i]) for i, mlp in enumerate(mlps)]
    N, c, h, w = canvas.shape
    return (torch.stack(brushes, dim=1) @ canvas.reshape(N, c, h * w)).view(N, -1, h, w)


def _mlp(mlp: HeadMlp, x: Tensor) -> Tensor:
    for layer in mlp.layers[:-1]:
        x = layer(x).relu()
    out: Tensor = mlp.layers[-1](x)
    return out


def _attention(attention: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (
        projection(x).view(*x.shape[:2], attention.heads, -1).transpose(1, 2)
        for projection, x in (
            (attention.q_proj, q),
            (attention.k_proj, k),
            (attention.v_proj, v),
        )
    )
    weights = (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(3)
    out: Tensor = attention.out_proj((weights @ v).transpose(1, 2).flatten(2))
    return out
