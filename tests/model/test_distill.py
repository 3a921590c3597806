from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import CheckpointError, Sam, SamConfig
from model.adapters import freeze_all_but
from model.distill import (
    DistillConfig,
    _Answer,
    _answer_losses,
    _divergence,
    _feature_loss,
    _Learner,
    _scaled,
    distill,
    step_losses,
)
from model.processes import Rows
from model.types import ImageFeatures, InputPrompts
from tests.model.small_models import (
    SMALL_COMPACT,
    SMALL_VIT,
    random_image,
    small_sam,
)

STUDENT = replace(SMALL_COMPACT, dim=24, decoder_heads=2)  # narrower than the teacher
QUICK = DistillConfig(
    steps=6,
    warmup_steps=2,
    learning_rate=1e-3,
    student_px=64,
    prompts_per_image=3,
    log_every=2,
    save_every=3,
)
TEACHERS = pytest.mark.parametrize("config", [SMALL_VIT, SMALL_COMPACT], ids=lambda c: c.name)


def fresh_student(config: SamConfig = STUDENT, seed: int = 0) -> Sam:
    torch.manual_seed(seed)
    return Sam(config)


def images(side_px: int = 96, seed: int = 0, count: int = 2) -> Tensor:
    stacked = [random_image(side_px, side_px, 10 * seed + i) for i in range(count)]
    return torch.stack([torch.from_numpy(image) for image in stacked])


def decided(teacher: Sam) -> Sam:
    """Make logits large: masks of random weights hardly differ from 0.5 otherwise."""
    for mlp in teacher.mask_decoder.output_hypernetworks_mlps:
        for tensor in mlp.layers[-1].state_dict().values():  # type: ignore[union-attr,index]
            tensor.mul_(20)
    return teacher


def batches_from(start: int) -> Iterator[Tensor]:
    step = start
    while True:
        yield images(seed=step)
        step += 1


def weights(sam: Sam) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in sam.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@TEACHERS
def test_the_student_comes_closer_and_the_teacher_stays(config: SamConfig, tmp_path: Path) -> None:
    student, teacher = fresh_student(), decided(small_sam(config, seed=1))
    before = weights(teacher)
    batch = images()
    logs: list[dict[str, float]] = []
    trained = distill(
        student,
        teacher,
        lambda start: repeat(batch),
        replace(QUICK, steps=24, log_every=8, learning_rate=4e-3, corrections=0),
        tmp_path / "distill.pt",
        lambda step, values: logs.append(values),
    )
    assert trained is student
    assert not student.training
    for name in ("total", "features", "mask"):
        assert logs[-1][name] < 0.9 * logs[0][name], name
    assert logs[-1]["miou"] > logs[0]["miou"]
    assert same(weights(teacher), before)
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.requires_grad for p in teacher.parameters())
    assert not teacher.training


@pytest.mark.parametrize("boxes", [0.0, 1.0])
@pytest.mark.parametrize("corrections", [0, 2])
def test_every_loss_is_finite_and_reaches_all_of_the_student(
    boxes: float, corrections: int
) -> None:
    student, teacher = fresh_student(), small_sam(SMALL_VIT)
    config = replace(QUICK, box_probability=boxes, corrections=corrections)
    learner = _Learner(student, teacher.config.dim, seed=0)
    losses = step_losses(
        learner, teacher, images(), config, Rows.alone(2), torch.Generator().manual_seed(0)
    )
    assert set(losses) == {"total", "features", "mask", "iou_head", "miou"}
    assert all(torch.isfinite(value) and value.ndim == 0 for value in losses.values())
    losses["total"].backward()  # type: ignore[no-untyped-call]
    for part in (student.image_encoder, student.prompt_encoder, student.mask_decoder):
        gradients = [p.grad for p in part.parameters() if p.grad is not None]
        assert any(bool(g.any()) for g in gradients)
    assert learner.projection.weight.grad is not None


def test_weights_of_the_losses_add_up_to_the_total() -> None:
    teacher = small_sam(SMALL_VIT)
    config = replace(QUICK, feature_weight=2.0, mask_weight=3.0, iou_weight=5.0)
    learner = _Learner(small_sam(STUDENT), teacher.config.dim, seed=0)
    losses = step_losses(
        learner, teacher, images(), config, Rows.alone(2), torch.Generator().manual_seed(0)
    )
    wanted = 2 * losses["features"] + 3 * losses["mask"] + 5 * losses["iou_head"]
    torch.testing.assert_close(losses["total"], wanted)


def test_a_copy_of_the_teacher_has_nothing_to_learn() -> None:
    teacher = small_sam(SMALL_VIT)
    learner = _Learner(copy.deepcopy(teacher), teacher.config.dim, seed=0).eval()
    assert isinstance(learner.projection, nn.Identity)
    config = replace(QUICK, student_px=128, corrections=1)
    losses = step_losses(
        learner, teacher, images(128), config, Rows.alone(2), torch.Generator().manual_seed(0)
    )
    assert losses["features"] < 1e-9
    assert losses["miou"] == 1


def test_an_answer_equal_to_the_teachers_costs_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(3, 4, 8, 8, generator=generator)
    logits[0, 0] = -5  # no mask at all is an answer, too
    iou = torch.rand(3, 4, generator=generator)
    losses = _answer_losses(_Answer(logits, iou), _Answer(logits, iou))
    assert losses["mask"].abs() < 1e-6
    assert losses["iou_head"] == 0
    assert losses["miou"] == 1
    sharp = 40 * logits.sign()
    wrong = _answer_losses(_Answer(-sharp, iou), _Answer(sharp, iou))
    assert wrong["mask"] > 10
    assert wrong["miou"] == 0
    torch.testing.assert_close(wrong["iou_head"], iou.square().mean())


def test_the_divergence_falls_as_cross_entropy_does() -> None:
    generator = torch.Generator().manual_seed(0)
    wanted = torch.randn(2, 4, 8, 8, generator=generator)
    ours = torch.randn(2, 4, 8, 8, generator=generator, requires_grad=True)
    (got,) = torch.autograd.grad(_divergence(ours, wanted).sum(), ours)
    entropy = F.binary_cross_entropy_with_logits(ours, wanted.sigmoid(), reduction="none")
    (expected,) = torch.autograd.grad(entropy.mean((-2, -1)).sum(), ours)
    torch.testing.assert_close(got, expected)
    assert (_divergence(ours, wanted) > 0).all()


def test_masks_that_the_teacher_does_not_trust_do_not_count() -> None:
    generator = torch.Generator().manual_seed(0)
    wanted = torch.randn(2, 4, 8, 8, generator=generator)
    iou = torch.tensor([[0.9, 0.0, 0.5, 0.0], [-0.3, 0.7, 0.0, 1.2]])
    answer = torch.randn(2, 4, 8, 8, generator=generator, requires_grad=True)
    loss = _answer_losses(_Answer(answer, iou), _Answer(wanted, iou))["mask"]
    loss.backward()  # type: ignore[no-untyped-call]
    assert answer.grad is not None
    assert torch.equal(answer.grad.flatten(2).any(2), iou > 0)


def test_features_are_compared_on_the_teachers_grid() -> None:
    ours = ImageFeatures(torch.ones(1, 3, 2, 2))
    theirs = ImageFeatures(torch.full((1, 5, 7, 7), 4.0))
    projection = nn.Conv2d(3, 5, 1)
    nn.init.ones_(projection.weight)
    nn.init.zeros_(projection.bias)  # type: ignore[arg-type]
    assert _feature_loss(projection, ours, theirs).item() == pytest.approx(1.0)


def test_prompts_move_between_views_by_pixel_centres() -> None:
    prompts = InputPrompts(
        torch.tensor([[[-0.5, 63.5]], [[0.0, 31.5]]]),
        torch.ones(2, 1),
        torch.tensor([[0.0, 1.0, 2.0, 3.0]]),
        None,
    )
    larger = _scaled(prompts, 4)
    assert larger.points_NK2 is not None
    assert larger.points_NK2.tolist() == [[[-0.5, 255.5]], [[1.5, 127.5]]]
    assert larger.boxes_N4 is not None
    assert larger.boxes_N4.tolist() == [[1.5, 5.5, 9.5, 13.5]]
    back = _scaled(larger, 0.25)
    assert back.points_NK2 is not None
    assert torch.equal(back.points_NK2, prompts.points_NK2)  # type: ignore[arg-type]


def test_a_resumed_run_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    teacher = small_sam(SMALL_VIT)
    through = distill(fresh_student(), teacher, batches_from, QUICK, tmp_path / "through.pt")

    def until_killed(start: int) -> Iterator[Tensor]:
        for number, batch in enumerate(batches_from(start), start):
            if number == 5:
                raise KeyboardInterrupt
            yield batch

    with pytest.raises(KeyboardInterrupt):
        distill(fresh_student(), teacher, until_killed, QUICK, tmp_path / "stopped.pt")
    torch.manual_seed(99)
    again = distill(fresh_student(seed=5), teacher, batches_from, QUICK, tmp_path / "stopped.pt")
    assert same(weights(again), weights(through))


def test_a_frozen_part_of_the_student_stays(tmp_path: Path) -> None:
    student = fresh_student()
    freeze_all_but(student, "encoder")
    before = weights(student)
    distill(student, small_sam(SMALL_VIT), batches_from, replace(QUICK, steps=2), tmp_path / "x.pt")
    moved = {n.split(".")[0] for n, t in weights(student).items() if not torch.equal(t, before[n])}
    assert moved == {"image_encoder"}


def test_the_checkpoint_of_another_student_is_refused(tmp_path: Path) -> None:
    teacher, path = small_sam(SMALL_VIT), tmp_path / "x.pt"
    distill(fresh_student(), teacher, batches_from, replace(QUICK, steps=1), path)
    with pytest.raises(CheckpointError, match="no checkpoint of this run"):
        distill(fresh_student(SMALL_COMPACT), teacher, batches_from, QUICK, path)


def test_crops_must_be_square(tmp_path: Path) -> None:
    batch = torch.zeros(1, 64, 96, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match="square crops; got 64 x 96"):
        distill(
            fresh_student(), small_sam(SMALL_VIT), lambda s: repeat(batch), QUICK, tmp_path / "x"
        )


def test_a_vit_as_student_sees_its_own_size_only(tmp_path: Path) -> None:
    student, teacher = small_sam(SMALL_VIT), small_sam(SMALL_VIT, seed=1)
    with pytest.raises(ValueError, match="inputs of 128 px only"):
        distill(student, teacher, batches_from, QUICK, tmp_path / "x.pt")
    config = replace(QUICK, student_px=128, steps=1, prompts_per_image=1)
    assert distill(student, teacher, batches_from, config, tmp_path / "x.pt") is student


@pytest.mark.parametrize(
    "wrong", [{"prompts_per_image": 0}, {"corrections": -1}, {"student_px": 100}, {"steps": 0}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="got"):
        DistillConfig(**wrong)  # type: ignore[arg-type]
