"""`maskwheel models` as a user calls it."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from engine.dataset.catalog import Workspace
from engine.dataset.releases import latest_release, scan
from engine.images import encode_jpeg
from engine.learning.promotion import GateConfig
from flows.cli import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_PARTLY_DONE
from flows.commands.models import promote_command
from flows.events import MODEL_PROMOTED
from model import build_sam, save_sam
from tests.automatic.oracle_segmenter import paint_scene
from tests.dataset.coco_builders import write_coco
from tests.flows.conftest import Cli
from tests.flows.terminal import Terminal


@pytest.fixture
def models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(tmp_path / "workspace", capsys, ("models",))


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the bundled model with noise on its weights."""
    sam, random = build_sam("bundled", device="cpu"), np.random.default_rng(0)
    for tensor in sam.state_dict().values():
        if tensor.ndim > 1:
            tensor += float(tensor.std()) * tensor.new_tensor(random.normal(size=tensor.shape))
    path = tmp_path_factory.mktemp("models") / "spoilt.safetensors"
    save_sam(sam, path)
    return path


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("data") / "discs", 12)


def test_import_list_and_show_tell_where_a_model_comes_from(models: Terminal, spoilt: Path) -> None:
    assert models("import", spoilt).startswith("m1: bundled-")
    lines = models("list").splitlines()
    assert lines[1].startswith("*  bundled ")
    assert "m1" in lines[2]
    assert "spoilt.safetensors" in lines[2]
    listed = models.json("list")
    assert (listed["champion"], listed["decisions"]) == ("bundled", [])
    shown = models.json("show", "m1")
    assert shown.items() >= listed["models"][1].items()
    assert not shown["is_champion"]
    assert models.json("show", shown["model_id"])["name"] == "m1"
    text = models("show", "champion")
    assert "bundled (champion)" in text
    assert '"recommended"' in text


def test_a_worse_model_is_refused_with_a_table_and_exit_code_4(
    models: Terminal, spoilt: Path, discs: Path
) -> None:
    models("import", spoilt)
    out = models("promote", "m1", "--data", discs, "--masks-per-image", "1", code=EXIT_PARTLY_DONE)
    assert "discs, 1 click (12 masks, 12 images)" in out
    assert "95 % interval" in out
    assert "worse by" in out
    assert "m1 refused; the champion is bundled" in out
    assert models.json("list")["champion"] == "bundled"


def test_force_rollback_and_the_log(models: Terminal, spoilt: Path, discs: Path) -> None:
    models("import", spoilt)
    some = ("--data", discs, "--hold-out", "10", "--masks-per-image", "1", "--by", "ann")
    forced = models.json("promote", "m1", *some, "--force", "the new camera")
    assert (forced["outcome"], forced["champion"]) == ("forced", "m1")
    assert (forced["note"], forced["decided_by"]) == ("the new camera", "ann")
    assert forced["rows"][0]["images"] == 10
    assert models("list").splitlines()[2].startswith("*  m1")
    assert models.json("show", "champion")["name"] == "m1"
    out = models("rollback", "--note", "it was the wrong one", "--by", "ann")
    assert "m1 rolled back" not in out
    assert "bundled rolled back: it was the wrong one; the champion is bundled" in out
    decisions = models.json("list")["decisions"]
    assert [d["outcome"] for d in decisions] == ["forced", "rolled back"]
    assert "the new camera" in models("show", "m1")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("show", "m9"), EXIT_BAD_INPUT, "unknown model 'm9'; the workspace has bundled"),
        (("promote", "bundled", "--data", "{discs}"), EXIT_BAD_INPUT, "is the champion already"),
        (("promote", "m9", "--data", "nowhere.json"), EXIT_BAD_INPUT, "nowhere.json"),
        (("promote", "m9"), 2, "Missing option '--data'"),
        (("promote", "m9", "--data", "{discs}", "--margin", "200"), EXIT_BAD_INPUT, "margin must"),
        (("promote", "m9", "--data", "{discs}", "--force", " "), 2, "expected a reason"),
        (("rollback",), EXIT_BAD_INPUT, "bundled is the first champion"),
        (("import", "nowhere.pth"), EXIT_BAD_INPUT, "no such file: nowhere.pth"),
        (("list", "-w", "{empty}"), EXIT_FAILED, "holds no workspace"),
    ],
)
def test_bad_input_gets_one_clear_line_and_its_exit_code(
    models: Terminal,
    discs: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    Workspace.open(models.workspace).close()
    (tmp_path / "empty").mkdir()
    filled = [a.format(discs=discs, empty=tmp_path / "empty") for a in arguments]
    assert models(*filled, code=code) == ""
    assert message in models.err
    assert "Traceback" not in models.err


def test_the_command_s_defaults_are_the_gate_s() -> None:
    defaults = {option.name: option.default for option in promote_command.params}
    assert defaults["margin"] == 100 * GateConfig().margin
    assert defaults["tolerance"] == 100 * GateConfig().tolerance


def test_auto_masks_with_the_champion_and_prefect_hears_who_it_is(
    cli: Cli, spoilt: Path, tmp_path: Path
) -> None:
    workspace, photo = tmp_path / "workspace", tmp_path / "photo.jpg"
    photo.write_bytes(encode_jpeg(np.ascontiguousarray(paint_scene(1, 90, 120, 6))))
    version = cli.json("models", "import", spoilt, "-w", workspace)
    cli.json("models", "rollback", "m1", "--note", "a test", "-w", workspace)
    loose = ("--points-per-side", "4", "--pred-iou-thresh", "0", "--stability-score-thresh", "0")
    outcome = cli.json("auto", photo, "-w", workspace, "--model", "champion", *loose)
    assert outcome["masks"] > 0
    with Workspace.open(workspace, create=False) as opened:
        release = latest_release(opened)
        assert release is not None
        masks = scan(opened, release, "masks", ("model_id",))
    assert pc.unique(masks["model_id"]).to_pylist() == [version["model_id"]] == [*release.models]
    [event] = events(cli)
    assert event["resource"]["prefect.resource.id"] == "maskwheel.model.m1"
    assert event["payload"]["previous_champion"] == "bundled"
    assert event["payload"]["note"] == "a test"


def events(cli: Cli) -> list[dict[str, Any]]:
    """What Prefect's server has heard of champions."""
    request = urllib.request.Request(  # noqa: S310 - loopback
        f"{cli.environment['PREFECT_API_URL']}/events/filter",
        json.dumps({"filter": {"event": {"name": [MODEL_PROMOTED]}}}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        found: list[dict[str, Any]] = json.loads(answer.read())["events"]
    return found
