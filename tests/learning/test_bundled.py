"""The bundled model's recipe, from data on disk to weights that load and know something."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.dataset.training_samples import CocoMasks
from engine.evaluation.labelled import Selection
from engine.evaluation.points import PromptConfig, score_model
from engine.learning.bundled import (
    HELD_OUT,
    SOURCES,
    train_bundled,
    training_sources,
    validation_sources,
)
from model import build_sam, load_sam
from tests.dataset.coco_builders import write_coco


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name in SOURCES:
        split = "train" if name.startswith("bsds") else None
        write_coco(folder / name, HELD_OUT + 3 if split is None else 3, split=split)
    return folder


def test_training_and_validation_share_no_image(data: Path) -> None:
    seen = {i.path for s in training_sources(data) for i in s.images}
    unseen = {i.path for s in validation_sources(data) for i in s.images}
    assert seen
    assert unseen
    assert not seen & unseen


def test_a_step_gives_weights_that_load_and_is_not_repeated(data: Path, tmp_path: Path) -> None:
    weights = train_bundled(data, tmp_path, share=1e-6)
    first = load_sam(weights)
    assert first.config.name == "bundled"
    assert weights.stat().st_size < 25e6
    assert load_sam(train_bundled(data, tmp_path, share=1e-6)).model_id() == first.model_id()


def test_the_bundled_model_beats_chance_on_discs(data: Path) -> None:
    source = CocoMasks.load(data / SOURCES[1] / "annotations.json").hold_out(8)[1]
    config = PromptConfig(max_clicks=1, selection=Selection(masks_per_image=3))
    scores = score_model(build_sam("bundled"), source, config)
    assert scores.after(1).oracle_iou_N.mean() > 0.5
    assert scores.box is not None
    assert scores.box.trusted_iou_N.mean() > 0.7
