"""What the bundled recipe adds to SAM's: central clicks, alternatives under a click, boundaries."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from model import TrainBatch, TrainConfig
from model.losses import boundary_loss
from model.objective import THREE, Alternatives, grade, shared_loss
from model.optimisation import learning_rate
from model.processes import Rows
from model.prompt_sampling import others_under
from model.train import BUNDLED_TRAINING, find_alternatives, first_prompts, train_step
from tests.model.small_models import SMALL_COMPACT, SMALL_VIT, discs_batch, small_sam

CONFIG = TrainConfig(box_probability=0.0, correction_probability=0.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def nested_masks() -> tuple[torch.Tensor, torch.Tensor]:
    """Two images; in the first a part in a whole and something aside, in the second a whole."""
    masks = torch.zeros(4, 16, 16, dtype=torch.bool)
    masks[0, 2:6, 2:6] = masks[1, 1:9, 1:9] = masks[2, 10:14, 10:14] = masks[3] = True
    return masks, torch.tensor([0, 0, 0, 1])


def test_other_masks_under_a_point_are_of_the_same_image_and_contain_it() -> None:
    masks, owner = nested_masks()
    points = torch.tensor([[3.0, 3.0], [7.0, 7.0], [12.0, 12.0], [3.0, 3.0]])
    index, found = others_under(points, masks, owner, 2, generator())
    assert index.shape == found.shape == (4, 2)
    assert found.sum(1).tolist() == [1, 0, 0, 0]
    assert index[0][found[0]].tolist() == [1]


def test_where_there_are_more_the_choice_is_random() -> None:
    masks = torch.ones(6, 8, 8, dtype=torch.bool)
    points, owner = torch.zeros(6, 2), torch.zeros(6, dtype=torch.long)
    draws = {
        tuple(others_under(points, masks, owner, 2, generator(seed))[0][0].tolist())
        for seed in range(20)
    }
    assert len(draws) > 3
    assert all(0 not in draw for draw in draws)


def test_a_box_has_no_alternatives() -> None:
    masks, owner = nested_masks()
    batch = TrainBatch(torch.zeros(2, 16, 16, 3, dtype=torch.uint8), masks, owner)
    targets = torch.rand(4, 1, 4, 4)
    config = replace(CONFIG, alternatives=2)
    for probability, expected in ((1.0, None), (0.0, Alternatives)):
        asked = replace(config, box_probability=probability)
        prompts = first_prompts(masks, asked, generator(), Rows.alone(4))
        found = find_alternatives(batch, prompts, targets, config, generator(), Rows.alone(4))
        assert (found is None) if expected is None else isinstance(found, Alternatives)


def test_an_alternative_counts_by_its_weight_and_takes_the_mask_nearest_to_it() -> None:
    logits = torch.stack([torch.full((1, 4, 4), -6.0), torch.full((1, 4, 4), 6.0)], dim=1)
    none, everything = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    graded = grade(torch.zeros(1, 2), logits, everything, CONFIG)
    best = graded.pick(graded.losses(CONFIG).argmin(1, keepdim=True))
    alone = shared_loss(best, logits, Alternatives(none, torch.zeros(1, 1)), CONFIG)
    torch.testing.assert_close(alone, graded.losses(CONFIG).min())
    for_none = grade(torch.zeros(1, 2), logits, none, CONFIG).losses(CONFIG).min()
    shared = shared_loss(best, logits, Alternatives(none, torch.full((1, 1), 0.5)), CONFIG)
    torch.testing.assert_close(shared, (alone + 0.5 * for_none) / 1.5)
    assert THREE.start == 1


def test_central_first_points_come_from_the_batch_and_are_asked_for_by_name() -> None:
    masks, _ = nested_masks()
    centres = torch.tensor([[4.0, 4.0], [5.0, 5.0], [12.0, 12.0], [8.0, 8.0]])
    config = replace(CONFIG, centre_probability=1.0)
    prompts = first_prompts(masks, config, generator(), Rows.alone(4), centres)
    assert torch.equal(prompts.points_NK2[:, 0], centres)
    half = replace(CONFIG, centre_probability=0.5)
    many = masks[3:].expand(400, -1, -1)
    middle = torch.full((400, 2), 8.0)
    drawn = first_prompts(many, half, generator(), Rows.alone(400), middle).points_NK2[:, 0]
    assert 0.4 < float((drawn == middle).all(1).float().mean()) < 0.6
    with pytest.raises(ValueError, match="centres_N2"):
        first_prompts(masks, config, generator(), Rows.alone(4))


def test_the_boundary_loss_ignores_the_unknown_and_falls_with_better_logits() -> None:
    drawn = torch.full((1, 4, 4), -1.0)
    drawn[0, 0] = torch.tensor([1.0, 0.0, 0.0, 1.0])
    good = torch.zeros(1, 4, 4)
    good[0, 0] = torch.tensor([5.0, -5.0, -5.0, 5.0])
    assert boundary_loss(good, drawn) < 0.01 < boundary_loss(-good, drawn)
    wild = torch.where(drawn < 0, 100.0, good)
    assert boundary_loss(wild, drawn) == boundary_loss(good, drawn)
    assert boundary_loss(good, torch.full((1, 4, 4), -1.0)) == 0
    flat = torch.zeros(1, 4, 4)
    assert boundary_loss(flat, drawn) == pytest.approx(0.6931, abs=1e-3)


def test_a_step_of_the_bundled_recipe_reaches_every_weight() -> None:
    plain = discs_batch(128, 0)
    batch = TrainBatch(
        plain.images_BHW3,
        plain.masks_NHW,
        plain.image_index_N,
        first_prompts(plain.masks_NHW, CONFIG, generator(), Rows.alone(4)).points_NK2[:, 0],
        torch.rand(2, 32, 32),
    )
    sam = small_sam(SMALL_COMPACT)
    config = replace(BUNDLED_TRAINING, correction_probability=1.0, box_probability=0.5)
    for seed in range(12):  # boxes in one step, points in another
        losses = train_step(sam, batch, config, generator(seed))
        assert losses["total"] > config.boundary_weight * losses["boundary"]
        losses["total"].backward()  # type: ignore[no-untyped-call]
    silent = [n for n, p in sam.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in silent if "not_a_point" not in name] == []


def test_boundaries_need_an_encoder_and_a_batch_that_have_them() -> None:
    config = replace(CONFIG, boundary_weight=1.0)
    for model in (SMALL_VIT, SMALL_COMPACT):
        with pytest.raises(ValueError, match="boundary_weight"):
            train_step(small_sam(model), discs_batch(128, 0), config, generator())


def test_a_late_decay_keeps_the_rate_and_then_falls_straight() -> None:
    config = TrainConfig(
        steps=100, warmup_steps=10, learning_rate=1.0, decay="late", decay_share=0.4
    )
    rates = [learning_rate(step, config) for step in (9, 10, 60, 80, 99)]
    assert rates == pytest.approx([1.0, 1.0, 1.0, 0.5, 0.025])
    with pytest.raises(ValueError, match="alternatives"):
        TrainConfig(alternatives=1, region_average="batch")
