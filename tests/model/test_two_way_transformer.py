from __future__ import annotations

import pytest
import torch

from model.two_way_transformer import Attention, TwoWayTransformer
from tests.model.small_models import draw_weights


@pytest.fixture
def transformer() -> TwoWayTransformer:
    transformer = TwoWayTransformer(16, depth=2, heads=4, mlp_dim=24)
    draw_weights(transformer, 1)
    return transformer.requires_grad_(False)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_attention_is_the_plain_formula() -> None:
    attention = Attention(8, heads=2, inner_dim=4)
    draw_weights(attention, 2)
    q, k, v = drawn(1, 3, 5, 8), drawn(2, 3, 7, 8), drawn(3, 3, 7, 8)
    heads = [
        layer(x).view(3, -1, 2, 2).transpose(1, 2)
        for layer, x in (
            (attention.q_proj, q),
            (attention.k_proj, k),
            (attention.v_proj, v),
        )
    ]
    weights = (heads[0] @ heads[1].transpose(-1, -2) / 2**0.5).softmax(-1)
    wanted = attention.out_proj((weights @ heads[2]).transpose(1, 2).reshape(3, 5, 4))
    torch.testing.assert_close(attention(q, k, v), wanted, rtol=1e-4, atol=1e-5)


def test_an_image_shared_by_all_prompts_gives_what_copies_of_it_give(
    transformer: TwoWayTransformer,
) -> None:
    image, positions, tokens = drawn(1, 1, 12, 16), drawn(2, 1, 12, 16), drawn(3, 5, 6, 16)
    shared = transformer(image, positions, tokens)
    copied = transformer(image.repeat(5, 1, 1), positions, tokens)
    assert shared[0].shape == (5, 6, 16)
    assert shared[1].shape == (5, 12, 16)
    for got, wanted in zip(shared, copied, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_prompts_do_not_see_each_other(transformer: TwoWayTransformer) -> None:
    image, positions, tokens = drawn(1, 1, 12, 16), drawn(2, 1, 12, 16), drawn(3, 2, 6, 16)
    before = transformer(image, positions, tokens)[0][0]
    tokens[1] += 1
    torch.testing.assert_close(transformer(image, positions, tokens)[0][0], before)


def test_the_order_of_image_positions_does_not_matter_to_the_tokens(
    transformer: TwoWayTransformer,
) -> None:
    image, positions, tokens = drawn(1, 1, 12, 16), drawn(2, 1, 12, 16), drawn(3, 2, 6, 16)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(4))
    tokens_out, image_out = transformer(image, positions, tokens)
    shuffled_tokens, shuffled_image = transformer(image[:, order], positions[:, order], tokens)
    torch.testing.assert_close(shuffled_tokens, tokens_out, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shuffled_image, image_out[:, order], rtol=1e-4, atol=1e-5)
