"""One `maskwheel up`, from the first process to the last.

run_up(UpPlan(workspace="birds"), say=print, on_ready=show_links)

What does not wait for another starts with it: the annotation service, the Prefect server, and the
deployments, whose process is loaded by the time that the server answers.
"""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from engine.config import child_environment, current_time, default_environment, load_settings
from engine.dataset.workspace_record import WorkspaceRecord, claim_workspace
from engine.errors import EngineError
from flows.up.child import RUN_SECONDS
from flows.up.links import Links, links_of
from flows.up.names import deployment_name
from flows.up.parts import (
    DEFAULTS,
    SERVER_SECONDS,
    UpPlan,
    annotation_part,
    deploy_command,
    server_part,
    settings_of,
    worker_part,
)
from flows.up.ports import free_port, is_loopback, name_of_host
from flows.up.prefect_server import ServerPlace, is_healthy, prefect_home
from flows.up.processes import MARK, end_processes, flow_run_processes, marked, process_id
from flows.up.state_file import UpState, log_folder, read_state, runs_once, write_state
from flows.up.stop_signals import StopSignals
from flows.up.stopped_runs import ask_to_cancel, call_stopped
from flows.up.supervisor import Supervisor

__all__ = ["AlreadyUpError", "run_up"]

log = logging.getLogger(__name__)

_NEXT_PORTS = 20
_LEFTOVER_SECONDS = 20.0
_TICK_SECONDS, _WATCH_SECONDS = 0.2, 1.0
_LOOKS_AT_SERVER = 5
_LAST_LINES = 15


class AlreadyUpError(EngineError):
    """The workspace is served by another `maskwheel up` on this machine.

    Attributes:
        state: what that runs.
        folder: the workspace's local folder.
    """

    def __init__(self, state: UpState, folder: Path) -> None:
        super().__init__(f"{state.workspace} is up already, as process {state.supervisor.pid}")
        self.state = state
        self.folder = folder


class _StoppedError(Exception):
    """Somebody asked to stop while things were starting."""


def run_up(
    plan: UpPlan,
    *,
    say: Callable[[str], None],
    on_ready: Callable[[UpState, Links], None],
) -> None:
    """Start everything, keep it alive until a signal comes, and end it in order.

    Args:
        plan: what to start.
        say: tells a person what happens.
        on_ready: called once, when everything answers.

    Raises:
        AlreadyUpError: it runs already.
        BadInputError: a port, a workspace or a server that cannot be used.
        PartEndedError: a part ended again and again; everything else was ended.
        EngineError: the deployments could not be made.
    """
    record = claim_workspace(plan.workspace, create=True)
    default_environment(DEFAULTS)
    with ExitStack() as stack:
        if not stack.enter_context(runs_once(record.local_folder)):
            raise AlreadyUpError(_running(record), record.local_folder)
        stop = stack.enter_context(StopSignals())
        session = _Session(plan, record, stop, say)
        stack.callback(session.end)
        try:
            session.start()
            on_ready(session.state, links_of(session.state, record.local_folder))
            session.watch()
        except _StoppedError:
            pass


class _Session:
    """What runs, while it runs."""

    def __init__(
        self, plan: UpPlan, record: WorkspaceRecord, stop: StopSignals, say: Callable[[str], None]
    ) -> None:
        self._plan = plan
        self._folder = record.local_folder
        self._stop = stop
        self._say = say
        self._place: ServerPlace | None = None
        self._is_server_there = True
        self._began = time.monotonic()
        self._last_port = _port_of_last_time(read_state(self._folder))
        supervisor = process_id()
        if supervisor is None:
            raise RuntimeError("this process does not run")
        self.state = UpState(
            workspace=record.store.address,
            workspace_id=record.workspace_id,
            supervisor=supervisor,
            since=current_time(),
        )
        write_state(self._folder, self.state)
        self._end_leftovers()
        self._parts = Supervisor(
            log_folder(self._folder),
            mark=record.workspace_id,
            say=say,
            on_change=lambda: self._note(parts=self._parts.states()),
        )

    def start(self) -> None:
        """Start all parts, and return when they answer."""
        if self._plan.annotate:
            self._start_annotation()
        place = self._place = ServerPlace.find(host=self._plan.host, port=self._plan.prefect_port)
        home = None if place.kind == "configured" else prefect_home()
        name = deployment_name(home, self.state.workspace, self.state.workspace_id)
        self._note(server=place.kind, api_url=place.api_url, ui_url=place.ui_url, deployment=name)
        if place.kind == "own":
            self._warn_of_open_server(place)
            self._parts.start(server_part(place))
        else:
            self._say(f"using the Prefect server at {place.api_url}")
        with self._deploying(name, place) as deploying:
            self._wait("the Prefect server", lambda: is_healthy(place.api_url))
            self._wait("the deployments", lambda: self._is_deployed(deploying))
        for number in range(1, self._plan.workers + 1):
            self._parts.start(worker_part(number, place, name))
        if self._plan.annotate:
            self._wait("the annotation service", self._is_annotation_there)
        self._note(is_ready=True)

    def watch(self) -> None:
        """Keep everything alive until somebody asks to stop."""
        looks = 0
        while not self._stop.wait(_WATCH_SECONDS):
            self._parts.look()
            looks += 1
            if looks % _LOOKS_AT_SERVER == 0:
                self._look_at_server()

    def end(self) -> None:
        """End what was started: flow runs first, then the workers, the service, the server."""
        urgent = self._stop.urgent
        runs = tuple(flow_run_processes(marked(self.state.workspace_id)))
        if self._place is not None and runs and not urgent():
            self._say(f"stopping {len(runs)} flow runs; new ones go on where they were")
            ask_to_cancel(self._place.api_url, runs)
            self._wait_for_runs()
        self._parts.stop("worker", urgent)
        if self._place is not None and runs and not urgent():
            call_stopped(self._place.api_url, runs)
        self._parts.stop("service", urgent)
        self._parts.stop("server", urgent)
        self._parts.end_rest(0.0 if urgent() else _LEFTOVER_SECONDS)
        if self._place is not None:
            self._place.close()
        self._note(is_ready=False)

    def _wait_for_runs(self) -> None:
        """Wait until the worker has passed on that flow runs are to end, and they have."""
        deadline = time.monotonic() + RUN_SECONDS
        while flow_run_processes(marked(self.state.workspace_id)):
            if self._stop.is_urgent or time.monotonic() > deadline:
                return
            time.sleep(_TICK_SECONDS)

    def _warn_of_open_server(self, place: ServerPlace) -> None:
        if is_loopback(place.host) or "PREFECT_SERVER_API_AUTH_STRING" in child_environment():
            return
        self._say(
            "Anybody on the network can use the Prefect server now, and so start flows on this "
            "machine. Set PREFECT_SERVER_API_AUTH_STRING and PREFECT_API_AUTH_STRING to the same "
            "name:password, or leave --host out and let a proxy ask who comes."
        )

    def _start_annotation(self) -> None:
        plan, host = self._plan, self._plan.host
        if plan.port is not None:
            port = free_port(host, plan.port, next_ports=0, option="--port")
        else:
            first = self._last_port or load_settings().annotation_port
            port = free_port(host, first, next_ports=_NEXT_PORTS, option="--port")
        self._port = port
        self._parts.start(annotation_part(self.state.workspace, host, port))
        self._note(annotation_url=f"http://{name_of_host(host)}:{port}")

    def _is_annotation_there(self) -> bool:
        return is_healthy(f"http://{name_of_host(self._plan.host, local=True)}:{self._port}/api")

    @contextmanager
    def _deploying(self, name: str, place: ServerPlace) -> Iterator[subprocess.Popen[bytes]]:
        """Make the deployments in a process of its own, which ends with the block."""
        environment = {**settings_of(place), MARK: self.state.workspace_id}
        with self._deploy_log.open("wb") as out:
            process = subprocess.Popen(  # noqa: S603  (this program itself)
                deploy_command(self.state.workspace, name, self._plan),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=child_environment(fixed=environment),
                start_new_session=True,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def _is_deployed(self, process: subprocess.Popen[bytes]) -> bool:
        code = process.poll()
        if code:
            lines = self._deploy_log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
            raise EngineError("the deployments could not be made:\n  " + "\n  ".join(lines))
        return code == 0

    @property
    def _deploy_log(self) -> Path:
        return log_folder(self._folder) / "deploy.log"

    def _wait(self, what: str, is_there: Callable[[], bool]) -> None:
        """Wait for something to answer, while everything is kept alive."""
        deadline = time.monotonic() + SERVER_SECONDS
        while not is_there():
            if self._stop.wait(_TICK_SECONDS):
                raise _StoppedError
            if time.monotonic() > deadline:
                raise EngineError(
                    f"{what} did not answer within {SERVER_SECONDS} s; the logs are in "
                    f"{log_folder(self._folder)}"
                )
            self._parts.look()
        log.info("%s: there after %.1f s", what, time.monotonic() - self._began)

    def _look_at_server(self) -> None:
        """Notice when somebody else's server is gone; run it from here if that was another `up`."""
        place = self._place
        if place is None or place.kind == "own":
            return
        was_there, self._is_server_there = self._is_server_there, is_healthy(place.api_url)
        if was_there and not self._is_server_there:
            self._say(f"the Prefect server at {place.api_url} does not answer")
        elif self._is_server_there and not was_there:
            self._say(f"the Prefect server at {place.api_url} answers again")
        elif not self._is_server_there and place.kind == "shared" and place.take_over():
            self._say(f"the Prefect server at {place.api_url} is run from here now")
            self._note(server="own")
            self._parts.start(server_part(place))

    def _end_leftovers(self) -> None:
        """End what an `up` has left that was killed; exactly that, by its mark."""
        left = marked(self.state.workspace_id)
        if left:
            self._say(f"ending {len(left)} processes of an `up` that was killed")
            end_processes(left, _LEFTOVER_SECONDS)

    def _note(self, **changes: object) -> None:
        self.state = replace(self.state, **changes)  # type: ignore[arg-type]  # fields of the state
        write_state(self._folder, self.state)


def _port_of_last_time(state: UpState | None) -> int | None:
    """Return the annotation service's port of last time, so that yesterday's links still work."""
    return urlsplit(state.annotation_url).port if state and state.annotation_url else None


def _running(record: WorkspaceRecord) -> UpState:
    state = read_state(record.local_folder)
    if state is None:
        raise EngineError(
            f"{record.store.address} is up already, by another version of maskwheel; end that first"
        )
    return state
