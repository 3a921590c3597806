"""Maintenance as a flow: what nothing needs goes, and the databases stay small and quick.

>>> maintenance("birds", dry_run=True)

Removed are objects and table snapshots that no release, branch or running job needs, embeddings of
models out of use, and checkpoints of trainings that are over. What could be needed stays, and what
is young stays too. It may run beside everything else; killed anywhere, the next run does the rest.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from prefect import flow, task

from engine.annotation.database_upkeep import tidy_databases
from engine.annotation.embedding_upkeep import remove_unused_embeddings
from engine.annotation.opening import find_workspace_database
from engine.config import current_time
from engine.dataset.catalog import Workspace
from engine.dataset.release_gc import GarbageReport, collect_garbage
from engine.errors import PartlyDoneError, TransientError
from engine.learning.training_upkeep import remove_finished_checkpoints
from engine.upkeep import Freed
from flows.artifacts.tables import show_table
from flows.artifacts.texts import Cell
from flows.commands.release_tables import size
from flows.naming import describe_run
from flows.progress import listener
from flows.retrying import RETRIED

__all__ = ["maintenance"]

logger = logging.getLogger(__name__)


@flow(name="maintenance", flow_run_name="maintenance")
def maintenance(
    workspace: str,
    dry_run: bool = False,
    grace_days: float = 7.0,
    unfinished_runs: bool = False,
    embeddings: bool = True,
    checkpoint_days: float = 30.0,
    databases: bool = True,
) -> list[Freed]:
    """Remove what nothing needs and tidy the databases.

    Args:
        workspace: folder of the data set, or ``s3://bucket/prefix``.
        dry_run: remove nothing, only say what would go.
        grace_days: what is younger stays: running jobs may be about to need it.
        unfinished_runs: also the shards of runs that were never finished; they would be made again.
        embeddings: also embeddings of models that neither the champion nor an open campaign is.
        checkpoint_days: a finished training keeps its checkpoint so long, for more steps.
        databases: vacuum and analyse the annotation database and the catalog.

    Raises:
        WorkspaceError: a release is damaged: then nothing of the data set is removed.
        PartlyDoneError: a database was in use all the time; the rest is done.
    """
    describe_run(
        "look what maintenance would do" if dry_run else None,
        workspace=workspace,
        stage="maintenance",
    )
    grace = timedelta(days=grace_days)
    freed = list(freed_by(collect(grace, unfinished_runs, dry_run, workspace)))
    if embeddings:
        freed += drop_embeddings(grace, dry_run, workspace)
    freed.append(drop_checkpoints(timedelta(days=checkpoint_days), dry_run, workspace))
    busy: TransientError | None = None
    if databases:
        try:
            freed += tidy(dry_run, workspace)
        except TransientError as error:
            busy = error
    show(freed, dry_run)
    if busy is not None:
        raise PartlyDoneError(f"{busy}; everything else is done") from busy
    return freed


@task(task_run_name="collect garbage", **RETRIED)
def collect(
    grace: timedelta, unfinished_runs: bool, dry_run: bool, workspace: str
) -> GarbageReport:
    """Remove objects and table snapshots that no release, branch or running job needs."""
    listener().stage("collecting garbage", None)
    with Workspace.open(workspace, create=False) as opened:
        return collect_garbage(
            opened,
            current_time(),
            grace=grace,
            unfinished_runs=unfinished_runs,
            dry_run=dry_run,
        )


@task(task_run_name="remove unused embeddings", **RETRIED)
def drop_embeddings(grace: timedelta, dry_run: bool, workspace: str) -> tuple[Freed, ...]:
    """Remove the embeddings of models that are out of use."""
    now = current_time()
    with Workspace.open(workspace, create=False) as opened:
        db = find_workspace_database(opened)
        if db is None:
            return remove_unused_embeddings(opened, None, now=now, grace=grace, dry_run=dry_run)
        with db:
            return remove_unused_embeddings(opened, db, now=now, grace=grace, dry_run=dry_run)


@task(task_run_name="remove finished checkpoints", **RETRIED)
def drop_checkpoints(grace: timedelta, dry_run: bool, workspace: str) -> Freed:
    """Remove the checkpoints of trainings on this machine that are over."""
    with Workspace.open(workspace, create=False) as opened:
        return remove_finished_checkpoints(opened, now=current_time(), grace=grace, dry_run=dry_run)


@task(task_run_name="tidy the databases", **RETRIED)
def tidy(dry_run: bool, workspace: str) -> tuple[Freed, ...]:
    """Vacuum and analyse the annotation database and the catalog."""
    with Workspace.open(workspace, create=False) as opened:
        return tidy_databases(opened, dry_run=dry_run)


def freed_by(report: GarbageReport) -> tuple[Freed, ...]:
    """Sum a collection up, a value for each kind of garbage."""
    numbers, sizes = Counter[str](), Counter[str]()
    for item in report.garbage:
        numbers[item.kind] += 1
        sizes[item.kind] += item.size_bytes
    young = f"{report.young:,} younger objects stay for now" if report.young else ""
    return (
        Freed(what="table snapshots", objects=report.snapshots, note=young),
        *(
            Freed(what=f"objects: {kind}", objects=number, size_bytes=sizes[kind])
            for kind, number in numbers.most_common()
        ),
        Freed(what="unfinished writes", objects=report.unfinished_writes or 0),
    )


def show(freed: Sequence[Freed], dry_run: bool) -> None:
    """Say what is gone, in the log and as a table in the Prefect UI."""
    verb = "would be given back" if dry_run else "given back"
    total = size(sum(one.size_bytes for one in freed))
    rows: list[dict[str, Cell]] = [
        {"what": one.what, "number": one.objects, "size": size(one.size_bytes), "note": one.note}
        for one in freed
    ]
    logger.info("%s %s", total, verb)
    show_table("maintenance", rows, f"{total} {verb}")
