from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from model.preprocess import PIXEL_MEAN, PIXEL_STD
from model.processes import Rows
from model.step_loop import StepConfig, _groups, learning_rate, run_steps, to_pixels
from tests.model.small_models import SMALL_VIT, random_image, small_sam

CONFIG = StepConfig(steps=7, warmup_steps=2, learning_rate=0.1, log_every=3, save_every=2)


class Guesser(nn.Module):
    """Guesses a drawn number from the mean colour of an image, by a mean colour of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1).double()
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def losses(self, images: Tensor, rows: Rows, generator: torch.Generator) -> dict[str, Tensor]:
        drawn = rows.of(torch.rand(rows.total, 1, generator=generator)).double()
        error = self.linear(images.double().mean((1, 2)) / 255) - drawn
        return {"total": error.square().mean(), "bias": error.mean()}


def batches(images: slice, start: int = 0) -> Iterator[Tensor]:
    while True:
        stacked = [torch.from_numpy(random_image(8, 8, 3 * start + i)) for i in range(3)]
        yield torch.stack(stacked)[images]
        start += 1


def run(folder: Path, images: slice = slice(0, 3)) -> tuple[dict[str, Tensor], list[object]]:
    learner, logged = Guesser(), []
    run_steps(
        learner,
        learner.losses,
        lambda start: batches(images, start),
        CONFIG,
        folder / "steps.pt",
        lambda step, means: logged.append((step, means["total"])),
    )
    return learner.state_dict(), list(logged)


def be_one_of_two(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=rendezvous, rank=number, world_size=2)
    weights, logged = run(Path(folder), (slice(0, 2), slice(2, 3))[number])
    torch.save({"weights": weights, "logged": len(logged)}, Path(folder) / f"{number}.pt")
    dist.destroy_process_group()


def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    wanted, _ = run(tmp_path / "one")
    (tmp_path / "two").mkdir()
    spawn(be_one_of_two, args=(str(tmp_path / "two"),), nprocs=2)  # type: ignore[no-untyped-call]
    found = [torch.load(tmp_path / "two" / f"{i}.pt", weights_only=True) for i in (0, 1)]
    for each in found:
        for name, tensor in wanted.items():
            torch.testing.assert_close(each["weights"][name], tensor, rtol=1e-9, atol=1e-12)
    assert [each["logged"] for each in found] == [2, 0]


def test_means_since_the_last_log_are_told(tmp_path: Path) -> None:
    values: list[float] = []
    learner = Guesser()

    def losses(images: Tensor, rows: Rows, generator: torch.Generator) -> dict[str, Tensor]:
        found = learner.losses(images, rows, generator)
        values.append(float(found["total"].detach()))
        return found

    logged: list[tuple[int, dict[str, float]]] = []
    run_steps(
        learner,
        losses,
        lambda start: batches(slice(0, 3), start),
        CONFIG,
        tmp_path / "steps.pt",
        lambda step, means: logged.append((step, means)),
    )
    assert [step for step, _ in logged] == [3, 6]
    assert set(logged[0][1]) == {"total", "bias", "seconds_per_step"}
    for (_, means), since in zip(logged, (values[:3], values[3:6]), strict=True):
        assert means["total"] == pytest.approx(sum(since) / 3)


def test_the_learning_rate_warms_up_and_falls_to_zero_along_a_cosine() -> None:
    config = StepConfig(steps=110, warmup_steps=10, learning_rate=2.0)
    rates = [learning_rate(step, config) for step in range(111)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert rates[10] == 2.0
    assert rates[60] == pytest.approx(1.0)
    assert rates[85] == pytest.approx(1 + math.cos(0.75 * math.pi))
    assert rates[110] == pytest.approx(0.0)
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert learning_rate(0, StepConfig(warmup_steps=0, learning_rate=3.0)) == 3.0


def test_only_matrices_decay_and_frozen_weights_are_left_out() -> None:
    sam = small_sam(SMALL_VIT)
    sam.prompt_encoder.requires_grad_(False)
    names = {id(p): name for name, p in sam.named_parameters()}
    decaying, keeping = ({names[id(p)] for p in group["params"]} for group in _groups(sam, CONFIG))
    assert "image_encoder.blocks.0.attn.qkv.weight" in decaying
    assert "image_encoder.patch_embed.proj.weight" in decaying
    for name in (
        "image_encoder.pos_embed",
        "image_encoder.blocks.0.attn.rel_pos_h",
        "image_encoder.blocks.0.norm1.weight",
        "mask_decoder.iou_token.weight",
        "mask_decoder.transformer.layers.0.self_attn.q_proj.bias",
    ):
        assert name in keeping
    frozen = {name for name in names.values() if name.startswith("prompt_encoder.")}
    assert decaying | keeping == set(names.values()) - frozen


def test_pixels_are_normalised_as_the_encoder_takes_them() -> None:
    image = torch.from_numpy(random_image(5, 7)).unsqueeze(0)
    pixels = to_pixels(image)
    assert pixels.shape == (1, 3, 5, 7)
    wanted = (float(image[0, 2, 3, 1]) - PIXEL_MEAN[1]) / PIXEL_STD[1]
    assert float(pixels[0, 1, 2, 3]) == pytest.approx(wanted, rel=1e-5)
