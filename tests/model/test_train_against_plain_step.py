from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model import SAM_TRAINING, Sam, SamConfig, TrainBatch
from model.image_encoder import VitConfig
from model.train import train_step
from tests.model.plain_step import plain_step
from tests.model.small_models import SMALL_VIT, discs_batch, small_sam

# vit_b as it is, on a smaller image, which its first window already exceeds.
VIT_B_256 = SamConfig(name="vit_b", encoder=VitConfig(), image_size=256)


def gradients(sam: Sam) -> dict[str, Tensor]:
    """Take the gradients; a weight that was not used has zeros."""
    taken = {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in sam.named_parameters()
    }
    sam.zero_grad(set_to_none=True)
    return taken


def compare_steps(sam: Sam, batch: TrainBatch, seed: int) -> None:
    """Both steps in float64: in float32 a rounding now and then moves a click by a pixel."""
    sam.double().train()
    wanted = plain_step(sam, batch, torch.Generator().manual_seed(seed))
    wanted.backward()  # type: ignore[no-untyped-call]
    wanted_gradients = gradients(sam)
    losses = train_step(sam, batch, SAM_TRAINING, torch.Generator().manual_seed(seed))
    losses["total"].backward()  # type: ignore[no-untyped-call]
    assert float(losses["total"].detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    largest = max(float(g.abs().max()) for g in wanted_gradients.values())
    for name, got in gradients(sam).items():
        expected = wanted_gradients[name]
        # Keys' biases cancel out in the softmax: their gradients are rounding errors.
        scale = max(float(expected.abs().max()), 1e-6 * largest)
        assert float((got - expected).abs().max()) <= 1e-5 * scale, name


@pytest.mark.parametrize("seed", [0, 1])
def test_a_step_of_sams_recipe_is_the_plain_one(seed: int) -> None:
    compare_steps(small_sam(SMALL_VIT, seed), discs_batch(128, seed, (2, 1)), seed)


@pytest.mark.slow
def test_a_step_of_vit_b_is_the_plain_one() -> None:
    compare_steps(small_sam(VIT_B_256, 2), discs_batch(256, 2, (2, 1)), 2)
