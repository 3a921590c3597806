"""The bundled model's recipe, from data on disk to weights that load, and its evaluation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.dataset.training_samples import CocoMasks
from engine.errors import BadInputError
from engine.learning.bundled import (
    HELD_OUT,
    SOURCES,
    train_bundled,
    training_sources,
    validation_sources,
)
from engine.learning.evaluation import EvaluationConfig, calibration_error, evaluate_prompts
from model import build_sam, load_sam
from model.evaluate import ClickResult
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


def test_the_evaluation_prints_a_row_per_set_and_prompt(data: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "engine.learning.evaluation", "--data", data, "--max-images", "2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("1 click") == 2
    assert done.stdout.count("box") == 2


def test_a_set_without_agreed_masks_is_refused_by_name(data: Path) -> None:
    source = CocoMasks.load(data / SOURCES[1] / "annotations.json").hold_out(2)[1]
    with pytest.raises(BadInputError, match=SOURCES[1]):
        evaluate_prompts(build_sam("bundled"), source, EvaluationConfig(min_votes=9))


def test_the_bundled_model_beats_chance_on_discs(data: Path) -> None:
    source = CocoMasks.load(data / SOURCES[1] / "annotations.json").hold_out(8)[1]
    results = evaluate_prompts(build_sam("bundled"), source, EvaluationConfig(masks_per_image=3))
    assert results["1 click"].oracle_iou_N.mean() > 0.5
    assert results["box"].trusted_iou_N.mean() > 0.7


def test_calibration_error_is_zero_for_an_honest_model_and_not_for_a_boaster() -> None:
    iou = np.linspace(0, 1, 100)
    assert calibration_error(ClickResult(iou, iou, iou)) == pytest.approx(0, abs=1e-12)
    assert calibration_error(ClickResult(iou * 0, iou, iou * 0 + 0.4)) == pytest.approx(0.4)
