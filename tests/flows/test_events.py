"""What happened is heard at a real Prefect server, also from a process that ends at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.announcements import (
    Announcement,
    AuditCheckFailed,
    AuditFailed,
    CampaignCompleted,
    ModelPromoted,
    ReleasePublished,
    tell,
)
from engine.dataset.catalog import Workspace
from engine.records import PromotionDecision, Release
from engine.wheel.policy import init_policy
from flows.events import (
    AUDIT_FAILED,
    CAMPAIGN_COMPLETED,
    MODEL_PROMOTED,
    RELEASE_PUBLISHED,
    announce,
    event_of,
)
from tests.dataset.coco_builders import write_coco
from tests.flows.conftest import Cli
from tests.prefect_server import free_port

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
COMPLETED = CampaignCompleted(
    workspace="/birds",
    campaign="manual-1",
    campaign_id="manual-1-0a1b",
    stage="manual",
    images=30,
    masks=412,
)


def heard(api_url: str, name: str, workspace: str) -> list[dict[str, Any]]:
    """Ask the server for events until it has one; the last look is after a deadline."""
    deadline = time.monotonic() + 30
    asked = {"filter": {"event": {"name": [name]}}, "limit": 50}
    while True:
        answer = httpx.post(f"{api_url}/events/filter", json=asked, timeout=30).raise_for_status()
        events: list[dict[str, Any]] = answer.json()["events"]
        found = [e for e in events if e["resource"]["maskwheel.workspace"] == workspace]
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def announcing(code: str) -> list[str]:
    """Return a program that announces and then ends at once."""
    text = f"""
        from datetime import UTC, datetime
        from engine.announcements import CampaignCompleted
        from flows.events import announce
        {code}
    """
    return [sys.executable, "-c", textwrap.dedent(text)]


def test_a_process_that_ends_at_once_is_heard(cli: Cli) -> None:
    words = [f"{name}={value!r}" for name, value in _fields(COMPLETED, workspace="/at-once")]
    subprocess.run(
        announcing(f"announce(CampaignCompleted({', '.join(words)}))"),
        env=cli.environment,
        check=True,
        timeout=120,
    )
    [event] = heard(cli.environment["PREFECT_API_URL"], CAMPAIGN_COMPLETED, "/at-once")
    assert event["resource"] == {
        "prefect.resource.id": "maskwheel.campaign.manual-1-0a1b",
        "prefect.resource.name": "manual-1",
        "maskwheel.workspace": "/at-once",
        "maskwheel.stage": "manual",
    }
    assert event["payload"] == dict(_fields(COMPLETED, workspace="/at-once"))


def test_a_command_announces_its_release_and_whether_a_retraining_is_due(
    cli: Cli, tmp_path: Path
) -> None:
    workspace = tmp_path / "work"
    coco = write_coco(tmp_path / "discs", 3)
    with Workspace.open(workspace) as opened:
        init_policy(opened.store, "small")
        (workspace / "policy.toml").write_text("[retraining]\nmin_new_masks = 2\nhold_out = 2\n")
        address = opened.address
    made = cli.json("import", coco, "--format", "coco", "-w", workspace)
    [event] = heard(cli.environment["PREFECT_API_URL"], RELEASE_PUBLISHED, address)
    assert event["resource"] == {
        "prefect.resource.id": "maskwheel.release.r1",
        "prefect.resource.name": "r1",
        "maskwheel.workspace": address,
        "maskwheel.kind": "import",
        "maskwheel.retraining": "due",
    }
    assert made["release"] == "r1"
    assert event["payload"] == {
        "workspace": address,
        "release": "r1",
        "kind": "import",
        "parent": None,
        "images": 3,
        "masks": 9,
        "new_human_masks": 9,
    }


def test_without_a_server_nothing_is_sent_and_prefect_is_not_even_imported(tmp_path: Path) -> None:
    words = [f"{name}={value!r}" for name, value in _fields(COMPLETED, workspace="/nobody")]
    looking = "import sys; print('prefect' in sys.modules)"
    code = f"announce(CampaignCompleted({', '.join(words)})); {looking}"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT")}
    done = subprocess.run(
        announcing(code),
        env={**environment, "PREFECT_HOME": str(tmp_path)},
        cwd=tmp_path,
        check=True,
        timeout=120,
        text=True,
        capture_output=True,
    )
    assert done.stdout.strip() == "False"


def test_a_server_that_is_gone_costs_a_warning_and_no_error(tmp_path: Path) -> None:
    words = [f"{name}={value!r}" for name, value in _fields(COMPLETED, workspace="/gone")]
    done = subprocess.run(
        announcing(f"announce(CampaignCompleted({', '.join(words)})); print('went on')"),
        env={
            **os.environ,
            "PREFECT_HOME": str(tmp_path),
            "PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api",
        },
        check=True,
        timeout=120,
        text=True,
        capture_output=True,
    )
    assert done.stdout.strip() == "went on"
    assert "CampaignCompleted was not announced" in done.stderr


def test_every_announcement_has_its_labels_and_payload(tmp_path: Path) -> None:
    decision = PromotionDecision(
        number=4,
        outcome="promoted",
        candidate="m3",
        candidate_sha256="ab",
        previous_champion="m2",
        champion="m3",
        champion_sha256="ab",
        decided_by="ann",
        note="new camera",
        decided_at=NOW,
    )
    promoted = event_of(ModelPromoted(workspace="/birds", decision=decision))
    assert (promoted.name, promoted.resource) == (
        MODEL_PROMOTED,
        {
            "prefect.resource.id": "maskwheel.model.m3",
            "prefect.resource.name": "m3",
            "maskwheel.workspace": "/birds",
            "maskwheel.outcome": "promoted",
        },
    )
    assert promoted.payload["previous_champion"] == "m2"
    check = AuditCheckFailed(name="mean IoU", figure=0.71, limit=0.75, detail="of 40 pairs")
    failed = event_of(
        AuditFailed(
            workspace="/birds",
            release="r9",
            model="m3",
            reason="mean IoU 0.71, below 0.75",
            figure=0.71,
            bar=0.75,
            checks=(check,),
        )
    )
    assert (failed.name, failed.resource["prefect.resource.id"]) == (
        AUDIT_FAILED,
        "maskwheel.release.r9",
    )
    assert failed.payload["checks"] == [
        {"name": "mean IoU", "figure": 0.71, "limit": 0.75, "detail": "of 40 pairs"}
    ]
    with Workspace.open(tmp_path / "work") as workspace:
        release = Release(name="r7", kind="annotation", masks=9, created_at=NOW)
        told = event_of(ReleasePublished(workspace=workspace.address, release=release))
    assert told.resource["maskwheel.retraining"] == "not-due"
    for content in (promoted, failed, told):
        assert content.payload["workspace"] == content.resource["maskwheel.workspace"]
        assert json.loads(json.dumps(content.payload)) == content.payload


@pytest.mark.parametrize("listener", [announce, None])
def test_telling_never_fails_the_work(
    listener: Callable[[Announcement], None] | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no thread is left")

    monkeypatch.setattr("flows.events.may_have_server", fail)
    tell(listener, COMPLETED)
    assert [r.levelname for r in caplog.records] == (["WARNING"] if listener else [])


def _fields(completed: CampaignCompleted, *, workspace: str) -> list[tuple[str, object]]:
    names = ("campaign", "campaign_id", "stage", "images", "masks")
    return [("workspace", workspace), *((name, getattr(completed, name)) for name in names)]
