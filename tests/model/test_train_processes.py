"""Training across processes that really exist: two that make one step, and one that is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from model import SAM_TRAINING, Sam, TrainBatch, TrainConfig, train
from model.processes import average_gradients, average_values, find_place, require_same
from model.train import train_step
from tests.model.small_models import SMALL_VIT, discs_batch, small_sam

# Of three images the first one's four masks for one process, the others' three for the next.
PER_IMAGE = (4, 1, 2)
SPLIT = (slice(0, 1), slice(1, 3))
CPU = torch.device("cpu")
TWO_CLICKS = replace(SAM_TRAINING, min_corrections=2, max_corrections=2)
RECIPES = {
    "sam": TWO_CLICKS,
    "regions of the batch": replace(
        TWO_CLICKS, region_loss="neg_log_soft_iou", region_average="batch", recompute_rounds=False
    ),
    "bundled": TrainConfig(correction_probability=1.0),
    "no mask prompts, no boxes": TrainConfig(correction_probability=0.0, box_probability=0.0),
}
SHORT = replace(TWO_CLICKS, steps=2, warmup_steps=1, log_every=1, learning_rate=1e-3, ema_decay=0.5)


def part(batch: TrainBatch, images: slice) -> TrainBatch:
    mine = (batch.image_index_N >= images.start) & (batch.image_index_N < images.stop)
    return TrainBatch(
        batch.images_BHW3[images],
        batch.masks_NHW[mine],
        batch.image_index_N[mine] - images.start,
    )


def own_batches(start: int, images: slice) -> Iterator[TrainBatch]:
    while True:
        yield part(discs_batch(128, start, PER_IMAGE), images)
        start += 1


def step_gradients(config: TrainConfig, images: slice) -> dict[str, Tensor | None]:
    """Make a step in float64, where no rounding moves a click."""
    sam = small_sam(SMALL_VIT, 3).double()
    batch = next(own_batches(5, images))
    place = find_place(len(batch.images_BHW3), len(batch.masks_NHW), CPU)
    losses = train_step(sam, batch, config, torch.Generator().manual_seed(1), place)
    losses["total"].backward()  # type: ignore[no-untyped-call]
    average_gradients(sam, place.masks)
    return {name: p.grad for name, p in sam.named_parameters()}


def trained(images: slice, checkpoint: Path) -> tuple[dict[str, Tensor], list[float]]:
    logged: list[float] = []
    average = train(
        small_sam(SMALL_VIT, 4).double(),
        lambda start: own_batches(start, images),
        SHORT,
        checkpoint,
        on_log=lambda step, losses: logged.append(losses["total"]),
    )
    return average.state_dict(), logged


def disagreement(value: int) -> str:
    try:
        require_same(value, "step to start from", CPU)
    except ValueError as error:
        return str(error)
    return ""


def be_one_of_two(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=number, world_size=2
    )
    weights, logged = trained(SPLIT[number], Path(folder) / "training.pt")
    found = {
        "gradients": {name: step_gradients(r, SPLIT[number]) for name, r in RECIPES.items()},
        "weights": weights,
        "logged": logged,
        "average": average_values({"a": float(number), "b": 3.0}, CPU),
        "messages": [disagreement(3), disagreement(3 + number)],
    }
    torch.save(found, Path(folder) / f"{number}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found_by_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("two")
    spawn(be_one_of_two, args=(str(folder),), nprocs=2)  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"{i}.pt", weights_only=True) for i in (0, 1)]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_step_of_two_processes_is_the_step_of_one(
    found_by_two: list[dict[str, Any]], recipe: str
) -> None:
    wanted = step_gradients(RECIPES[recipe], slice(0, 3))
    for found in found_by_two:
        got = found["gradients"][recipe]
        assert got.keys() == wanted.keys()
        for name, gradient in wanted.items():
            assert (gradient is None) == (got[name] is None), name
            if gradient is not None:
                torch.testing.assert_close(got[name], gradient, rtol=1e-5, atol=1e-6, msg=name)


def test_a_weight_that_no_process_used_keeps_no_gradient(
    found_by_two: list[dict[str, Any]],
) -> None:
    gradients = found_by_two[1]["gradients"]["no mask prompts, no boxes"]
    assert gradients["prompt_encoder.mask_downscaling.0.weight"] is None
    assert gradients["prompt_encoder.point_embeddings.1.weight"] is not None


def test_a_training_of_two_processes_is_the_training_of_one(
    found_by_two: list[dict[str, Any]], tmp_path: Path
) -> None:
    wanted, _ = trained(slice(0, 3), tmp_path / "training.pt")
    before = small_sam(SMALL_VIT, 4).double().state_dict()
    for found in found_by_two:
        for name, tensor in wanted.items():
            torch.testing.assert_close(found["weights"][name], tensor, rtol=1e-5, atol=1e-6)
    assert any(not torch.allclose(before[name], wanted[name], atol=1e-4) for name in wanted)
    assert [len(found["logged"]) for found in found_by_two] == [2, 0]


def test_two_processes_average_their_logs_and_notice_that_they_disagree(
    found_by_two: list[dict[str, Any]],
) -> None:
    for found in found_by_two:
        assert found["average"] == {"a": 0.5, "b": 3.0}
        agreed, differed = found["messages"]
        assert agreed == ""
        assert differed == "the processes differ in step to start from: [3, 4]"


LONG = TrainConfig(
    steps=12,
    warmup_steps=2,
    log_every=1,
    save_every=2,
    correction_probability=0.7,
    mix_first_prompts=True,
    drop_path=0.2,
    layer_decay=0.8,
)


def train_small(checkpoint: Path, *, told: bool = False) -> Sam:
    """Train a small ViT; say each step where it is told."""

    def batches(start: int) -> Iterator[TrainBatch]:
        while True:
            yield discs_batch(128, start)
            start += 1

    def tell(step: int, losses: dict[str, float]) -> None:
        sys.stdout.write(f"{step}\n")
        sys.stdout.flush()

    return train(small_sam(SMALL_VIT), batches, LONG, checkpoint, tell if told else None)


CHILD = """
import sys, torch
from pathlib import Path
from tests.model.test_train_processes import train_small
torch.set_num_threads(1)
train_small(Path(sys.argv[1]), told=True)
sys.stdin.read()  # wait to be killed
"""


def test_a_training_killed_at_any_step_ends_with_the_weights_of_an_undisturbed_one(
    tmp_path: Path,
) -> None:
    straight = train_small(tmp_path / "straight.pt")
    path = tmp_path / "killed.pt"
    last = int(np.random.default_rng().integers(1, LONG.steps))
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        while int(child.stdout.readline()) < last:
            pass
        child.send_signal(signal.SIGKILL)
        child.stdout.read()
    assert child.returncode == -signal.SIGKILL
    if path.exists():
        assert torch.load(path, weights_only=True)["step"] >= last - LONG.save_every
    assert train_small(path).model_id() == straight.model_id(), f"killed after step {last}"
    assert torch.load(path, weights_only=True)["step"] == LONG.steps
