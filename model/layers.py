"""Layers that several parts share; their parameter names are part of the checkpoints."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.fast_linear import Activation, linear

_NAMES: dict[type[nn.Module], Activation] = {nn.ReLU: "relu", nn.GELU: "gelu"}


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of a BCHW map."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Normalise every pixel's channels."""
        return self.rows(x_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def rows(self, x: Tensor) -> Tensor:
        """Normalise the last axis: for maps whose channels come last."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


def subpixels(x: Tensor, layer: nn.ConvTranspose2d, activation: Activation = "none") -> Tensor:
    """Make 2 x 2 pixels of each: (..., in) to (..., 4, out), the upper two first.

    A transposed convolution whose kernels of 2 are 2 apart is a matrix product, as long as nobody
    asks for the pixels in rows of an image.

    Args:
        x: channels last.
        layer: kernel 2, stride 2.
        activation: what follows.
    """
    weight = layer.weight.permute(2, 3, 1, 0).reshape(-1, layer.in_channels)
    bias = None if layer.bias is None else layer.bias.repeat(4)
    return linear(x, weight, bias, activation).view(*x.shape[:-1], 4, layer.out_channels)


class TwoLayerMlp(nn.Module):
    """Linear, activation, linear: the feed-forward block of both transformers."""

    def __init__(self, dim: int, hidden_dim: int, activation: nn.Module) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden_dim)
        self.lin2 = nn.Linear(hidden_dim, dim)
        self.act = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., dim) to (..., dim)."""
        activation = _NAMES[type(self.act)]
        hidden = linear(x, self.lin1.weight, self.lin1.bias, activation)
        return linear(hidden, self.lin2.weight, self.lin2.bias)


class HeadMlp(nn.Module):
    """Linear layers with ReLU between them: the decoder's hypernetworks and its IoU head."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, depth: int) -> None:
        super().__init__()
        dims = [in_dim, *[hidden_dim] * (depth - 1), out_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(dims))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_dim) to (..., out_dim)."""
        *hidden, last = (layer for layer in self.layers if isinstance(layer, nn.Linear))
        for layer in hidden:
            x = linear(x, layer.weight, layer.bias, "relu")
        return linear(x, last.weight, last.bias)
