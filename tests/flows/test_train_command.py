"""`maskwheel train` as a user runs it: help, errors, JSON, kills, several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from engine.learning.training_log import read_log
from flows.cli import main
from model import load_sam, save_sam
from tests.dataset.coco_builders import write_coco
from tests.model.small_models import SMALL_COMPACT, small_sam

TINY = ("--batch-images", "1", "--log-every", "1", "--hold-out", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    save_sam(small_sam(SMALL_COMPACT), path)
    return path


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("data") / "discs", 5)


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.delenv("MASKWHEEL_WORKSPACE", raising=False)


def maskwheel(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int | str | None:
    """Run a command in this process; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["maskwheel", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def start(*arguments: str | Path, group_of: int = 1) -> subprocess.Popen[str]:
    """Start the command in a process of its own, or in several by torchrun."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(group_of))
    return subprocess.Popen(
        [
            sys.executable,
            *(torchrun if group_of > 1 else ()),
            *("-m", "flows.cli", *map(str, arguments)),
        ],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    parsed: dict[str, Any] = json.loads(out)
    return parsed


def test_the_help_shows_examples(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert maskwheel(monkeypatch, "train", "--help") == 0
    shown = capsys.readouterr().out
    for word in ("Examples:", "--recipe", "--init", "torchrun", "mae:PATH", "goes on"):
        assert word in shown


def test_a_training_answers_machines_and_leaves_a_candidate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], small: Path, discs: Path
) -> None:
    again = ("train", "--data", discs, "--init", small, "--steps", "2", *TINY, "-w", "birds")
    assert maskwheel(monkeypatch, *again, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["version"], told["recipe"], told["steps"]) == ("m1", "finetune", 2)
    assert load_sam(told["weights"]).model_id() == told["model_id"]
    assert Path(told["output"]).parent == Path("birds/training").resolve()
    assert set(told["scores"]) == {"miou_1_click", "miou_1_click_oracle", "miou_box"}
    assert told["skipped"] == []

    assert maskwheel(monkeypatch, *again) == 0
    shown = capsys.readouterr()
    assert "m1 (small_compact-" in shown.out
    assert "Next: maskwheel models promote m1" in shown.out
    assert "goes on at step 2 of 2" in shown.err

    onwards = ("train", "--data", discs, "--init", "m1", "--steps", "1", *TINY, "-w", "birds")
    assert maskwheel(monkeypatch, *onwards, "--json") == 0
    assert json.loads(capsys.readouterr().out)["version"] == "m2"


def test_without_registering_a_folder_is_enough(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], small: Path, discs: Path
) -> None:
    code = maskwheel(
        monkeypatch,
        *("train", "--data", discs, discs, "--init", small, "--steps", "1", *TINY),
        *("--no-register", "-o", "out", "--eval-every", "0"),
    )
    assert code == 0
    assert len(json.loads(Path("out/training.json").read_text())["data"]) == 2
    assert "Next: maskwheel auto photos/ --model out/model.safetensors" in capsys.readouterr().out
    assert [path.name for path in Path.cwd().iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--data", "absent.json"), 3, "absent.json is not a COCO file"),
        (("--data", "r1"), 3, "holds no workspace: name its --workspace"),
        (("--data", "{discs}", "--init", "absent.pth"), 3, "no such file: absent.pth"),
        (("--data", "{discs}", "--model", "vit_b"), 3, "leave --model out"),
        (("--data", "{discs}", "--hold-out", "5"), 3, "leaves none to train on"),
        (("--data", "{discs}", "--split", "train"), 3, "no image with masks in split 'train'"),
        (("--data", "{discs}", "--device", "cuda:99"), 3, "device 'cuda:99' cannot be used"),
        (("--data", "{discs}", "--learning-rate", "-1"), 3, "learning_rate"),
        (("--data", "{discs}", "--recipe", "distill"), 3, "got the teacher None"),
        (("--data", "nowhere/", "--recipe", "mae"), 3, "nowhere/"),
        (("--recipe", "sam"), 2, "Missing option '--data'"),
        (("--data", "{discs}", "--steps", "0"), 2, "--steps"),
        (("--data", "{discs}", "--recipe", "sma"), 2, "--recipe"),
    ],
)
def test_mistakes_are_told_with_their_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    discs: Path,
    arguments: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    given = [argument.format(discs=discs) for argument in arguments]
    given += [] if "--device" in given else ["--device", "cpu"]
    assert maskwheel(monkeypatch, "train", *given, "--no-register", "-o", "out") == code
    assert said in capsys.readouterr().err


def test_an_unknown_release_of_a_workspace_is_bad_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], discs: Path
) -> None:
    assert maskwheel(monkeypatch, "ingest", discs.parent / "images", "-w", "birds") == 0
    assert maskwheel(monkeypatch, "train", "--data", "r9", "-w", "birds") == 3
    assert "got the release 'r9'" in capsys.readouterr().err


def test_another_training_in_the_folder_is_bad_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], small: Path, discs: Path
) -> None:
    common = ("train", "--data", discs, "--init", small, "--steps", "1", *TINY)
    place = ("--no-register", "-o", "out", "--eval-every", "0")
    assert maskwheel(monkeypatch, *common, *place) == 0
    assert maskwheel(monkeypatch, *common, *place, "--seed", "1") == 3
    assert "out holds another training" in capsys.readouterr().err


def test_a_killed_training_ends_with_the_weights_of_an_undisturbed_one(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    small: Path,
    discs: Path,
    tmp_path: Path,
) -> None:
    steps = 24
    common = (
        *("train", "--data", discs, "--init", small, "--steps", str(steps), *TINY, "--json"),
        *("--no-register", "--save-every", "3", "--eval-every", "10"),
    )
    assert maskwheel(monkeypatch, *common, "-o", tmp_path / "one") == 0
    undisturbed = json.loads(capsys.readouterr().out)
    for workers, after in (("0", 5), ("1", 14)):
        process = start(*common, "-o", tmp_path / "other", "--data-workers", workers)
        deadline = time.monotonic() + 300
        while len(read_log(tmp_path / "other")) < after:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    resumed = answer(start(*common, "-o", tmp_path / "other"))
    assert 0 < resumed["resumed_at"] <= steps
    assert resumed["model_id"] == undisturbed["model_id"]
    assert resumed["scores"] == undisturbed["scores"]


@pytest.mark.slow
def test_two_processes_train_one_model_and_go_on_together(
    small: Path, discs: Path, tmp_path: Path
) -> None:
    common = ("train", "--data", discs, "--init", small, "--no-register", *TINY, "--json")
    whole = answer(start(*common, "--steps", "4", "-o", tmp_path / "whole", group_of=2))
    answer(
        start(*common, "--steps", "4", "--save-every", "2", "-o", tmp_path / "parts", group_of=2)
    )
    again = answer(start(*common, "--steps", "4", "-o", tmp_path / "parts", group_of=2))
    assert again["resumed_at"] == 4
    assert again["model_id"] == whole["model_id"]
    assert [e.step for e in read_log(tmp_path / "whole") if e.kind == "train"] == [1, 2, 3, 4]
    alone = start(*common, "--steps", "4", "-o", tmp_path / "whole")
    assert "processes was 2, is 1" in alone.communicate(timeout=500)[1]
    assert alone.returncode == 3
