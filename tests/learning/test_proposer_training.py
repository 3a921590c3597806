"""Training of the box proposer: it learns, resumes exactly, and says what is wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from engine.dataset.labelled_sets import CocoMasks
from engine.dataset.scenes.drawing import draw_scene
from engine.errors import BadInputError
from engine.images import encode_png
from engine.learning.proposer import ProposerConfig
from engine.learning.proposer_data import box_recall
from engine.learning.proposer_training import (
    ProposerJob,
    ProposerRecipe,
    box_labels,
    train_proposer,
)
from engine.learning.training_data import DataSource, open_data
from engine.learning.training_log import LogEntry, read_log
from engine.masks import encode_mask
from model import Sam, TrainBatch, build_sam
from tests.dataset.coco_builders import write_coco
from tests.model.small_models import SMALL_COMPACT, small_sam

TINY = ProposerConfig(
    side_px=64, width=16, feed_forward=16, heads=2, decoder_layers=1, queries=10, denoising=6
)
SHORT = ProposerRecipe(
    detector=TINY, steps=6, images_per_batch=2, warmup_steps=2, log_every=1, save_every=2
)


class StoppedError(Exception):
    """Stands for a kill: nothing after it runs."""


@dataclass
class Stopper:
    """Stops the training after a step."""

    after: int

    def begin(self, step: int, steps: int) -> None:
        pass

    def step(self, step: int) -> None:
        if step > self.after:
            raise StoppedError

    def entry(self, entry: LogEntry) -> None:
        pass


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[DataSource, ...]:
    return open_data([str(write_coco(tmp_path_factory.mktemp("set") / "discs", 4))], None)


@pytest.fixture(scope="module")
def sam() -> Sam:
    return small_sam(SMALL_COMPACT)


def job(
    sam: Sam, data: Sequence[DataSource], recipe: ProposerRecipe = SHORT, hold_out: int = 0
) -> ProposerJob:
    return ProposerJob(sam=sam, data=tuple(data), recipe=recipe, hold_out=hold_out)


def test_boxes_of_masks_count_in_shares_of_the_square() -> None:
    masks = torch.zeros(3, 64, 64, dtype=torch.bool)
    masks[0, 16:32, 0:32] = True
    masks[1, 63, 63] = True
    masks[2] = True
    batch = TrainBatch(torch.zeros(2, 64, 64, 3, dtype=torch.uint8), masks, torch.tensor([1, 1, 0]))
    first, second = box_labels(batch, torch.device("cpu"))
    torch.testing.assert_close(first["boxes"], torch.tensor([[0.5, 0.5, 1.0, 1.0]]))
    pixel = 1 / 64
    torch.testing.assert_close(
        second["boxes"],
        torch.tensor([[0.25, 0.375, 0.5, 0.25], [1 - pixel / 2, 1 - pixel / 2, pixel, pixel]]),
    )
    assert second["class_labels"].tolist() == [0, 0]


def test_a_resumed_training_ends_with_the_same_weights(
    sam: Sam, data: tuple[DataSource, ...], tmp_path: Path
) -> None:
    whole = train_proposer(job(sam, data), tmp_path / "whole")
    with pytest.raises(StoppedError):
        train_proposer(job(sam, data), tmp_path / "cut", listener=Stopper(after=2))
    resumed = train_proposer(job(sam, data), tmp_path / "cut")
    assert (whole.resumed_at, resumed.resumed_at) == (0, 2)
    assert whole.weights.read_bytes() == resumed.weights.read_bytes()
    steps = [entry.step for entry in read_log(tmp_path / "cut")]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_the_seed_decides_and_the_model_stays_as_it_is(
    sam: Sam, data: tuple[DataSource, ...], tmp_path: Path
) -> None:
    before = sam.model_id()
    short = replace(SHORT, steps=2)
    state = torch.random.get_rng_state()
    first, second, third = (
        train_proposer(job(sam, data, replace(short, seed=seed)), tmp_path / str(i))
        for i, seed in enumerate((3, 3, 4))
    )
    assert first.weights.read_bytes() == second.weights.read_bytes()
    assert first.weights.read_bytes() != third.weights.read_bytes()
    assert sam.model_id() == before
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_frozen_encoder_is_not_in_the_file(
    sam: Sam, data: tuple[DataSource, ...], tmp_path: Path
) -> None:
    result = train_proposer(job(sam, data, replace(SHORT, steps=1)), tmp_path / "out")
    names = set(load_file(result.weights))
    assert names
    assert not [name for name in names if "backbone" in name or "image_encoder" in name]


def test_held_out_images_measure_the_recall_of_boxes(
    sam: Sam, data: tuple[DataSource, ...], tmp_path: Path
) -> None:
    result = train_proposer(job(sam, data, replace(SHORT, steps=1), hold_out=1), tmp_path / "out")
    assert set(result.metrics) == {"AR@50", "recall@50 at IoU .50", "recall@50 at IoU .75"}
    assert all(0 <= value <= 1 for value in result.metrics.values())


def test_a_folder_of_another_training_is_refused(
    sam: Sam, data: tuple[DataSource, ...], tmp_path: Path
) -> None:
    short = replace(SHORT, steps=1)
    train_proposer(job(sam, data, short), tmp_path / "out")
    with pytest.raises(BadInputError, match="seed was 0, is 1"):
        train_proposer(job(sam, data, replace(short, seed=1)), tmp_path / "out")
    other = small_sam(SMALL_COMPACT, seed=1)
    with pytest.raises(BadInputError, match="model was"):
        train_proposer(job(other, data, short), tmp_path / "out")


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"ema_decay": 1.0}, {"learning_rate": 0.0}, {"min_votes": 0}]
)
def test_recipes_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(BadInputError, match="got"):
        ProposerRecipe(**wrong)  # type: ignore[arg-type]


def write_scenes(folder: Path, count: int, side: int) -> Path:
    """Write synthetic scenes as a COCO file, without their small parts."""
    (folder / "images").mkdir(parents=True)
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for number in range(count):
        scene = draw_scene(np.random.default_rng(number), side, side, "objects")
        name = f"{number}.png"
        (folder / "images" / name).write_bytes(encode_png(scene.image_HWC3))
        images.append({"id": number, "file_name": name, "width": side, "height": side})
        largest = np.argsort(-scene.masks_NHW.sum((1, 2)), kind="stable")[:4]
        for mask_HW in scene.masks_NHW[largest]:
            rle = {"size": [side, side], "counts": encode_mask(mask_HW).counts}
            row = {"id": len(annotations) + 1, "image_id": number, "segmentation": rle}
            annotations.append(row)
    path = folder / "annotations.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


@pytest.mark.slow
def test_a_proposer_learns_a_few_scenes_by_heart(tmp_path: Path) -> None:
    path = write_scenes(tmp_path / "scenes", 3, 128)
    recipe = ProposerRecipe(
        detector=ProposerConfig(
            side_px=128,
            width=64,
            feed_forward=128,
            heads=2,
            decoder_layers=2,
            queries=16,
            denoising=16,
        ),
        steps=220,
        images_per_batch=3,
        learning_rate=2e-3,
        warmup_steps=10,
        ema_decay=0.9,
        scale_range=(0.95, 1.05),
    )
    known = CocoMasks.load(path)
    asked = ProposerJob(
        sam=build_sam("bundled", device="cpu"),
        data=open_data([str(path)], None),
        recipe=recipe,
        hold_out=0,
    )
    result = train_proposer(asked, tmp_path / "out")
    recall = box_recall(result.proposer, [known], count=8)
    assert recall["recall@8 at IoU .50"] >= 0.9
    assert recall["recall@8 at IoU .75"] >= 0.7
