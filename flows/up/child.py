"""A module run as a part of `maskwheel up`: it ends with its parent, and its log stays small.

    python -m flows.up.child MARK worker logs/worker.log prefect worker start --pool birds

Its standard input is a pipe that the parent never writes to. When the parent closes it, or is
killed, the part ends in order; so no part is left behind that holds a port, on any system. A worker
is more careful here than Prefect's own, which kills its flow runs and leaves them "Running": the
runs are told first, and can say that they were ended.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Literal

from flows.up.processes import end_processes, flow_run_processes, marked

__all__ = ["RUN_SECONDS", "Kind", "main", "rotate"]

Kind = Literal["server", "service", "worker"]

RUN_SECONDS = 20.0
"""How long a flow run has to end: its tasks finish the shard that they are at, if they can."""

_STOP_SECONDS = 15.0
_LOG_BYTES, _OLD_LOGS = 10_000_000, 3
_LOOK_SECONDS = 30.0


def main() -> None:
    """Run the module that the command line names, on a leash."""
    mark, kind, log, module, *arguments = sys.argv[1:]
    for work in (lambda: _end_with_parent(mark, kind), lambda: _look_after(Path(log))):
        threading.Thread(target=work, daemon=True).start()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_with_parent(mark: str, kind: str) -> None:
    while os.read(0, 4096):
        pass
    if kind == "worker":
        end_processes(list(flow_run_processes(marked(mark)).values()), RUN_SECONDS)
    elif kind == "server":
        _wait_for_others(mark)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_STOP_SECONDS)
    os._exit(1)


def _wait_for_others(mark: str) -> None:
    """Let the others tell the server how they ended; in an orderly stop they are gone already."""
    deadline = time.monotonic() + RUN_SECONDS + _STOP_SECONDS
    while time.monotonic() < deadline and any(one.pid != os.getpid() for one in marked(mark)):
        time.sleep(0.5)


def _look_after(log: Path) -> None:
    while True:
        time.sleep(_LOOK_SECONDS)
        if log.exists() and log.stat().st_size > _LOG_BYTES:
            rotate(log)


def rotate(log: Path) -> None:
    """Let this process, which writes its output to a log, go on with an empty one.

    The file is renamed while it is written to, and the output turned to a new one in one step: no
    line is lost. Earlier ones are called ``.1``, ``.2``, ``.3``.
    """
    for number in range(_OLD_LOGS, 1, -1):
        older = log.with_name(f"{log.name}.{number - 1}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number}"))
    log.replace(log.with_name(f"{log.name}.1"))
    fresh = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(fresh, 1)
    os.dup2(fresh, 2)
    os.close(fresh)


if __name__ == "__main__":
    main()
