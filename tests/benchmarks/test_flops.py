from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import SamMaskDecoderConfig
from transformers.models.sam.modeling_sam import SamMaskDecoder

from model import SIZES, fast_linear
from model.image_encoder import VitConfig, VitEncoder
from tests.benchmarks.flops import decoder_flops, encoder_flops


@pytest.mark.parametrize("window", [3, 4, 5])
@torch.inference_mode()
def test_the_encoder_has_the_flops_that_torch_counts(
    window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_linear, "_processor_has_avx512", lambda: False)  # torch's own products
    config = VitConfig(width=24, depth=3, heads=3, global_blocks=(1,), window_size=window)
    encoder = VitEncoder(config, 128, 16)
    with FlopCounterMode(display=False) as counter:
        encoder(torch.zeros(1, 3, 128, 128))
    assert counter.get_total_flops() == encoder_flops(config, 128, 16)


@torch.inference_mode()
def test_the_decoder_has_the_flops_that_torch_counts_for_the_public_one() -> None:
    prompts, side, dim = 3, 8, 32
    config = SamMaskDecoderConfig(
        hidden_size=dim,
        num_attention_heads=4,
        mlp_dim=48,
        iou_head_hidden_dim=dim,
        attn_implementation="eager",
    )
    decoder = SamMaskDecoder(config)
    with FlopCounterMode(display=False) as counter:
        decoder(
            image_embeddings=torch.zeros(1, dim, side, side),
            image_positional_embeddings=torch.zeros(1, dim, side, side),
            sparse_prompt_embeddings=torch.zeros(1, prompts, 2, dim),
            dense_prompt_embeddings=torch.zeros(1, dim, side, side),
            multimask_output=True,
        )
    wanted = decoder_flops(prompts, image_tokens=side**2, dim=dim, mlp_dim=48)
    assert counter.get_total_flops() == wanted


@pytest.mark.parametrize(("name", "public"), [("vit_b", 0.97), ("vit_l", 3.0), ("vit_h", 5.96)])
def test_named_sizes_need_a_little_less_than_the_public_encoder(name: str, public: float) -> None:
    config = SIZES[name].encoder
    assert isinstance(config, VitConfig)
    assert 0.94 < encoder_flops(config) / 1e12 / public < 0.975
    assert decoder_flops(64) / 1e12 == pytest.approx(0.23, rel=0.02)
