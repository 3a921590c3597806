from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from model import Sam, TrainBatch, TrainConfig, train
from model.prompt_sampling import tight_boxes
from model.train import (
    answer,
    average_gradients,
    corrected_prompts,
    first_prompts,
    learning_rate,
    load_training_state,
    parameter_groups,
    save_training_state,
    train_step,
    update_average,
)
from model.types import InputPrompts
from tests.model.small_models import SMALL_COMPACT, SMALL_VIT, discs_batch, small_sam

SIDE_PX = 64
QUICK = TrainConfig(steps=6, warmup_steps=2, log_every=2, save_every=3, learning_rate=1e-3)


def fresh_sam(seed: int = 0) -> Sam:
    torch.manual_seed(seed)
    return Sam(SMALL_COMPACT)


def batches_from(start: int = 0) -> Iterator[TrainBatch]:
    step = start
    while True:
        yield discs_batch(SIDE_PX, seed=step)
        step += 1


def weights(sam: Sam) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in sam.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def fixed_loss(sam: Sam, batch: TrainBatch) -> float:
    """Loss of one fixed batch, all prompts being points of a fixed seed."""
    config = replace(QUICK, box_probability=0.0, correction_probability=0.0)
    with torch.no_grad():
        losses = train_step(copy.deepcopy(sam), batch, config, torch.Generator().manual_seed(5))
    return float(losses["total"])


def test_fifteen_steps_on_one_batch_lower_its_loss(tmp_path: Path) -> None:
    sam, batch = fresh_sam(), discs_batch(SIDE_PX, seed=1)

    def again(start: int) -> Iterator[TrainBatch]:
        return repeat(batch)

    before = fixed_loss(sam, batch)
    train(sam, again, replace(QUICK, steps=15, learning_rate=3e-3), tmp_path / "training.pt")
    assert fixed_loss(sam, batch) < 0.8 * before


@pytest.mark.parametrize("corrections", [0.0, 1.0])
@pytest.mark.parametrize("boxes", [0.0, 1.0])
def test_a_step_gives_finite_losses_and_gradients(corrections: float, boxes: float) -> None:
    sam = fresh_sam()
    config = replace(QUICK, correction_probability=corrections, box_probability=boxes)
    losses = train_step(sam, discs_batch(SIDE_PX, 2, (1, 3)), config, torch.Generator())
    assert set(losses) == {"total", "mask", "iou_head", "miou_trusted", "miou_oracle"}
    assert all(torch.isfinite(value) and value.ndim == 0 for value in losses.values())
    assert 0 <= losses["miou_trusted"] <= losses["miou_oracle"] <= 1
    losses["total"].backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad for p in sam.parameters() if p.grad is not None]
    assert len(gradients) > 50
    assert all(torch.isfinite(g).all() for g in gradients)


def test_the_official_architecture_trains_too() -> None:
    sam = small_sam(SMALL_VIT)
    losses = train_step(sam, discs_batch(128, 3), QUICK, torch.Generator())
    losses["total"].backward()  # type: ignore[no-untyped-call]
    assert sam.image_encoder.get_parameter("pos_embed").grad is not None


def test_the_losses_are_the_recipes_sum() -> None:
    sam = small_sam(SMALL_COMPACT)
    batch = discs_batch(SIDE_PX, 4)
    pixels = batch.images_BHW3.float().permute(0, 3, 1, 2) / 100 - 1
    features = sam.image_encoder(pixels).owned_by(batch.image_index_N)
    targets = F.avg_pool2d(batch.masks_NHW.float().unsqueeze(1), 4)
    prompts = InputPrompts(None, None, tight_boxes(batch.masks_NHW), None)
    config = replace(
        QUICK, runner_up_weight=0.3, single_weight=0.7, iou_weight=2.0, focal_weight=4.0
    )
    losses, trusted = answer(sam, features, prompts, targets, config)
    scored = sam.score_input(features, prompts, (SIDE_PX, SIDE_PX))
    logits = sam.draw(scored)
    p, t = logits.sigmoid(), targets.expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, t, reduction="none")
    focal = (0.5 * (p + t - 2 * p * t) ** 2 * entropy).mean((2, 3))
    dice = 1 - (2 * (p * t).sum((2, 3)) + 1) / ((p + t).sum((2, 3)) + 1)
    mask_loss = 4.0 * focal + config.dice_weight * dice
    inside, wanted = logits > 0, t > 0.5
    iou = (inside & wanted).sum((2, 3)) / (inside | wanted).sum((2, 3)).clamp(min=1)
    total = mask_loss[:, 1:].min(1).values.mean() + 0.3 * mask_loss[:, 1:].mean()
    total = total + 0.7 * mask_loss[:, 0].mean() + 2.0 * ((scored.iou_N4 - iou) ** 2).mean()
    torch.testing.assert_close(losses["total"], total, rtol=1e-4, atol=1e-5)
    best = scored.iou_N4[:, 1:].argmax(1) + 1
    wanted_logits = torch.stack([logits[n, m] for n, m in enumerate(best)]).unsqueeze(1)
    torch.testing.assert_close(trusted, wanted_logits, rtol=1e-4, atol=1e-4)
    assert not trusted.requires_grad


def test_first_prompts_are_all_boxes_or_all_points_in_the_masks() -> None:
    masks = discs_batch(SIDE_PX, 5).masks_NHW
    generator = torch.Generator().manual_seed(0)
    boxed = first_prompts(masks, replace(QUICK, box_probability=1.0), generator)
    assert boxed.boxes_N4 is not None
    assert boxed.points_NK2 is None
    clicked = first_prompts(masks, replace(QUICK, box_probability=0.0), generator)
    assert clicked.boxes_N4 is None
    assert clicked.points_NK2 is not None
    x, y = clicked.points_NK2[:, 0].long().unbind(-1)
    assert masks[torch.arange(len(masks)), y, x].all()
    assert clicked.labels_NK is not None
    assert (clicked.labels_NK == 1).all()


def test_a_correction_keeps_the_prompt_and_adds_a_click_and_the_mask() -> None:
    masks = discs_batch(SIDE_PX, 6).masks_NHW
    generator = torch.Generator().manual_seed(0)
    nothing = torch.full((len(masks), 1, SIDE_PX // 4, SIDE_PX // 4), -5.0)
    for share in (0.0, 1.0):
        first = first_prompts(masks, replace(QUICK, box_probability=share), generator)
        second = corrected_prompts(first, nothing, masks, generator)
        third = corrected_prompts(second, -nothing, masks, generator)
        assert second.boxes_N4 is first.boxes_N4
        assert second.mask_logits_N1hw is nothing
        assert third.points_NK2 is not None
        assert third.labels_NK is not None
        assert third.points_NK2.shape[1] == 3 - int(share)
        # Nothing was drawn, so the mask was missed; then everything was, so there is too much.
        assert third.labels_NK[:, -2:].tolist() == [[1, 0]] * len(masks)


def test_the_learning_rate_warms_up_then_falls_to_a_hundredth() -> None:
    config = TrainConfig(steps=100, warmup_steps=10, learning_rate=1.0)
    rates = [learning_rate(step, config) for step in range(101)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert max(rates) == rates[10] == pytest.approx(1.0)
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[100] == pytest.approx(0.01)
    assert learning_rate(0, replace(config, warmup_steps=0)) == pytest.approx(1.0)


@pytest.mark.parametrize("change", [{"steps": 0}, {"warmup_steps": -1}])
def test_a_recipe_without_steps_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="steps"):
        TrainConfig(**change)


def decayed(sam: Sam) -> set[str]:
    groups = parameter_groups(sam, QUICK)
    ids = {id(p) for p in groups[0]["params"]}
    assert groups[0]["weight_decay"] == QUICK.weight_decay
    assert groups[1]["weight_decay"] == 0
    assert len(groups[0]["params"]) + len(groups[1]["params"]) == len(list(sam.parameters()))
    return {name for name, p in sam.named_parameters() if id(p) in ids}


def test_biases_norms_tokens_and_embeddings_do_not_decay() -> None:
    names = decayed(fresh_sam())
    assert "image_encoder.stem.0.weight" in names
    assert "mask_decoder.transformer.layers.0.self_attn.q_proj.weight" in names
    assert not any(name.endswith("bias") for name in names)
    for part in ("iou_token.", "mask_tokens.", "point_embeddings", "not_a_point_embed", "norm"):
        assert not any(part in name for name in names)


def test_matrices_of_attention_between_tokens_and_image_decay() -> None:
    assert any("cross_attn_token_to_image.q_proj.weight" in name for name in decayed(fresh_sam()))


def test_the_average_moves_by_its_decay_and_counts_nothing() -> None:
    average, sam = small_sam(SMALL_COMPACT, 1), small_sam(SMALL_COMPACT, 2)
    before, target = weights(average), weights(sam)
    update_average(average, sam, 0.75)
    for name, tensor in average.state_dict().items():
        if tensor.is_floating_point():
            wanted = 0.75 * before[name] + 0.25 * target[name]
            torch.testing.assert_close(tensor, wanted)
    assert same(weights(sam), target)


def test_training_moves_the_model_and_returns_its_average(tmp_path: Path) -> None:
    sam = fresh_sam()
    start = weights(sam)
    average = train(sam, batches_from, QUICK, tmp_path / "training.pt")
    end, mean = weights(sam), weights(average)
    assert not same(start, end)
    assert not same(mean, end)
    assert not average.training
    name = "mask_decoder.transformer.layers.0.self_attn.q_proj.weight"
    assert (mean[name] - end[name]).norm() < (start[name] - end[name]).norm()


def test_training_is_the_same_each_time(tmp_path: Path) -> None:
    runs = [
        weights(train(fresh_sam(), batches_from, replace(QUICK, steps=2, seed=seed), path))
        for seed, path in ((0, tmp_path / "1.pt"), (0, tmp_path / "2.pt"), (1, tmp_path / "3.pt"))
    ]
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_log_lines_carry_means_and_come_at_their_interval(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[tuple[int, dict[str, float]]] = []
    with caplog.at_level(logging.INFO, logger="model.train"):
        train(
            fresh_sam(),
            batches_from,
            QUICK,
            tmp_path / "training.pt",
            on_log=lambda step, losses: seen.append((step, losses)),
        )
    assert [step for step, _ in seen] == [2, 4, 6]
    assert all(0 < losses["total"] < 20 and losses["seconds_per_step"] > 0 for _, losses in seen)
    assert "step 6" in caplog.text


def test_the_training_state_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "training.pt"
    sam = fresh_sam()
    average = copy.deepcopy(sam).eval()
    optimizer = torch.optim.AdamW(parameter_groups(sam, QUICK))
    losses = train_step(sam, discs_batch(SIDE_PX, 7), QUICK, torch.Generator())
    losses["total"].backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    save_training_state(path, sam, average, optimizer, 17, QUICK)
    other, other_average = fresh_sam(1), fresh_sam(2)
    other_optimizer = torch.optim.AdamW(parameter_groups(other, QUICK))
    assert load_training_state(path, other, other_average, other_optimizer) == 17
    assert same(weights(other), weights(sam))
    assert same(weights(other_average), weights(average))
    moments = [o.state_dict()["state"][0]["exp_avg"] for o in (optimizer, other_optimizer)]
    assert torch.equal(*moments)
    assert [p.name for p in path.parent.iterdir()] == ["training.pt"]
    missing = tmp_path / "none.pt"
    assert load_training_state(missing, other, other_average, other_optimizer) == 0


def test_a_finished_training_gives_its_average_again_without_a_step(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    average = train(fresh_sam(), batches_from, QUICK, path)
    again = train(fresh_sam(9), lambda start: iter(()), QUICK, path)
    assert same(weights(again), weights(average))


def stop_after(steps: int) -> Callable[[int], Iterator[TrainBatch]]:
    """Bring batches, then die as a killed process would."""

    def batches(start: int) -> Iterator[TrainBatch]:
        for step in range(start, steps):
            yield discs_batch(SIDE_PX, seed=step)
        raise KeyboardInterrupt

    return batches


def test_a_killed_training_goes_on_at_its_last_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    with pytest.raises(KeyboardInterrupt):
        train(fresh_sam(), stop_after(5), QUICK, path)
    saved = torch.load(path, weights_only=True)
    assert saved["step"] == 3
    taken = []

    def counted(start: int) -> Iterator[TrainBatch]:
        for batch in batches_from(start):
            taken.append(batch)
            yield batch

    train(fresh_sam(1), counted, QUICK, path)
    assert len(taken) == 3
    assert torch.load(path, weights_only=True)["step"] == 6


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    straight = train(fresh_sam(), batches_from, QUICK, tmp_path / "straight.pt")
    path = tmp_path / "resumed.pt"
    with pytest.raises(KeyboardInterrupt):
        train(fresh_sam(), stop_after(3), QUICK, path)
    resumed = train(fresh_sam(1), batches_from, QUICK, path)
    assert same(weights(resumed), weights(straight))


def average_in_a_group(number: int, folder: str) -> None:
    """One of two processes: make gradients of its own, average them, write both down."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=number, world_size=2
    )
    sam = small_sam(SMALL_COMPACT)
    generator = torch.Generator().manual_seed(number)
    for i, (_, p) in enumerate(sam.named_parameters()):
        if i % 7 != number:  # each process leaves other weights without a gradient
            p.grad = torch.randn(p.shape, generator=generator)
    own = {n: None if p.grad is None else p.grad.clone() for n, p in sam.named_parameters()}
    average_gradients(sam)
    averaged = {n: p.grad for n, p in sam.named_parameters()}
    torch.save({"own": own, "averaged": averaged}, Path(folder) / f"{number}.pt")
    dist.destroy_process_group()


def test_two_processes_end_up_with_the_mean_of_their_gradients(tmp_path: Path) -> None:
    spawn(average_in_a_group, args=(str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    first, second = (torch.load(tmp_path / f"{i}.pt", weights_only=True) for i in (0, 1))
    for name, got in first["averaged"].items():
        shares = [r["own"][name] for r in (first, second) if r["own"][name] is not None]
        assert shares
        wanted = sum(shares) / 2
        torch.testing.assert_close(got, wanted)
        assert torch.equal(second["averaged"][name], got)


def test_a_process_alone_keeps_its_gradients() -> None:
    sam = small_sam(SMALL_COMPACT)
    sam.mask_decoder.iou_token.weight.grad = torch.ones(1, 32)
    average_gradients(sam)
    assert torch.equal(sam.mask_decoder.iou_token.weight.grad, torch.ones(1, 32))
    assert sam.mask_decoder.mask_tokens.weight.grad is None
