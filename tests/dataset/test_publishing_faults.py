"""A data set that is made on S3 while the network fails equals one that is made in peace."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import pyarrow.parquet as pq
import pytest

from engine.dataset.catalog import Workspace
from engine.dataset.release_verify import verify_release
from engine.dataset.releases import list_releases, scan
from engine.dataset.runs import Recipe, commit_run, plan_runs
from engine.dataset.schemas import TABLES
from engine.errors import TransientError
from engine.quality.gate import audit
from tests.dataset.dataset_builders import NOW, write_pending
from tests.dataset.publishing_builders import ingest_photos
from tests.faults import Fault, FaultyProxy
from tests.servers import S3Server

T = TypeVar("T")

_AGAIN = 5


def persistently(step: Callable[[], T]) -> T:
    """Do what the flow does: try again when the storage gave up for the moment."""
    for _ in range(_AGAIN):
        try:
            return step()
        except TransientError as error:
            last = error
    raise last


def make_data_set(address: str, photos: Path, *, images: int, commits: int) -> None:
    """Publish runs of `images` images each, two images to a shard; every step as in the flow."""

    def ingest_step() -> tuple[int, ...]:
        with Workspace.open(address) as workspace:
            return ingest_photos(workspace, photos, images)

    def run_step(recipe: Recipe) -> None:
        with Workspace.open(address) as workspace:
            for run in plan_runs(workspace, image_ids, recipe, 2, NOW):
                write_pending(workspace, run)
                commit_run(workspace, run, audit)

    image_ids = persistently(ingest_step)
    for number in range(commits):
        recipe = Recipe.of(f"model-{number}", {"number": number})
        persistently(lambda recipe=recipe: run_step(recipe))  # type: ignore[misc]


def contents(address: str) -> dict[str, object]:
    """Rows of all tables in all releases, their records, and the objects of the runs."""
    with Workspace.open(address, create=False) as workspace:
        releases = list_releases(workspace)
        found: dict[str, object] = {
            f"{table} of {release.name}": sorted(
                map(str, scan(workspace, release, table).to_pylist())
            )
            for table in TABLES
            for release in (releases[0], releases[-1])
        }
        records = [asdict(release) for release in releases]
        found["runs"] = {key: workspace.store.get(key) for key in workspace.store.list("runs/")}
    for record in records:
        # Snapshot ids and the names of the tables' own files are random.
        assert sorted(record.pop("snapshots")) == sorted(TABLES)
        assert record.pop("checksums")
    return {**found, "releases": records}


def assert_every_object_is_whole(workspace: Workspace) -> int:
    """Each object can be read to its end, whether anything refers to it or not."""
    count = 0
    for key in workspace.store.list(""):
        data = workspace.store.get(key)
        if key.endswith(".parquet"):
            pq.read_table(io.BytesIO(data))
        elif key.endswith(".json"):
            json.loads(data)
        elif key.endswith(".avro"):
            # A container ends with the mark that stands in its header.
            assert data.startswith(b"Obj\x01"), key
            assert data.index(data[-16:]) < len(data) - 16, key
        else:
            assert data, key
        count += 1
    return count


def assert_nothing_is_referenced_that_is_not_there(workspace: Workspace) -> None:
    """Whatever a snapshot of a table names is in the store."""
    there = {workspace.store.uri(key) for key in workspace.store.list("")}
    for name in TABLES:
        table = workspace.table(name)
        assert table.metadata_location in there
        for snapshot in table.metadata.snapshots:
            named = {snapshot.manifest_list}
            for manifest in snapshot.manifests(table.io):
                named.add(manifest.manifest_path)
                entries = manifest.fetch_manifest_entry(table.io)
                named |= {entry.data_file.file_path for entry in entries}
            assert named <= there, named - there


@pytest.mark.timeout(3600)  # thousands of requests, some of which wait for their next attempt
@pytest.mark.parametrize(
    ("images", "commits", "rate"),
    [(4, 2, 0.15), pytest.param(20, 20, 0.1, marks=pytest.mark.slow)],
)
def test_faults_between_client_and_storage_change_nothing_of_the_data_set(
    moto_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    images: int,
    commits: int,
    rate: float,
) -> None:
    monkeypatch.setenv("MASKWHEEL_LOCAL_FOLDER", str(tmp_path / "local"))
    for name, value in moto_server.environment().items():
        monkeypatch.setenv(name, value)
    undisturbed = f"s3://{moto_server.make_bucket()}/birds"
    disturbed = f"s3://{moto_server.make_bucket()}/birds"
    sizes = {"images": images, "commits": commits}
    make_data_set(undisturbed, tmp_path / "photos", **sizes)
    with FaultyProxy(moto_server.endpoint, seed=4, rate=rate, slow_seconds=0.01) as proxy:
        monkeypatch.setenv("MASKWHEEL_S3_ENDPOINT", proxy.endpoint)
        make_data_set(disturbed, tmp_path / "photos", **sizes)
    assert all(proxy.injected[fault] for fault in Fault), proxy.injected
    monkeypatch.setenv("MASKWHEEL_S3_ENDPOINT", moto_server.endpoint)
    found = contents(disturbed)
    assert found == contents(undisturbed)
    assert len([key for key in found["runs"] if "/masks-" in key]) == images // 2 * commits  # type: ignore[attr-defined]
    with Workspace.open(disturbed, create=False) as workspace:
        releases = list_releases(workspace)
        assert len(releases) == commits
        report = verify_release(workspace, releases[-1])
        assert report.passed, report.problems
        assert report.masks > commits
        assert_nothing_is_referenced_that_is_not_there(workspace)
        assert assert_every_object_is_whole(workspace) > images * commits // 2
