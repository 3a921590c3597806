"""A campaign's figures as artifacts of a real Prefect server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx

from engine.annotation.opening import open_workspace_database
from engine.dataset.catalog import Workspace
from tests.annotation.annotation_builders import (
    a_campaign,
    a_lease,
    a_person,
    an_object,
    hand_in,
    some_events,
)
from tests.flows.conftest import Cli

FLOW = "import sys; from flows.annotation_figures import annotation_figures as f; f(*sys.argv[1:])"


def artifacts(cli: Cli) -> dict[str, object]:
    """Return the newest artifact of each key."""
    url = f"{cli.environment['PREFECT_API_URL']}/artifacts/latest/filter"
    answer = httpx.post(url, json={}, trust_env=False).raise_for_status()
    return {item["key"]: item["data"] for item in answer.json()}


def test_the_figures_of_a_campaign_stand_in_the_prefect_ui(cli: Cli, tmp_path: Path) -> None:
    with Workspace.open(str(tmp_path)) as workspace, open_workspace_database(workspace) as db:
        campaign = a_campaign(db, name="Birds of 2026")
        lease = a_lease(db, campaign, a_person(db))
        hand_in(db, lease, an_object("a"), events=some_events((0, None), (4, "a")))
    done = subprocess.run(
        [sys.executable, "-c", FLOW, str(tmp_path), campaign.name],
        env=cli.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = artifacts(cli)
    page = found[f"annotation-{campaign.campaign_id.lower()}"]
    assert isinstance(page, str)
    assert page.startswith("# Birds of 2026\n")
    assert "**1 masks** of 1 images" in page
    assert "**4.0 s per mask**" in page
    rows = json.loads(str(found[f"annotation-rows-{campaign.campaign_id.lower()}"]))
    assert [row["who or when"] for row in rows] == ["all", "Ada", "2026-03-01"]
    assert rows[0]["clicks per mask"] == "1"
