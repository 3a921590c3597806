"""A Ray cluster of two nodes on this machine: workers and nodes die, the release is complete."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from tests.flows.conftest import Cli
from tests.orchestration.test_task_runners import (
    DEADLINE_SECONDS,
    auto,
    cli,
    photos,
    reference,
    wait_for_shards,
)
from tests.same_data_set import assert_same_data_set

__all__ = ["cli", "photos", "reference"]

pytestmark = pytest.mark.slow

T = TypeVar("T")

STORE_BYTES = 80 * 1024 * 1024


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes with a core each; their processes are gone when the test ends."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    # Not pytest's folder: the paths of Unix sockets must be short.
    folder = tempfile.mkdtemp(prefix="ray-")
    started = cluster_utils.Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1,
            "object_store_memory": STORE_BYTES,
            "include_dashboard": False,
            "temp_dir": folder,
        },
    )
    try:
        started.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
        yield started
    finally:
        processes = [
            process
            for node in started.list_all_nodes()
            for raylet in raylets_of(node)
            for process in [raylet, *raylet.children(recursive=True)]
        ]
        started.shutdown()
        _, alive = psutil.wait_procs(processes, timeout=60)
        shutil.rmtree(folder, ignore_errors=True)
        assert not alive


def raylets_of(node: Any) -> list[psutil.Process]:
    """Return the process that starts a node's workers."""
    return [psutil.Process(info.process.pid) for info in node.all_processes["raylet"]]


def busy_workers(node: Any) -> list[psutil.Process]:
    """Return the workers of a node that do a task now: Ray writes it into their titles."""
    found = []
    for raylet in raylets_of(node):
        for child in raylet.children(recursive=True):
            try:
                title = " ".join(child.cmdline())
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
            if title.startswith("ray::mask_shard"):
                found.append(child)
    return found


def awaited(look: Callable[[], list[T]], process: subprocess.Popen[str]) -> list[T]:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := look()):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def start(cli: Cli, photos: Path, workspace: Path, cluster: Any) -> subprocess.Popen[str]:
    return cli.start(
        *auto(photos, workspace),
        MASKWHEEL_TASK_RUNNER="ray",
        MASKWHEEL_RAY_ADDRESS=cluster.address,
        RAY_AUTH_MODE="disabled",
        PATH=os.environ["PATH"],
    )


def assert_complete(process: subprocess.Popen[str], workspace: Path, reference: Path) -> str:
    """Return what the command said while it worked."""
    _, errors = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 0, errors
    assert_same_data_set(workspace, reference)
    return errors


def test_ray_does_the_task_of_a_killed_worker_again(
    cli: Cli, photos: Path, reference: Path, cluster: Any, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    process = start(cli, photos, workspace, cluster)
    wait_for_shards(workspace, 2, process)
    (node,) = cluster.worker_nodes
    awaited(lambda: busy_workers(node), process)[0].kill()
    said = assert_complete(process, workspace, reference)
    assert len(re.findall(r"masking: \d+ images", said)) == 1  # the flow itself began nothing again


def test_the_run_is_complete_though_one_of_two_nodes_died(
    cli: Cli, photos: Path, reference: Path, cluster: Any, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    process = start(cli, photos, workspace, cluster)
    wait_for_shards(workspace, 2, process)
    (node,) = cluster.worker_nodes
    awaited(lambda: busy_workers(node), process)
    cluster.remove_node(node, allow_graceful=False)
    assert_complete(process, workspace, reference)
