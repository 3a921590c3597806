from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from model import SAM_TRAINING, Sam, TrainConfig
from model.optimisation import (
    layer_scale,
    learning_rate,
    parameter_groups,
    set_learning_rates,
    start_average,
    update_average,
)
from tests.model.small_models import SMALL_COMPACT, SMALL_VIT, small_sam

CONFIG = TrainConfig(weight_decay=0.05)


def weights(sam: Sam) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in sam.state_dict().items()}


def test_the_learning_rate_warms_up_then_falls_to_a_hundredth() -> None:
    config = TrainConfig(steps=100, warmup_steps=10, learning_rate=1.0)
    rates = [learning_rate(step, config) for step in range(101)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert max(rates) == rates[10] == pytest.approx(1.0)
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[55] == pytest.approx(0.505)
    assert rates[100] == pytest.approx(0.01)
    assert learning_rate(0, replace(config, warmup_steps=0)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 8e-4 / 250),
        (124, 4e-4),
        (249, 8e-4),
        (59_999, 8e-4),
        (60_000, 8e-5),
        (86_665, 8e-5),
        (86_666, 8e-6),
        (89_999, 8e-6),
    ],
)
def test_sams_learning_rate_is_the_papers(step: int, rate: float) -> None:
    assert learning_rate(step, SAM_TRAINING) == pytest.approx(rate)


def test_a_shorter_training_falls_at_the_same_shares() -> None:
    config = TrainConfig(
        steps=300, warmup_steps=0, learning_rate=1.0, decay="step", decay_at=(0.5, 0.9)
    )
    rates = [learning_rate(step, config) for step in (149, 150, 269, 270)]
    assert rates == pytest.approx([1, 0.1, 0.1, 0.01])


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("image_encoder.patch_embed.proj.weight", 0.8**4),
        ("image_encoder.pos_embed", 0.8**4),
        ("image_encoder.blocks.0.attn.rel_pos_h", 0.8**3),
        ("image_encoder.blocks.1.norm1.weight", 0.8**2),
        ("image_encoder.blocks.2.mlp.lin1.bias", 0.8),
        ("image_encoder.neck.0.weight", 1),
        ("prompt_encoder.no_mask_embed.weight", 1),
        ("mask_decoder.iou_token.weight", 1),
    ],
)
def test_blocks_learn_the_slower_the_earlier_they_are(name: str, scale: float) -> None:
    sam = small_sam(SMALL_VIT)
    sam.get_parameter(name)
    assert layer_scale(name, sam, 0.8) == pytest.approx(scale)
    assert layer_scale(name, sam, 1.0) == 1


def test_every_group_gets_its_rate() -> None:
    sam = small_sam(SMALL_VIT)
    config = TrainConfig(
        steps=100, warmup_steps=10, learning_rate=1.0, layer_decay=0.5, weight_decay=0.1
    )
    optimizer = torch.optim.AdamW(parameter_groups(sam, config))
    set_learning_rates(optimizer, 4, config)
    names = {id(p): name for name, p in sam.named_parameters()}
    seen = set()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            seen.add(name)
            assert group["lr"] == pytest.approx(0.5 * layer_scale(name, sam, 0.5)), name
            if name.endswith("bias"):
                assert group["weight_decay"] == 0
            if name.endswith("lin1.weight"):
                assert group["weight_decay"] == 0.1
    assert seen == set(names.values())


def test_layer_decay_asks_for_a_vit() -> None:
    with pytest.raises(ValueError, match="small_compact has none; set layer_decay=1"):
        parameter_groups(small_sam(SMALL_COMPACT), replace(CONFIG, layer_decay=0.8))


def decayed(sam: Sam) -> set[str]:
    groups = parameter_groups(sam, CONFIG)
    assert [group["weight_decay"] for group in groups] == [CONFIG.weight_decay, 0]
    assert sum(len(group["params"]) for group in groups) == len(list(sam.parameters()))
    ids = {id(p) for p in groups[0]["params"]}
    return {name for name, p in sam.named_parameters() if id(p) in ids}


@pytest.mark.parametrize("config", [SMALL_COMPACT, SMALL_VIT])
def test_biases_norms_tokens_and_embeddings_do_not_decay(config: object) -> None:
    names = decayed(small_sam(config))  # type: ignore[arg-type]
    assert "mask_decoder.transformer.layers.0.self_attn.q_proj.weight" in names
    assert any("cross_attn_token_to_image.q_proj.weight" in name for name in names)
    assert any(name.startswith("image_encoder") for name in names)
    assert not any(name.endswith("bias") for name in names)
    for part in ("iou_token.", "mask_tokens.", "point_embeddings", "not_a_point_embed", "norm"):
        assert not any(part in name for name in names)
    assert not any("pos_embed" in name or "rel_pos" in name for name in names)


def test_frozen_weights_are_left_to_themselves() -> None:
    sam = small_sam(SMALL_VIT)
    sam.image_encoder.requires_grad_(False)
    groups = parameter_groups(sam, CONFIG)
    learning = {id(p) for group in groups for p in group["params"]}
    assert learning == {id(p) for p in sam.parameters() if p.requires_grad}


def test_the_average_moves_by_its_decay_and_counts_nothing() -> None:
    average, sam = small_sam(SMALL_COMPACT, 1), small_sam(SMALL_COMPACT, 2)
    before, target = weights(average), weights(sam)
    update_average(average, sam, 10_000, replace(CONFIG, ema_decay=0.75))
    for name, tensor in average.state_dict().items():
        if tensor.is_floating_point():
            wanted = 0.75 * before[name] + 0.25 * target[name]
            torch.testing.assert_close(tensor, wanted)
        else:
            assert torch.equal(tensor, before[name])
    assert all(torch.equal(tensor, target[name]) for name, tensor in weights(sam).items())


def test_the_average_forgets_the_start_soon() -> None:
    average, sam = small_sam(SMALL_VIT, 1), small_sam(SMALL_VIT, 2)
    name = "mask_decoder.iou_token.weight"
    before, target = weights(average)[name], weights(sam)[name]
    update_average(average, sam, 0, replace(CONFIG, ema_decay=0.999))
    torch.testing.assert_close(average.state_dict()[name], 0.1 * before + 0.9 * target)


def test_without_averaging_the_model_itself_is_kept() -> None:
    sam = small_sam(SMALL_VIT)
    off = replace(CONFIG, ema_decay=0.0)
    assert start_average(sam, off) is sam
    before = weights(sam)
    update_average(sam, sam, 3, off)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(sam).items())
    other = start_average(sam, CONFIG)
    assert other is not sam
    assert not any(p.requires_grad for p in other.parameters())
