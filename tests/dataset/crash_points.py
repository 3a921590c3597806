"""Runs the pretended `maskwheel auto` in processes that are killed or that race.

    python -m tests.dataset.crash_points MODE ROOT INPUTS ...

    count ROOT INPUTS            prints how many effects a run has
    kill ROOT INPUTS 5 17 ...    per number: a run in ROOT/<number>, killed there, then run again
    grow ROOT INPUTS             killed ever later, until it gets through
    race ROOT INPUTS INPUTS ...  one process per INPUTS, at the same time

An effect is the start or the end of a C function that syncs or links a file, makes a folder or
talks to SQLite: what outlives the process changes there, but for files that nothing names yet.
The process kills itself there with SIGKILL. This script imports everything once and forks, as
importing takes seconds; it starts no thread before it forks.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pandas

import engine.dataset.table_io
from tests.dataset.dataset_builders import auto

# Imported for their time only: the engine and pyarrow load them at the first use.
_WARM = (engine.dataset.table_io, pandas)
_EFFECTS = frozenset(("fsync", "link", "unlink", "mkdir", "execute", "commit"))


class Effects:
    def __init__(self, kill_at: int | None) -> None:
        self.count = 0
        self._kill_at = kill_at

    def watch(self) -> None:
        threading.setprofile(self._on_event)
        sys.setprofile(self._on_event)

    def _on_event(self, frame: FrameType, event: str, what: object) -> None:
        if event in ("c_call", "c_return") and getattr(what, "__name__", "") in _EFFECTS:
            self.count += 1
            if self.count == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)


def fork(action: Callable[[], object]) -> int:
    """Run `action` in a child; return its pid. The child's status is 1 when it raises."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        action()
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.setprofile(None)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait(pid: int) -> int:
    """Return the exit status of a child, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def watched(root: Path, inputs: Path, kill_at: int | None) -> None:
    effects = Effects(kill_at)
    effects.watch()
    auto(root, inputs)
    sys.setprofile(None)
    print(effects.count)


def must(status: int, *expected: int) -> None:
    if status not in expected:
        sys.exit(f"a child ended with {status}, expected {expected}")


def main(mode: str, root: Path, rest: list[str]) -> None:
    inputs = Path(rest[0])
    if mode == "count":
        must(wait(fork(lambda: watched(root, inputs, None))), 0)
    elif mode == "kill":
        for number in map(int, rest[1:]):
            here = root / str(number)
            # Threads make the count vary by a few: a run may just get through.
            must(wait(fork(lambda: watched(here, inputs, number))), -signal.SIGKILL, 0)  # noqa: B023
            must(wait(fork(lambda: auto(here, inputs))), 0)  # noqa: B023
    elif mode == "grow":
        kill_at, status = 7, -signal.SIGKILL
        while status == -signal.SIGKILL:
            status = wait(fork(lambda: watched(root, inputs, kill_at)))  # noqa: B023
            kill_at += 61
        must(status, 0)
    else:
        read_end, write_end = os.pipe()

        def racer(inputs: Path) -> None:
            os.close(write_end)
            os.read(read_end, 1)
            auto(root, inputs)

        children = [fork(lambda p=path: racer(Path(p))) for path in rest]  # type: ignore[misc]
        os.close(write_end)
        for child in children:
            must(wait(child), 0)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
