"""`maskwheel up` as a newcomer runs it: one command, links that work, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from engine.annotation.embeddings import embedding_key
from engine.annotation.opening import CampaignRequest, open_or_continue, open_workspace_database
from engine.config import current_time
from engine.dataset.catalog import Workspace
from engine.dataset.inputs import expand_inputs
from engine.images import ImageLimits, encode_png
from flows.up.processes import marked
from flows.up.state_file import is_up, read_state
from tests.annotation.service import UNSAFE, scene
from tests.prefect_server import QUIET

T = TypeVar("T")

_PATIENCE_SECONDS = 300
_COMMAND = (sys.executable, "-m", "flows.cli")


class UpRun:
    """`maskwheel up` in a process of its own, with a PREFECT_HOME of its own.

    Attributes:
        said: its line of JSON.
        process: of the supervisor.
    """

    def __init__(self, workspace: Path, home: Path) -> None:
        self.workspace = workspace
        self.said: dict[str, Any] = {}
        ours = ("PREFECT", "MASKWHEEL")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        self._environment = {**inherited, **QUIET, "PREFECT_HOME": str(home)}
        self._environment["OMP_NUM_THREADS"] = "1"
        self.messages = home.with_name(f"{workspace.name}.txt")

    def start(self, *arguments: str) -> None:
        """Start it, and wait for its links."""
        self._forget()
        with self.messages.open("a") as errors:
            self.process = subprocess.Popen(
                [*_COMMAND, "up", "--json", "-w", str(self.workspace), *arguments],
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.messages.read_text()
        self.said = json.loads(line)

    def run(self, *arguments: str) -> str:
        """Run another command on the workspace."""
        done = subprocess.run(
            [*_COMMAND, *arguments, "-w", str(self.workspace)],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def part(self, name: str) -> Any:
        """Return a part as the state file has it."""
        state = read_state(self.workspace)
        assert state is not None
        return next((part for part in state.parts if part.name == name), None)

    def processes(self) -> list[int]:
        """Return what `up` has started."""
        state = read_state(self.workspace)
        return [] if state is None else [one.pid for one in marked(state.workspace_id)]

    def end(self) -> None:
        """End everything, however the test went."""
        if hasattr(self, "process"):
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self._forget()
        self.run("down", "--now")

    def _forget(self) -> None:
        """Wait for the end of the process that was started last."""
        if hasattr(self, "process"):
            self.process.wait(60)
            if self.process.stdout is not None:
                self.process.stdout.close()


def wait_for(ask: Callable[[], T | None]) -> T:
    """Ask until there is an answer that is true."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not (answer := ask()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)
    return answer


@contextmanager
def signed_in(said: dict[str, Any]) -> Iterator[httpx.Client]:
    token = said["admin_link"].partition("#token=")[2]
    with httpx.Client(base_url=said["annotation"], headers=UNSAFE, timeout=60) as client:
        assert client.post("/api/session", json={"token": token}).status_code == 200
        yield client


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpRun]:
    folder = tmp_path_factory.mktemp("up")
    run = UpRun(folder / "birds", folder / "prefect")
    try:
        run.start("--port", "0", "--prefect-port", "0")
        yield run
    finally:
        run.end()


def test_the_links_lead_to_the_dashboard_and_sign_in_to_an_empty_workspace(up: UpRun) -> None:
    said = up.said
    assert httpx.get(f"{said['prefect_api']}/health").json() is True
    page = httpx.get(said["dashboard"], follow_redirects=True)
    assert page.status_code == 200
    assert "<title>" in page.text
    with signed_in(said) as admin:
        assert admin.get("/api/campaigns").json() == []
        assert admin.get("/").status_code == 200


def test_every_flow_is_deployed_for_the_workspace(up: UpRun) -> None:
    answer = httpx.post(f"{up.said['prefect_api']}/deployments/filter", json={}).json()
    assert {one["name"] for one in answer} == {up.said["deployment"]}
    assert {one["parameters"].get("workspace", up.said["workspace"]) for one in answer} == {
        str(up.workspace)
    }
    assert "flows.data_engine.data_engine" in {one["entrypoint"] for one in answer}


def test_a_campaign_that_another_process_opens_is_served_at_once(up: UpRun, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(encode_png(scene(1)))
    with (
        Workspace.open(up.workspace, create=False) as workspace,
        open_workspace_database(workspace) as db,
    ):
        opened = open_or_continue(
            workspace,
            db,
            CampaignRequest(name="later"),
            expand_inputs([str(photo)]),
            ImageLimits(),
            current_time(),
        ).campaign
        with signed_in(up.said) as admin:
            assert [one["name"] for one in admin.get("/api/campaigns").json()] == ["later"]
            lease = admin.post(f"/api/campaigns/{opened.campaign_id}/next").json()
            assert admin.get(lease["task"]["decoder"]).json()["model_id"] == opened.model_id
        image_id = int(lease["task"]["image"]["id"])
        key = embedding_key(opened.model_id, image_id)
        wait_for(lambda: workspace.store.exists(key))


def test_status_says_what_runs_where_and_what_comes_next(up: UpRun) -> None:
    status = json.loads(up.run("status", "--json"))
    assert status["problem"] is None
    assert status["up"]["is_ready"] is True
    assert {part["name"] for part in status["up"]["parts"]} == {
        *("annotation", "prefect-server", "worker-1")
    }
    assert status["links"]["annotation"] == up.said["admin_link"]
    assert status["data"]["images"] == 1
    assert [one["campaign"]["name"] for one in status["data"]["campaigns"]] == ["later"]
    flows = {one["flow"] for one in status["server"]["deployments"]}
    assert {"data-engine", "retrain", "fully-automatic"} <= flows
    text = up.run("status")
    assert up.said["dashboard"] in text
    assert "0 of 1" in text  # tasks of the campaign


def test_a_second_one_says_that_it_is_up_with_the_same_links(up: UpRun) -> None:
    assert json.loads(up.run("up", "--json")) == up.said


def test_a_part_that_is_killed_comes_back_at_the_same_address(up: UpRun) -> None:
    before = up.part("annotation")
    os.kill(before.process.pid, signal.SIGKILL)
    wait_for(lambda: up.part("annotation").restarts == 1)
    health = f"{up.said['annotation']}/api/health"

    def is_healthy() -> bool:
        try:
            return httpx.get(health).json()["status"] in ("ok", "degraded")
        except httpx.HTTPError:
            return False

    wait_for(is_healthy)
    with signed_in(up.said) as admin:
        assert admin.get("/api/campaigns").status_code == 200
    assert "annotation was killed by signal 9; it is started again" in up.messages.read_text()


def test_down_leaves_no_process(up: UpRun) -> None:
    assert len(up.processes()) >= 3
    answer = json.loads(up.run("down", "--json"))
    assert {"annotation", "prefect-server", "worker-1"} <= set(answer["stopped"])
    assert up.process.wait(60) == 0
    assert up.processes() == []
    assert not is_up(up.workspace)
    assert "nothing runs" in up.run("down")


@pytest.mark.slow
def test_a_killed_supervisor_leaves_nothing_in_the_way_and_the_next_up_has_the_same_state(
    up: UpRun,
) -> None:
    before = up.said
    up.run("down")
    up.start()
    same = ("dashboard", "annotation", "admin_link", "deployment", "workspace")
    assert {name: up.said[name] for name in same} == {name: before[name] for name in same}
    up.process.kill()
    up.process.wait(60)
    up.start()  # at once: what is left of the killed one is ended first
    assert {name: up.said[name] for name in same} == {name: before[name] for name in same}
    deployed = httpx.post(f"{up.said['prefect_api']}/deployments/filter", json={}).json()
    assert {one["name"] for one in deployed} == {before["deployment"]}
    os.kill(up.process.pid, signal.SIGINT)
    assert up.process.wait(_PATIENCE_SECONDS) == 0, up.messages.read_text()
    assert up.processes() == []


@pytest.mark.slow
def test_two_workspaces_share_a_server_which_one_of_them_takes_over(
    tmp_path: Path,
) -> None:
    first, second = (UpRun(tmp_path / name, tmp_path / "prefect") for name in ("birds", "cats"))
    try:
        first.start("--port", "0", "--prefect-port", "0", "--no-worker")
        second.start("--port", "0", "--no-worker", "--no-annotate")
        assert second.said["server"] == "shared"
        assert second.said["dashboard"] == first.said["dashboard"]
        assert second.said["deployment"] != first.said["deployment"]
        first.run("down")
        wait_for(lambda: second.part("prefect-server"))
        health = f"{second.said['prefect_api']}/health"

        def answers() -> bool:
            try:
                return httpx.get(health).is_success
            except httpx.HTTPError:
                return False

        wait_for(answers)
        assert "is run from here now" in second.messages.read_text()
    finally:
        first.end()
        second.end()


@pytest.mark.slow
def test_a_flow_run_that_down_interrupts_is_called_stopped(tmp_path: Path) -> None:
    up = UpRun(tmp_path / "birds", tmp_path / "prefect")
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(12):
        (photos / f"{number}.png").write_bytes(encode_png(scene(number, 400, 600)))
    try:
        up.start("--port", "0", "--prefect-port", "0", "--no-annotate")
        api = up.said["prefect_api"]
        found = httpx.get(f"{api}/deployments/name/fully-automatic/{up.said['deployment']}")
        parameters = {"photos": [str(photos)], "preset": "paper"}
        run = httpx.post(
            f"{api}/deployments/{found.json()['id']}/create_flow_run",
            json={"parameters": {**found.json()["parameters"], **parameters}},
        ).json()["id"]
        wait_for(lambda: httpx.get(f"{api}/flow_runs/{run}").json()["state"]["type"] == "RUNNING")
        up.run("down")
        assert up.processes() == []
        up.start("--no-worker", "--no-annotate")
        state = httpx.get(f"{up.said['prefect_api']}/flow_runs/{run}").json()["state"]
        assert (state["type"], state["name"]) == ("CANCELLED", "Stopped")
    finally:
        up.end()
