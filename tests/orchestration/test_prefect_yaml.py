"""`prefect deploy` with infra/prefect.yaml makes what `maskwheel deploy` makes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import RunDeployment
from prefect.events.schemas.automations import EventTrigger

from flows.catalogue import FLOWS
from flows.deployments import DeploymentPlan, deploy
from tests.prefect_server import PrefectServer

REPOSITORY = Path(__file__).resolve().parents[2]
OF_THE_SERVER = {
    "id",
    "created",
    "updated",
    "created_by",
    "updated_by",
    "last_polled",
    "status",
    "version_id",
    "version_info",
    "flow_id",
    "work_queue_id",
}


def deployments(client: SyncPrefectClient) -> dict[str, dict[str, object]]:
    """Return the deployments without what only the server knows."""
    found = {}
    for name in FLOWS:
        deployment = client.read_deployment_by_name(f"{name}/maskwheel")
        fields = deployment.model_dump(mode="json", exclude=OF_THE_SERVER)
        times = [one.model_dump(mode="json") for one in deployment.schedules]
        what = ("slug", "schedule", "parameters", "active")
        found[name] = {**fields, "schedules": [{key: one[key] for key in what} for one in times]}
    return found


def triggers(client: SyncPrefectClient) -> dict[str, tuple[object, ...]]:
    """Return by name what starts which flow with which parameters."""
    found: dict[str, tuple[object, ...]] = {}
    for automation in client.read_automations():
        (action, *_), trigger = automation.actions, automation.trigger
        if not automation.name.startswith("maskwheel: "):
            continue
        assert isinstance(action, RunDeployment)
        assert isinstance(trigger, EventTrigger)
        assert automation.name not in found, "doubled"
        match = trigger.model_dump(mode="json")["match"]
        found[automation.name] = (trigger.expect, match, trigger.posture, action.parameters)
    return found


def test_both_ways_give_the_same_deployments_and_one_takes_over_from_the_other(
    prefect_server: PrefectServer, prefect_client: SyncPrefectClient, tmp_path: Path
) -> None:
    plan = DeploymentPlan(workspace=str(tmp_path / "birds"))
    made = deploy(plan)
    by_us, triggers_by_us = deployments(prefect_client), triggers(prefect_client)
    for change in made:
        if change.kind == "automation":
            prefect_client.delete_automation(change.id)
        elif change.kind == "deployment":
            prefect_client.delete_deployment(change.id)

    done = subprocess.run(
        [
            *(sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"),
            *("--prefect-file", str(REPOSITORY / "infra" / "prefect.yaml")),
        ],
        cwd=REPOSITORY,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MASKWHEEL"))},
            **prefect_server.environment(),
            "MASKWHEEL_WORKSPACE": plan.workspace,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    by_prefect = deployments(prefect_client)
    differing = {
        f"{flow}: {name}": (by_prefect[flow][name], value)
        for flow, fields in by_us.items()
        for name, value in fields.items()
        if by_prefect[flow][name] != value
    }
    assert not differing
    assert triggers(prefect_client) == triggers_by_us
    taken_over = deploy(plan)
    assert {one.what for one in taken_over if one.kind != "automation"} == {"unchanged"}
    assert {one.name for one in taken_over if one.what == "updated"} == set(triggers_by_us)
    assert {one.what for one in deploy(plan)} == {"unchanged"}
    assert triggers(prefect_client) == triggers_by_us
