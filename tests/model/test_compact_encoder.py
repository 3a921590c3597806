from __future__ import annotations

import pytest
import torch
from torch import nn

from model import SIZES
from model.compact_encoder import CompactConfig, CompactEncoder, fit_norms_to_half
from tests.model.small_models import SMALL_COMPACT, draw_weights


@pytest.fixture
def encoder() -> CompactEncoder:
    assert isinstance(SMALL_COMPACT.encoder, CompactConfig)
    encoder = CompactEncoder(SMALL_COMPACT.encoder, 32)
    draw_weights(encoder, 1)
    return encoder.eval().requires_grad_(False)


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (160, 32)])
def test_levels_are_at_strides_16_8_and_4(encoder: CompactEncoder, size: tuple[int, int]) -> None:
    features = encoder(torch.randn(2, 3, *size))
    height, width = size
    assert features.coarse_BCHW.shape == (2, 32, height // 16, width // 16)
    assert [tuple(level.shape) for level in features.fine_BCHW] == [
        (2, 32, height // 8, width // 8),
        (2, 32, height // 4, width // 4),
        (2, 8, height // 8, width // 8),
        (2, 4, height // 4, width // 4),
        (2, 2, height // 4, width // 4),
    ]


def test_channels_come_last_in_memory_as_prompting_wants_them(encoder: CompactEncoder) -> None:
    features = encoder(torch.randn(2, 3, 64, 96))
    for level in (features.coarse_BCHW, *features.fine_BCHW):
        assert level.is_contiguous(memory_format=torch.channels_last)


def test_affinities_are_unit_vectors(encoder: CompactEncoder) -> None:
    fine = encoder(torch.randn(1, 3, 64, 96)).fine_BCHW
    for affinity in (fine.affinity8_BCHW, fine.affinity4_BCHW):
        torch.testing.assert_close(affinity.norm(dim=1), torch.ones_like(affinity[:, 0]))


def test_an_untrained_encoder_expects_few_boundaries() -> None:
    assert isinstance(SMALL_COMPACT.encoder, CompactConfig)
    torch.manual_seed(0)
    untrained = CompactEncoder(SMALL_COMPACT.encoder, 32).eval().requires_grad_(False)
    logits = untrained(torch.randn(1, 3, 64, 64)).fine_BCHW.barriers_BKHW
    assert logits.mean() == pytest.approx(-2.0, abs=1.0)


def test_the_finest_level_knows_of_pixels_far_beyond_its_own_convolutions(
    encoder: CompactEncoder,
) -> None:
    pixels = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(2))
    changed = pixels.clone()
    changed[..., 200:, 200:] += 3.0
    before, after = (encoder(p).fine_BCHW.affinity4_BCHW for p in (pixels, changed))
    touched = (before != after).any(1)[0].nonzero()
    assert int(touched.min()) * 4 <= 200 - 100


def test_inference_does_not_depend_on_the_rest_of_the_batch(encoder: CompactEncoder) -> None:
    pixels = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    together, alone = encoder(pixels), encoder(pixels[1:2])
    torch.testing.assert_close(together.coarse_BCHW[1:2], alone.coarse_BCHW, rtol=1e-4, atol=1e-4)


def test_the_bundled_encoder_has_fewer_than_five_million_weights() -> None:
    config = SIZES["bundled"].encoder
    assert isinstance(config, CompactConfig)
    with torch.device("meta"):
        encoder = CompactEncoder(config, SIZES["bundled"].dim)
    assert 1e6 < sum(p.numel() for p in encoder.parameters()) < 5e6


def test_norms_fitted_to_half_give_the_same_features_and_stay_finite(
    encoder: CompactEncoder,
) -> None:
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    convolution, norm = encoder.get_submodule("smooth.2.0"), encoder.get_submodule("smooth.2.1")
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_var is not None
    assert norm.running_mean is not None
    wide = 1e6 + 1e6 * torch.rand(32, generator=torch.Generator().manual_seed(5))
    convolution.weight.mul_(1000.0)
    norm.running_var.copy_(wide)
    norm.running_mean.mul_(1000.0)
    before = encoder(pixels)
    fit_norms_to_half(encoder)
    after = encoder(pixels)
    torch.testing.assert_close(after.coarse_BCHW, before.coarse_BCHW, rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(after.fine_BCHW, before.fine_BCHW, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    halved = encoder.half().state_dict()
    assert all(torch.isfinite(t).all() for t in halved.values() if t.is_floating_point())
