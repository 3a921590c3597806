"""Deploying to a real Prefect server: once is enough, and what people did there stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.events.actions import DoNothing
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.flows import load_flow_from_entrypoint

from engine.errors import BadInputError
from engine.wheel.flow_parameters import flow_parameters
from engine.wheel.policy import PRESETS
from flows.catalogue import FLOWS
from flows.deployments import Change, DeploymentPlan, Schedules, deploy
from flows.deployments.plan import NotificationBlock, Webhook
from tests.orchestration.conftest import connected
from tests.prefect_server import PrefectServer

SCHEDULES = Schedules(nightly="0 2 * * *", retraining="0 6 * * 1", timezone="Europe/Zurich")


def plan_for(name: str, tmp_path: Path, **options: object) -> DeploymentPlan:
    base = DeploymentPlan(workspace=str(tmp_path / name), name=name, pool=name, schedules=SCHEDULES)
    return replace(base, **options)  # type: ignore[arg-type]  # a test's own options


def deployment(client: SyncPrefectClient, flow: str, name: str) -> DeploymentResponse:
    return client.read_deployment_by_name(f"{flow}/{name}")


def automations(client: SyncPrefectClient, name: str) -> dict[str, Automation]:
    return {one.name: one for one in client.read_automations() if one.name.startswith(name)}


def times_of(schedule: DeploymentSchedule) -> tuple[timedelta | str, str | None]:
    match schedule.schedule:
        case IntervalSchedule(interval=interval, timezone=timezone):
            return interval, timezone
        case CronSchedule(cron=cron, timezone=timezone):
            return cron, timezone
        case other:
            raise AssertionError(f"neither interval nor cron: {other}")


def snapshot(client: SyncPrefectClient, changes: tuple[Change, ...]) -> dict[str, object]:
    """Return ids, contents and times of change of all that was deployed."""
    seen: dict[str, object] = {}
    for change in changes:
        if change.kind == "deployment":
            found = client.read_deployment(change.id)
            seen[change.name] = found.model_dump(mode="json", exclude={"last_polled", "status"})
        elif change.kind == "automation":
            seen[change.name] = client.request(
                "GET", "/automations/{id}", path_params={"id": change.id}
            ).json()
        elif change.kind == "work pool":
            seen[change.name] = client.read_work_pool(change.name).updated
        elif change.kind == "work queue":
            seen[change.name] = client.read_work_queue(change.id).updated
    return seen


def by_what(changes: tuple[Change, ...]) -> Mapping[str, set[str]]:
    found: dict[str, set[str]] = {}
    for change in changes:
        found.setdefault(change.what, set()).add(change.name)
    return found


POLICY = replace(
    PRESETS["small"],
    look_every_minutes=7,
    maintenance="30 3 * * 0",
    retraining=replace(PRESETS["small"].retraining, schedule="0 6 * * 1", steps=40),
)


@pytest.fixture(scope="module")
def deployed(
    prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[DeploymentPlan, tuple[Change, ...]]:
    """Deploy a workspace by a policy; return what was asked for and what was done."""
    plan = plan_for(
        "birds",
        tmp_path_factory.mktemp("deployed"),
        schedules=Schedules.of(POLICY, "Europe/Zurich"),
        parameters=flow_parameters(POLICY),
    )
    with connected(prefect_server):
        return plan, deploy(plan)


def test_a_second_deploy_changes_nothing(
    deployed: tuple[DeploymentPlan, tuple[Change, ...]], prefect_client: SyncPrefectClient
) -> None:
    plan, first = deployed
    assert {change.what for change in first} == {"created"}
    before = snapshot(prefect_client, first)
    second = deploy(plan)
    assert {change.what for change in second} == {"unchanged"}
    assert [change.id for change in second] == [change.id for change in first]
    assert snapshot(prefect_client, second) == before
    assert len(before) == 1 + 2 + len(FLOWS) + 8


@pytest.mark.usefixtures("deployed")
def test_every_flow_has_a_form_that_explains_itself_and_runs_without_a_checkout(
    prefect_client: SyncPrefectClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for entry in FLOWS.values():
        found = deployment(prefect_client, entry.name, "birds")
        assert found.entrypoint == f"{entry.module}.{entry.function}"
        assert (found.path, found.pull_steps) == (None, [])
        assert load_flow_from_entrypoint(found.entrypoint).name == entry.name
        assert found.work_queue_name == entry.queue
        assert found.version == version("maskwheel")
        assert set(found.tags) == {"maskwheel", entry.queue}
        assert str(found.description).startswith(entry.summary)
        assert str(found.parameters["workspace"]).endswith("/birds")
        assert found.enforce_parameter_schema
        form = dict((found.parameter_openapi_schema or {})["properties"])
        assert "workspace" in form
        assert not [name for name, about in form.items() if not about.get("description")]


@pytest.mark.usefixtures("deployed")
def test_schedules_and_parameters_are_those_of_the_policy(
    prefect_client: SyncPrefectClient,
) -> None:
    def only_schedule(flow: str) -> DeploymentSchedule:
        (schedule,) = deployment(prefect_client, flow, "birds").schedules
        return schedule

    assert times_of(only_schedule("data-engine")) == (timedelta(minutes=7), "Europe/Zurich")
    for flow, cron in (
        ("fully-automatic", POLICY.automatic.nightly),
        ("retrain", "0 6 * * 1"),
        ("maintenance", "30 3 * * 0"),
    ):
        schedule = only_schedule(flow)
        assert times_of(schedule) == (cron, "Europe/Zurich")
        assert schedule.active
    assert only_schedule("retrain").parameters == {"reason": "schedule"}
    assert deployment(prefect_client, "retrain", "birds").parameters["steps"] == 40
    assert not deployment(prefect_client, "ingest", "birds").schedules


def test_a_changed_plan_updates_only_what_differs_and_in_place(
    prefect_client: SyncPrefectClient, tmp_path: Path
) -> None:
    plan = plan_for("moved", tmp_path)
    ids = {change.name: change.id for change in deploy(plan)}
    changes = deploy(
        replace(
            plan,
            schedules=replace(SCHEDULES, nightly="0 3 * * *", retraining=""),
            parameters={"retrain": {"steps": 5}},
            silence_seconds=150,
            compute_runs=2,
        )
    )
    assert {change.name: change.id for change in changes} == ids
    updated = {change.name: change.fields for change in changes if change.what == "updated"}
    assert updated == {
        "moved/compute": ("concurrency_limit",),
        "fully-automatic/moved": ("concurrency_limit", "concurrency_options", "schedules"),
        "retrain/moved": ("parameters", "concurrency_limit", "concurrency_options", "schedules"),
        "moved watch: a run without a sign of life is dead": ("description", "trigger", "actions"),
    }
    (nightly,) = deployment(prefect_client, "fully-automatic", "moved").schedules
    assert times_of(nightly) == ("0 3 * * *", "Europe/Zurich")
    assert not deployment(prefect_client, "retrain", "moved").schedules


def test_what_people_switched_off_or_added_stays_so(
    prefect_client: SyncPrefectClient, tmp_path: Path
) -> None:
    plan = plan_for("switched", tmp_path)
    deploy(plan)
    engine = deployment(prefect_client, "data-engine", "switched")
    prefect_client.pause_deployment(engine.id)
    prefect_client.update_deployment_schedule(engine.id, engine.schedules[0].id, active=False)
    name = "switched: look again when the champion changed"
    prefect_client.pause_automation(automations(prefect_client, "switched")[name].id)
    ingest = deployment(prefect_client, "ingest", "switched")
    mine = {"schedule": {"cron": "0 9 * * *", "timezone": "UTC"}, "slug": "mine"}
    prefect_client.request(
        "POST", "/deployments/{id}/schedules", path_params={"id": ingest.id}, json=[mine]
    )

    deploy(
        replace(plan, schedules=replace(SCHEDULES, look_every=timedelta(minutes=3)), pool="other")
    )

    engine = deployment(prefect_client, "data-engine", "switched")
    assert engine.paused
    assert not engine.schedules[0].active
    assert times_of(engine.schedules[0]) == (timedelta(minutes=3), "Europe/Zurich")
    assert engine.work_pool_name == "other"
    assert not automations(prefect_client, "switched")[name].enabled
    (schedule,) = deployment(prefect_client, "ingest", "switched").schedules
    assert schedule.slug == "mine"


def test_only_what_we_made_is_removed(prefect_client: SyncPrefectClient, tmp_path: Path) -> None:
    plan = plan_for("tidy", tmp_path)
    deploy(plan)
    flow_id = prefect_client.create_flow_from_name("flow-of-an-old-version")
    prefect_client.create_deployment(flow_id, "tidy", tags=["maskwheel"])
    other_flow = prefect_client.create_flow_from_name("flow-of-somebody-else")
    prefect_client.create_deployment(other_flow, "tidy")
    wanted = automations(prefect_client, "tidy")
    double = next(iter(wanted.values()))
    old = _automation("tidy: what an old version made", ["maskwheel"])
    foreign = _automation("tidy: what somebody else made", [])
    neighbour = _automation("tidy2: of another workspace", ["maskwheel"])
    for automation in (double, old, foreign, neighbour):
        prefect_client.create_automation(AutomationCore(**dict(automation)))

    changes = by_what(deploy(plan))

    assert changes["removed"] == {"flow-of-an-old-version/tidy", double.name, old.name}
    assert "updated" not in changes
    names = [one.name for one in prefect_client.read_automations() if one.name.startswith("tidy")]
    assert sorted(names) == sorted([*wanted, foreign.name, neighbour.name])
    assert deployment(prefect_client, "flow-of-somebody-else", "tidy").flow_id == other_flow


def _automation(name: str, tags: list[str]) -> AutomationCore:
    return AutomationCore(
        name=name,
        tags=tags,
        trigger=EventTrigger(
            expect={"never"},
            match=ResourceSpecification({"prefect.resource.id": "nothing"}),
            posture=Posture.Reactive,
        ),
        actions=[DoNothing()],
    )


def test_a_dry_run_tells_and_does_nothing(
    prefect_client: SyncPrefectClient, tmp_path: Path
) -> None:
    plan = plan_for("dry", tmp_path, notify=Webhook(url="http://127.0.0.1:9/hook"))
    told = deploy(plan, dry_run=True)
    assert {(change.what, change.id) for change in told} == {("created", UUID(int=0))}
    assert not automations(prefect_client, "dry")
    assert [change.name for change in told] == [change.name for change in deploy(plan)]
    changed = replace(plan, notify=Webhook(url="http://127.0.0.1:9/other"))
    assert by_what(deploy(changed, dry_run=True))["updated"] == {"custom-webhook/dry-alerts"}
    assert set(by_what(deploy(plan))) == {"unchanged"}
    assert set(by_what(deploy(replace(plan, notify=None)))) == {"unchanged"}


def test_a_pool_of_another_kind_is_used_as_it_is(
    prefect_client: SyncPrefectClient, tmp_path: Path
) -> None:
    template: dict[str, object] = {
        "job_configuration": {"env": "{{ env }}", "gpus": "{{ gpus }}"},
        "variables": {
            "type": "object",
            "properties": {"env": {"type": "object"}, "gpus": {"type": "integer", "default": 0}},
        },
    }
    made = prefect_client.create_work_pool(
        WorkPoolCreate(name="cluster", type="kubernetes", base_job_template=template)
    )
    plan = plan_for("cluster", tmp_path, compute_job_variables={"gpus": 1}, compute_runs=3)
    deploy(plan)
    found = prefect_client.read_work_pool("cluster")
    assert (found.type, found.base_job_template) == ("kubernetes", template)
    assert found.updated == made.updated
    retrain = deployment(prefect_client, "retrain", "cluster")
    assert retrain.job_variables["gpus"] == 1
    assert "gpus" not in deployment(prefect_client, "data-engine", "cluster").job_variables
    assert set(by_what(deploy(replace(plan, compute_runs=None)))) == {"unchanged"}


def test_of_several_heavy_runs_at_once_no_two_do_the_same(
    prefect_client: SyncPrefectClient, tmp_path: Path
) -> None:
    plan = plan_for("heavy", tmp_path)
    deploy(plan)
    queue = prefect_client.read_work_queue_by_name("compute", work_pool_name="heavy")
    assert queue.concurrency_limit == 1
    assert deployment(prefect_client, "retrain", "heavy").global_concurrency_limit is None

    deploy(replace(plan, compute_runs=4))
    queue = prefect_client.read_work_queue_by_name("compute", work_pool_name="heavy")
    assert queue.concurrency_limit == 4
    for entry in FLOWS.values():
        found = deployment(prefect_client, entry.name, "heavy")
        if entry.exclusive:
            assert found.global_concurrency_limit
            assert found.global_concurrency_limit.limit == 1
            assert found.concurrency_options
            assert found.concurrency_options.collision_strategy.value == "ENQUEUE"
        else:
            assert found.global_concurrency_limit is None
    assert set(by_what(deploy(plan))) == {"unchanged"}, "the queue's limit is what people set"
    prefect_client.update_work_queue(queue.id, concurrency_limit=0)
    deploy(plan)
    queue = prefect_client.read_work_queue_by_name("compute", work_pool_name="heavy")
    assert queue.concurrency_limit == 0, "people stopped it"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "Not/a name"}, "lower-case"),
        ({"compute_runs": 0}, "at least 1"),
        ({"silence_seconds": 30}, "every 30 s"),
        ({"workspace": "gs://bucket/set"}, "gs://"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(options: dict[str, object], said: str) -> None:
    given: dict[str, object] = {"workspace": "birds", **options}
    with pytest.raises(BadInputError, match=said):
        DeploymentPlan(**given)  # type: ignore[arg-type]  # that is what it tests


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"schedules": Schedules(nightly="every night")}, "cron line"),
        ({"parameters": {"retrain": {"stepz": 4}}}, "retrain has no parameters .'stepz'"),
        ({"parameters": {"train": {"steps": 4}}}, "unknown flows .'train'"),
        ({"compute_job_variables": {"env": "A=1"}}, "expected an object"),
        ({"notify": NotificationBlock.parse("slack-webhook/team")}, "prefect block ls"),
    ],
)
def test_what_cannot_be_deployed_is_refused_before_anything_is_written(
    options: dict[str, object],
    said: str,
    prefect_client: SyncPrefectClient,
    tmp_path: Path,
) -> None:
    with pytest.raises(BadInputError, match=said):
        deploy(plan_for("never", tmp_path, **options))
    with pytest.raises(ObjectNotFound):
        prefect_client.read_work_pool("never")


@pytest.mark.parametrize(
    ("schedules", "said"),
    [({"timezone": "Zurich"}, "Europe/Zurich"), ({"look_every": timedelta(0)}, "a second or more")],
)
def test_schedules_that_cannot_be_are_refused(schedules: dict[str, object], said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        Schedules(**schedules)  # type: ignore[arg-type]  # that is what it tests


def maskwheel(
    server: PrefectServer, *arguments: str, **extra: str
) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MASKWH"))}
    return subprocess.run(
        [sys.executable, "-c", "from flows.cli import main; main()", *arguments],
        env={**environment, **server.environment(), **extra},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_says_what_it_did_and_where_to_look(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    workspace = str(tmp_path / "birds")
    arguments = ("deploy", "-w", workspace, "--name", "command", "--pool", "command")
    done = maskwheel(prefect_server, *arguments, "--policy", "small", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["name"], said["workspace"]) == ("command", workspace)
    (retrain,) = [change for change in said["changes"] if change["name"] == "retrain/command"]
    assert retrain["what"] == "created"
    assert retrain["url"] == f"{prefect_server.ui_url}/deployments/deployment/{retrain['id']}"
    again = maskwheel(prefect_server, *arguments, "--policy", "small")
    assert again.returncode == 0, again.stderr
    assert "unchanged" in again.stdout
    assert "updated" not in again.stdout
    assert "prefect worker start --pool command" in again.stdout


def test_without_a_server_the_command_says_how_to_get_one(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    home = str(tmp_path / "home")
    environment = {"PREFECT_HOME": home, "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    done = maskwheel(prefect_server, "deploy", "--wait", "0", **environment)
    assert done.returncode == 1
    assert "http://127.0.0.1:9/api does not answer" in done.stderr
    assert "maskwheel up" in done.stderr
