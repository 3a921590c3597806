"""`maskwheel releases export` and `maskwheel import` as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.dataset.exports.formats import FORMATS as ENGINE_FORMATS
from flows.cli import EXIT_BAD_INPUT, EXIT_PARTLY_DONE
from flows.commands.export import FORMATS
from tests.dataset.coco_builders import write_coco
from tests.flows.terminal import Terminal


@pytest.fixture
def maskwheel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(tmp_path / "workspace", capsys)


def test_the_command_names_the_formats_that_the_engine_has() -> None:
    assert tuple(ENGINE_FORMATS) == FORMATS


def test_a_coco_file_goes_in_and_comes_out(maskwheel: Terminal, tmp_path: Path) -> None:
    annotations = write_coco(tmp_path / "coco", 3)
    said = maskwheel("import", annotations, "--format", "coco")
    assert said == "r1: 9 masks on 3 images imported\n"
    assert maskwheel("import", annotations, "--format", "coco").startswith("nothing new")
    out = tmp_path / "out"
    command = ("releases", "export", "latest", "--format", "coco", "--to", out)
    report = maskwheel.json(*command)
    assert (report["images"], report["masks"], report["problems"]) == (3, 9, None)
    assert "was complete before" in maskwheel(*command)
    before = json.loads(annotations.read_text())["annotations"]
    after = json.loads((out / "instances_all.json").read_text())["annotations"]
    assert sorted(a["segmentation"]["counts"] for a in after) == sorted(
        a["segmentation"]["counts"] for a in before
    )


def test_what_is_lost_on_the_way_is_said_and_is_exit_code_4(
    maskwheel: Terminal, tmp_path: Path
) -> None:
    annotations = write_coco(tmp_path / "coco", 3)
    (tmp_path / "coco/images/001.jpg").unlink()
    said = maskwheel("import", annotations, "--format", "coco", code=EXIT_PARTLY_DONE)
    assert "images not imported: 1 not-found" in said
    assert "masks not imported: 3 no-image" in said
    (tmp_path / "coco/images/002.jpg").unlink()
    command = ("releases", "export", "r1", "--format", "yolo", "--to", tmp_path / "out")
    said = maskwheel(*command, code=EXIT_PARTLY_DONE)
    assert "left out: 1 images" in said
    without = maskwheel.json(*command[:-1], tmp_path / "labels", "--no-images")
    assert without["images"] == 2


def test_crowd_regions_are_left_out_on_purpose(maskwheel: Terminal, tmp_path: Path) -> None:
    annotations = write_coco(tmp_path / "coco", 1)
    content = json.loads(annotations.read_text())
    content["annotations"][0]["iscrowd"] = 1
    annotations.write_text(json.dumps(content))
    assert "masks not imported: 1 crowd" in maskwheel("import", annotations, "--format", "coco")


def test_a_place_that_is_taken_is_bad_input(maskwheel: Terminal, tmp_path: Path) -> None:
    maskwheel("import", write_coco(tmp_path / "coco", 1), "--format", "coco")
    maskwheel(
        *("releases", "export", "r1", "--format", "png", "--to", tmp_path / "coco"),
        code=EXIT_BAD_INPUT,
    )
    assert "is in the way" in maskwheel.err
    maskwheel("import", tmp_path / "none.json", "--format", "coco", code=EXIT_BAD_INPUT)
    assert "expected a COCO file" in maskwheel.err
