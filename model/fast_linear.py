"""Linear layers on the CPU by the library that knows the processor.

    hidden = linear(x, mlp.lin1.weight, mlp.lin1.bias, "gelu")

`torch.nn.functional.linear` hands float32 matrices to MKL, which leaves AVX-512 unused on
processors of other makers: 95 of 210 GFLOP/s on one core of an AMD EPYC 9005. oneDNN, which comes
with torch as well, chooses by what the processor can do, and takes the activation along. Both add
up in float32; results differ in the last bits only.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Activation = Literal["none", "relu", "gelu"]

_GELU_BY_ERF = "none"  # what oneDNN's operator calls the exact one


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: Activation = "none"
) -> Tensor:
    """Map (..., in) to (..., out) as a linear layer does, followed by an activation.

    Args:
        x: any strides; contiguous is fastest.
        weight: (out, in).
        bias: (out,) or None.
        activation: what follows; GELU is the exact one.

    Returns:
        A tensor of its own. Above 32 MB its memory comes fresh from the system, which costs more
        than writing it: long inputs are better given in parts.
    """
    if _suits_onednn(x, weight):
        # Strides with gaps would send it to a reference implementation, a thousand times slower.
        out: Tensor = torch.ops.mkldnn._linear_pointwise(
            x.contiguous(), _dense(weight), bias, activation, [], _GELU_BY_ERF
        )
        return out
    out = F.linear(x, weight, bias)
    if activation == "relu":
        return F.relu(out)
    return F.gelu(out) if activation == "gelu" else out


def products(a_NMK: Tensor, b_NJK: Tensor, added: Tensor | None = None) -> Tensor:
    """Multiply N pairs of matrices, a with b transposed: (N, M, J).

    Args:
        a_NMK: contiguous, or a transposed view of such.
        b_NJK: likewise; batch 1 is shared by all of `a_NMK`.
        added: what the products are added to; any shape that spreads to theirs.
    """
    N, M, J = *a_NMK.shape[:2], b_NJK.shape[1]
    b_NJK = b_NJK.expand(N, -1, -1)
    if not _suits_onednn(a_NMK, b_NJK):
        b_NKJ = b_NJK.transpose(1, 2)
        return a_NMK @ b_NKJ if added is None else torch.baddbmm(added, a_NMK, b_NKJ)
    pairs = zip(_rows_or_columns(a_NMK), _rows_or_columns(b_NJK), strict=True)
    each = (torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "") for a, b in pairs)
    if added is None:
        return torch.stack(list(each))
    out_NMJ = a_NMK.new_empty(N, M, J)
    for product_MJ, added_MJ, out_MJ in zip(each, added.expand(N, M, J), out_NMJ, strict=True):
        torch.add(product_MJ, added_MJ, out=out_MJ)
    return out_NMJ


def _rows_or_columns(x_NMK: Tensor) -> Tensor:
    """Return what oneDNN reads quickly: matrices in rows or in columns, without gaps."""
    M, K = x_NMK.shape[1:]
    return x_NMK if x_NMK.stride()[1:] in ((K, 1), (1, M)) else x_NMK.contiguous()


def _dense(weight: Tensor) -> Tensor:
    return weight if weight.t().is_contiguous() else weight.contiguous()


def _suits_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether nothing is asked for that the operator lacks: gradients, autocast, tracing."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and _processor_has_avx512()
    )


@cache
def _processor_has_avx512() -> bool:
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and hasattr(
        torch.ops.mkldnn, "_linear_pointwise"
    )
