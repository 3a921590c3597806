from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model import fast_linear
from model.fast_linear import Activation, linear

ACTIVATIONS: tuple[Activation, ...] = ("none", "relu", "gelu")


def layer(out: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(out, width, generator=generator), torch.randn(out, generator=generator)


def plain(x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
    """In float64."""
    out = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    if activation == "relu":
        out = F.relu(out)
    if activation == "gelu":
        out = F.gelu(out)
    return out.float()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(1, 24), (7, 24), (2, 3, 5, 24), (300, 24), (0, 24)])
@torch.inference_mode()
def test_it_is_the_linear_layer_and_its_activation(
    shape: tuple[int, ...], activation: Activation
) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    weight, bias = layer(37, 24, 2)
    for given in (bias, None):
        wanted = plain(x, weight, given, activation)
        torch.testing.assert_close(linear(x, weight, given, activation), wanted)


@torch.inference_mode()
def test_any_strides_are_taken() -> None:
    x, (weight, bias) = torch.randn(40, 60), layer(60, 20, 3)
    wanted = plain(x[::2, 5:25], weight, bias, "none")
    torch.testing.assert_close(linear(x[::2, 5:25], weight, bias), wanted)
    wanted = plain(x[:, :60].t()[:, :20], weight, bias, "none")
    torch.testing.assert_close(linear(x.t()[:, :20], weight, bias), wanted)
    across = torch.randn(20, 60)
    torch.testing.assert_close(
        linear(x[:, :20], across.t(), bias), plain(x[:, :20], across.t(), bias, "none")
    )


@torch.inference_mode()
def test_a_row_is_the_same_alone_in_company_and_on_two_threads() -> None:
    x, (weight, bias) = torch.randn(500, 96), layer(160, 96, 4)
    whole = linear(x, weight, bias, "gelu")
    for part in (slice(0, 7), slice(100, 164), slice(3, 400)):
        assert torch.equal(linear(x[part], weight, bias, "gelu"), whole[part])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        assert torch.equal(linear(x, weight, bias, "gelu"), whole)
    finally:
        torch.set_num_threads(threads)


def test_gradients_pass_where_they_are_asked_for() -> None:
    x, (weight, bias) = torch.randn(5, 8, requires_grad=True), layer(6, 8, 5)
    weight.requires_grad_()
    linear(x, weight, bias, "relu").sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert weight.grad is not None


@torch.no_grad()
def test_other_precisions_and_autocast_stay_what_they_are() -> None:
    x, (weight, bias) = torch.randn(5, 8), layer(6, 8, 6)
    assert linear(x.double(), weight.double(), bias.double()).dtype == torch.float64
    assert linear(x.bfloat16(), weight.bfloat16(), bias.bfloat16()).dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16


@torch.no_grad()
def test_a_processor_without_avx512_takes_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_linear, "_processor_has_avx512", lambda: False)
    x, (weight, bias) = torch.randn(5, 8), layer(6, 8, 7)
    assert torch.equal(linear(x, weight, bias, "gelu"), F.gelu(F.linear(x, weight, bias)))
