"""Commits to one workspace from several processes at once.

    python -m tests.dataset.commit_race ADDRESS PROCESSES COMMITS

Each process commits ids of its own to table ``images`` and, like all others, the commit "shared";
then it stages its run on a branch of table ``masks`` and the shared one on a shared branch. They
start together. The script imports everything once and forks, as importing takes seconds.
"""

from __future__ import annotations

import os
import sys

import pandas

import engine.dataset.table_io
from engine.dataset.catalog import Workspace
from tests.dataset.catalog_places import image_rows
from tests.dataset.crash_points import fork, must, wait

# Imported for their time only.
_WARM = (engine.dataset.table_io, pandas)


def commit(address: str, process: int, commits: int) -> None:
    with Workspace.open(address) as workspace:
        for number in range(commits):
            image_id = 1000 * process + number
            workspace.append_rows("images", image_rows(image_id), f"own-{image_id}")
            workspace.append_rows("images", image_rows(7), "shared")
        workspace.stage("masks", f"run-{process}", None, [], f"run-{process}")
        workspace.stage("masks", "shared", None, [], "shared")


def main(address: str, processes: int, commits: int) -> None:
    read_end, write_end = os.pipe()

    def racer(process: int) -> None:
        os.close(write_end)
        os.read(read_end, 1)
        commit(address, process, commits)

    children = [fork(lambda n=n: racer(n)) for n in range(1, processes + 1)]  # type: ignore[misc]
    os.close(write_end)
    for status in [wait(child) for child in children]:
        must(status, 0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
