"""Ending an `up` from another process.

stopped = stop_up("birds", now=False)
"""

from __future__ import annotations

import time

from engine.dataset.workspace_record import WorkspaceRecord, claim_workspace, is_workspace
from engine.errors import EngineError
from flows.up.child import RUN_SECONDS
from flows.up.processes import ask_to_end, end_processes, is_running, marked
from flows.up.state_file import is_up, read_state

__all__ = ["stop_up"]

_PATIENCE_SECONDS = RUN_SECONDS + 70.0
_LEFTOVER_SECONDS = RUN_SECONDS
_TICK_SECONDS = 0.1


def stop_up(address: str, *, now: bool) -> tuple[str, ...]:
    """Stop what runs for a workspace on this machine, and wait until it has ended.

    Args:
        address: of the workspace.
        now: at once, without waiting for flow runs.

    Returns:
        Names of the parts that were stopped; none: nothing ran.

    Raises:
        EngineError: it cannot be stopped.
    """
    if not is_workspace(address):
        return ()
    record = claim_workspace(address, create=False)
    stopped = _stop_supervisor(record, now=now) if is_up(record.local_folder) else ()
    left = marked(record.workspace_id)
    ended = end_processes(left, 0.0 if now else _LEFTOVER_SECONDS)
    return (*stopped, *([f"{ended} processes that a killed `up` had left"] if ended else []))


def _stop_supervisor(record: WorkspaceRecord, *, now: bool) -> tuple[str, ...]:
    state = read_state(record.local_folder)
    if state is None or not is_running(state.supervisor):
        raise EngineError(
            f"{record.store.address} is up, but does not say as which process; end it with Ctrl-C "
            "where it was started"
        )
    ask_to_end(state.supervisor)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while is_running(state.supervisor) and is_up(record.local_folder):
        if time.monotonic() > deadline:
            raise EngineError(
                f"process {state.supervisor.pid} does not stop; `maskwheel down --now` ends its "
                "parts at once"
            )
        time.sleep(_TICK_SECONDS)
        if now:
            ask_to_end(state.supervisor)  # asked twice, it does not wait for anybody
    return tuple(part.name for part in state.parts)
