from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model import image_encoder
from model.image_encoder import (
    Attention,
    Block,
    PatchEmbed,
    VitConfig,
    VitEncoder,
    drop_path_scales,
    merge_windows,
    split_windows,
)
from tests.model.small_models import SMALL_VIT, draw_weights


@given(st.integers(1, 3), st.integers(1, 20), st.integers(1, 20), st.integers(1, 9))
def test_merging_undoes_splitting_into_windows(
    batch: int, height: int, width: int, size: int
) -> None:
    x_BHWC = torch.arange(batch * height * width * 2.0).view(batch, height, width, 2)
    windows = split_windows(x_BHWC, size)
    assert windows.shape[1:] == (size, size, 2)
    assert len(windows) == batch * -(-height // size) * -(-width // size)
    assert torch.equal(merge_windows(windows, size, height, width), x_BHWC)


def test_windows_are_in_reading_order_and_padded_with_zeros() -> None:
    x_BHWC = torch.arange(1.0, 13).view(1, 3, 4, 1)
    windows = split_windows(x_BHWC, 2)[..., 0]
    assert windows[0].tolist() == [[1, 2], [5, 6]]
    assert windows[1].tolist() == [[3, 4], [7, 8]]
    assert windows[2].tolist() == [[9, 10], [0, 0]]


@pytest.mark.parametrize(("grid", "window"), [(6, 0), (6, 3), (7, 3), (8, 5), (3, 5)])
def test_attention_in_parts_is_attention_at_once(grid: int, window: int) -> None:
    attention = Attention(12, 3, grid, window)
    draw_weights(attention, 1)
    x = torch.randn(2, grid, grid, 12, generator=torch.Generator().manual_seed(2))
    wanted = attention(x)
    assert wanted.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(attention(x), wanted.detach(), rtol=1e-5, atol=1e-6)


def test_patches_are_embedded_as_by_the_convolution() -> None:
    embed = PatchEmbed(4, 10)
    draw_weights(embed, 11)
    pixels = torch.randn(2, 3, 16, 14, generator=torch.Generator().manual_seed(12))
    wanted = embed.proj(pixels).permute(0, 2, 3, 1)
    torch.testing.assert_close(embed(pixels), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("window", [0, 5])
def test_a_block_in_parts_is_the_block_at_once_and_leaves_its_input_alone(
    window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_encoder, "_TOKENS_AT_ONCE", 10)
    block = Block(VitConfig(width=16, depth=1, heads=2), 7, window)
    draw_weights(block, 13)
    x = torch.randn(2, 16, 7, 7, generator=torch.Generator().manual_seed(14)).permute(0, 2, 3, 1)
    wanted, kept = block(x).detach(), x.clone()
    with torch.inference_mode():
        torch.testing.assert_close(block(x), wanted, rtol=1e-5, atol=1e-5)
    assert torch.equal(x, kept)


@torch.no_grad()
def test_windowed_blocks_see_their_window_only_and_global_blocks_everything() -> None:
    pixels = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(3))
    changed = pixels.clone()
    changed[..., :16, :16] += 1.0  # the first token
    for global_blocks, reach in (((), 5), ((0,), 8)):
        config = VitConfig(width=16, depth=1, heads=2, global_blocks=global_blocks, window_size=5)
        encoder = VitEncoder(config, 128, 8)
        draw_weights(encoder, 4)
        encoder.neck = torch.nn.Sequential()
        before, after = (encoder(p).coarse_BCHW for p in (pixels, changed))
        touched = (before != after).any(1)[0]
        assert touched[:reach, :reach].all()
        assert int(touched.sum()) == reach**2


def test_features_have_a_sixteenth_of_the_side_and_no_finer_levels() -> None:
    assert isinstance(SMALL_VIT.encoder, VitConfig)
    encoder = VitEncoder(SMALL_VIT.encoder, 128, 32)
    features = encoder(torch.zeros(2, 3, 128, 128))
    assert features.coarse_BCHW.shape == (2, 32, 8, 8)
    assert features.fine_BCHW == ()


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="not a multiple of heads"):
        VitConfig(width=30, heads=4)


def test_dropped_branches_become_more_with_depth_and_the_mean_stays() -> None:
    uniform = torch.rand(20_000, 5, 2, generator=torch.Generator().manual_seed(6))
    scales = drop_path_scales(uniform, 0.4)
    dropped = (scales == 0).float().mean((0, 2))
    torch.testing.assert_close(dropped, torch.tensor([0, 0.1, 0.2, 0.3, 0.4]), atol=0.01, rtol=0)
    torch.testing.assert_close(scales.mean((0, 2)), torch.ones(5), atol=0.02, rtol=0)
    for block, rate in enumerate((0, 0.1, 0.2, 0.3, 0.4)):
        kept = scales[:, block][scales[:, block] > 0]
        torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - rate)))


@torch.no_grad()
def test_an_image_without_branches_passes_the_blocks_unchanged_and_others_do_not_notice() -> None:
    assert isinstance(SMALL_VIT.encoder, VitConfig)
    encoder = VitEncoder(SMALL_VIT.encoder, 128, 32)
    draw_weights(encoder, 7)
    pixels = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(8))
    scales = torch.ones(2, 3, 2)
    torch.testing.assert_close(encoder(pixels, scales).coarse_BCHW, encoder(pixels).coarse_BCHW)
    scales[0] = 0
    got = encoder(pixels, scales).coarse_BCHW
    tokens = encoder.patch_embed(pixels[:1]) + encoder.pos_embed
    torch.testing.assert_close(got[:1], encoder.neck(tokens.permute(0, 3, 1, 2)))
    torch.testing.assert_close(got[1:], encoder(pixels[1:]).coarse_BCHW, rtol=1e-4, atol=1e-5)
    halved = encoder.blocks[0](tokens, torch.tensor([[0.5, 0.0]]))
    whole = encoder.blocks[0](tokens, torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(halved - tokens, (whole - tokens) / 2, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_nothing_is_dropped_at_inference_nor_in_training_unless_asked() -> None:
    assert isinstance(SMALL_VIT.encoder, VitConfig)
    encoder = VitEncoder(SMALL_VIT.encoder, 128, 32)
    draw_weights(encoder, 9)
    pixels = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(10))
    answers = [encoder.train(mode)(pixels).coarse_BCHW for mode in (True, False, True)]
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[2])
