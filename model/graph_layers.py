"""A model's layers as ONNX graph code, channels last: linear layers, norms, small convolutions.

A transposed convolution of kernel and stride 2 is a matrix product whose rows unfold to 2x2 squares
of pixels; twice in a row, the squares nest. Rows of nested squares need no reordering between the
layers, only at the end.

Shapes: P pixels as rows, C channels.
"""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn

from model.layers import LayerNorm2d
from model.onnx_graph import Graph, Value

_Layer = TypeVar("_Layer", bound=nn.Module)


def linear(graph: Graph, layer: nn.Linear, x: Value, *, scale: float = 1.0) -> Value:
    """Apply a linear layer to (rows, in)."""
    product = x @ graph.weight(layer.weight.T) + graph.weight(layer.bias)
    return product if scale == 1.0 else product * scale


def norm(graph: Graph, layer: nn.LayerNorm | LayerNorm2d, x: Value) -> Value:
    """Normalise along the last axis, which is where all graphs here have their channels."""
    return graph.op(
        "LayerNormalization",
        x,
        graph.weight(layer.weight),
        graph.weight(layer.bias),
        axis=-1,
        epsilon=layer.eps,
    )


def project_rows(graph: Graph, layer: nn.Conv2d, x_PC: Value) -> Value:
    """Apply a convolution of kernel 1 to rows of pixels."""
    return x_PC @ graph.weight(layer.weight.flatten(1).T) + graph.weight(_bias(layer))


def convolution(graph: Graph, layer: nn.Conv2d, x_1CHW: Value) -> Value:
    """Apply a 3x3 convolution that keeps the size."""
    weight, bias = graph.weight(layer.weight), graph.weight(_bias(layer))
    return graph.op("Conv", x_1CHW, weight, bias, kernel_shape=[3, 3], pads=[1, 1, 1, 1])


def doubled(graph: Graph, layer: nn.ConvTranspose2d, x_PC: Value) -> Value:
    """Apply a transposed convolution of kernel and stride 2: (P, C) to (P, 4 out).

    Columns are ordered by row and column within the 2x2 square, then by channel, so that reshaping
    to (4 P, out) gives a row to every pixel.
    """
    weight = layer.weight.permute(0, 2, 3, 1).flatten(1)
    # Four times the bias: onnxruntime joins it to the product, and not, slowly, to a GELU.
    bias = _bias(layer).repeat(4)
    return graph.op("Gemm", x_PC, graph.weight(weight), graph.weight(bias))


def halved(graph: Graph, layer: nn.Conv2d, x_PC: Value) -> Value:
    """Apply a convolution of kernel and stride 2 to rows ordered as `doubled` orders them."""
    weight = layer.weight.permute(2, 3, 1, 0).flatten(0, 2)
    return x_PC.reshape(-1, weight.shape[0]) @ graph.weight(weight) + graph.weight(_bias(layer))


def to_pixels(x_CR: Value, height: Value, width: Value, *, levels: int) -> Value:
    """Order nested 2x2 squares as an image: (C, P 4^levels) to (1, C, H, W).

    Args:
        x_CR: ordered by coarse pixel (y, x), then by (row, column) of each nested square.
        height: coarse pixels, (1,).
        width: coarse pixels, (1,).
        levels: how many squares are nested.
    """
    graph = x_CR.graph
    for level in reversed(range(levels)):
        # One axis at a time: onnxruntime is several times faster at this than at all in one.
        inner = 4**level
        split = x_CR.reshape(-1, width, 2, 2 * inner)
        x_CR = split.transpose(0, 2, 1, 3)
        width = width * graph.integers(2)
    scale = graph.integers(2**levels)
    return x_CR.reshape(1, -1, height * scale, width)


def to_squares(x_1CHW: Value, channels: int, height: Value, width: Value, *, levels: int) -> Value:
    """Order an image as rows of nested 2x2 squares: (1, C, H, W) to (P 4^levels, C)."""
    graph = x_1CHW.graph
    x = x_1CHW
    for level in range(levels):
        coarse = width * graph.integers(2 ** (levels - 1 - level))
        inner = 4**level
        x = x.reshape(-1, 2, coarse, 2 * inner).transpose(0, 2, 1, 3)
    return x.reshape(channels, -1).transpose(1, 0)


def layers_of(layers: nn.Sequential, kind: type[_Layer]) -> list[_Layer]:
    """Return a sequence's layers of one kind, in order."""
    return [layer for layer in layers if isinstance(layer, kind)]


def _bias(layer: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    if layer.bias is None:
        raise ValueError("the decoder's convolutions have biases")
    return layer.bias
