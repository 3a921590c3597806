from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model import relative_attention
from model.relative_attention import attend_folded, attend_in_parts, relative_positions

GRID = (3, 5, 4)  # heads, height, width
D = 6


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plain_attention(q: Tensor, k: Tensor, v: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """The formula, query by query; tables by offset, grids (N, H, W, D)."""
    N, H, W, _ = q.shape
    out = torch.empty_like(q)
    for i in range(H):
        for j in range(W):
            query = q[:, i, j]
            scores = torch.einsum("nd,nhwd->nhw", query, k) / D**0.5
            for ki in range(H):
                for kj in range(W):
                    position = row[i - ki + H - 1] + column[j - kj + W - 1]
                    scores[:, ki, kj] += query @ position
            shares = scores.view(N, -1).softmax(-1).view(N, H, W)
            out[:, i, j] = torch.einsum("nhw,nhwd->nd", shares, v)
    return out


@pytest.fixture
def case() -> tuple[tuple[Tensor, ...], Tensor]:
    """q, k, v, rows, columns, and the answer."""
    _, H, W = GRID
    q, k, v = (draw(*GRID, D, seed=i) for i in range(3))
    row, column = draw(2 * H - 1, D, seed=3), draw(2 * W - 1, D, seed=4)
    positions = relative_positions(row, H), relative_positions(column, W)
    return (q, k, v, *positions), plain_attention(q, k, v, row, column)


def test_relative_positions_depend_on_query_minus_key() -> None:
    spread = relative_positions(torch.arange(7.0).unsqueeze(1), 4)[..., 0]
    for query in range(4):
        for key in range(4):
            assert spread[query, key] == query - key + 3


def test_positions_folded_into_the_channels_give_the_formula(
    case: tuple[tuple[Tensor, ...], Tensor],
) -> None:
    (q, k, v, rows, columns), wanted = case
    got = attend_folded(q[None], k[None], v[None], rows, columns)
    torch.testing.assert_close(got[0], wanted, rtol=1e-5, atol=1e-5)


def test_half_precision_gives_the_formula_too(case: tuple[tuple[Tensor, ...], Tensor]) -> None:
    given, wanted = case
    q, k, v, rows, columns = (x.bfloat16() for x in given)
    got = attend_folded(q[None], k[None], v[None], rows, columns)
    assert got.dtype == torch.bfloat16
    assert got[0].shape == wanted.shape
    assert (got[0].float() - wanted).norm() < 0.02 * wanted.norm()


@pytest.mark.parametrize("scores_at_once", [1, 160, 1 << 20])
@torch.inference_mode()
def test_attention_in_parts_of_any_size_gives_the_formula(
    case: tuple[tuple[Tensor, ...], Tensor],
    scores_at_once: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relative_attention, "_SCORES_AT_ONCE", scores_at_once)
    (q, k, v, rows, columns), wanted = case
    q, k, v = (x.permute(1, 2, 0, 3) for x in (q, k, v))
    got = attend_in_parts(q, k, v, rows, columns).permute(2, 0, 1, 3)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    fewer = attend_in_parts(q[:2, :3], k, v, rows[:2], columns[:3]).permute(2, 0, 1, 3)
    torch.testing.assert_close(fewer, wanted[:, :2, :3], rtol=1e-5, atol=1e-5)
