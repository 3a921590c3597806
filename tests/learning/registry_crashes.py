"""Registers a model in processes that are killed at every effect, then registers it again.

    python -m tests.learning.registry_crashes ROOT STEP

Kills at every STEP-th effect (see `tests.dataset.crash_points`). Prints one JSON list per kill: the
effect's number, the versions that show after the kill, and those after the repeated call.
"""

from __future__ import annotations

import json
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from engine.learning.registry import built_in_version, list_versions, register
from engine.objects import LocalStore
from engine.records import ModelOrigin, ModelVersion
from tests.dataset.crash_points import Effects, fork, must, wait
from tests.model.small_models import SMALL_COMPACT, small_sam

NOW = datetime(2026, 3, 4, tzinfo=UTC)
ORIGIN = ModelOrigin(kind="trained", trained_on=("r1",), recipe="sam")
SAM = small_sam(SMALL_COMPACT)


def register_once(root: Path) -> ModelVersion:
    return register(LocalStore(root), SAM, ORIGIN, now=NOW)


def watched(root: Path, kill_at: int | None) -> None:
    effects = Effects(kill_at)
    effects.watch()
    register_once(root)
    sys.setprofile(None)
    (root / "effects").write_text(str(effects.count))


def names(root: Path) -> list[str]:
    return [version.name for version in list_versions(LocalStore(root))]


def main(root: Path, step: int) -> None:
    built_in_version()  # read once, here, and not in every child
    counted = root / "counted"
    counted.mkdir(parents=True)
    must(wait(fork(lambda: watched(counted, None))), 0)
    for number in range(step, int((counted / "effects").read_text()) + 1, step):
        here = root / str(number)
        here.mkdir()
        must(wait(fork(lambda: watched(here, number))), -signal.SIGKILL)  # noqa: B023
        killed = names(here)
        must(wait(fork(lambda: register_once(here))), 0)  # noqa: B023
        print(json.dumps([number, killed, names(here)]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
