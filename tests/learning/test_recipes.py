"""The recipes: that of the paper, and each fitted to every model."""

from __future__ import annotations

import json
import logging

import pytest

from engine.errors import BadInputError
from engine.learning import bundled
from engine.learning.recipes import RECIPES, RecipeChanges, find_recipe, unlabelled_recipe
from model import SAM_TRAINING, SIZES


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_fits_every_size_of_model(name: str, size: str) -> None:
    config, recipe = SIZES[size], RECIPES[name]
    samples, train = recipe.samples_for(config), recipe.train_for(config)
    assert samples.image_size == config.image_size
    assert samples.crop_px % config.pad_multiple == 0
    assert samples.crop_px <= samples.image_size
    if size == "bundled":
        assert (train.drop_path, train.layer_decay) == (0, 1)
    else:
        assert samples.crop_px == config.image_size
        assert train == recipe.train


def test_sams_recipe_is_that_of_the_paper() -> None:
    recipe = find_recipe("sam")
    samples = recipe.samples_for(SIZES["vit_b"])
    assert recipe.train == SAM_TRAINING
    assert (samples.scale_range, samples.scale_draw) == ((0.1, 2.0), "uniform")
    assert samples.images_per_batch * samples.masks_per_image == 64
    assert samples.max_area_ratio == 0.9
    assert samples.mask_sampling_power == 0


def test_the_bundled_recipe_is_the_bundled_models() -> None:
    assert find_recipe("bundled").train == bundled.RECIPE
    assert find_recipe("bundled").samples_for(SIZES["bundled"]).crop_px == 256


def test_what_a_vit_alone_can_do_is_left_out_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        find_recipe("sam").train_for(SIZES["bundled"])
    assert "without its drop_path and layer_decay" in caplog.text


def test_a_short_training_has_a_short_warm_up_and_keeps_the_rest() -> None:
    recipe = find_recipe("sam").adapted(RecipeChanges(steps=100, images_per_batch=1, seed=7))
    assert (recipe.train.steps, recipe.train.warmup_steps, recipe.train.seed) == (100, 10, 7)
    assert recipe.samples.images_per_batch == 1
    assert recipe.train.learning_rate == SAM_TRAINING.learning_rate
    mae = unlabelled_recipe("mae").adapted(RecipeChanges(steps=50, learning_rate=1e-3))
    assert (mae.train.steps, mae.train.warmup_steps, mae.train.learning_rate) == (50, 5, 1e-3)


def test_unknown_recipes_and_senseless_changes_are_refused() -> None:
    with pytest.raises(BadInputError, match="sam, finetune, bundled"):
        find_recipe("sma")
    with pytest.raises(BadInputError, match="mae, distill"):
        unlabelled_recipe("sam")
    with pytest.raises(BadInputError, match="recipe sam: learning_rate"):
        find_recipe("sam").adapted(RecipeChanges(learning_rate=-1.0))
    with pytest.raises(BadInputError, match="at least 1"):
        find_recipe("sam").adapted(RecipeChanges(images_per_batch=0))


def test_a_recipe_is_recorded_whole() -> None:
    recorded = json.loads(find_recipe("finetune").to_json())
    assert recorded["train"]["learning_rate"] == find_recipe("finetune").train.learning_rate
    assert recorded["samples"]["masks_per_image"] == 16
