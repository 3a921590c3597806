"""Processes are killed in the middle of an automatic run of 40 photos; nothing is lost or doubled.

A real Prefect server, deployments, workers and the bundled model. What is killed: the flow's
process, its worker, the whole machine, the Prefect server, the database of the catalog. Whatever it
was, the release afterwards equals that of an undisturbed run byte for byte, and a run that goes on
makes only what was missing. Ray's workers and nodes: test_ray_cluster.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.dataset.catalog import Workspace
from engine.dataset.releases import list_releases
from engine.images import encode_jpeg
from tests.automatic.oracle_segmenter import paint_scene
from tests.orchestration.fleet import Fleet
from tests.postgres import run_postgres
from tests.prefect_server import PrefectServer, run_prefect_server
from tests.same_data_set import CLOCK, assert_same_data_set

pytestmark = pytest.mark.slow

PHOTOS, IMAGES_PER_SHARD = 40, 2
SHARDS = PHOTOS // IMAGES_PER_SHARD
SETTINGS = {
    "points_per_side": 4,
    "points_per_batch": 16,
    "pred_iou_thresh": 0.01,
    "stability_score_thresh": 0.1,
}
MARKED_WITHIN = 180
LONG = 500  # on a busy machine


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """Return a server of this module's own, as it is killed."""
    with run_prefect_server(tmp_path_factory.mktemp("prefect")) as running:
        yield running


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures of shapes."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(PHOTOS):
        scene = paint_scene(seed=i, height=200 + i, width=260 - i, n_shapes=9)
        (folder / f"photo-{i:02d}.jpg").write_bytes(encode_jpeg(np.ascontiguousarray(scene)))
    return folder


@pytest.fixture(scope="module")
def undisturbed(
    server: PrefectServer, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return the workspace of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with world(server, photos, folder) as fleet:
        run = begin(fleet, photos)
        fleet.start_worker()
        fleet.wait_for(run, "COMPLETED", seconds=LONG)
        assert len(fleet.task_runs(run, "shard")) == SHARDS
    return folder / "workspace"


def world(server: PrefectServer, photos: Path, folder: Path, **environment: str) -> Fleet:
    """Deploy a new workspace under a name of its own."""
    name = f"world-{folder.name.replace('_', '-')[-40:]}"
    fleet = Fleet(
        server,
        folder / "workspace",
        name=name,
        folder=folder,
        environment={"SOURCE_DATE_EPOCH": CLOCK, **environment},
    )
    fleet.command("ingest", str(photos), "-w", str(folder / "workspace"))
    fleet.deploy()
    return fleet


def begin(fleet: Fleet, photos: Path) -> str:
    return fleet.begin(
        "fully-automatic",
        photos=[str(photos)],
        model="bundled",
        device="cpu",
        settings=SETTINGS,
        images_per_shard=IMAGES_PER_SHARD,
    )


def written(folder: Path) -> dict[str, int]:
    """Return the shards that exist, and when they were written."""
    return {p.name: p.stat().st_mtime_ns for p in (folder / "workspace").glob("runs/*/masks-*")}


def in_the_middle(fleet: Fleet, folder: Path) -> dict[str, int]:
    """Wait until some shards are written and most are not."""
    shards = fleet.wait(
        lambda: found if len(found := written(folder)) >= 4 else None, "four shards", seconds=LONG
    )
    assert len(shards) < SHARDS - 4, "the run is too quick to be killed in its middle"
    return shards


def goes_on_with_what_was_missing(
    fleet: Fleet, photos: Path, folder: Path, before: dict[str, int]
) -> None:
    """Begin a second run; see it make the other shards, and them only."""
    run = begin(fleet, photos)
    fleet.wait_for(run, "COMPLETED", seconds=LONG)
    after = written(folder)
    assert len(after) == SHARDS
    assert {name: after[name] for name in before} == before
    assert len(fleet.task_runs(run, "shard")) == SHARDS - len(before)


def assert_one_complete_release(folder: Path, undisturbed: Path) -> None:
    with Workspace.open(folder / "workspace", create=False) as opened:
        assert [release.images for release in list_releases(opened)] == [PHOTOS]
    assert_same_data_set(folder / "workspace", undisturbed)


def test_a_killed_flow_process_is_marked_and_a_new_run_makes_only_what_was_missing(
    server: PrefectServer, photos: Path, undisturbed: Path, tmp_path: Path
) -> None:
    with world(server, photos, tmp_path) as fleet:
        run = begin(fleet, photos)
        fleet.start_worker()
        in_the_middle(fleet, tmp_path)
        fleet.flow_process(run).kill()
        fleet.wait_for(run, "CRASHED", seconds=MARKED_WITHIN)
        goes_on_with_what_was_missing(fleet, photos, tmp_path, written(tmp_path))
    assert_one_complete_release(tmp_path, undisturbed)


def test_a_machine_that_lost_power_is_noticed_and_another_goes_on(
    server: PrefectServer, photos: Path, undisturbed: Path, tmp_path: Path
) -> None:
    with world(server, photos, tmp_path) as fleet:
        run = begin(fleet, photos)
        machine = fleet.start_worker()
        in_the_middle(fleet, tmp_path)
        fleet.kill_machine(machine)
        before = written(tmp_path)
        fleet.start_worker()
        fleet.wait_for(run, "CRASHED", seconds=MARKED_WITHIN)
        goes_on_with_what_was_missing(fleet, photos, tmp_path, before)
    assert_one_complete_release(tmp_path, undisturbed)


def test_a_run_whose_worker_is_killed_ends_well(
    server: PrefectServer, photos: Path, undisturbed: Path, tmp_path: Path
) -> None:
    with world(server, photos, tmp_path) as fleet:
        run = begin(fleet, photos)
        worker = fleet.start_worker()
        in_the_middle(fleet, tmp_path)
        worker.kill()
        fleet.start_worker()
        if fleet.wait_for(run, "COMPLETED", "CRASHED", seconds=LONG) == "CRASHED":
            goes_on_with_what_was_missing(fleet, photos, tmp_path, written(tmp_path))
    assert_one_complete_release(tmp_path, undisturbed)


@pytest.mark.parametrize("seconds_away", [3, 45])
def test_the_prefect_server_may_be_killed_and_come_back(
    server: PrefectServer, photos: Path, undisturbed: Path, tmp_path: Path, seconds_away: int
) -> None:
    with world(server, photos, tmp_path) as fleet:
        run = begin(fleet, photos)
        fleet.start_worker()
        in_the_middle(fleet, tmp_path)
        server.kill()
        time.sleep(seconds_away)  # a server that is away is what is tested
        server.restart()
        states = ("COMPLETED", "CRASHED", "FAILED")
        if fleet.wait_for(run, *states, seconds=LONG) != "COMPLETED":
            goes_on_with_what_was_missing(fleet, photos, tmp_path, written(tmp_path))
    assert_one_complete_release(tmp_path, undisturbed)


@pytest.mark.parametrize("kind", ["connections", "server"])
def test_the_database_of_the_catalog_may_be_cut_off(
    server: PrefectServer, photos: Path, undisturbed: Path, tmp_path: Path, kind: str
) -> None:
    with run_postgres() as postgres:
        url = postgres.make_database()
        variables = {"MASKWHEEL_DATABASE_URL": url}
        with world(server, photos, tmp_path, **variables) as fleet:
            run = begin(fleet, photos)
            fleet.start_worker()
            in_the_middle(fleet, tmp_path)
            if kind == "server":
                postgres.kill()
                time.sleep(5)  # a database that is away is what is tested
                postgres.start()
            else:
                for _ in range(20):
                    postgres.cut_connections()
                    time.sleep(0.25)
            fleet.wait_for(run, "COMPLETED", seconds=LONG)
            assert len(fleet.task_runs(run, "shard")) == SHARDS
            fleet.command("releases", "verify", "r1", "-w", str(tmp_path / "workspace"))
