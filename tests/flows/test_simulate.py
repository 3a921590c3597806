"""`maskwheel simulate`: one command from photos with known masks to an annotated campaign."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.annotation.campaigns import list_campaigns
from engine.annotation.opening import open_workspace_database
from engine.annotation.submissions import finished_tasks
from engine.dataset.catalog import Workspace
from tests.annotation.simulated_photos import write_photos
from tests.flows.terminal import Terminal


@pytest.fixture
def maskwheel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(tmp_path / "workspace", capsys)


def test_a_campaign_is_annotated_by_a_service_of_its_own(
    maskwheel: Terminal, tmp_path: Path
) -> None:
    write_photos(tmp_path / "set", 3)
    truth = tmp_path / "set" / "annotations.json"
    options = ("--inside", "--truth", truth, "--annotators", 2, "--reviewers", 1, "--speed", 0)
    said = maskwheel.json("simulate", *map(str, options), "--skill", "perfect")
    assert said["tasks_submitted"] == 3
    assert said["masks"]["new"] == 9
    assert said["verdicts"]["accepted"] == 9
    assert said["mean_iou"] > 0.8
    assert not said["failures"]
    with (
        Workspace.open(str(maskwheel.workspace), create=False) as workspace,
        open_workspace_database(workspace) as db,
    ):
        (campaign,) = list_campaigns(db)
        assert campaign.name == "simulated"
        states = [task.state for task in finished_tasks(db, campaign.campaign_id)]
    assert states == ["accepted"] * 3


def test_somebody_has_to_serve(maskwheel: Terminal, tmp_path: Path) -> None:
    write_photos(tmp_path / "set", 1)
    truth = str(tmp_path / "set" / "annotations.json")
    maskwheel("simulate", "--truth", truth, code=2)
    assert "the LINK of a running service, or --inside" in maskwheel.err
    maskwheel("simulate", "http://127.0.0.1:9", "--truth", truth, code=3)
    assert "needs the token of an invitation" in maskwheel.err


def test_photos_have_to_be_there(maskwheel: Terminal, tmp_path: Path) -> None:
    write_photos(tmp_path / "set", 1)
    (tmp_path / "set" / "images" / "000.png").unlink()
    truth = str(tmp_path / "set" / "annotations.json")
    maskwheel("simulate", "--inside", "--truth", truth, code=3)
    assert "none of the 1 photos" in maskwheel.err
