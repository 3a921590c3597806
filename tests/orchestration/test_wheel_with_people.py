"""The whole wheel with simulated people at a real annotation service: from photos to a release."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient

from engine.annotation.campaigns import list_campaigns
from engine.annotation.opening import open_workspace_database
from engine.annotation.simulation.simulate import SimulationPlan, simulate
from engine.annotation.simulation.truth import Truth
from engine.dataset.catalog import Workspace
from engine.dataset.releases import list_releases, list_tags, scan
from engine.learning.decisions import read_log
from engine.wheel.policy import (
    POLICY_FILE,
    PRESETS,
    RetrainingPolicy,
    SemiPolicy,
    StagePolicy,
    policy_text,
)
from flows.data_engine import data_engine
from flows.events import CAMPAIGN_COMPLETED, RELEASE_PUBLISHED
from flows.ingest import ingest
from tests.annotation.simulated_photos import write_photos
from tests.orchestration.conftest import wait_for
from tests.prefect_server import PrefectServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

POLICY = replace(
    PRESETS["small"],
    manual=StagePolicy(images=11, retrainings=1),
    semi=SemiPolicy(images=3, retrainings=1, proposer="auto"),
    retraining=RetrainingPolicy(min_new_masks=5, steps=1),
    audit=replace(PRESETS["small"].audit, min_mean_iou=0.3),
)
PHOTOS = 15


@contextmanager
def service(workspace: str, server: PrefectServer) -> Iterator[str]:
    """Run the annotation service as `maskwheel up` does; give the admin's link."""
    command = [sys.executable, "-m", "flows.cli", "annotate", "--serve", "-w", workspace]
    process = subprocess.Popen(
        [*command, "--port", "0", "--json"],
        env={**os.environ, **server.environment()},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield str(json.loads(process.stdout.readline())["admin_link"])
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def people_finish(workspace: Workspace, link: str, truth: Truth) -> None:
    """Let simulated people work through every campaign that is open."""
    url, _, token = link.partition("/join#token=")
    with open_workspace_database(workspace) as db:
        campaigns = list_campaigns(db)
    plan = SimulationPlan(annotators=2, skill="perfect", campaign=campaigns[0].name)
    report = simulate(url, token, truth, plan)
    assert [failure for failure in report.failures if failure.ended] == []


def events(client: SyncPrefectClient, name: str, workspace: str) -> list[dict[str, Any]]:
    asked = {"filter": {"event": {"name": [name]}}, "limit": 50}
    found = client.request("POST", "/events/filter", json=asked).json()["events"]
    return [e for e in found if e["payload"]["workspace"] == workspace]


def test_photos_become_a_released_data_set_by_nothing_but_looks_and_people(
    tmp_path: Path, prefect_server: PrefectServer, prefect_client: SyncPrefectClient
) -> None:
    write_photos(tmp_path / "photos", PHOTOS)
    truth = Truth.load(tmp_path / "photos" / "annotations.json")
    address = str(tmp_path / "birds")
    assert "no photos yet" in data_engine(address, policy="small").said
    ingest([str(tmp_path / "photos" / "images")], address)
    (tmp_path / "birds" / POLICY_FILE).write_text(policy_text(POLICY))
    with (
        Workspace.open(address, create=False) as workspace,
        service(address, prefect_server) as link,
    ):
        started: list[str] = []
        deadline = time.monotonic() + 3000
        while time.monotonic() < deadline:
            outcome = data_engine(address)
            started += outcome.started
            if "tasks are done" not in outcome.said:
                break
            people_finish(workspace, link, truth)
        assert started == [
            "assisted-manual",
            "publish-annotations",
            "retrain",
            "semi-automatic",
            "publish-annotations",
            "retrain",
            "fully-automatic",
            "audit",
            "release",
        ], outcome.said
        completed = wait_for(
            lambda: len(events(prefect_client, CAMPAIGN_COMPLETED, address)) == 2, "two events"
        )
        assert completed
        published = events(prefect_client, RELEASE_PUBLISHED, address)
        assert sorted(e["payload"]["release"] for e in published) == ["r1", "r2", "r3"]
        due = {e["payload"]["release"]: e["resource"]["maskwheel.retraining"] for e in published}
        assert due == {"r1": "due", "r2": "due", "r3": "not-due"}
        releases = list_releases(workspace)
        assert [release.kind for release in releases] == ["annotation", "annotation", "run"]
        rows = scan(workspace, releases[-1], "masks", ("image_id", "stage")).to_pylist()
        of_stage = {s: {r["image_id"] for r in rows if r["stage"] == s} for s in ("manual", "semi")}
        assert (len(of_stage["manual"]), len(of_stage["semi"])) == (11, 3)
        assert of_stage["manual"].isdisjoint(of_stage["semi"])
        assert [decision.candidate for decision in read_log(workspace.store).decisions] == [
            "m1",
            "m2",
        ]
        assert [(tag.name, tag.release) for tag in list_tags(workspace)] == [("v1", "r3")]
        assert data_engine(address).started == ()
