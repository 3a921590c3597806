from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from model import (
    CheckpointError,
    Prompts,
    Sam,
    SamConfig,
    TrainBatch,
    TrainConfig,
    load_sam,
    save_sam,
    train,
)
from model.adapters import (
    LowRankUpdate,
    Part,
    add_lora,
    count_parameters,
    freeze_all_but,
    load_lora,
    lora_state_dict,
    merge_lora,
    save_lora,
)
from tests.model.small_models import (
    SMALL_COMPACT,
    SMALL_VIT,
    discs_batch,
    random_image,
    relative_error,
    small_sam,
)

BOTH = pytest.mark.parametrize("config", [SMALL_VIT, SMALL_COMPACT], ids=lambda c: c.name)
QUICK = TrainConfig(steps=3, warmup_steps=1, learning_rate=1e-2, log_every=1, save_every=3)
SIDE_PX = 128


def trained(sam: Sam, folder: Path) -> Sam:
    def batches(start: int) -> Iterator[TrainBatch]:
        step = start
        while True:
            yield discs_batch(SIDE_PX, step)
            step += 1

    return train(sam, batches, QUICK, folder / "training.pt")


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    now = module.state_dict()
    return {name for name in before if not torch.equal(before[name], now[name])}


def answers(sam: Sam) -> tuple[Tensor, Tensor]:
    embedding = sam.encode(random_image(90, 120))
    prompts = Prompts(points_xy=[[[30, 40]], [[80, 50]]], point_labels=[[1], [1]])  # type: ignore[arg-type]
    prediction = sam.predict(embedding, prompts)
    return prediction.low_res_logits_NMhw, prediction.iou_NM


def effective_weights(sam: Sam) -> dict[str, Tensor]:
    """The weights that linear layers compute with, adapted or not."""
    return {
        name: layer.weight.detach().clone()
        for name, layer in sam.named_modules()
        if isinstance(layer, nn.Linear)
    }


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def disturb_adapters(sam: Sam, seed: int = 0) -> None:
    """Give adapters values as a training might."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in lora_state_dict(sam).values():
        tensor.copy_(0.2 * torch.randn(tensor.shape, generator=generator))


@BOTH
@pytest.mark.parametrize(
    ("part", "learns"),
    [
        ("decoder", {"mask_decoder"}),
        ("prompt_and_decoder", {"prompt_encoder", "mask_decoder"}),
        ("encoder", {"image_encoder"}),
        ("all", {"image_encoder", "prompt_encoder", "mask_decoder"}),
    ],
)
def test_only_the_chosen_part_changes_in_training(
    config: SamConfig, part: Part, learns: set[str], tmp_path: Path
) -> None:
    sam = small_sam(config)
    before = weights_of(sam)
    count = freeze_all_but(sam, part)
    assert {name for name, number in count.trainable_by_part.items() if number} == learns
    average = trained(sam, tmp_path)
    for result in (sam, average):  # batch norm's statistics included
        assert {name.split(".")[0] for name in changed(before, result)} == learns


def test_parameters_are_counted() -> None:
    sam = small_sam(SMALL_VIT)
    everything = sum(p.numel() for p in sam.parameters())
    assert count_parameters(sam).trainable == count_parameters(sam).total == everything
    count = freeze_all_but(sam, "decoder")
    assert count.trainable == sum(p.numel() for p in sam.mask_decoder.parameters())
    assert count.total == everything
    assert str(count).startswith(f"{count.trainable:,} of {everything:,} parameters learn (")
    assert freeze_all_but(sam, "all").trainable == everything


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(ValueError, match="decoder, prompt_and_decoder, encoder, all"):
        freeze_all_but(small_sam(SMALL_VIT), "neck")  # type: ignore[arg-type]


def test_what_was_frozen_can_learn_again() -> None:
    sam = small_sam(SMALL_COMPACT)
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    freeze_all_but(sam, "decoder")
    before = weights_of(sam.image_encoder)
    sam.train()
    sam.image_encoder(pixels)
    assert not changed(before, sam.image_encoder)
    freeze_all_but(sam, "all")
    sam.train()
    sam.image_encoder(pixels)
    assert any("running_mean" in name for name in changed(before, sam.image_encoder))


@BOTH
def test_untrained_adapters_change_nothing(config: SamConfig) -> None:
    sam = small_sam(config)
    before, weights = answers(sam), effective_weights(sam)
    assert add_lora(sam, rank=2) is sam
    assert same(effective_weights(sam), weights)
    for got, wanted in zip(answers(sam), before, strict=True):
        assert relative_error(got, wanted) < 1e-5


def test_adapters_sit_on_queries_and_values_of_every_attention_and_alone_learn() -> None:
    sam = small_sam(SMALL_VIT)
    attentions = 3 + 2 * 3 + 1  # ViT blocks; three in each decoder layer, and the last one
    add_lora(sam, rank=2)
    state = lora_state_dict(sam)
    assert len(state) == 2 * (3 + 2 * (attentions - 3))
    assert state["image_encoder.blocks.1.attn.qkv.down"].shape == (2, 2, 32)
    assert state["image_encoder.blocks.1.attn.qkv.up"].shape == (2, 32, 2)
    assert state["mask_decoder.transformer.layers.0.self_attn.q_proj.up"].shape == (1, 32, 2)
    learning = {name for name, p in sam.named_parameters() if p.requires_grad}
    assert learning == {name for name in sam.state_dict() if name.endswith((".up", ".down"))}
    count = count_parameters(sam)
    assert count.trainable == sum(t.numel() for t in state.values())
    assert count.trainable_by_part["prompt_encoder"] == 0
    assert (
        count.total == sum(p.numel() for p in small_sam(SMALL_VIT).parameters()) + count.trainable
    )


def test_an_adapter_moves_the_rows_of_queries_and_values_only() -> None:
    sam = add_lora(small_sam(SMALL_VIT), rank=2)
    qkv = sam.get_submodule("image_encoder.blocks.0.attn.qkv")
    assert isinstance(qkv, nn.Linear)
    before = qkv.weight.detach().clone()
    disturb_adapters(sam)
    moved = (qkv.weight.detach() != before).any(1)
    assert moved.view(3, 32).all(1).tolist() == [True, False, True]
    assert not moved[32:64].any()


@given(st.integers(1, 4), st.floats(0.5, 32), st.integers(1, 6), st.integers(1, 9))
@settings(max_examples=25)
def test_an_update_is_alpha_over_rank_times_up_times_down(
    rank: int, alpha: float, rows: int, columns: int
) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(3 * rows, columns, generator=generator)
    update = LowRankUpdate(weight, (0, 2), rows, rank, alpha / rank, generator)
    assert torch.equal(update(weight), weight)
    with torch.no_grad():
        update.up.normal_(generator=generator)
        got = update(weight) - weight
    for block, index in ((0, 0), (2, 1)):
        wanted = alpha / rank * update.up[index].detach() @ update.down[index].detach()
        torch.testing.assert_close(
            got[block * rows : (block + 1) * rows], wanted, rtol=1e-3, atol=1e-3
        )
    assert not got[rows : 2 * rows].any()


@BOTH
def test_training_moves_the_adapters_alone_and_merging_keeps_the_answers(
    config: SamConfig, tmp_path: Path
) -> None:
    sam = small_sam(config)
    names = set(sam.state_dict())
    plain = weights_of(sam)
    original = answers(sam)
    add_lora(sam, rank=2, alpha=8)
    before = weights_of(sam)
    average = trained(sam, tmp_path)
    for result in (sam, average):
        moved = changed(before, result)
        assert moved
        assert all(name.endswith((".up", ".down")) for name in moved)
    average.eval()
    adapted, computed_with = answers(average), effective_weights(average)
    assert relative_error(adapted[0], original[0]) > 1e-4
    assert merge_lora(average) is average
    assert same(effective_weights(average), computed_with)
    for got, wanted in zip(answers(average), adapted, strict=True):
        assert relative_error(got, wanted) < 1e-5
    assert set(average.state_dict()) == names
    weights = changed(plain, average)
    assert weights
    assert all(name.endswith(("qkv.weight", "q_proj.weight", "v_proj.weight")) for name in weights)
    assert all(p.requires_grad for p in average.parameters())
    save_sam(average, tmp_path / "merged.safetensors")
    for got, wanted in zip(
        answers(load_sam(tmp_path / "merged.safetensors", device="cpu")), adapted, strict=True
    ):
        assert relative_error(got, wanted) < 1e-5


def test_adapters_are_saved_alone_and_come_back(tmp_path: Path) -> None:
    base = small_sam(SMALL_VIT)
    sam = add_lora(copy.deepcopy(base), rank=3, alpha=5)
    disturb_adapters(sam)
    path = tmp_path / "lora" / "cells.safetensors"
    save_lora(sam, path)
    numbers = sum(t.numel() for t in lora_state_dict(sam).values())
    assert path.stat().st_size < 4 * numbers + 10_000
    again = load_lora(copy.deepcopy(base), path)
    assert same(effective_weights(again), effective_weights(sam))
    assert count_parameters(again) == count_parameters(sam)


def test_adapters_of_other_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    save_lora(add_lora(small_sam(SMALL_VIT), rank=2), path)
    for other in (small_sam(SMALL_VIT, seed=1), small_sam(SMALL_COMPACT), small_sam(SMALL_VIT)):
        if other.config is SMALL_VIT and other.model_id() == small_sam(SMALL_VIT).model_id():
            other = other.half()  # the same weights, rounded, are other weights
        before = weights_of(other)
        with pytest.raises(CheckpointError, match=r"trained on other weights \(small_vit"):
            load_lora(other, path)
        assert not changed(before, other)
        assert set(before) == set(other.state_dict())


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    sam = small_sam(SMALL_VIT)
    path = tmp_path / "lora.safetensors"
    with pytest.raises(CheckpointError, match="no such file"):
        load_lora(sam, path)
    path.write_bytes(b"no adapters")
    with pytest.raises(CheckpointError, match="no readable"):
        load_lora(sam, path)
    save_sam(sam, path)
    with pytest.raises(CheckpointError, match="holds no adapters"):
        load_lora(sam, path)


def test_a_file_that_lacks_an_adapter_is_refused(tmp_path: Path) -> None:
    sam = small_sam(SMALL_VIT)
    before = weights_of(sam)
    adapted = add_lora(copy.deepcopy(sam), rank=2)
    path = tmp_path / "lora.safetensors"
    save_lora(adapted, path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = {k: v.clone() for k, v in lora_state_dict(adapted).items()}
    tensors["image_encoder.blocks.0.attn.qkv.up"] = torch.zeros(2, 32, 5)
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(CheckpointError, match=r"blocks\.0\.attn\.qkv\.up"):
        load_lora(sam, path)
    assert set(before) == set(sam.state_dict())
    assert not changed(before, sam)


def test_adapters_are_added_once_and_merged_where_they_are() -> None:
    sam = small_sam(SMALL_VIT)
    with pytest.raises(ValueError, match="no adapters to merge"):
        merge_lora(sam)
    with pytest.raises(ValueError, match="no adapters to save"):
        save_lora(sam, Path("nowhere"))
    with pytest.raises(ValueError, match="at least 1; got 0"):
        add_lora(sam, rank=0)
    add_lora(sam, rank=1)
    with pytest.raises(ValueError, match="has adapters already"):
        add_lora(sam, rank=1)
    before = effective_weights(sam)
    add_lora(merge_lora(sam), rank=2)
    assert same(effective_weights(sam), before)


def test_the_first_weights_of_adapters_come_from_the_seed() -> None:
    one, same, other = (add_lora(small_sam(SMALL_VIT), 2, seed=seed) for seed in (3, 3, 4))
    name = "image_encoder.blocks.0.attn.qkv.down"
    assert torch.equal(lora_state_dict(one)[name], lora_state_dict(same)[name])
    assert not torch.equal(lora_state_dict(one)[name], lora_state_dict(other)[name])


def test_a_model_with_adapters_is_not_written_as_if_it_were_a_plain_one(tmp_path: Path) -> None:
    sam = add_lora(small_sam(SMALL_VIT), 2)
    with pytest.raises(CheckpointError, match="merge_lora first"):
        save_sam(sam, tmp_path / "adapted.safetensors")
    assert not list(tmp_path.iterdir())
    save_sam(merge_lora(sam), tmp_path / "merged.safetensors")
