"""The wheel turns by itself: real events and a schedule start runs, which a real worker executes.

One server, one worker, one tiny workspace with people's masks. Each test tells what the engine
announces, through the same function that the flows hand to it, and looks for the run that it
starts.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowFilter,
    FlowFilterName,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.events.actions import RunDeployment
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter
from prefect.events.schemas.automations import AutomationCore

from engine.announcements import (
    Announcement,
    AuditFailed,
    CampaignCompleted,
    ModelPromoted,
    ReleasePublished,
)
from engine.dataset.catalog import Workspace
from engine.learning.decision_log import read_log
from engine.learning.retrainings import list_retrainings
from engine.records import Release
from engine.wheel.flow_parameters import flow_parameters
from engine.wheel.policy import POLICY_FILE, PRESETS, policy_text
from flows.deployments import DeploymentPlan, Schedules, Webhook, deploy
from flows.deployments.plan import HEARTBEAT_SECONDS
from flows.events import announce
from tests.learning.wheel_builders import (
    add_photos,
    publish_masks,
    true_discs,
    with_tiny_champion,
)
from tests.orchestration.conftest import connected, wait_for
from tests.orchestration.fleet import Fleet
from tests.prefect_server import PrefectServer

NAME = "triggers"
STEPS, HOLD_OUT = 3, 3
POLICY = replace(
    PRESETS["small"],
    retraining=replace(
        PRESETS["small"].retraining, min_new_masks=1, steps=STEPS, hold_out=HOLD_OUT
    ),
)


class Inbox:
    """A webhook that keeps what it is sent."""

    def __init__(self) -> None:
        self.posts: list[str] = []
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                inbox.posts.append(json.loads(body)["text"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/alerts?key=secret"

    def __enter__(self) -> Inbox:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@dataclass(frozen=True, slots=True)
class Wheel:
    """What is deployed, with a worker at it.

    Attributes:
        plan: that was deployed.
        release: with people's masks, newest of the workspace.
        inbox: where alerts are sent.
        fleet: the worker's.
    """

    plan: DeploymentPlan
    release: Release
    inbox: Inbox
    fleet: Fleet

    @property
    def workspace(self) -> str:
        return self.plan.workspace


@pytest.fixture(scope="module")
def wheel(
    prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Wheel]:
    """Deploy a workspace, and start a worker."""
    folder = tmp_path_factory.mktemp("triggers")
    with Workspace.open(folder / "birds") as workspace:
        add_photos(workspace, folder / "photos", 14)
        with_tiny_champion(workspace, folder)
        workspace.store.put_if_absent(POLICY_FILE, policy_text(POLICY).encode())
        release = publish_masks(workspace, true_discs, stage="manual")
    small = {"steps": STEPS, "hold_out": HOLD_OUT, "images_per_batch": 1}
    with Inbox() as inbox, connected(prefect_server):
        parameters = flow_parameters(POLICY)
        plan = DeploymentPlan(
            workspace=str(folder / "birds"),
            name=NAME,
            pool=NAME,
            schedules=Schedules(look_every=timedelta(seconds=20)),
            parameters={
                **parameters,
                "retrain": {**parameters["retrain"], **small},
                "data-engine": {"dry_run": True},
            },
            notify=Webhook(url=inbox.url),
        )
        deploy(plan)
        with Fleet(prefect_server, plan.workspace, name=NAME, folder=folder) as fleet:
            fleet.start_worker()
            yield Wheel(plan, release, inbox, fleet)


def runs_of(client: SyncPrefectClient, flow: str, **parameters: object) -> list[FlowRun]:
    """Return the runs of a deployment that have these parameters."""
    found = client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])),
        deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=[NAME])),
        limit=200,
    )
    return [run for run in found if parameters.items() <= run.parameters.items()]


def the_run_of(client: SyncPrefectClient, flow: str, **parameters: object) -> FlowRun:
    """Wait for the one run of a flow with these parameters."""
    (run,) = wait_for(
        lambda: runs_of(client, flow, **parameters), f"a run of {flow} with {parameters}"
    )
    return run


def ended(client: SyncPrefectClient, run: FlowRun) -> FlowRun:
    """Wait until a run came to rest."""

    def at_rest() -> FlowRun | None:
        now = client.read_flow_run(run.id)
        return now if now.state is not None and now.state.is_final() else None

    return wait_for(at_rest, f"run {run.name} to end", seconds=180)


def log_of(client: SyncPrefectClient, run: FlowRun) -> str:
    of_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
    return "\n".join(log.message for log in client.read_logs(of_run, limit=200))


def tell(*news: Announcement) -> None:
    """Announce, as the engine does, one after the other."""
    for announcement in news:
        announce(announcement)
        for thread in threading.enumerate():
            if thread.name == "announcement":  # it goes on behind the work's back
                thread.join(60)


def test_the_schedule_makes_the_engine_look(
    wheel: Wheel, prefect_client: SyncPrefectClient
) -> None:
    def look_that_ended() -> FlowRun | None:
        looks = [run for run in runs_of(prefect_client, "data-engine") if run.auto_scheduled]
        return next((run for run in looks if run.state and run.state.is_final()), None)

    look = wait_for(look_that_ended, "a look by schedule", seconds=180)
    assert look.state_name == "Completed", log_of(prefect_client, look)
    assert look.parameters["workspace"] == wheel.workspace
    # One look is enough: the others would only take the machine's time from the other tests.
    engine = prefect_client.read_deployment_by_name(f"data-engine/{NAME}")
    prefect_client.update_deployment_schedule(engine.id, engine.schedules[0].id, active=False)


def test_a_release_with_enough_new_masks_is_trained_on_and_so_is_one_below_the_bar(
    wheel: Wheel, prefect_client: SyncPrefectClient
) -> None:
    tell(ReleasePublished(workspace=wheel.workspace, release=wheel.release))
    run = the_run_of(prefect_client, "retrain", reason="new human masks")
    assert run.parameters == {
        "workspace": wheel.workspace,
        "release": wheel.release.name,
        "reason": "new human masks",
        "recipe": "finetune",
        "init": "champion",
        "steps": STEPS,
        "hold_out": HOLD_OUT,
        "promote": True,
        "images_per_batch": 1,
    }
    assert isinstance(run.parameters["steps"], int)
    done = ended(prefect_client, run)
    assert done.state_name == "Completed", log_of(prefect_client, run)
    with Workspace.open(wheel.workspace, create=False) as workspace:
        (retraining,) = list_retrainings(workspace.store)
    assert (retraining.release, retraining.steps) == (wheel.release.name, STEPS)
    assert retraining.version is not None
    # Now no mask is new, so the same release makes nothing due; an audit below the bar does.
    tell(
        ReleasePublished(workspace=wheel.workspace, release=wheel.release),
        AuditFailed(
            workspace=wheel.workspace,
            release=wheel.release.name,
            model="m1",
            reason="the mean IoU is .71 on 30 pairs",
            figure=0.71,
            bar=0.75,
        ),
    )
    run = the_run_of(prefect_client, "retrain", reason="audit")
    assert run.parameters["steps"] == STEPS
    assert "release" not in run.parameters, "the newest"
    assert len(runs_of(prefect_client, "retrain", reason="new human masks")) == 1


def test_a_completed_campaign_of_this_workspace_is_published(
    wheel: Wheel, prefect_client: SyncPrefectClient
) -> None:
    tell(
        completed(f"{wheel.workspace}-2", "of-others"),
        completed(str(Path(wheel.workspace).parent), "of-others"),
        completed(wheel.workspace, "manual-1"),
    )
    run = the_run_of(prefect_client, "publish-annotations", campaign="manual-1")
    assert run.parameters == {"workspace": wheel.workspace, "campaign": "manual-1"}
    assert not runs_of(prefect_client, "publish-annotations", campaign="of-others")


def completed(workspace: str, campaign: str) -> CampaignCompleted:
    return CampaignCompleted(
        workspace=workspace,
        campaign=campaign,
        campaign_id=f"id-of-{campaign}",
        stage="manual",
        images=6,
        masks=60,
    )


def test_the_engine_looks_again_when_the_champion_changed(
    wheel: Wheel, prefect_client: SyncPrefectClient
) -> None:
    with Workspace.open(wheel.workspace, create=False) as workspace:
        decision = read_log(workspace.store).decisions[0]
    before = {run.id for run in triggered_looks(prefect_client)}
    tell(ModelPromoted(workspace=wheel.workspace, decision=decision))
    wait_for(
        lambda: [run for run in triggered_looks(prefect_client) if run.id not in before],
        "a look of the data engine",
    )


def triggered_looks(client: SyncPrefectClient) -> list[FlowRun]:
    return [run for run in runs_of(client, "data-engine") if not run.auto_scheduled]


def test_a_trigger_that_cannot_start_its_run_gives_an_alert(
    wheel: Wheel, prefect_client: SyncPrefectClient
) -> None:
    name = f"{NAME}: publish a completed campaign"
    (automation,) = prefect_client.read_automations_by_name(name)
    (action,) = automation.actions
    assert isinstance(action, RunDeployment)
    edited = action.model_copy(update={"parameters": {"campaign": ["not", "a", "name"]}})
    values = {**automation.model_dump(exclude={"id", "owner_resource"}), "actions": [edited]}
    prefect_client.update_automation(automation.id, AutomationCore(**values))
    tell(completed(wheel.workspace, "never-published"))

    run = the_run_of(prefect_client, "alert", title=f"Not started: {name}")
    assert "Validation error" in run.parameters["message"]
    assert run.parameters["details"]["action_index"] == 0, "a number is a number"
    done = ended(prefect_client, run)
    assert (done.state_type, done.state_name) == (StateType.FAILED, "Alert")
    message = str(run.parameters["message"])
    wait_for(lambda: message in log_of(prefect_client, run), "the reason in the run's log")
    (post,) = wait_for(
        lambda: [post for post in wheel.inbox.posts if name in post], "a post to the webhook"
    )
    assert post.startswith(f"Maskwheel: Not started: {name}\n")
    assert message in post
    blocks = json.dumps(prefect_client.request("POST", "/block_documents/filter", json={}).json())
    assert "key=secret" not in blocks, "the webhook's address is a secret"
    updated = {change.name for change in deploy(wheel.plan) if change.what == "updated"}
    assert updated == {name}, "the next deploy repairs it"


@pytest.mark.slow
def test_a_run_that_fails_gives_one_alert_an_hour(
    wheel: Wheel, prefect_client: SyncPrefectClient
) -> None:
    tell(completed(wheel.workspace, "unknown-1"), completed(wheel.workspace, "unknown-2"))
    for campaign in ("unknown-1", "unknown-2"):
        run = the_run_of(prefect_client, "publish-annotations", campaign=campaign)
        assert ended(prefect_client, run).state_name == "Failed"
    titles = wait_for(
        lambda: [
            run.parameters["title"]
            for run in runs_of(prefect_client, "alert")
            if run.parameters["title"].startswith("Failed: ")
        ],
        "an alert",
    )
    assert len(titles) == 1
    wait_for(lambda: [post for post in wheel.inbox.posts if titles[0] in post], "a post")


@pytest.mark.slow
def test_a_run_whose_machine_died_is_marked_as_crashed(
    prefect_server: PrefectServer, prefect_client: SyncPrefectClient, tmp_path: Path
) -> None:
    plan = DeploymentPlan(
        workspace=str(tmp_path / "birds"),
        name="silent",
        pool="silent",
        schedules=Schedules(look_every=None, maintenance=""),
        silence_seconds=HEARTBEAT_SECONDS + 1,
    )
    with Workspace.open(plan.workspace) as workspace:
        add_photos(workspace, tmp_path / "photos", 40)
    deploy(plan)
    with Fleet(prefect_server, plan.workspace, name="silent", folder=tmp_path) as fleet:
        worker = fleet.start_worker()
        run = fleet.begin("fully-automatic")
        wait_for(lambda: was_heard_of(prefect_client, run), "a sign of life", seconds=180)
        fleet.kill_machine(worker)
        fleet.wait_for(run, "CRASHED", seconds=plan.silence_seconds + 60)
    state = prefect_client.read_flow_run(UUID(run)).state
    assert state is not None
    assert f"No sign of life for {plan.silence_seconds} s" in str(state.message)
    assert state.name == "Crashed"


def was_heard_of(client: SyncPrefectClient, run: str) -> bool:
    """Return whether the server has a heartbeat of a run."""
    beats = client.read_events(
        EventFilter(
            event=EventNameFilter(name=["prefect.flow-run.heartbeat"]),
            resource=EventResourceFilter(id=[f"prefect.flow-run.{run}"]),
        ),
        limit=1,
    )
    return bool(beats.events)
