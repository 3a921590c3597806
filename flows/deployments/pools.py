"""The work pool and its two queues: quick flows beside each other, heavy ones in a row.

A queue's limit counts the runs that are pending or running in Prefect's database. The limit of a
*deployment* would be a lease that the server keeps, in its memory by default, and the run renews:
after a restart of the server Prefect 3.8 cancels the run at the next renewal (tried: started,
server restarted, cancelled after 228 s). So a queue's limit is what holds by default; see
`flows.deployments.specs` for more than one heavy run at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import WorkPool, WorkQueue
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from flows.catalogue import Queue
from flows.deployments.changes import UNKNOWN, Change, What, page
from flows.deployments.plan import DeploymentPlan

__all__ = ["compute_limit", "ensure_pool", "ensure_queues"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _QueueEntry:
    name: Queue
    priority: int
    default_limit: int
    description: str


_QUEUES = (
    _QueueEntry(
        name="control",
        priority=1,
        default_limit=4,
        description="Quick flows, which never wait for heavy ones.",
    ),
    _QueueEntry(
        name="compute",
        priority=2,
        default_limit=1,
        description="Flows that take a machine. The limit is how many of them run at once: raise "
        "it with the number of machines.",
    ),
)


def ensure_pool(client: SyncPrefectClient, plan: DeploymentPlan, *, dry_run: bool) -> Change:
    """Make a pool of processes where there is none; one that exists stays as it is."""
    what: What = "unchanged"
    pool = _read_pool(client, plan.pool)
    if pool is None:
        what = "created"
        pool = None if dry_run else _create_pool(client, plan.pool)
    return Change(
        kind="work pool",
        name=plan.pool,
        what=what,
        id=pool.id if pool else UNKNOWN,
        url=page("work-pool", plan.pool) if pool else None,
    )


def ensure_queues(
    client: SyncPrefectClient, plan: DeploymentPlan, *, dry_run: bool
) -> list[Change]:
    """Make the queues, and set the limits that the plan names; others stay as people set them."""
    limits = {"control": plan.control_runs, "compute": plan.compute_runs}
    return [
        _ensure_queue(client, plan.pool, entry, limits[entry.name], dry_run=dry_run)
        for entry in _QUEUES
    ]


def compute_limit(client: SyncPrefectClient, plan: DeploymentPlan) -> int:
    """Return how many heavy runs there may be at once, by the plan or by the queue."""
    if plan.compute_runs is not None:
        return plan.compute_runs
    queue = _read_queue(client, plan.pool, "compute")
    return 1 if queue is None or queue.concurrency_limit is None else queue.concurrency_limit


def _ensure_queue(
    client: SyncPrefectClient, pool: str, entry: _QueueEntry, limit: int | None, *, dry_run: bool
) -> Change:
    what: What = "unchanged"
    fields: tuple[str, ...] = ()
    queue = _read_queue(client, pool, entry.name)
    if queue is None:
        what = "created"
        queue = None if dry_run else _create_queue(client, pool, entry, limit)
    elif (wanted := _limit(queue, entry, limit)) != queue.concurrency_limit:
        what, fields = "updated", ("concurrency_limit",)
        if not dry_run:
            # A pause is given along, because the route takes its default for what is not.
            client.update_work_queue(
                queue.id, concurrency_limit=wanted, is_paused=queue.is_paused or False
            )
    return Change(
        kind="work queue",
        name=f"{pool}/{entry.name}",
        what=what,
        id=queue.id if queue else UNKNOWN,
        fields=fields,
        url=page("work-queue", queue.id) if queue else None,
    )


def _limit(queue: WorkQueue, entry: _QueueEntry, given: int | None) -> int:
    """Return the limit that a queue is to have; 0, with which people stop it, is one."""
    if given is not None:
        return given
    return entry.default_limit if queue.concurrency_limit is None else queue.concurrency_limit


def _read_pool(client: SyncPrefectClient, name: str) -> WorkPool | None:
    try:
        return client.read_work_pool(name)
    except ObjectNotFound:
        return None


def _create_pool(client: SyncPrefectClient, name: str) -> WorkPool:
    from prefect.workers.process import ProcessWorker

    wanted = WorkPoolCreate(
        name=name,
        type=ProcessWorker.type,
        description="Runs the flows of Maskwheel, each in a process of its own.",
        base_job_template=ProcessWorker.get_default_base_job_template(),
    )
    try:
        return client.create_work_pool(wanted)
    except ObjectAlreadyExists:  # a worker that starts makes its pool, too
        return client.read_work_pool(name)


def _read_queue(client: SyncPrefectClient, pool: str, name: str) -> WorkQueue | None:
    try:
        return client.read_work_queue_by_name(name, work_pool_name=pool)
    except ObjectNotFound:
        return None


def _create_queue(
    client: SyncPrefectClient, pool: str, entry: _QueueEntry, limit: int | None
) -> WorkQueue:
    try:
        return client.create_work_queue(
            entry.name,
            description=entry.description,
            concurrency_limit=limit or entry.default_limit,
            priority=entry.priority,
            work_pool_name=pool,
        )
    except ObjectAlreadyExists:  # somebody deploys at the same time
        return client.read_work_queue_by_name(entry.name, work_pool_name=pool)
