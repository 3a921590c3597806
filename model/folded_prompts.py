"""Prompts as ONNX graph code: points, boxes and an earlier mask of one prompt, for SAM's decoder.

Shapes: K points (box corners and padding among them), P image tokens, C channels, h w image tokens
along the two axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from model.folded_decoder import DenseChange
from model.graph_layers import halved, layers_of, norm, to_squares
from model.layers import LayerNorm2d
from model.onnx_graph import Graph, Value
from model.prompt_encoder import PromptEncoder
from model.types import PADDING

TOKEN_STRIDE = 16
CORNERS = (2, 3)  # labels of a box's top left and bottom right corner, as in SAM's public export


@dataclass(frozen=True, slots=True, eq=False)
class GraphPrompt:
    """The inputs of a decoding graph.

    Attributes:
        points_K2: pixels of the padded input.
        labels_K1: 1 foreground, 0 background, -1 padding, 2 and 3 the corners of a box.
        mask_11hw: earlier logits, of any size when there are none.
        has_mask: bool (1,).
    """

    points_K2: Value
    labels_K1: Value
    mask_11hw: Value
    has_mask: Value


def prompt_inputs(graph: Graph) -> GraphPrompt:
    """Declare the inputs that say what is wanted."""
    points = graph.input("points_xy", np.float32, (1, None, 2))
    labels = graph.input("point_labels", np.float32, (1, None))
    mask = graph.input("mask_logits", np.float32, (1, 1, None, None))
    has_mask = graph.input("has_mask", np.float32, (1,))
    return GraphPrompt(
        points_K2=points.reshape(-1, 2),
        labels_K1=labels.reshape(-1, 1),
        mask_11hw=mask,
        has_mask=graph.op("Greater", has_mask, 0.5),
    )


def image_positions(graph: Graph, encoder: PromptEncoder, height: Value, width: Value) -> Value:
    """Return the positional encoding of the image tokens: (h, w, C)."""
    gaussian = encoder.pe_layer.positional_encoding_gaussian_matrix.float().cpu().numpy()

    def along(size: Value, frequencies: Value, shape: tuple[int, ...]) -> Value:
        steps = graph.op(
            "Range", graph.constant(np.array(0)), size.reshape(), graph.constant(np.array(1))
        )
        centres = (steps.cast(np.float32) + 0.5) / size.cast(np.float32)
        return (centres * 2.0 - 1.0).reshape(*shape) * frequencies

    across = along(width, graph.constant(gaussian[0]), (1, -1, 1))
    down = along(height, graph.constant(gaussian[1]), (-1, 1, 1))
    return _waves(graph, across + down)


def sparse_tokens(
    graph: Graph, encoder: PromptEncoder, prompt: GraphPrompt, size_xy: Value
) -> Value:
    """Return a token for every point and corner: (K, C).

    Args:
        graph: that is written to.
        encoder: whose embeddings are used.
        prompt: the inputs.
        size_xy: (width, height) of the padded input, float32 (2,).
    """
    gaussian = encoder.pe_layer.positional_encoding_gaussian_matrix.float().cpu().numpy()
    places = (prompt.points_K2 + 0.5) / size_xy * 2.0 - 1.0
    positions_KC = _waves(graph, places @ graph.constant(gaussian))
    embeddings = [e.weight for e in encoder.point_embeddings if isinstance(e, nn.Embedding)]
    table = graph.weight(torch.cat([encoder.not_a_point_embed.weight, *embeddings]))
    rows = (prompt.labels_K1 - float(PADDING)).reshape(-1).cast(np.int64)
    return graph.op("Gather", table, rows, axis=0) + positions_KC * is_not(graph, prompt, PADDING)


def labelled(graph: Graph, prompt: GraphPrompt, label: int) -> Value:
    """Return 1 where points have a label, else 0: float32 (K, 1)."""
    return graph.op("Equal", prompt.labels_K1, float(label)).cast(np.float32)


def is_not(graph: Graph, prompt: GraphPrompt, label: int) -> Value:
    """Return 0 where points have a label, else 1: float32 (K, 1)."""
    return 1.0 - labelled(graph, prompt, label)


def squeezed(graph: Graph, layers: nn.Sequential, rows: Value) -> Value:
    """Run the convolutions of stride 2 of a mask downscaling: to (P, middle channels).

    Args:
        graph: that is written to.
        layers: convolution, norm, GELU, twice; then the projection, which is left to the caller.
        rows: pixels at stride 4 ordered by `to_squares`, (16 P, channels).
    """
    for layer in list(layers)[:-1]:
        if isinstance(layer, nn.Conv2d):
            rows = halved(graph, layer, rows)
        elif isinstance(layer, LayerNorm2d):
            rows = norm(graph, layer, rows)
        else:
            rows = graph.op("Gelu", rows)
    return rows


def dense_change(
    graph: Graph, encoder: PromptEncoder, prompt: GraphPrompt, height: Value, width: Value
) -> DenseChange:
    """Return what a mask prompt adds to image tokens that were made without one."""
    rows = to_squares(prompt.mask_11hw, 1, height, width, levels=2)
    *_, project = layers_of(encoder.mask_downscaling, nn.Conv2d)
    if project.bias is None:
        raise ValueError("the mask downscaling ends with a bias")
    return DenseChange(
        rows_PM=squeezed(graph, encoder.mask_downscaling, rows),
        weight_MC=project.weight.flatten(1).T,
        bias_C=project.bias - encoder.no_mask_embed.weight[0],
    )


def _waves(graph: Graph, projected: Value) -> Value:
    angle = projected * (2 * math.pi)
    return graph.concat([graph.op("Sin", angle), graph.op("Cos", angle)], axis=-1)
