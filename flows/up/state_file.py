"""What runs for a workspace on this machine: a file for `maskwheel status` and `down`, and a lock.

    with runs_once(folder) as is_first: ...     # one `up` per workspace and machine
    write_state(folder, state); read_state(folder)

The lock belongs to the process that runs, so that a killed one leaves none behind; the file may
outlive it, and is believed only while the lock is held.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from engine.errors import WorkspaceError
from engine.files import write_atomically
from flows.up.processes import ProcessId

__all__ = [
    "PartState",
    "ServerKind",
    "UpState",
    "held",
    "is_up",
    "log_folder",
    "read_state",
    "runs_once",
    "write_state",
]

ServerKind = Literal["own", "shared", "configured"]
"""Whose Prefect server it is: this `up`'s, another workspace's `up`, or one that the user named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartState:
    """A process that is kept alive.

    Attributes:
        name: ``prefect-server``, ``worker-1``, ``annotation``; its log is called so too.
        process: None while it waits to be started again.
        since: when its process was started.
        restarts: how often it was started again.
    """

    name: str
    process: ProcessId | None
    since: datetime
    restarts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UpState:
    """What runs.

    Attributes:
        workspace: its address.
        workspace_id: unique; the mark of the processes.
        supervisor: the process of `maskwheel up`.
        since: when that was started.
        is_ready: whether all parts answered once.
        deployment: name of the deployments and of the work pool; None: there are none.
        server: whose Prefect server it is; None before that is known.
        api_url: of the Prefect server.
        ui_url: of its pages.
        annotation_url: of the annotation service; None: without one.
        parts: the processes.
    """

    workspace: str
    workspace_id: str
    supervisor: ProcessId
    since: datetime
    is_ready: bool = False
    deployment: str | None = None
    server: ServerKind | None = None
    api_url: str | None = None
    ui_url: str | None = None
    annotation_url: str | None = None
    parts: tuple[PartState, ...] = ()


@contextmanager
def runs_once(folder: Path) -> Iterator[bool]:
    """Say whether this is the only `up` of a workspace on this machine, until the block ends.

    Raises:
        WorkspaceError: the folder cannot be written.
    """
    # Somebody may only be looking whether it is held.
    with held(_up_folder(folder) / "lock", wait_seconds=2) as is_mine:
        yield is_mine


@contextmanager
def held(path: Path, *, wait_seconds: float = 0) -> Iterator[bool]:
    """Hold a lock file until the block ends, or say that somebody else does.

    Args:
        path: of the file; it stays.
        wait_seconds: how long to wait for somebody else to let go.

    Raises:
        WorkspaceError: its folder cannot be written.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=wait_seconds)
    except Timeout:
        yield False
        return
    except (OSError, NotImplementedError) as error:  # the latter: a drive without locks
        raise WorkspaceError(f"{path} cannot be locked: {error}") from error
    try:
        yield True
    finally:
        lock.release()


def is_up(folder: Path) -> bool:
    """Return whether `maskwheel up` runs for the workspace, on this machine."""
    if not _up_folder(folder).exists():
        return False
    with held(_up_folder(folder) / "lock") as is_mine:
        return not is_mine


def log_folder(folder: Path) -> Path:
    """Return where the logs of the parts are."""
    return _up_folder(folder) / "logs"


def write_state(folder: Path, state: UpState) -> None:
    """Write what runs, in one step."""
    text = json.dumps(asdict(state), indent=2, default=lambda time: time.isoformat())
    write_atomically(_up_folder(folder) / "state.json", text.encode())


def read_state(folder: Path) -> UpState | None:
    """Return what `up` wrote last; None: nothing, or nothing that can be read.

    Whether it still runs: see `is_up`.
    """
    try:
        fields = json.loads((_up_folder(folder) / "state.json").read_bytes())
        parts = tuple(_part(one) for one in fields.pop("parts"))
        since = datetime.fromisoformat(fields.pop("since"))
        supervisor = ProcessId(**fields.pop("supervisor"))
        return UpState(**fields, supervisor=supervisor, since=since, parts=parts)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return None  # of another version: nothing depends on it


def _part(fields: dict[str, object]) -> PartState:
    process = fields["process"]
    return PartState(
        name=str(fields["name"]),
        process=ProcessId(**process) if isinstance(process, dict) else None,
        since=datetime.fromisoformat(str(fields["since"])),
        restarts=int(str(fields["restarts"])),
    )


def _up_folder(folder: Path) -> Path:
    return folder / "up"
