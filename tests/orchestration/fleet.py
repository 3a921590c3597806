"""A workspace with its deployments, and workers that can be killed: for tests with real processes.

with Fleet(server, workspace, name="birds", folder=tmp_path, environment={...}) as fleet:
    fleet.deploy()
    worker = fleet.start_worker()
    run = fleet.begin("fully-automatic", photos=["photos/"])
    fleet.flow_process(run).kill()
    fleet.wait_for(run, "CRASHED", seconds=180)
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import psutil

from tests.prefect_server import PrefectServer

__all__ = ["Fleet"]

T = TypeVar("T")

_COMMAND = [sys.executable, "-m", "flows.cli"]
_AT_REST = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})


class Fleet:
    """What runs for one workspace; ends with the block, whatever was killed in it.

    Attributes:
        server: the Prefect server that it is deployed to.
        name: of its deployments and of its work pool.
        environment: of all its processes.
    """

    def __init__(
        self,
        server: PrefectServer,
        workspace: str | Path,
        *,
        name: str,
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.server = server
        self.name = name
        self._workspace = str(workspace)
        self._folder = folder
        self._workers: list[subprocess.Popen[bytes]] = []
        ours = ("PREFECT", "MASKWHEEL")
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        self.environment |= {**server.environment(), "OMP_NUM_THREADS": "1", **(environment or {})}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            _kill_group(worker)
        for process in self._flow_processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def command(self, *arguments: str) -> str:
        """Run `maskwheel` to its end; return what it printed."""
        done = subprocess.run(
            [*_COMMAND, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def deploy(self) -> None:
        """Deploy the workspace."""
        names = ("--name", self.name, "--pool", self.name)
        self.command("deploy", "-w", self._workspace, *names)

    def start_worker(self) -> subprocess.Popen[bytes]:
        """Start a worker in a process group of its own, with what it starts."""
        log = (self._folder / f"worker-{len(self._workers)}.log").open("wb")
        with log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "prefect", "worker", "start", "--pool", self.name],
                env=self.environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._workers.append(worker)
        return worker

    def kill_machine(self, worker: subprocess.Popen[bytes]) -> None:
        """Kill a worker and all that it started, as when its machine loses power."""
        for process in self._flow_processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        _kill_group(worker)

    def begin(self, flow: str, **parameters: object) -> str:
        """Ask for a run of a deployment; return its id."""
        deployment = self.get(f"deployments/name/{flow}/{self.name}")
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        run: str = self.post(f"deployments/{deployment['id']}/create_flow_run", body)["id"]
        return run

    def flow_process(self, run: str) -> psutil.Process:
        """Return the process that executes a run."""
        found = self.wait(
            lambda: next((p for p in self._flow_processes() if _run_of(p) == run), None),
            f"a process of run {run}",
            seconds=120,
        )
        return found

    def state(self, run: str) -> str:
        """Return the type of a run's state."""
        state: str = self.get(f"flow_runs/{run}")["state"]["type"]
        return state

    def wait_for(self, run: str, *states: str, seconds: float) -> str:
        """Wait until a run is in one of the states; return which.

        Raises:
            AssertionError: it came to rest in another one.
            TimeoutError: it took longer.
        """

        def reached() -> str | None:
            with suppress(httpx.TransportError):
                state = self.state(run)
                assert state in states or state not in _AT_REST, self.story(run)
                return state if state in states else None
            return None

        return self.wait(reached, f"run {run} to be {' or '.join(states)}", seconds=seconds)

    def task_runs(self, run: str, prefix: str) -> list[str]:
        """Return the names of a run's task runs that begin so."""
        query = {"flow_runs": {"id": {"any_": [run]}}, "limit": 200}
        tasks: list[dict[str, Any]] = self.post("task_runs/filter", query)
        return sorted(task["name"] for task in tasks if task["name"].startswith(prefix))

    def story(self, run: str) -> str:
        """Return a run's state and the end of its log, for messages."""
        query = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_DESC", "limit": 40}
        logs: list[dict[str, Any]] = self.post("logs/filter", query)
        lines = [line["message"] for line in reversed(logs)]
        return "\n".join([str(self.get(f"flow_runs/{run}")["state"]), *lines])

    def wait(self, look: Callable[[], T | None], what: str, *, seconds: float) -> T:
        """Look again and again until there is something.

        Raises:
            TimeoutError: there was nothing for so long.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if (found := look()) is not None:
                return found
            time.sleep(0.1)
        raise TimeoutError(f"waited {seconds:.0f} s for {what}")

    def get(self, path: str) -> Any:
        """Ask the server."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: Mapping[str, object]) -> Any:
        """Tell or ask the server."""
        return self._ask("POST", path, dict(body))

    def _ask(self, method: str, path: str, body: dict[str, object] | None) -> Any:
        """Ask again while the server is busy, as Prefect's client does."""

        def answer() -> httpx.Response | None:
            found = httpx.request(method, f"{self.server.api_url}/{path}", json=body, timeout=60)
            return None if found.status_code == httpx.codes.SERVICE_UNAVAILABLE else found

        found = self.wait(answer, f"an answer to {method} {path}", seconds=60)
        return found.raise_for_status().json()

    def _flow_processes(self) -> list[psutil.Process]:
        """Return the processes that execute runs of this server, orphans too."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                environment = process.environ()
                ours = environment.get("PREFECT_API_URL") == self.server.api_url
                if ours and _run_of(process) is not None:
                    found.append(process)
        return found


def _run_of(process: psutil.Process) -> str | None:
    with suppress(psutil.Error):
        run: str | None = process.environ().get("PREFECT__FLOW_RUN_ID")
        return run
    return None


def _kill_group(worker: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, 9)
    worker.wait(30)
