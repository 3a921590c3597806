"""Verifying a release as a task, with its progress in the Prefect UI.

report = verify(release, workspace)
report.passed
"""

from __future__ import annotations

from prefect import task

from engine.dataset.catalog import Workspace
from engine.dataset.release_verify import VerifyReport, verify_release
from engine.records import Release
from flows.artifacts.progress import Progress
from flows.progress import listener
from flows.retrying import RETRIED

__all__ = ["verify"]

_SHOWN = 20


@task(task_run_name="verify {release.name}", **RETRIED)
def verify(release: Release, workspace: str) -> VerifyReport:
    """Read every file of a release again."""
    listener().stage(f"verifying {release.name}", None)
    read = 0

    def on_rows(rows: int, total: int) -> None:
        nonlocal read
        progress.advance(rows - read)
        read = rows

    with (
        Workspace.open(workspace, create=False) as opened,
        Progress(release.masks, f"verifying {release.name}", unit="rows") as progress,
    ):
        return verify_release(opened, release, on_rows=on_rows, shown=_SHOWN)
