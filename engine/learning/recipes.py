"""The recipes of `maskwheel train`: how long, which losses and prompts, which samples, which model.

>>> recipe = find_recipe("finetune").adapted(RecipeChanges(steps=500, seed=1))
>>> samples = recipe.samples_for(sam.config)

``sam`` is the paper's (appendix A), ``bundled`` that of the model in the box, ``finetune`` takes a
trained model a little further on data of its own.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from engine.dataset.sample_cutting import SampleConfig
from engine.errors import BadInputError
from engine.learning import bundled
from model import SamConfig, TrainConfig
from model.distill import DistillConfig
from model.image_encoder import VitConfig
from model.mae import MaeConfig
from model.train_config import SAM_TRAINING

__all__ = [
    "RECIPES",
    "UNLABELLED_RECIPES",
    "Recipe",
    "RecipeChanges",
    "UnlabelledRecipe",
    "find_recipe",
    "unlabelled_recipe",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeChanges:
    """What a user may want otherwise; None leaves it as the recipe has it.

    Attributes:
        steps: optimiser steps.
        images_per_batch: images in a step of one process.
        learning_rate: its peak.
        precision: ``float32`` or ``bfloat16``, of the computation.
        save_every: steps between two checkpoints.
        log_every: steps between two log entries.
        seed: of weights, data and prompts.
    """

    steps: int | None = None
    images_per_batch: int | None = None
    learning_rate: float | None = None
    precision: Literal["float32", "bfloat16"] | None = None
    save_every: int | None = None
    log_every: int | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a model is trained on masks.

    Attributes:
        name: for the command line and for records.
        train: the optimiser's part: steps, losses, simulated prompts.
        samples: the data's part; sizes are fitted to the model by `samples_for`.
        whole_images: a sample is a whole photo at the model's size, not a crop of `samples`' size.
        model: size of the model where training starts from scratch.
        init: where training starts unless something else is asked for.
    """

    name: str
    train: TrainConfig
    samples: SampleConfig
    whole_images: bool
    model: str
    init: str

    def adapted(self, changes: RecipeChanges) -> Recipe:
        """Change what is given; a shorter training warms up for at most a tenth of its steps.

        Raises:
            BadInputError: a value out of range.
        """
        samples = self.samples
        if changes.images_per_batch is not None:
            samples = replace(samples, images_per_batch=changes.images_per_batch)
        return replace(self, train=_changed(self.name, self.train, changes), samples=samples)

    def samples_for(self, config: SamConfig) -> SampleConfig:
        """Fit the samples to a model's input; a plain ViT takes whole squares only."""
        whole = self.whole_images or config.pad_multiple == config.image_size
        crop_px = config.image_size if whole else min(self.samples.crop_px, config.image_size)
        return replace(self.samples, image_size=config.image_size, crop_px=crop_px)

    def train_for(self, config: SamConfig) -> TrainConfig:
        """Leave out what only a ViT can do where the model has none."""
        if isinstance(config.encoder, VitConfig):
            return self.train
        vit_only = {"drop_path": 0.0, "layer_decay": 1.0}
        changed = [name for name, off in vit_only.items() if getattr(self.train, name) != off]
        if changed:
            logger.info(
                "recipe %s without its %s: %s has no ViT blocks",
                self.name,
                " and ".join(changed),
                config.name,
            )
        return replace(self.train, drop_path=0.0, layer_decay=1.0)

    def to_json(self) -> str:
        """Return all settings as canonical JSON."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Read what `to_json` of this version of Maskwheel wrote.

        Raises:
            BadInputError: settings of another version.
        """
        try:
            return TypeAdapter(cls).validate_json(text)
        except ValidationError as error:
            raise BadInputError(f"a recipe of another version of Maskwheel: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlabelledRecipe:
    """How a model is trained on photos alone.

    Attributes:
        name: for the command line and for records.
        train: the steps; `MaeConfig` or `DistillConfig`.
        images_per_batch: crops in a batch of one process.
        model: size of a new model.
        init: where training starts unless something else is asked for.
    """

    name: str
    train: MaeConfig | DistillConfig
    images_per_batch: int
    model: str
    init: str

    def adapted(self, changes: RecipeChanges) -> UnlabelledRecipe:
        """Change what is given; see `Recipe.adapted`."""
        return replace(
            self,
            train=_changed(self.name, self.train, changes),
            images_per_batch=changes.images_per_batch or self.images_per_batch,
        )

    def to_json(self) -> str:
        """Return all settings as canonical JSON."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))


Config = TypeVar("Config", TrainConfig, MaeConfig | DistillConfig)


def _changed(recipe: str, config: Config, changes: RecipeChanges) -> Config:
    fields = dataclasses.asdict(changes)
    fields.pop("images_per_batch")
    given = {name: value for name, value in fields.items() if value is not None}
    if changes.steps is not None:
        given["warmup_steps"] = min(config.warmup_steps, changes.steps // 10)
    try:
        return replace(config, **given)
    except ValueError as error:
        raise BadInputError(f"recipe {recipe}: {error}") from error


def _recipes() -> dict[str, Recipe]:
    as_they_are = SampleConfig(
        colour_probability=0.0, grey_probability=0.0, invert_probability=0.0, noise_probability=0.0
    )
    recipes = (
        # 64 masks of a process, as in the paper. Its 256 images of a step take many processes: with
        # fewer, lower the learning rate. Large-scale jitter is what the paper used on little data.
        Recipe(
            name="sam",
            train=SAM_TRAINING,
            samples=replace(
                as_they_are,
                images_per_batch=4,
                masks_per_image=16,
                scale_range=(0.1, 2.0),
                scale_draw="uniform",
                mask_sampling_power=0.0,
                votes_limit=1,
            ),
            whole_images=True,
            model="vit_b",
            init="scratch",
        ),
        Recipe(
            name="finetune",
            train=TrainConfig(
                steps=1000,
                learning_rate=1e-4,
                warmup_steps=100,
                weight_decay=0.05,
                layer_decay=0.8,
                ema_decay=0.99,
                recompute_rounds=True,
                box_probability=0.5,
                mix_first_prompts=True,
                correction_probability=0.5,
                max_corrections=3,
                log_every=20,
                save_every=100,
            ),
            samples=replace(
                as_they_are,
                images_per_batch=2,
                masks_per_image=16,
                scale_range=(0.5, 1.5),
                colour_probability=0.5,
                colour_strength=0.5,
            ),
            whole_images=True,
            model="bundled",
            init="bundled",
        ),
        Recipe(
            name="bundled",
            train=bundled.RECIPE,
            samples=bundled.SAMPLES,
            whole_images=False,
            model="bundled",
            init="scratch",
        ),
    )
    return {recipe.name: recipe for recipe in recipes}


RECIPES = _recipes()
UNLABELLED_RECIPES = {
    "mae": UnlabelledRecipe(
        name="mae", train=MaeConfig(), images_per_batch=32, model="vit_b", init="scratch"
    ),
    "distill": UnlabelledRecipe(
        name="distill", train=DistillConfig(), images_per_batch=4, model="bundled", init="bundled"
    ),
}


def find_recipe(name: str) -> Recipe:
    """Return a recipe by its name.

    Raises:
        BadInputError: there is none.
    """
    if name not in RECIPES:
        raise BadInputError(f"unknown recipe {name!r}; expected one of {', '.join(RECIPES)}")
    return RECIPES[name]


def unlabelled_recipe(name: str) -> UnlabelledRecipe:
    """Return a recipe for photos without masks by its name.

    Raises:
        BadInputError: there is none.
    """
    if name not in UNLABELLED_RECIPES:
        raise BadInputError(
            f"unknown recipe {name!r}; expected one of {', '.join(UNLABELLED_RECIPES)}"
        )
    return UNLABELLED_RECIPES[name]
