"""Attention over a grid of tokens with relative positions by row and by column, in two forms.

    out_BNhwD = attend_folded(q, k, v, rows, columns)
    out_hwND = attend_in_parts(q, k, v, rows, columns)     # on the CPU, without gradients

Both compute softmax(q k / sqrt(D) + q row[i, i'] + q column[j, j']) v for queries at (i, j) and
keys at (i', j'). Paper: MViTv2 (arXiv 2112.01526), section 4.1.

Shapes: B grids, h w queries and H W keys along height and width, N heads, D channels per head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from model.fast_linear import linear

_SCORES_AT_ONCE = 1 << 20  # 4 MB: they are still in the cache when they are read again


def relative_positions(table: Tensor, size: int) -> Tensor:
    """Spread a table of 2*size - 1 offsets over all (query, key) pairs: (size, size, D)."""
    position = torch.arange(size, device=table.device)
    return table[position[:, None] - position[None, :] + (size - 1)]


def attend_folded(
    q_BNHWD: Tensor, k_BNHWD: Tensor, v_BNHWD: Tensor, rows_HHD: Tensor, columns_WWD: Tensor
) -> Tensor:
    """Attend with the positions folded into the channels: (B, N, H, W, D).

    To a query its products with the positions of all rows and columns are appended, to a key a one
    for its row and a one for its column; the product of the two is the score with its bias. So no
    bias for all pairs of tokens is ever in memory, and the fused kernels that take none apply.
    """
    B, N, H, W, D = q_BNHWD.shape
    by_row = torch.einsum("bnhwd,hkd->bnhwk", q_BNHWD, rows_HHD)
    by_column = torch.einsum("bnhwd,wkd->bnhwk", q_BNHWD, columns_WWD)
    row_of_key = torch.eye(H, device=k_BNHWD.device, dtype=k_BNHWD.dtype)[:, None]
    column_of_key = torch.eye(W, device=k_BNHWD.device, dtype=k_BNHWD.dtype)[None]
    ones = (row_of_key.expand(B, N, H, W, H), column_of_key.expand(B, N, H, W, W))
    q = torch.cat([q_BNHWD * D**-0.5, by_row, by_column], -1)
    k = torch.cat([k_BNHWD, *ones], -1)
    v = v_BNHWD
    if v.dtype != torch.float32:  # flash attention, half precision only, wants them as wide as keys
        v = F.pad(v, (0, q.shape[-1] - D))
    out = F.scaled_dot_product_attention(
        q.flatten(2, 3), k.flatten(2, 3), v.flatten(2, 3), scale=1.0
    )
    return out[..., :D].view(B, N, H, W, D)


def attend_in_parts(
    q_hwND: Tensor, k_HWND: Tensor, v_HWND: Tensor, rows_hHD: Tensor, columns_wWD: Tensor
) -> Tensor:
    """Attend head by head and some rows of queries at a time: (h, w, N, D).

    Scores are made, biased, normalised and used up while they are in the processor's cache; for
    vit_b at 1024 px all of them would be 800 MB.

    Args:
        q_hwND: queries; there may be fewer than keys, as where a window overhangs the image.
        k_HWND: keys.
        v_HWND: values.
        rows_hHD: positions of the rows of queries and keys.
        columns_wWD: positions of their columns.
    """
    (h, w, heads, D), (H, W) = q_hwND.shape, k_HWND.shape[:2]
    by_row_Nhw1 = torch.einsum("hwnd,hkd->nhwk", q_hwND, rows_hHD)[..., :, None]
    by_column_Nhw = torch.einsum("hwnd,wkd->nhwk", q_hwND, columns_wWD)[..., None, :]
    q_hwND = q_hwND * D**-0.5
    rows_at_once = max(1, _SCORES_AT_ONCE // (w * H * W))
    out_hwND = torch.empty_like(q_hwND)
    for head in range(heads):
        q, k, v = (x[:, :, head].contiguous() for x in (q_hwND, k_HWND, v_HWND))
        keys_TD, values_DT = k.view(H * W, D), v.view(H * W, D).t()
        for top in range(0, h, rows_at_once):
            rows = slice(top, top + rows_at_once)
            scores = linear(q[rows], keys_TD).view(-1, w, H, W)
            scores += by_row_Nhw1[head, rows]
            scores += by_column_Nhw[head, rows]
            shares = torch.softmax(scores.flatten(-2), -1)
            out_hwND[rows, :, head] = linear(shares, values_DT)
    return out_hwND
