"""`maskwheel evaluate` as a user calls it, on a small checkpoint and a small data set."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows import cli
from model import save_sam
from tests.dataset.coco_builders import write_coco
from tests.model.small_models import SMALL_COMPACT, small_sam


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    save_sam(small_sam(SMALL_COMPACT), folder / "small.safetensors")
    write_coco(folder / "plain", 3)
    write_coco(folder / "split", 2, split="val")
    return folder


@pytest.fixture
def maskwheel(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    monkeypatch.chdir(folder)

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["maskwheel", "evaluate", *arguments, "--device", "cpu"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        seen = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, seen.out, seen.err)

    return run


def test_the_table_shows_the_model_beside_the_baselines(maskwheel: Run) -> None:
    done = maskwheel(
        "small.safetensors", "--data", "plain", "--max-images", "1", "--max-clicks", "2"
    )
    assert done.code == 0, done.err
    for expected in (
        "Prompts: mIoU in %",
        "2 clicks",
        "NoC@85",
        "felzenszwalb",
        "GrabCut",
        "disc",
    ):
        assert expected in done.out
    assert "3 of 1 images" in done.out
    assert "small, plain: 1 images" in done.err


def test_json_is_one_object_and_the_same_each_time(
    maskwheel: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    words = ("small.safetensors", "--data", "split", "plain", "--split", "val", "--hold-out", "1")
    more = ("--no-baselines", "--max-clicks", "1", "--json")
    done = maskwheel(*words, *more)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    cases = [
        (row["case"]["data"], row["case"]["images"], row["prompt"]) for row in found["prompts"]
    ]
    assert cases == [
        ("split", 2, "1 click"),
        ("split", 2, "box"),
        ("plain", 1, "1 click"),
        ("plain", 1, "box"),
    ]
    assert 0 <= found["prompts"][0]["trusted"]["low"] <= found["prompts"][0]["trusted"]["high"] <= 1
    assert maskwheel(*words, *more).out == done.out


def test_output_holds_tables_and_plots(maskwheel: Run, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "results"
    done = maskwheel(
        "small.safetensors",
        "--data",
        "plain/annotations.json",
        "--no-baselines",
        "--max-images",
        "1",
        "--max-clicks",
        "2",
        "-o",
        str(folder),
    )
    assert done.code == 0, done.err
    assert {path.name for path in folder.iterdir()} == {
        "evaluation.json",
        "evaluation.md",
        "clicks-plain-votes-1.png",
        "reliability-plain-votes-1.png",
    }
    assert (folder / "evaluation.md").read_text().count("| plain |") >= 3
    assert json.loads((folder / "evaluation.json").read_text())["model"] == "small"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["small.safetensors", "--data", "missing.json"], "missing.json"),
        (["small.safetensors", "--data", "r7"], "workspace"),
        (["small.safetensors", "--data", "plain", "--split", "val"], "--hold-out"),
        (["small.safetensors", "--data", "plain", "--hold-out", "9"], "9"),
        (["small.safetensors", "--data", "plain", "--min-votes", "8"], "--min-votes"),
        (["nobody", "--data", "plain"], "nobody"),
        (["missing.safetensors", "--data", "plain"], "missing.safetensors"),
    ],
)
def test_bad_input_is_told_in_a_line_with_exit_code_3(
    maskwheel: Run, arguments: list[str], says: str
) -> None:
    done = maskwheel(*arguments)
    assert done.code == 3, done.err
    assert says in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "arguments", [["small.safetensors"], ["small.safetensors", "--data", "plain", "--task", "x"]]
)
def test_wrong_usage_has_exit_code_2(maskwheel: Run, arguments: list[str]) -> None:
    assert maskwheel(*arguments).code == 2
