"""Who does a flow's tasks: threads here, processes of this machine, a cluster of Ray or of Dask.

    with hired(load_settings(), device="cuda") as workers:
        for finished in workers.each(mask_shard, calls):      # in the order in which they end
            ...

The settings decide when a run starts, so one flow and one deployment serve a laptop and a cluster.
Only as many tasks are handed over as keep every worker busy: a run of a hundred thousand shards
never has a hundred thousand futures. A worker that dies takes its task with it. Ray and Dask give
the task to another one; where that cannot be, it comes back as a `WorkerLostError`.
"""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from prefect import Task
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.futures import PrefectFuture, PrefectWrappedFuture
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings
from prefect.states import Crashed
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from engine.automatic.worker_process import join_pool, usable_cores, usable_gpus
from engine.config import Settings, TaskRunnerName
from engine.errors import BadInputError, TransientError
from flows.artifacts.sending import attempt
from flows.steps import Step
from flows.workers import WorkerLostError, leaving

__all__ = ["WorkerLostError", "Workers", "hired"]

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

# For each worker: one task that it does, and others that wait so that it never does.
_TASKS_PER_WORKER = 4
# How many workers a cluster is expected to have at least, so that an empty one that grows on
# demand sees a demand.
_LEAST_OF_A_CLUSTER = 4
# How often Ray itself repeats a task whose worker, or whose machine, died.
_RAY_RETRIES = 3


@dataclass(frozen=True, slots=True)
class Workers:
    """Those who do the tasks, while they are hired.

    Attributes:
        runner: hands the tasks over.
        most_begun: how many tasks may be handed over and not have ended: some that are done and
            some that wait; asked again and again, as a cluster grows and shrinks.
        share_this_process: whether they are threads of it, and tell its listener themselves.
    """

    runner: TaskRunner[Any]
    most_begun: Callable[[], int]
    share_this_process: bool = False

    def each(
        self, task: Task[P, R] | Step[P, R], calls: Iterable[Mapping[str, object]]
    ) -> Iterator[R | Exception]:
        """Do the task for each call's arguments; yield what came of it as the tasks end.

        A task that fails, all its retries included, yields its exception. After a lost worker no
        more calls are made, as those that share its fate would be lost too: what was begun ends.
        """
        ended: SimpleQueue[PrefectFuture[R]] = SimpleQueue()
        left = iter(calls)
        submitted = task.task if isinstance(task, Step) else task
        begun = 0
        while True:
            for call in islice(left, max(0, self.most_begun() - begun)):
                self.runner.submit(submitted, dict(call)).add_done_callback(ended.put)
                begun += 1
            if not begun:
                return
            result = _result(ended.get())
            begun -= 1
            if isinstance(result, WorkerLostError):
                left = iter(())
            yield result


def _result(future: PrefectFuture[R]) -> R | Exception:
    try:
        # The task's own exceptions are returned; what is raised is the runner's.
        return future.result(raise_on_failure=False)
    except Exception as error:
        lost = WorkerLostError(f"the worker of a task was lost: {error!r}")
        lost.__cause__ = error
        if isinstance(future, PrefectWrappedFuture):
            attempt("a lost worker's task", partial(_mark_crashed, future.task_run_id, str(lost)))
        return lost


def _mark_crashed(task_run_id: UUID, message: str) -> None:
    """End a task's run, which its worker cannot do any more, if it had begun."""
    with get_client(sync_client=True) as client, suppress(ObjectNotFound):
        client.set_task_run_state(task_run_id, Crashed(message=message), force=True)


def hired(settings: Settings, device: str | None) -> AbstractContextManager[Workers]:
    """Start or find the workers that the settings name; let them go at the end.

    Args:
        settings: who, how many, and where.
        device: what the tasks run on; None: GPUs where there are some.

    Raises:
        BadInputError: Ray or Dask is not installed.
        TransientError: their cluster does not answer.
    """
    return _HIRED[settings.task_runner](settings, device)


@contextmanager
def _threads(settings: Settings, device: str | None) -> Iterator[Workers]:
    count = settings.workers or 1  # torch uses all cores for one image
    if (gpus := usable_gpus(device)) > 1:
        logger.info("one of %d GPUs is used; MASKWHEEL_TASK_RUNNER=processes uses all", gpus)
    with leaving() as leave, ThreadPoolTaskRunner[Any](max_workers=count) as runner:
        try:
            yield Workers(runner, lambda: _TASKS_PER_WORKER * count, share_this_process=True)
        except BaseException:
            leave()
            raise


@contextmanager
def _processes(settings: Settings, device: str | None) -> Iterator[Workers]:
    gpus = usable_gpus(device)
    count = settings.workers or gpus or (usable_cores() if device in (None, "cpu") else 1)
    threads = max(1, usable_cores() // count)
    spawned = multiprocessing.get_context("spawn")
    slots = spawned.Value("i", 0)
    leash, held = spawned.Pipe(duplex=False)
    with (
        leash,
        held,
        _one_server(),
        ProcessPoolTaskRunner(
            max_workers=count, initializer=join_pool, initargs=(slots, threads, gpus, leash)
        ) as runner,
    ):
        try:
            yield Workers(runner, lambda: _TASKS_PER_WORKER * count)
        except BaseException:
            held.close()
            raise


@contextmanager
def _ray(settings: Settings, device: str | None) -> Iterator[Workers]:
    try:
        import ray
        from prefect_ray.context import remote_options
        from prefect_ray.task_runners import RayTaskRunner
    except ImportError as error:
        raise _not_installed("ray") from error

    # The tasks' logs come through Prefect; on this process's output Ray's would be in the way.
    quiet = {"log_to_driver": False, "logging_level": logging.WARNING}
    runner = RayTaskRunner[Any](address=settings.ray_address, init_kwargs=quiet)
    with _one_server(), _answering(runner, settings.ray_address):
        found = ray.cluster_resources()
        gpus = settings.gpus_per_task or float(_wants_gpus(device, found))
        if gpus > found.get("GPU", 0):
            logger.warning("shards wait for a machine with %g GPUs: the cluster has none now", gpus)

        def most_begun() -> int:
            return settings.workers or _TASKS_PER_WORKER * _room(ray.cluster_resources(), gpus)

        with remote_options(num_cpus=1, num_gpus=gpus, max_retries=_RAY_RETRIES):
            yield Workers(runner, most_begun)


@contextmanager
def _answering(runner: TaskRunner[Any], address: str | None) -> Iterator[None]:
    """Use a runner whose cluster answers.

    Raises:
        TransientError: it does not.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(runner)
        except OSError as error:
            raise TransientError(
                f"the cluster at {address or 'this machine'} does not answer: {error}; see that it "
                "runs, that its ports can be reached, and that both sides have its token"
            ) from error
        yield


def _wants_gpus(device: str | None, resources: Mapping[str, float]) -> bool:
    if device is not None:
        return device.startswith("cuda")
    if resources.get("GPU", 0) > 0:
        return True
    logger.info("the cluster has no GPU now; if its GPUs come on demand, name the device: cuda")
    return False


def _room(resources: Mapping[str, float], gpus: float) -> int:
    """Return how many tasks a Ray cluster can do at once, by what each reserves."""
    slots = resources.get("GPU", 0) / gpus if gpus else resources.get("CPU", 0)
    return max(_LEAST_OF_A_CLUSTER, int(slots))


@contextmanager
def _dask(settings: Settings, device: str | None) -> Iterator[Workers]:
    try:
        import dask
        from prefect_dask.task_runners import DaskTaskRunner
    except ImportError as error:
        raise _not_installed("dask") from error

    if settings.dask_address is None:
        local = {"n_workers": settings.workers or usable_cores(), "threads_per_worker": 1}
        runner = DaskTaskRunner(cluster_kwargs=local)
    else:
        runner = DaskTaskRunner(address=settings.dask_address)
    # Workers say themselves how many GPUs they have: `dask worker --resources GPU=1`.
    reserved = {"resources": {"GPU": settings.gpus_per_task}} if settings.gpus_per_task else {}

    def most_begun() -> int:
        slots = sum(runner.client.nthreads().values())
        return settings.workers or _TASKS_PER_WORKER * max(_LEAST_OF_A_CLUSTER, slots)

    with _one_server(), _answering(runner, settings.dask_address), dask.annotate(**reserved):
        yield Workers(runner, most_begun)


@contextmanager
def _one_server() -> Iterator[None]:
    """Have workers in other processes report to this one's temporary server, if it has one.

    Else each of them would start one of its own.
    """
    if get_current_settings().api.url is not None:
        yield
        return
    from prefect.server.api.server import SubprocessASGIServer  # takes seconds

    server = SubprocessASGIServer()
    server.start()  # it runs: the flow reports to it
    logger.info("workers report to %s, which this machine alone can reach", server.api_url)
    with temporary_settings({PREFECT_API_URL: server.api_url}):
        yield


def _not_installed(extra: str) -> BadInputError:
    return BadInputError(
        f"the task runner {extra!r} is not installed; `pip install 'maskwheel[{extra}]'`, or set "
        "MASKWHEEL_TASK_RUNNER to threads or processes"
    )


_HIRED: Mapping[
    TaskRunnerName, Callable[[Settings, str | None], AbstractContextManager[Workers]]
] = {"threads": _threads, "processes": _processes, "ray": _ray, "dask": _dask}
