"""`maskwheel train --recipe proposer` as a user runs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.annotation.box_masks import DetectorBoxes
from engine.annotation.prefill import AutomaticMasks, PrefillConfig
from engine.annotation.proposal_sources import proposal_source
from engine.errors import BadInputError
from engine.learning.proposer_registry import find_proposer
from engine.objects import open_store
from flows.cli import EXIT_BAD_INPUT, EXIT_USAGE, main
from model import Sam, load_sam, save_sam
from tests.dataset.coco_builders import write_coco
from tests.model.small_models import SMALL_COMPACT, random_image, small_sam

TINY = ("--recipe", "proposer", "--steps", "2", "--batch-images", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    save_sam(small_sam(SMALL_COMPACT), path)
    return path


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("data") / "discs", 3)


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MASKWHEEL_WORKSPACE", raising=False)


def train(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int | str | None:
    """Run the command in this process; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["maskwheel", "train", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def config_of(sam: Sam) -> PrefillConfig:
    return PrefillConfig.for_model(sam)


def test_a_proposer_is_trained_registered_and_proposes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], small: Path, discs: Path
) -> None:
    asked = ("--data", discs, "--init", small, *TINY, "--hold-out", "1", "-w", "birds")
    assert train(monkeypatch, *asked, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["version"], told["recipe"], told["steps"]) == ("p1", "proposer", 2)
    assert set(told["scores"]) == {"AR@50", "recall@50 at IoU .50", "recall@50 at IoU .75"}
    assert Path(told["file"]).is_relative_to(Path("birds/training").resolve())

    assert train(monkeypatch, *asked) == 0
    shown = capsys.readouterr().out
    assert "2 steps, 2 of them before" in shown
    assert "box proposer p1, for small_compact-" in shown
    assert "Next: maskwheel annotate --stage semi --prefill detector" in shown

    store, sam = open_store("birds"), load_sam(small, device="cpu")
    version = find_proposer(store, "p1")
    assert version.model_id == sam.model_id()
    for name in ("detector", "p1"):
        source = proposal_source(name, store, sam, config_of(sam))
        assert isinstance(source, DetectorBoxes)
        assert source.name == "detector p1"
        boxes_N4, scores_N = source.proposer.boxes(random_image(60, 80))
        assert np.isfinite(boxes_N4).all()
        assert len(boxes_N4) == len(scores_N) == 100
    assert isinstance(proposal_source("auto", store, sam, config_of(sam)), AutomaticMasks)
    with pytest.raises(BadInputError, match="unknown box proposer 'p2'; the workspace has p1"):
        proposal_source("p2", store, sam, config_of(sam))
    other = small_sam(SMALL_COMPACT, seed=1)
    with pytest.raises(BadInputError, match="p1 for small_compact-"):
        proposal_source("detector", store, other, config_of(other))


@pytest.mark.parametrize("option", [("--tune", "lora"), ("--teacher", "vit_h.pth")])
def test_options_that_mean_nothing_here_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    small: Path,
    discs: Path,
    option: tuple[str, str],
) -> None:
    asked = ("--data", discs, "--init", small, *TINY, "-w", "birds", *option)
    assert train(monkeypatch, *asked) == EXIT_USAGE
    assert f"{option[0]} cannot be combined with --recipe proposer" in capsys.readouterr().err


def test_without_transformers_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], small: Path, discs: Path
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    asked = ("--data", discs, "--init", small, *TINY, "--hold-out", "0", "-o", "out")
    assert train(monkeypatch, *asked, "--no-register") == EXIT_BAD_INPUT
    assert "pip install 'maskwheel[proposer]'" in capsys.readouterr().err
