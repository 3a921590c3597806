"""`maskwheel campaigns`: list, show, invite, revoke, close, reopen, publish, figures."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from engine.annotation.annotators import find_annotator, open_session
from engine.annotation.errors import NotSignedInError
from engine.annotation.http.whereabouts import announced
from engine.annotation.opening import (
    CampaignRequest,
    open_or_continue,
    open_workspace_database,
)
from engine.annotation.records import Lease, MaskObject, Submission
from engine.annotation.submissions import submit
from engine.annotation.tasks import lease_next
from engine.dataset.catalog import Workspace
from engine.dataset.inputs import expand_inputs
from engine.images import ImageLimits, encode_png
from engine.masks import encode_mask
from tests.annotation.service import scene
from tests.flows.terminal import Terminal

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
def terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Terminal:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(2):
        (photos / f"{number}.png").write_bytes(encode_png(scene(number)))
    address = tmp_path / "workspace"
    with Workspace.open(address) as workspace, open_workspace_database(workspace) as db:
        listed = expand_inputs([str(photos)])
        request = CampaignRequest(name="birds")
        open_or_continue(workspace, db, request, listed, ImageLimits(), NOW)
    return Terminal(address, capsys, ("campaigns",))


def annotate_one(terminal: Terminal, name: str) -> None:
    mask_HW = np.zeros((120, 160), dtype=np.bool_)
    mask_HW[20:60, 30:90] = True
    done = MaskObject(object_id="a", rle=encode_mask(mask_HW))
    with (
        Workspace.open(terminal.workspace) as workspace,
        open_workspace_database(workspace) as db,
    ):
        now = datetime.now(UTC)
        person = find_annotator(db, name)
        campaign_id = terminal.json("show", "birds")["campaign"]["campaign_id"]
        lease = lease_next(db, campaign_id, person.annotator_id, now=now)
        assert isinstance(lease, Lease)
        handed_in = Submission(submission_id=str(uuid.uuid4()), objects=(done,), page_id="p")
        submit(db, lease.key, handed_in, now=now)


def test_campaigns_are_listed_and_shown(terminal: Terminal) -> None:
    (state,) = terminal.json("list")["campaigns"]
    assert state["campaign"]["name"] == "birds"
    assert state["tasks"]["open"] == 2
    table = terminal("list")
    assert "birds" in table
    assert "0 of 2" in table
    shown = terminal("show", "birds")
    assert "bundled" in shown
    assert "2 total, 2 open" in shown
    terminal("show", "fish", code=3)
    assert "'fish'" in terminal.err


def test_people_are_invited_renewed_and_revoked(terminal: Terminal) -> None:
    first = terminal.json("invite", "Ada", "--role", "reviewer")
    assert first["link"].startswith("http://127.0.0.1:8765/join#token=")
    renewed = terminal.json("invite", "Ada", "--renew", "--public-url", "https://a.example/")
    assert renewed["link"].startswith("https://a.example/join#token=")
    tokens = [one["link"].partition("=")[2] for one in (first, renewed)]
    with Workspace.open(terminal.workspace) as workspace:
        with open_workspace_database(workspace) as db:
            with pytest.raises(NotSignedInError):
                open_session(db, tokens[0], now=NOW)
            assert open_session(db, tokens[1], now=NOW).annotator.role == "reviewer"
        with announced(workspace.local_folder, "http://127.0.0.1:9999"):
            assert "http://127.0.0.1:9999/join#" in terminal("invite", "Ben")
    terminal("invite", "Ben", code=3)
    assert "invited already" in terminal.err
    assert "shut out" in terminal("revoke", "Ben")
    assert "Ben (revoked)" in terminal("show", "birds")
    terminal("revoke", "Nobody", code=3)
    terminal("invite", "Eve", "--public-url", "not an address", code=3)
    assert "public address" in terminal.err


def test_a_campaign_is_closed_and_opened_again(terminal: Terminal) -> None:
    assert "is closed" in terminal("close", "birds")
    assert terminal.json("show", "birds")["state"] == "closed"
    assert "open again" in terminal("reopen", "birds")
    assert terminal.json("show", "birds")["state"] == "open"
    terminal("close", "fish", code=3)


def test_what_people_made_is_counted_and_published_once(terminal: Terminal) -> None:
    terminal("invite", "Ada")
    annotate_one(terminal, "Ada")
    assert terminal.json("figures", "birds")["total"]["masks"] == 1
    assert "Ada" in terminal("figures", "birds")
    lines = terminal("figures", "birds", "--csv").splitlines()
    assert len(lines) == 2
    release = terminal.json("publish", "birds", "--accept", "a test")["release"]
    assert (release["kind"], release["masks"]) == ("annotation", 1)
    assert terminal.json("publish", "birds")["release"] is None
    assert "nothing of birds is new" in terminal("publish", "birds")


def test_a_place_without_a_workspace_is_told(tmp_path: Path, terminal: Terminal) -> None:
    terminal("list", "-w", tmp_path / "nowhere", code=1)
    assert "holds no workspace" in terminal.err
