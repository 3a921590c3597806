from __future__ import annotations

import torch
from torch import nn

from model.layers import HeadMlp, LayerNorm2d, TwoLayerMlp
from tests.model.small_models import draw_weights


def test_layer_norm_2d_is_layer_norm_over_the_channels_of_each_pixel() -> None:
    ours, theirs = LayerNorm2d(6), nn.LayerNorm(6, eps=1e-6)
    for norm in (ours, theirs):
        norm.weight.data = torch.linspace(0.5, 2, 6)
        norm.bias.data = torch.linspace(-1, 1, 6)
    x_BCHW = 3 + 5 * torch.randn(2, 6, 4, 5, generator=torch.Generator().manual_seed(0))
    wanted = theirs(x_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(ours(x_BCHW), wanted, rtol=1e-5, atol=1e-5)


def test_two_layer_mlp_is_linear_activation_linear() -> None:
    mlp = TwoLayerMlp(4, 9, nn.ReLU())
    draw_weights(mlp, 1)
    x = torch.randn(3, 5, 4)
    hidden = (x @ mlp.lin1.weight.T + mlp.lin1.bias).clamp(min=0)
    torch.testing.assert_close(mlp(x), hidden @ mlp.lin2.weight.T + mlp.lin2.bias)


def test_head_mlp_has_its_depth_and_no_activation_at_the_end() -> None:
    mlp = HeadMlp(4, 8, 3, depth=3)
    assert [tuple(p.shape) for p in mlp.parameters()] == [(8, 4), (8,), (8, 8), (8,), (3, 8), (3,)]
    draw_weights(mlp, 2)
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    assert (mlp(x) < 0).any()
    assert HeadMlp(4, 8, 3, depth=1)(x).shape == (50, 3)
