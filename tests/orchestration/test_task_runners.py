"""Who does the tasks: a bounded number at a time, in processes that die, on GPUs in turns."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import torch
from prefect import task
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import TaskRunner

from engine.automatic.shard_worker import ModelSpec
from engine.automatic.worker_process import take_place, usable_cores, usable_gpus
from engine.config import Settings
from engine.errors import BadInputError
from engine.images import encode_jpeg
from engine.records import Shard
from flows import masking
from flows.task_runners import Workers, hired
from flows.workers import WorkerLostError
from tests.automatic.oracle_segmenter import paint_scene
from tests.flows.conftest import Cli
from tests.prefect_server import PrefectServer
from tests.same_data_set import CLOCK, assert_same_data_set

FAST = ("--points-per-side", "4", "--pred-iou-thresh", "0.01", "--stability-score-thresh", "0.1")
PHOTOS, PER_SHARD = 24, 2
DEADLINE_SECONDS = 300

Outcome = int | Exception


class Ended(PrefectFuture[Outcome]):
    """The future of a task of `YoungestFirst`."""

    def __init__(self, outcome: Outcome, runner: YoungestFirst) -> None:
        self.outcome = outcome
        self._runner = runner
        self.tell: Callable[[PrefectFuture[Outcome]], None] | None = None

    def wait(self, timeout: float | None = None) -> None:
        raise NotImplementedError

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Outcome:
        assert not raise_on_failure
        if isinstance(self.outcome, ChildProcessError):
            raise self.outcome
        return self.outcome

    def add_done_callback(self, fn: Callable[[PrefectFuture[Outcome]], None]) -> None:
        self.tell = fn
        self._runner.begun(self)


class YoungestFirst(TaskRunner[Ended]):
    """Ends the youngest task when it has as many as it may have.

    Attributes:
        most: as many.
        outcomes: of the tasks by their number; a ChildProcessError is a worker that was lost, and
            with it all that was begun ends.
    """

    def __init__(self, most: int, outcomes: Callable[[int], Outcome]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Prefect's
        self.most, self.outcomes = most, outcomes
        self.open: list[Ended] = []
        self.most_open = self.submitted = 0

    def submit(self, task: Any, parameters: dict[str, Any], *_: Any, **__: Any) -> Any:
        self.submitted += 1
        return Ended(self.outcomes(parameters.get("number", 0)), self)

    def begun(self, future: Ended) -> None:
        self.open.append(future)
        self.most_open = max(self.most_open, len(self.open))
        if len(self.open) == self.most:
            self.end(len(self.open) if isinstance(future.outcome, ChildProcessError) else 1)

    def end(self, count: int) -> None:
        for _ in range(count):
            future = self.open.pop()
            assert future.tell is not None
            future.tell(future)

    def calls(self, count: int) -> Iterator[dict[str, object]]:
        for number in range(count):
            yield {"number": number}
        self.end(len(self.open))

    def duplicate(self) -> YoungestFirst:
        return self


@task
def doubled(number: int) -> Outcome:
    return 2 * number


def test_a_run_of_many_tasks_has_few_of_them_begun_at_any_time() -> None:
    runner = YoungestFirst(5, lambda number: 2 * number)
    workers = Workers(runner, lambda: 5)
    results = list(workers.each(doubled, runner.calls(1000)))
    assert sorted(r for r in results if isinstance(r, int)) == [2 * n for n in range(1000)]
    assert (runner.most_open, runner.submitted) == (5, 1000)


def test_more_are_begun_when_a_cluster_has_grown() -> None:
    runner = YoungestFirst(2, lambda number: number)
    workers = Workers(runner, lambda: runner.most)
    each = workers.each(doubled, runner.calls(40))
    first = [next(each) for _ in range(10)]
    runner.most = 8
    assert len(first + list(each)) == 40
    assert runner.most_open == 8


def test_tasks_that_fail_give_their_exception_and_the_others_go_on() -> None:
    broken = BadInputError("no such model")
    runner = YoungestFirst(3, lambda number: broken if number == 4 else number)
    results = list(Workers(runner, lambda: 3).each(doubled, runner.calls(10)))
    assert results.count(broken) == 1
    assert sorted(r for r in results if isinstance(r, int)) == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_after_a_lost_worker_what_was_begun_ends_and_nothing_else_begins() -> None:
    died = ChildProcessError("killed")
    runner = YoungestFirst(3, lambda number: died if number == 4 else number)
    results = list(Workers(runner, lambda: 3).each(doubled, runner.calls(1000)))
    lost = [result for result in results if isinstance(result, WorkerLostError)]
    assert [error.__cause__ for error in lost] == [died]
    assert "killed" in str(lost[0])
    assert sorted(r for r in results if isinstance(r, int)) == [0, 1, 2, 3]


def test_a_run_in_which_nothing_works_is_given_up_early(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = BadInputError("no such device")
    runner = YoungestFirst(4, lambda number: broken)
    shards = [Shard("auto-1", index, (index,)) for index in range(1000)]
    calls = Workers(runner, lambda: 4)
    monkeypatch.setattr(masking, "hired", lambda *_: nullcontext(calls))
    results = masking.mask_shards(shards, "nowhere", ModelSpec(), Settings())
    assert results == [broken] * 10


@pytest.mark.parametrize(
    ("name", "module"), [("ray", "prefect_ray.context"), ("dask", "prefect_dask.task_runners")]
)
def test_a_cluster_that_is_not_installed_is_named_with_what_to_install(
    name: Any, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with (
        pytest.raises(BadInputError, match=rf"pip install 'maskwheel\[{name}\]'"),
        hired(Settings(task_runner=name), "cpu"),
    ):
        pass


@pytest.fixture
def _threads_of_torch_stay() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads_of_torch_stay")
def test_processes_of_a_pool_take_gpus_in_turns_and_share_the_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    slots = multiprocessing.get_context("spawn").Value("i", 0)
    torch.set_num_threads(3)
    for _ in range(3):
        take_place(slots, threads=2, gpus=2)
    assert taken == [0, 1, 0]
    assert torch.get_num_threads() == 2
    take_place(slots, threads=8, gpus=0)
    assert (len(taken), torch.get_num_threads()) == (3, 2)


def test_gpus_are_shared_out_unless_one_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    found = {device: usable_gpus(device) for device in (None, "cuda", "cuda:1", "cpu", "mps")}
    assert found == {None: 4, "cuda": 4, "cuda:1": 0, "cpu": 0, "mps": 0}


@pytest.mark.parametrize(
    ("device", "gpus", "workers", "expected"),
    [
        ("cpu", 0, None, usable_cores()),
        (None, 0, None, usable_cores()),
        (None, 3, None, 3),
        ("cuda", 3, 6, 6),
        ("cuda:1", 3, None, 1),
        ("cpu", 3, 5, 5),
    ],
)
def test_there_is_a_process_for_each_gpu_or_else_for_each_core(
    device: str | None,
    gpus: int,
    workers: int | None,
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),  # nobody is asked
        hired(Settings(task_runner="processes", workers=workers), device) as hands,
    ):
        assert hands.most_begun() == 4 * expected
        assert not hands.share_this_process


@pytest.fixture(scope="module")
def cli(prefect_server: PrefectServer) -> Cli:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MASKWHEEL"))}
    quick = {"OMP_NUM_THREADS": "1", "SOURCE_DATE_EPOCH": CLOCK}
    return Cli({**inherited, **prefect_server.environment(), **quick})


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(PHOTOS):
        scene = paint_scene(seed=i, height=90 + i, width=130 - i, n_shapes=9)
        (folder / f"{i:02d}.jpg").write_bytes(encode_jpeg(np.ascontiguousarray(scene)))
    return folder


def auto(photos: Path, workspace: Path) -> tuple[str | Path, ...]:
    return ("auto", photos, "-w", workspace, *FAST, "--images-per-shard", str(PER_SHARD))


@pytest.fixture(scope="module")
def reference(cli: Cli, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace that threads of one process make."""
    workspace = tmp_path_factory.mktemp("reference") / "workspace"
    assert cli.json(*auto(photos, workspace))["images_masked"] == PHOTOS
    return workspace


def wait_for_shards(workspace: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(list(workspace.glob("runs/*/masks-*.parquet"))) < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the processes of the pool, without the one that tracks its semaphores."""
    children = psutil.Process(process.pid).children()
    return [child for child in children if any("spawn_main" in word for word in child.cmdline())]


def open_task_runs(server: PrefectServer) -> list[str]:
    """Return the tasks of the last flow run that the server takes for not ended."""
    newest = {"sort": "START_TIME_DESC", "limit": 1}
    (run,) = httpx.post(f"{server.api_url}/flow_runs/filter", json=newest).json()
    tasks = httpx.post(
        f"{server.api_url}/task_runs/filter",
        json={
            "flow_runs": {"id": {"any_": [run["id"]]}},
            "task_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING"]}}},
        },
    ).json()
    return [task["name"] for task in tasks]


def test_a_worker_process_that_is_killed_costs_nothing_but_its_shard(
    cli: Cli,
    photos: Path,
    reference: Path,
    tmp_path: Path,
    prefect_server: PrefectServer,
) -> None:
    workspace = tmp_path / "workspace"
    process = cli.start(
        *auto(photos, workspace), MASKWHEEL_TASK_RUNNER="processes", MASKWHEEL_WORKERS="2"
    )
    wait_for_shards(workspace, 2, process)
    victim = workers_of(process)[0]
    victim.kill()
    _, errors = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 0, errors
    assert_same_data_set(workspace, reference)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while tasks := open_task_runs(prefect_server):
        assert time.monotonic() < deadline, tasks
        time.sleep(0.2)


@pytest.mark.slow
def test_workers_end_with_a_flow_that_is_killed_and_the_next_call_makes_the_rest(
    cli: Cli, photos: Path, reference: Path, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    process = cli.start(*auto(photos, workspace), "--task-runner", "processes", "--workers", "2")
    wait_for_shards(workspace, 2, process)
    workers = workers_of(process)
    assert len(workers) == 2
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=DEADLINE_SECONDS)
    assert not alive
    written = {path: path.stat().st_mtime_ns for path in workspace.glob("runs/*/masks-*.parquet")}
    assert 2 <= len(written) < PHOTOS / PER_SHARD
    cli.json(*auto(photos, workspace))
    assert_same_data_set(workspace, reference)
    assert {path: path.stat().st_mtime_ns for path in written} == written


@pytest.mark.slow
@pytest.mark.parametrize("task_runner", ["threads", "processes"])
def test_a_run_that_is_interrupted_does_not_wait_for_its_shard(
    cli: Cli, photos: Path, tmp_path: Path, task_runner: str
) -> None:
    workspace = tmp_path / "workspace"
    process = cli.start(
        "auto", photos, "-w", workspace, "--task-runner", task_runner, "--workers", "1"
    )
    assert process.stderr is not None
    while "masking" not in process.stderr.readline():
        assert process.poll() is None
    if task_runner == "processes":
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not workers_of(process):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    workers = workers_of(process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode not in (0, None)
    _, alive = psutil.wait_procs(workers, timeout=DEADLINE_SECONDS)
    assert not alive
    assert not list(workspace.glob("runs/*/masks-*.parquet"))


@pytest.mark.slow
def test_a_cluster_of_dask_writes_what_threads_write(
    cli: Cli, photos: Path, reference: Path, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    options = ("--task-runner", "dask", "--workers", "2")
    assert cli.json(*auto(photos, workspace), *options)["images_masked"] == PHOTOS
    assert_same_data_set(workspace, reference)
