"""The mask decoder as an ONNX graph for one prompt at a time, its work on the image folded.

SAM's decoder multiplies thousands of image tokens with projection matrices so that a handful of
prompt tokens can attend to them. For one click it is less work the other way round:

    logits = (x W_k) q^T = x (q W_k^T)^T        fold the projection onto T tokens x H heads
    output = A (x W_v)   = (A x) W_v

and what the first layer reads of the image does not depend on the prompt, so `prepare` computes it
once per image. Everything is kept channels-last: the upscaling's transposed convolutions, whose
kernels do not overlap, are then plain matrix products, and its norms run along rows.

Shapes: T tokens, P image tokens, C channels, H heads, d channels per head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.graph_layers import linear, norm
from model.layers import HeadMlp
from model.mask_decoder import MASK_TOKENS, MaskDecoder
from model.onnx_graph import Graph, Value
from model.two_way_transformer import Attention, TwoWayBlock


@dataclass(frozen=True, slots=True, eq=False)
class ImageTokens:
    """Image tokens (P, C), and with their positional encoding added."""

    plain_PC: Value
    placed_PC: Value


@dataclass(frozen=True, slots=True, eq=False)
class DenseChange:
    """What a mask prompt adds to the image tokens: rows @ weight + bias, of few channels M.

    Attributes:
        rows_PM: the mask prompt at the stride of the image tokens.
        weight_MC: that project it.
        bias_C: added to every token.
    """

    rows_PM: Value
    weight_MC: Tensor
    bias_C: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class SharedImage:
    """Image tokens whose projections for the first layer are there already.

    Attributes:
        plain_PC: the tokens.
        keys_HdP: of the attention from tokens to the image.
        values_HPd: of the same.
        queries_HPd: of the attention from the image to the tokens, scaled.
        change: what the prompt adds to all that.
    """

    plain_PC: Value
    keys_HdP: Value
    values_HPd: Value
    queries_HPd: Value
    change: DenseChange | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """Tokens after the transformer: output tokens (5, C), image tokens (P, C)."""

    tokens_5C: Value
    image_PC: Value


def shared_image(graph: Graph, decoder: MaskDecoder, image: ImageTokens) -> SharedImage:
    """Project the image for the first layer, as `prepare` does."""
    block = first_block(decoder)
    to_image, from_image = block.cross_attn_token_to_image, block.cross_attn_image_to_token

    def heads(layer: nn.Linear, x: Value, order: tuple[int, ...], scale: float = 1.0) -> Value:
        split = linear(graph, layer, x, scale=scale).reshape(
            -1, to_image.heads, _head_dim(to_image)
        )
        return split.transpose(*order)

    return SharedImage(
        plain_PC=image.plain_PC,
        keys_HdP=heads(to_image.k_proj, image.placed_PC, (1, 2, 0)),
        values_HPd=heads(to_image.v_proj, image.plain_PC, (1, 0, 2)),
        queries_HPd=heads(from_image.q_proj, image.placed_PC, (1, 0, 2), _scale(from_image)),
    )


def transform(
    graph: Graph,
    decoder: MaskDecoder,
    prompt_tokens_TC: Value,
    positions_PC: Value,
    first_layer: Callable[[TwoWayBlock, Value], tuple[Value, Value]],
) -> Decoded:
    """Run the two-way transformer.

    Args:
        graph: that is written to.
        decoder: whose transformer it is.
        prompt_tokens_TC: of the prompt, without the output tokens.
        positions_PC: positional encoding of the image tokens.
        first_layer: takes the first block and all tokens, returns tokens and image tokens: here the
            graphs differ in what they can share between prompts.
    """
    output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens_TC = graph.concat([graph.weight(output_tokens), prompt_tokens_TC], axis=0)
    blocks = [block for block in decoder.transformer.layers if isinstance(block, TwoWayBlock)]
    queries_TC, image_PC = first_layer(blocks[0], tokens_TC)
    for block in blocks[1:]:
        image = ImageTokens(image_PC, image_PC + positions_PC)
        queries_TC, image_PC = two_way_block(graph, block, queries_TC, tokens_TC, image)
    outputs = 1 + MASK_TOKENS  # nobody reads the prompt's own tokens after this
    queries_TC, tokens_TC = (x.slice(0, 0, outputs) for x in (queries_TC, tokens_TC))
    attended_TC = token_to_image(
        graph,
        decoder.transformer.final_attn_token_to_image,
        queries_TC + tokens_TC,
        ImageTokens(image_PC, image_PC + positions_PC),
    )
    final_5C = norm(graph, decoder.transformer.norm_final_attn, queries_TC + attended_TC)
    return Decoded(final_5C, image_PC)


def two_way_block(
    graph: Graph,
    block: TwoWayBlock,
    queries_TC: Value,
    tokens_TC: Value,
    image: ImageTokens | SharedImage,
) -> tuple[Value, Value]:
    """Run one layer: updated tokens and image tokens.

    Args:
        graph: that is written to.
        block: the layer.
        queries_TC: tokens so far.
        tokens_TC: the tokens at the start, which are their own positions.
        image: image tokens.
    """
    if block.is_first:
        queries_TC = self_attention(graph, block.self_attn, queries_TC, queries_TC)
    else:
        placed_TC = queries_TC + tokens_TC
        queries_TC = queries_TC + self_attention(graph, block.self_attn, placed_TC, queries_TC)
    queries_TC = norm(graph, block.norm1, queries_TC)
    to_image, to_token = block.cross_attn_token_to_image, block.cross_attn_image_to_token
    asking_TC = queries_TC + tokens_TC
    if isinstance(image, SharedImage):
        attended_TC = _token_to_shared(graph, to_image, asking_TC, image)
    else:
        attended_TC = token_to_image(graph, to_image, asking_TC, image)
    queries_TC = norm(graph, block.norm2, queries_TC + attended_TC)
    hidden = graph.op("Relu", linear(graph, block.mlp.lin1, queries_TC))
    queries_TC = norm(graph, block.norm3, queries_TC + linear(graph, block.mlp.lin2, hidden))
    asked_TC = queries_TC + tokens_TC
    if isinstance(image, SharedImage):
        image_PC = _shared_to_token(graph, to_token, image, asked_TC, queries_TC)
    else:
        image_PC = image_to_token(graph, to_token, image, asked_TC, queries_TC)
    return queries_TC, norm(graph, block.norm4, image_PC)


def self_attention(graph: Graph, attention: Attention, placed_TC: Value, plain_TC: Value) -> Value:
    """Let the tokens attend to each other: (T, C)."""
    queries_HTd = _heads(graph, attention, attention.q_proj, placed_TC, scale=_scale(attention))
    keys_HTd = _heads(graph, attention, attention.k_proj, placed_TC)
    values_HTd = _heads(graph, attention, attention.v_proj, plain_TC)
    weights_HTT = graph.op("Softmax", queries_HTd @ keys_HTd.transpose(0, 2, 1), axis=-1)
    return _join(graph, attention, weights_HTT @ values_HTd)


def token_to_image(
    graph: Graph, attention: Attention, asking_TC: Value, image: ImageTokens
) -> Value:
    """Let the tokens read the image, projections folded onto them: (T, C).

    The key's bias shifts all logits of a query alike, which softmax ignores; the weights of a query
    sum to one, so the value's bias is added once.
    """
    dim, d = attention.q_proj.in_features, _head_dim(attention)
    queries_HTd = _heads(graph, attention, attention.q_proj, asking_TC, scale=_scale(attention))
    folded_HTC = queries_HTd @ graph.weight(attention.k_proj.weight.view(-1, d, dim))
    logits = graph.op("Gemm", folded_HTC.reshape(-1, dim), image.placed_PC, transB=1)
    weights = graph.op("Softmax", logits, axis=-1)
    read_HTC = (weights @ image.plain_PC).reshape(attention.heads, -1, dim)
    values = attention.v_proj.weight.view(-1, d, dim).transpose(1, 2)
    bias_H1d = attention.v_proj.bias.view(-1, 1, d)
    return _join(graph, attention, read_HTC @ graph.weight(values) + graph.weight(bias_H1d))


def image_to_token(
    graph: Graph, attention: Attention, image: ImageTokens, asked_TC: Value, plain_TC: Value
) -> Value:
    """Let the image read the tokens, and add that to it, projections folded: (P, C).

    Args:
        graph: that is written to.
        attention: the layer.
        image: image tokens.
        asked_TC: tokens that keys are made from.
        plain_TC: tokens that values are made from.
    """
    dim, d = attention.q_proj.in_features, _head_dim(attention)
    keys_HTd = _heads(graph, attention, attention.k_proj, asked_TC, scale=_scale(attention))
    folded_HTC = keys_HTd @ graph.weight(attention.q_proj.weight.view(-1, d, dim))
    bias_HT1 = keys_HTd @ graph.weight(attention.q_proj.bias.view(-1, d, 1))
    logits = graph.op(
        "Gemm", image.placed_PC, folded_HTC.reshape(-1, dim), bias_HT1.reshape(-1), transB=1
    )
    logits_PHT = logits.reshape(image.plain_PC.size(0), attention.heads, -1)
    weights_PHT = graph.op("Softmax", logits_PHT, axis=-1)
    weights = weights_PHT.reshape(image.plain_PC.size(0), -1)
    values = _projected_values(graph, attention, plain_TC, attention.out_proj.bias)
    return graph.op("Gemm", weights, values, image.plain_PC)


def predicted_iou(graph: Graph, decoder: MaskDecoder, tokens_5C: Value, *, sigmoid: bool) -> Value:
    """Estimate the four masks' IoU: (1, 4)."""
    x = tokens_5C.slice(0, 0, 1)
    layers = _layers(decoder.iou_prediction_head)
    for layer in layers[:-1]:
        x = graph.op("Relu", linear(graph, layer, x))
    iou = linear(graph, layers[-1], x)
    return graph.op("Sigmoid", iou) if sigmoid else iou


def brushes(graph: Graph, decoder: MaskDecoder, tokens_5C: Value) -> Value:
    """Turn the mask tokens into what the canvas is multiplied by: (4, channels)."""
    x = tokens_5C.slice(0, 1, 1 + MASK_TOKENS).reshape(MASK_TOKENS, 1, -1)
    mlps = [_layers(mlp) for mlp in decoder.output_hypernetworks_mlps if isinstance(mlp, HeadMlp)]
    depth = len(mlps[0])
    for i in range(depth):
        weights = torch.stack([layers[i].weight.T for layers in mlps])
        biases = torch.stack([layers[i].bias.unsqueeze(0) for layers in mlps])
        x = x @ graph.weight(weights) + graph.weight(biases)
        x = x if i == depth - 1 else graph.op("Relu", x)
    return x.reshape(MASK_TOKENS, -1)


def first_block(decoder: MaskDecoder) -> TwoWayBlock:
    """Return the transformer's first layer."""
    block = decoder.transformer.layers[0]
    if not isinstance(block, TwoWayBlock):
        raise TypeError(f"expected a TwoWayBlock; got {type(block).__name__}")
    return block


def _token_to_shared(
    graph: Graph, attention: Attention, asking_TC: Value, image: SharedImage
) -> Value:
    """Let the tokens read a prepared image; a change of it is read beside it."""
    dim, d = attention.q_proj.in_features, _head_dim(attention)
    queries_HTd = _heads(graph, attention, attention.q_proj, asking_TC, scale=_scale(attention))
    logits_HTP = queries_HTd @ image.keys_HdP
    change = image.change
    if change is not None:
        key_HdC = attention.k_proj.weight.view(-1, d, dim)
        folded_HTM = queries_HTd @ graph.weight(key_HdC @ change.weight_MC.T)
        logits_HTP = logits_HTP + folded_HTM @ change.rows_PM.transpose(1, 0)
    weights_HTP = graph.op("Softmax", logits_HTP, axis=-1)
    read_HTd = weights_HTP @ image.values_HPd
    if change is not None:
        value_HCd = attention.v_proj.weight.view(-1, d, dim).transpose(1, 2)
        changed_HTM = weights_HTP @ change.rows_PM
        read_HTd = read_HTd + changed_HTM @ graph.weight(change.weight_MC @ value_HCd)
        read_HTd = read_HTd + graph.weight(change.bias_C @ value_HCd).reshape(-1, 1, d)
    return _join(graph, attention, read_HTd)


def _shared_to_token(
    graph: Graph, attention: Attention, image: SharedImage, asked_TC: Value, plain_TC: Value
) -> Value:
    """Let a prepared image read the tokens; a change of it asks beside it, and is added too."""
    dim, d = attention.q_proj.in_features, _head_dim(attention)
    keys_HTd = _heads(graph, attention, attention.k_proj, asked_TC)
    logits_PHT = (image.queries_HPd @ keys_HTd.transpose(0, 2, 1)).transpose(1, 0, 2)
    rows = image.plain_PC.size(0)
    change = image.change
    if change is None:
        weights = graph.op("Softmax", logits_PHT, axis=-1).reshape(rows, -1)
        values = _projected_values(graph, attention, plain_TC, attention.out_proj.bias)
        return graph.op("Gemm", weights, values, image.plain_PC)
    query_HdC = attention.q_proj.weight.view(-1, d, dim) * _scale(attention)
    folded_HTM = keys_HTd @ graph.weight(query_HdC @ change.weight_MC.T)
    bias_HT1 = keys_HTd @ graph.weight(query_HdC @ change.bias_C).reshape(-1, d, 1)
    folded = folded_HTM.reshape(-1, change.weight_MC.shape[0])
    changed = graph.op("Gemm", change.rows_PM, folded, bias_HT1.reshape(-1), transB=1)
    logits_PHT = logits_PHT + changed.reshape(rows, attention.heads, -1)
    weights = graph.op("Softmax", logits_PHT, axis=-1).reshape(rows, -1)
    values = _projected_values(graph, attention, plain_TC, attention.out_proj.bias + change.bias_C)
    return graph.op(
        "Gemm",
        graph.concat([weights, change.rows_PM], axis=1),
        graph.concat([values, graph.weight(change.weight_MC)], axis=0),
        image.plain_PC,
    )


def _projected_values(graph: Graph, attention: Attention, plain_TC: Value, bias_C: Tensor) -> Value:
    """Project the tokens' values per head to the image's channels: (H T, C).

    Weights of a head sum to one: a bias that is split among the heads comes out whole.
    """
    dim, d = attention.q_proj.in_features, _head_dim(attention)
    out_HdC = attention.out_proj.weight.T.reshape(-1, d, dim)
    values_HTC = _heads(graph, attention, attention.v_proj, plain_TC) @ graph.weight(out_HdC)
    return (values_HTC + graph.weight(bias_C / attention.heads)).reshape(-1, dim)


def _heads(
    graph: Graph, attention: Attention, layer: nn.Linear, x_TC: Value, *, scale: float = 1.0
) -> Value:
    """Project tokens and split the heads: (H, T, d)."""
    split = linear(graph, layer, x_TC, scale=scale).reshape(
        -1, attention.heads, _head_dim(attention)
    )
    return split.transpose(1, 0, 2)


def _join(graph: Graph, attention: Attention, x_HTd: Value) -> Value:
    """Put the heads together again and project: (T, C)."""
    inner = attention.out_proj.in_features
    return linear(graph, attention.out_proj, x_HTd.transpose(1, 0, 2).reshape(-1, inner))


def _head_dim(attention: Attention) -> int:
    return attention.q_proj.out_features // attention.heads


def _scale(attention: Attention) -> float:
    return float(_head_dim(attention) ** -0.5)


def _layers(mlp: HeadMlp) -> list[nn.Linear]:
    return [layer for layer in mlp.layers if isinstance(layer, nn.Linear)]
