from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any

import pytest

from model import SAM_TRAINING, TrainConfig


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be at least 1; got 0"),
        ({"warmup_steps": -1}, "warmup_steps must be not negative; got -1"),
        ({"decay": "linear"}, "decay is one of cosine, step.*; got 'linear'"),
        (
            {"region_loss": "jaccard"},
            "region_loss is one of dice, soft_iou, neg_log_soft_iou; got 'jaccard'",
        ),
        ({"region_average": "image"}, "region_average is one of mask, batch; got 'image'"),
        ({"iou_loss": "huber"}, "iou_loss is one of mse, l1; got 'huber'"),
        ({"iou_targets": "none"}, "iou_targets is one of all, best; got 'none'"),
        ({"multimask": "never"}, "multimask is one of every_round, first_round; got 'never'"),
        ({"precision": "float16"}, "precision is one of float32, bfloat16; got 'float16'"),
        ({"box_probability": 1.1}, "box_probability must be between 0 and 1; got 1.1"),
        ({"drop_path": 1.0}, "drop_path must be from 0 to below 1; got 1.0"),
        ({"ema_decay": 1.0}, "ema_decay must be from 0 to below 1; got 1.0"),
        ({"layer_decay": 0.0}, "layer_decay must be above 0, at most 1; got 0.0"),
        ({"decay_at": (0.5, 2.0)}, r"decay_at must be shares of 1; got \(0.5, 2.0\)"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0; got 0.0"),
        ({"min_corrections": 0}, "min_corrections must be at least 1; got 0"),
        ({"max_corrections": 7}, "max_corrections must be at least min_corrections, 8; got 7"),
        ({"log_every": 0}, "log_every must be at least 1; got 0"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SAM_TRAINING, **change)


def test_sams_recipe_is_the_papers() -> None:
    sam = SAM_TRAINING
    assert (sam.learning_rate, sam.warmup_steps, sam.steps) == (8e-4, 250, 90_000)
    assert [round(share * sam.steps) for share in sam.decay_at] == [60_000, 86_666]
    assert (sam.decay, sam.decay_factor) == ("step", 0.1)
    assert (sam.weight_decay, sam.drop_path, sam.layer_decay) == (0.1, 0.4, 0.8)
    assert sam.focal_weight == 20 * sam.dice_weight
    assert sam.iou_weight == sam.single_weight == sam.dice_weight == 1
    assert (sam.iou_loss, sam.iou_targets, sam.region_loss) == ("mse", "best", "dice")
    assert (sam.box_probability, sam.mix_first_prompts) == (0.5, True)
    assert sam.min_corrections == sam.max_corrections == 8
    assert sam.refinements
    assert sam.correction_probability == 1


def test_every_field_is_explained() -> None:
    attributes = (TrainConfig.__doc__ or "").split("Raises:")[0]
    explained = set(re.findall(r"^        (\w+): ", attributes, re.MULTILINE))
    assert explained == {field.name for field in fields(TrainConfig)}
