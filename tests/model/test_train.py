from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model import SAM_TRAINING, Sam, TrainBatch, TrainConfig, train
from model.processes import Place, Rows
from model.prompt_sampling import SimulatedPrompts, tight_boxes
from model.train import answer, corrected_prompts, decode, draw_rounds, first_prompts, train_step
from model.types import ImageFeatures
from tests.model.small_models import SMALL_COMPACT, SMALL_VIT, discs_batch, small_sam

QUICK = TrainConfig(steps=6, warmup_steps=2, log_every=2, save_every=3, learning_rate=1e-3)
TWO_CLICKS = replace(SAM_TRAINING, min_corrections=2, max_corrections=2)


def fresh_sam(seed: int = 0) -> Sam:
    torch.manual_seed(seed)
    return Sam(SMALL_COMPACT)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batches_from(start: int = 0) -> Iterator[TrainBatch]:
    step = start
    while True:
        yield discs_batch(64, seed=step)
        step += 1


def weights(sam: Sam) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in sam.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def gradients(sam: Sam, losses: dict[str, Tensor]) -> dict[str, Tensor | None]:
    losses["total"].backward()  # type: ignore[no-untyped-call]
    taken = {name: p.grad for name, p in sam.named_parameters()}
    sam.zero_grad(set_to_none=True)
    return taken


def fixed_loss(sam: Sam, batch: TrainBatch) -> float:
    """Loss of one fixed batch, all prompts being points of a fixed seed."""
    config = replace(QUICK, box_probability=0.0, correction_probability=0.0)
    with torch.no_grad():
        losses = train_step(copy.deepcopy(sam), batch, config, generator(5))
    return float(losses["total"])


def test_fifteen_steps_on_one_batch_lower_its_loss(tmp_path: Path) -> None:
    sam, batch = fresh_sam(), discs_batch(64, seed=1)

    def again(start: int) -> Iterator[TrainBatch]:
        return repeat(batch)

    before = fixed_loss(sam, batch)
    train(sam, again, replace(QUICK, steps=15, learning_rate=3e-3), tmp_path / "training.pt")
    assert fixed_loss(sam, batch) < 0.8 * before


@pytest.mark.parametrize(
    "config",
    [
        replace(QUICK, correction_probability=0.0, box_probability=0.0),
        replace(QUICK, correction_probability=1.0, box_probability=1.0),
        replace(TWO_CLICKS, drop_path=0.0),
        replace(QUICK, region_loss="soft_iou", region_average="batch", min_loss=False),
    ],
)
@pytest.mark.parametrize("model", [SMALL_COMPACT, SMALL_VIT])
def test_a_step_gives_finite_losses_and_gradients(model: object, config: TrainConfig) -> None:
    sam = small_sam(model)  # type: ignore[arg-type]
    losses = train_step(sam, discs_batch(128, 2, (1, 3)), config, generator())
    assert set(losses) == {"total", "mask", "iou_head", "miou_trusted", "miou_oracle"}
    assert all(torch.isfinite(value) and value.ndim == 0 for value in losses.values())
    assert 0 <= losses["miou_trusted"] <= losses["miou_oracle"] <= 1
    taken = [g for g in gradients(sam, losses).values() if g is not None]
    assert len(taken) > 50
    assert all(torch.isfinite(g).all() for g in taken)


def round_of(
    config: TrainConfig, earlier: Tensor | None = None, seed: int = 0
) -> tuple[Sam, ImageFeatures, SimulatedPrompts, Tensor, TrainBatch]:
    """A model with features of two images, and the boxes of four masks as prompts."""
    sam, batch = small_sam(SMALL_VIT, seed), discs_batch(128, 4)
    pixels = batch.images_BHW3.float().permute(0, 3, 1, 2) / 100 - 1
    features = sam.image_encoder(pixels).owned_by(batch.image_index_N)
    targets = F.avg_pool2d(batch.masks_NHW.float().unsqueeze(1), 4)
    prompts = first_prompts(
        batch.masks_NHW, replace(config, box_probability=1.0), generator(), Rows.alone(4)
    )
    return sam, features, replace_logits(prompts, earlier), targets, batch


def replace_logits(prompts: SimulatedPrompts, earlier: Tensor | None) -> SimulatedPrompts:
    return prompts if earlier is None else prompts.answered(earlier)


@torch.no_grad()
def test_the_bundled_recipe_is_the_sum_of_its_losses_in_every_round() -> None:
    config = replace(
        QUICK, runner_up_weight=0.3, single_weight=0.7, iou_weight=2.0, focal_weight=4.0
    )
    for earlier in (None, torch.randn(4, 1, 32, 32, generator=generator(1))):
        sam, features, prompts, targets, _ = round_of(config, earlier)
        losses, trusted = answer(sam, features, targets, config, Rows.alone(4), prompts)
        iou_N4, logits = decode(sam, features, prompts, targets)
        p, t = logits.sigmoid(), targets.expand_as(logits)
        entropy = F.binary_cross_entropy_with_logits(logits, t, reduction="none")
        focal = (0.5 * (p + t - 2 * p * t) ** 2 * entropy).mean((2, 3))
        dice = 1 - (2 * (p * t).sum((2, 3)) + 1) / ((p + t).sum((2, 3)) + 1)
        mask_loss = 4.0 * focal + config.dice_weight * dice
        inside, wanted = logits > 0, t > 0.5
        iou = (inside & wanted).sum((2, 3)) / (inside | wanted).sum((2, 3)).clamp(min=1)
        total = mask_loss[:, 1:].min(1).values.mean() + 0.3 * mask_loss[:, 1:].mean()
        total = total + 0.7 * mask_loss[:, 0].mean() + 2.0 * ((iou_N4 - iou) ** 2).mean()
        torch.testing.assert_close(losses["total"], total, rtol=1e-4, atol=1e-5)
        best = iou_N4[:, 1:].argmax(1) + 1
        wanted_logits = torch.stack([logits[n, m] for n, m in enumerate(best)]).unsqueeze(1)
        torch.testing.assert_close(trusted, wanted_logits, rtol=1e-4, atol=1e-4)


def test_sams_first_round_shows_the_most_trusted_of_three_and_later_ones_the_single_mask() -> None:
    config = SAM_TRAINING
    rows = Rows.alone(4)
    sam, features, prompts, targets, _ = round_of(config)
    iou_N4, logits = decode(sam, features, prompts, targets)
    _, shown = answer(sam, features, targets, config, rows, prompts)
    assert not shown.requires_grad
    for n, best in enumerate(iou_N4[:, 1:].argmax(1) + 1):
        assert torch.equal(shown[n, 0], logits[n, best])
    prompts = prompts.answered(shown)
    _, logits = decode(sam, features, prompts, targets)
    _, shown = answer(sam, features, targets, config, rows, prompts)
    assert torch.equal(shown, logits[:, :1])


@torch.no_grad()
def test_prompts_of_both_kinds_are_decoded_as_if_alone() -> None:
    sam, features, prompts, targets, batch = round_of(TWO_CLICKS)
    boxed = torch.tensor([False, True, True, False])
    mixed = SimulatedPrompts.first(boxed, prompts.boxes_N4, prompts.points_NK2[:, 0])
    iou_N4, logits = decode(sam, features, mixed, targets)
    for n in range(4):
        only = slice(n, n + 1)
        one = SimulatedPrompts.first(
            boxed[only], prompts.boxes_N4[only], prompts.points_NK2[only, 0]
        )
        owned = features.owned_by(batch.image_index_N[only])
        iou_14, logits_14hw = decode(sam, owned, one, targets[only])
        torch.testing.assert_close(iou_N4[only], iou_14, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(logits[only], logits_14hw, rtol=1e-4, atol=1e-4)


def test_prompts_without_an_image_are_refused() -> None:
    sam, features, prompts, targets, _ = round_of(QUICK)
    with pytest.raises(ValueError, match="owned_by"):
        decode(sam, ImageFeatures(features.coarse_BCHW), prompts, targets)


def test_first_prompts_are_boxes_or_points_in_the_masks() -> None:
    masks = discs_batch(64, 5).masks_NHW
    rows = Rows.alone(len(masks))
    boxed = first_prompts(masks, replace(QUICK, box_probability=1.0), generator(), rows)
    assert boxed.boxed_N.all()
    assert (boxed.boxes_N4 - tight_boxes(masks)).abs().max() < 20
    clicked = first_prompts(masks, replace(QUICK, box_probability=0.0), generator(), rows)
    assert not clicked.boxed_N.any()
    x, y = clicked.points_NK2[:, 0].long().unbind(-1)
    assert masks[torch.arange(len(masks)), y, x].all()
    assert (clicked.labels_NK == 1).all()


@pytest.mark.parametrize("mixed", [False, True])
def test_a_box_is_drawn_for_each_mask_or_for_all(mixed: bool) -> None:
    masks = torch.ones(50, 8, 8, dtype=torch.bool)
    config = replace(QUICK, box_probability=0.3, mix_first_prompts=mixed)
    shares = [
        float(first_prompts(masks, config, generator(seed), Rows.alone(50)).boxed_N.float().mean())
        for seed in range(100)
    ]
    assert sum(shares) / 100 == pytest.approx(0.3, abs=0.1 if not mixed else 0.03)
    assert all((share in (0, 1)) != mixed for share in shares)


def test_sam_plays_eleven_rounds_and_the_one_without_a_click_may_come_before_any() -> None:
    plans = [draw_rounds(SAM_TRAINING, generator(seed)) for seed in range(200)]
    assert all(len(plan) == 10 and sum(plan) == 8 and not plan[-1] for plan in plans)
    assert {plan.index(False) for plan in plans} == set(range(8))


def test_the_bundled_model_is_corrected_now_and_then() -> None:
    config = replace(QUICK, correction_probability=0.4, max_corrections=2)
    plans = [draw_rounds(config, generator(seed)) for seed in range(300)]
    assert {tuple(plan) for plan in plans} == {(), (True,), (True, True)}
    corrected = sum(bool(plan) for plan in plans)
    assert corrected / 300 == pytest.approx(0.4, abs=0.1)
    assert sum(len(plan) == 2 for plan in plans) / corrected == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("boxes", [0.0, 1.0])
def test_a_correction_keeps_the_prompt_and_adds_a_click_and_the_mask(boxes: float) -> None:
    masks = discs_batch(64, 6).masks_NHW
    rows = Rows.alone(len(masks))
    nothing = torch.full((len(masks), 1, 16, 16), -5.0)
    first = first_prompts(masks, replace(QUICK, box_probability=boxes), generator(), rows)
    second = corrected_prompts(first.answered(nothing), masks, generator(), rows)
    third = corrected_prompts(second.answered(-nothing), masks, generator(), rows)
    assert third.boxes_N4 is first.boxes_N4
    assert second.mask_logits_N1hw is nothing
    assert torch.equal(third.points_NK2[:, :1], first.points_NK2)
    # Nothing was drawn, so the mask was missed; then everything was, so there is too much.
    assert third.labels_NK[:, -2:].tolist() == [[1, 0]] * len(masks)
    with pytest.raises(ValueError, match="no answer to correct"):
        corrected_prompts(first, masks, generator(), rows)


def test_computing_rounds_again_changes_no_gradient() -> None:
    taken = []
    for again in (False, True):
        sam = small_sam(SMALL_VIT)
        config = replace(TWO_CLICKS, recompute_rounds=again)
        taken.append(gradients(sam, train_step(sam, discs_batch(128, 3), config, generator(3))))
    for name, wanted in taken[0].items():
        got = taken[1][name]
        assert (got is None) == (wanted is None)
        if got is not None and wanted is not None:
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


def test_a_step_in_bfloat16_is_close_to_one_in_float32() -> None:
    config = replace(QUICK, correction_probability=0.0, box_probability=0.0)
    taken = {}
    for precision in ("float32", "bfloat16"):
        sam = small_sam(SMALL_VIT)
        losses = train_step(
            sam,
            discs_batch(128, 3),
            replace(config, precision=precision),
            generator(3),
        )
        assert losses["total"].dtype == torch.float32
        taken[precision] = losses["total"].detach(), gradients(sam, losses)
    (wanted, wanted_gradients), (got, got_gradients) = taken.values()
    assert not torch.equal(got, wanted)
    torch.testing.assert_close(got, wanted, rtol=0.02, atol=0.02)
    name = "image_encoder.neck.0.weight"
    one, other = wanted_gradients[name], got_gradients[name]
    assert one is not None
    assert other is not None
    assert other.dtype == torch.float32
    assert float(F.cosine_similarity(one.flatten(), other.flatten(), dim=0)) > 0.9


def test_drop_path_leaves_out_branches_of_a_vit_alone() -> None:
    batch = discs_batch(128, 3)
    sam = small_sam(SMALL_VIT)
    config = replace(QUICK, correction_probability=0.0, box_probability=0.0)
    dropping = replace(config, drop_path=0.9)
    with torch.no_grad():
        whole, dropped = (train_step(sam, batch, c, generator(1)) for c in (config, dropping))
    assert whole["total"] != dropped["total"]
    with pytest.raises(ValueError, match="small_compact has none; set drop_path=0"):
        train_step(small_sam(SMALL_COMPACT), batch, dropping, generator())


def test_a_part_of_the_joint_batch_is_prompted_as_in_the_whole() -> None:
    batch = discs_batch(128, 3, (2, 1))
    sam = small_sam(SMALL_VIT)
    config = replace(TWO_CLICKS, correction_probability=0.0)
    first = TrainBatch(batch.images_BHW3[:1], batch.masks_NHW[:2], batch.image_index_N[:2])
    second = TrainBatch(batch.images_BHW3[1:], batch.masks_NHW[2:], batch.image_index_N[2:] - 1)
    with torch.no_grad():
        whole = train_step(sam, batch, config, generator(2))
        left = train_step(sam, first, config, generator(2), Place(Rows(0, 1, 2), Rows(0, 2, 3)))
        right = train_step(sam, second, config, generator(2), Place(Rows(1, 1, 2), Rows(2, 1, 3)))
    for name in whole:
        joint = (2 * left[name] + right[name]) / 3
        torch.testing.assert_close(joint, whole[name], rtol=1e-4, atol=1e-5)


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


def test_without_averaging_the_trained_model_is_returned(tmp_path: Path) -> None:
    config = replace(QUICK, steps=2, ema_decay=0.0, grad_clip=0.0)
    sam = fresh_sam()
    assert train(sam, batches_from, config, tmp_path / "training.pt") is sam
    assert not sam.training
    again = train(fresh_sam(1), batches_from, config, tmp_path / "training.pt")
    assert same(weights(again), weights(sam))


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


def test_a_finished_training_gives_its_average_again_without_a_step(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    average = train(fresh_sam(), batches_from, QUICK, path)
    again = train(fresh_sam(9), lambda start: iter(()), QUICK, path)
    assert same(weights(again), weights(average))


def stop_after(steps: int) -> Callable[[int], Iterator[TrainBatch]]:
    """Bring batches, then die as a killed process would."""

    def batches(start: int) -> Iterator[TrainBatch]:
        for step in range(start, steps):
            yield discs_batch(64, seed=step)
        raise KeyboardInterrupt

    return batches


def test_a_stopped_training_goes_on_at_its_last_checkpoint_as_if_undisturbed(
    tmp_path: Path,
) -> None:
    straight = train(fresh_sam(), batches_from, QUICK, tmp_path / "straight.pt")
    path = tmp_path / "resumed.pt"
    with pytest.raises(KeyboardInterrupt):
        train(fresh_sam(), stop_after(5), QUICK, path)
    assert torch.load(path, weights_only=True)["step"] == 3
    taken = []

    def counted(start: int) -> Iterator[TrainBatch]:
        for batch in batches_from(start):
            taken.append(batch)
            yield batch

    resumed = train(fresh_sam(1), counted, QUICK, path)
    assert len(taken) == 3
    assert torch.load(path, weights_only=True)["step"] == 6
    assert same(weights(resumed), weights(straight))
