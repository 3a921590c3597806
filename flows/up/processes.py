"""The processes of one `maskwheel up`, told from all others.

    with mark in the environment of a child: MASKWHEEL_UP=<workspace id>
    end_processes(marked(workspace_id), seconds=10)

A process id alone says little: the system gives it to somebody else once the process has ended. So
whatever `up` starts carries a mark in its environment, which its own children inherit: after a
power cut or a ``kill -9`` exactly those are found again, and nobody else's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import psutil

from engine.errors import EngineError

__all__ = [
    "MARK",
    "ProcessId",
    "ask_to_end",
    "end_processes",
    "flow_run_processes",
    "is_running",
    "marked",
    "process_id",
]

MARK = "MASKWHEEL_UP"
_FLOW_RUN = "PREFECT__FLOW_RUN_ID"
# The system's clock may be set while a process runs, and its start is told by that clock.
_CLOCK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process for good: ids are used again, an id and a start together are not.

    Attributes:
        pid: its number.
        created: when it started, seconds since 1970.
    """

    pid: int
    created: float


def process_id(pid: int | None = None) -> ProcessId | None:
    """Return a running process, by default this one; None: it has ended."""
    try:
        process = psutil.Process(pid)
        return ProcessId(process.pid, process.create_time())
    except psutil.NoSuchProcess:
        return None


def is_running(process: ProcessId) -> bool:
    """Return whether a process still runs, itself and not another one with its number."""
    try:
        found = psutil.Process(process.pid)
        is_same = abs(float(found.create_time()) - process.created) <= _CLOCK_SECONDS
        return is_same and str(found.status()) != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def marked(mark: str) -> list[psutil.Process]:
    """Return the running processes that `up` started for a workspace, and those that they did."""
    return [one for one in psutil.process_iter() if _variable(one, MARK) == mark]


def flow_run_processes(processes: Iterable[psutil.Process]) -> dict[str, psutil.Process]:
    """Return the processes that flow runs are in, by the id of the run.

    What a run started itself (loaders, pools) is its own business and not among them.
    """
    ids = {one.pid: run for one in processes if (run := _variable(one, _FLOW_RUN))}
    found = {}
    for one in processes:
        run = ids.get(one.pid)
        if run is not None and ids.get(_parent(one) or 0) != run:
            found[run] = one
    return found


def end_processes(processes: Collection[psutil.Process], seconds: float) -> int:
    """Ask processes to end, and end those that have not after some seconds; return how many."""
    for one in processes:
        _signal(one, gently=True)
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    for one in alive:
        _signal(one, gently=False)
    psutil.wait_procs(alive, timeout=seconds)
    return len(processes)


def ask_to_end(process: ProcessId) -> None:
    """Ask a process to end in order, if it runs.

    Raises:
        EngineError: it is another user's.
    """
    try:
        if is_running(process):
            psutil.Process(process.pid).terminate()
    except psutil.NoSuchProcess:
        return
    except psutil.AccessDenied as error:
        raise EngineError(f"process {process.pid} is another user's: {error}") from error


def _signal(process: psutil.Process, *, gently: bool) -> None:
    # psutil compares the start of the process first: one that has its number now is left alone.
    try:
        process.terminate() if gently else process.kill()
    except psutil.NoSuchProcess:
        return


def _parent(process: psutil.Process) -> int | None:
    try:
        return int(process.ppid())
    except psutil.NoSuchProcess:
        return None


def _variable(process: psutil.Process, name: str) -> str | None:
    """Return a variable of a process's environment; None: it has none, or is somebody else's."""
    try:
        found = process.as_dict(["environ"])["environ"]
    except psutil.NoSuchProcess:
        return None
    return dict(found or {}).get(name)
