from __future__ import annotations

import copy
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model import Sam, TrainConfig
from model.optimisation import parameter_groups
from model.train import train_step
from model.training_state import load_training_state, save_training_state
from tests.model.small_models import SMALL_COMPACT, SMALL_VIT, discs_batch, small_sam

CONFIG = TrainConfig(layer_decay=0.8)


def optimizer_of(sam: Sam, config: TrainConfig = CONFIG) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameter_groups(sam, config))


def weights(sam: Sam) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in sam.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Sam, Sam, torch.optim.AdamW]:
    """A training after one step, saved as its 17th."""
    path = tmp_path / "folder" / "training.pt"
    sam = small_sam(SMALL_VIT)
    average, optimizer = copy.deepcopy(sam), optimizer_of(sam)
    losses = train_step(sam, discs_batch(128, 7), CONFIG, torch.Generator())
    losses["total"].backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    save_training_state(path, sam, average, optimizer, 17, CONFIG)
    return path, sam, average, optimizer


def test_the_training_state_round_trips(saved: tuple[Path, Sam, Sam, torch.optim.AdamW]) -> None:
    path, sam, average, optimizer = saved
    other, other_average = small_sam(SMALL_VIT, 1), small_sam(SMALL_VIT, 2)
    other_optimizer = optimizer_of(other)
    assert load_training_state(path, other, other_average, other_optimizer, CONFIG) == 17
    assert same(weights(other), weights(sam))
    assert same(weights(other_average), weights(average))
    moments = [o.state_dict()["state"][0]["exp_avg"] for o in (optimizer, other_optimizer)]
    assert torch.equal(*moments)
    assert [p.name for p in path.parent.iterdir()] == ["training.pt"]


def test_without_a_checkpoint_training_starts_at_its_first_step(tmp_path: Path) -> None:
    sam = small_sam(SMALL_VIT)
    before = weights(sam)
    assert load_training_state(tmp_path / "none.pt", sam, sam, optimizer_of(sam), CONFIG) == 0
    assert same(weights(sam), before)


def test_half_a_write_leaves_the_checkpoint_before_it(
    saved: tuple[Path, Sam, Sam, torch.optim.AdamW],
) -> None:
    path, sam, average, optimizer = saved
    partial = path.with_suffix(".partial")
    partial.write_bytes(path.read_bytes()[:1000])
    assert load_training_state(path, sam, average, optimizer, CONFIG) == 17
    save_training_state(path, sam, average, optimizer, 18, CONFIG)
    assert load_training_state(path, sam, average, optimizer, CONFIG) == 18
    assert not partial.exists()


def test_a_changed_recipe_is_said_and_holds(
    saved: tuple[Path, Sam, Sam, torch.optim.AdamW], caplog: pytest.LogCaptureFixture
) -> None:
    path, sam, average, _ = saved
    config = replace(CONFIG, weight_decay=0.2, layer_decay=0.5, log_every=3)
    optimizer = optimizer_of(sam, config)
    asked = [(g["weight_decay"], g["lr_scale"]) for g in optimizer.param_groups]
    with caplog.at_level(logging.WARNING):
        load_training_state(path, sam, average, optimizer, config)
    assert [(g["weight_decay"], g["lr_scale"]) for g in optimizer.param_groups] == asked
    assert "weight_decay was 0.05 until step 17, is 0.2 now" in caplog.text
    assert "layer_decay was 0.8 until step 17, is 0.5 now" in caplog.text
    assert "log_every" not in caplog.text


def test_a_checkpoint_of_another_model_is_refused(
    saved: tuple[Path, Sam, Sam, torch.optim.AdamW],
) -> None:
    path = saved[0]
    other = small_sam(SMALL_COMPACT)
    plain = replace(CONFIG, layer_decay=1.0)
    with pytest.raises(ValueError, match="is no checkpoint of this run"):
        load_training_state(path, other, other, optimizer_of(other, plain), plain)


def test_a_checkpoint_with_other_weights_to_train_is_refused(
    saved: tuple[Path, Sam, Sam, torch.optim.AdamW],
) -> None:
    path, sam, average, _ = saved
    sam.image_encoder.requires_grad_(False)
    with pytest.raises(ValueError, match="is no checkpoint of this run"):
        load_training_state(path, sam, average, optimizer_of(sam), CONFIG)
