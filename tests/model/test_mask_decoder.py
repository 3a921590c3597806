from __future__ import annotations

import pytest
import torch

from model.mask_decoder import MASK_TOKENS, MaskDecoder
from model.types import EncodedPrompts, ImageFeatures, ScoredPrompts
from tests.model.small_models import draw_weights


@pytest.fixture
def decoder() -> MaskDecoder:
    decoder = MaskDecoder(32, heads=4, mlp_dim=24)
    draw_weights(decoder, 1)
    return decoder.requires_grad_(False)


def score(decoder: MaskDecoder, prompts: int, seed: int = 0) -> ScoredPrompts:
    generator = torch.Generator().manual_seed(seed)
    features = ImageFeatures(torch.randn(1, 32, 3, 5, generator=generator))
    encoded = EncodedPrompts(
        torch.randn(prompts, 2, 32, generator=generator),
        torch.randn(1, 32, 1, 1, generator=generator).expand(1, 32, 3, 5),
    )
    return decoder.score(features, torch.randn(1, 32, 3, 5, generator=generator), encoded)


@pytest.mark.parametrize("prompts", [0, 1, 4])
def test_every_prompt_gets_four_masks_at_four_times_the_grid(
    decoder: MaskDecoder, prompts: int
) -> None:
    scored = score(decoder, prompts)
    assert scored.iou_N4.shape == (prompts, MASK_TOKENS)
    assert decoder.draw(scored).shape == (prompts, MASK_TOKENS, 12, 20)


def test_a_mask_is_the_product_of_its_brush_and_the_canvas(decoder: MaskDecoder) -> None:
    scored = score(decoder, 2)
    canvas = scored.image_NCHW
    for layer in decoder.output_upscaling:
        canvas = layer(canvas)
    logits = decoder.draw(scored)
    for n in range(2):
        for m, mlp in enumerate(decoder.output_hypernetworks_mlps):
            brush = mlp(scored.mask_tokens_N4C[n, m])
            wanted = (brush[:, None, None] * canvas[n]).sum(0)
            torch.testing.assert_close(logits[n, m], wanted, rtol=1e-4, atol=1e-4)


def test_the_image_of_each_prompt_is_that_of_its_owner(decoder: MaskDecoder) -> None:
    generator = torch.Generator().manual_seed(5)
    maps = torch.randn(2, 32, 3, 5, generator=generator)
    positions = torch.randn(1, 32, 3, 5, generator=generator)
    sparse = torch.randn(3, 2, 32, generator=generator)
    dense = torch.zeros(1, 32, 3, 5)
    owner = torch.tensor([1, 0, 1])
    together = decoder.draw(
        decoder.score(ImageFeatures(maps).owned_by(owner), positions, EncodedPrompts(sparse, dense))
    )
    for n, image in enumerate(owner.tolist()):
        own = EncodedPrompts(sparse[n : n + 1], dense)
        features = ImageFeatures(maps[image : image + 1])
        alone = decoder.draw(decoder.score(features, positions, own))
        torch.testing.assert_close(together[n], alone[0], rtol=1e-4, atol=1e-4)
