"""Garbage collection removes what nothing needs, and never anything else."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from engine.dataset.catalog import Workspace
from engine.dataset.publishing import Publication, publish
from engine.dataset.release_gc import GarbageReport, collect_garbage
from engine.dataset.release_verify import verify_release
from engine.dataset.releases import latest_release, list_releases, scan, write_release
from engine.dataset.rollback import rollback
from engine.dataset.runs import commit_run, pending_shards, plan_runs
from engine.dataset.schemas import TABLES
from engine.errors import BadInputError, RefusedError, WorkspaceError
from engine.objects import ObjectStore, StoredObject
from engine.records import Release
from tests.dataset.dataset_builders import NOW, write_pending
from tests.dataset.publishing_builders import ingest_photos, refusing, written_run

LATER = datetime.now(UTC) + timedelta(days=30)
"""By then everything that a test has made is old."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[int, ...]]:
    """A folder with photos, ingested in two commits, and a release with a run over them."""
    folder = tmp_path_factory.mktemp("gc")
    with Workspace.open(folder / "work") as workspace:
        ingest_photos(workspace, folder / "photos", 3)
        found = ingest_photos(workspace, folder / "photos", 5)
        commit_run(workspace, written_run(workspace, found, 1))
    (folder / "work").rename(folder / "template")
    return folder, found


@pytest.fixture
def root(template: tuple[Path, tuple[int, ...]]) -> Path:
    """A workspace as the template was, and where it was: tables hold absolute addresses."""
    root = template[0] / "work"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(template[0] / "template", root)
    return root


@pytest.fixture
def image_ids(template: tuple[Path, tuple[int, ...]]) -> tuple[int, ...]:
    return template[1]


@pytest.fixture
def workspace(root: Path) -> Iterator[Workspace]:
    with Workspace.open(root) as workspace:
        yield workspace


def litter(workspace: Workspace, root: Path) -> set[str]:
    """Leave what killed processes leave; return the keys that are garbage."""
    release = latest_release(workspace)
    assert release is not None
    for table in TABLES:
        rows = scan(workspace, release, table)
        workspace.stage(table, "abandoned", release.snapshots[table], rows, "abandoned")
        workspace.drop_branch(table, "abandoned")
    files = [
        "tables/masks/metadata/00000-lost.avro",
        "tables/images/data/half.parquet",
        "releases/files/0123.json",
    ]
    for key in files:
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(b"left over")
    (root / "runs/.writing-1234").write_bytes(b"half a shard")
    return set(files)


def everything(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def keys(report: GarbageReport) -> set[str]:
    return {item.key for item in report.garbage}


def assert_whole(workspace: Workspace) -> None:
    """Every release verifies, and the tables can be read as they are now."""
    for release in list_releases(workspace):
        assert verify_release(workspace, release).problems == ()
    for table in TABLES:
        assert workspace.table(table).scan().to_arrow().num_rows


def test_garbage_goes_and_every_release_stays_whole(
    workspace: Workspace, root: Path, image_ids: tuple[int, ...]
) -> None:
    commit_run(workspace, written_run(workspace, image_ids, 2))
    rollback(workspace, "r1", NOW)
    left = litter(workspace, root)
    before = everything(root)
    report = collect_garbage(workspace, LATER)
    assert left < keys(report)
    assert {item.kind for item in report.garbage} == {"table metadata", "data file", "checksums"}
    assert report.snapshots >= 3
    assert report.unfinished_writes == 1
    assert report.size_bytes == sum(item.size_bytes for item in report.garbage) > 0
    gone = before - everything(root)
    assert keys(report) | {"runs/.writing-1234"} <= gone
    assert_whole(workspace)
    rollback(workspace, "r2", NOW)
    commit_run(workspace, written_run(workspace, image_ids, 3))
    assert_whole(workspace)


def test_a_second_collection_finds_nothing(
    workspace: Workspace, root: Path, image_ids: tuple[int, ...]
) -> None:
    litter(workspace, root)
    collect_garbage(workspace, LATER)
    again = collect_garbage(workspace, LATER)
    assert (again.garbage, again.snapshots, again.unfinished_writes) == ((), 0, 0)


def test_a_dry_run_names_what_would_go_and_changes_nothing(
    workspace: Workspace, root: Path, image_ids: tuple[int, ...]
) -> None:
    litter(workspace, root)
    before = {key: (root / key).stat().st_mtime_ns for key in everything(root)}
    planned = collect_garbage(workspace, LATER, dry_run=True)
    assert planned.unfinished_writes is None
    assert {key: (root / key).stat().st_mtime_ns for key in everything(root)} == before
    done = collect_garbage(workspace, LATER)
    # Forgetting snapshots is a commit of its own, which retires one more metadata file at most.
    assert keys(planned) <= keys(done)
    assert planned.snapshots == done.snapshots


def test_what_is_young_stays(workspace: Workspace, root: Path, image_ids: tuple[int, ...]) -> None:
    left = litter(workspace, root)
    report = collect_garbage(workspace, datetime.now(UTC))
    assert (report.garbage, report.snapshots, report.unfinished_writes) == ((), 0, 0)
    assert report.young >= len(left)
    assert left < everything(root)


def test_photos_that_no_release_has_yet_stay(
    workspace: Workspace, root: Path, image_ids: tuple[int, ...]
) -> None:
    more = ingest_photos(workspace, root.parent / "photos", 8)
    collect_garbage(workspace, LATER)
    assert workspace.table("images").scan().to_arrow().num_rows == 8
    assert ingest_photos(workspace, root.parent / "photos", 8) == more
    commit_run(workspace, written_run(workspace, more, 2))
    assert_whole(workspace)


def test_a_run_that_the_gate_refused_can_still_be_accepted(
    workspace: Workspace, image_ids: tuple[int, ...]
) -> None:
    run = written_run(workspace, image_ids, 2)
    with pytest.raises(RefusedError):
        commit_run(workspace, run, refusing)
    collect_garbage(workspace, LATER, unfinished_runs=True)
    assert not pending_shards(workspace.store, run)
    assert commit_run(workspace, run, refusing, accepted="looked at it").name == "r2"
    assert_whole(workspace)


def test_unfinished_runs_stay_unless_asked_for_and_begin_again_then(
    workspace: Workspace, root: Path, image_ids: tuple[int, ...]
) -> None:
    run = written_run(workspace, image_ids, 2)
    assert not any(key.startswith("runs/") for key in keys(collect_garbage(workspace, LATER)))
    young = collect_garbage(workspace, datetime.now(UTC), unfinished_runs=True)
    assert young.garbage == ()
    report = collect_garbage(workspace, LATER, unfinished_runs=True)
    assert keys(report) == {shard.key for shard in run.shards}
    assert {item.kind for item in report.garbage} == {"unfinished run"}
    [again] = plan_runs(workspace, image_ids, run.recipe, 3, NOW)
    assert again == run
    write_pending(workspace, again)
    commit_run(workspace, again)
    assert_whole(workspace)


def test_a_release_whose_snapshot_is_gone_stops_the_collection(
    workspace: Workspace, root: Path, image_ids: tuple[int, ...]
) -> None:
    litter(workspace, root)
    latest = latest_release(workspace)
    assert latest is not None
    snapshots = {**latest.snapshots, "masks": 1}
    write_release(workspace, Release(name="r2", snapshots=snapshots, created_at=NOW))
    before = everything(root)
    for dry_run in (True, False):
        with pytest.raises(WorkspaceError, match="r2 needs snapshot 1 of table masks"):
            collect_garbage(workspace, LATER, dry_run=dry_run)
    assert everything(root) == before


def test_a_negative_grace_period_is_refused(workspace: Workspace) -> None:
    with pytest.raises(BadInputError, match="grace"):
        collect_garbage(workspace, LATER, grace=timedelta(days=-1))


class Interrupted:
    """A store that lets something happen, once, before or after one of its methods."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.after_listing: Callable[[], object] | None = None
        self.before_delete: Callable[[], object] | None = None

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        yield from list(self._store.objects(prefix))
        if prefix.startswith("releases/files"):
            self._happen("after_listing")

    def delete(self, key: str) -> None:
        self._happen("before_delete")
        self._store.delete(key)

    def _happen(self, when: str) -> None:
        action = getattr(self, when)
        setattr(self, when, None)
        if action is not None:
            action()

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


@pytest.mark.parametrize("moment", ["after_listing", "before_delete"])
def test_a_release_that_is_published_during_a_collection_is_whole(
    workspace: Workspace, root: Path, image_ids: tuple[int, ...], moment: str
) -> None:
    litter(workspace, root)
    run = written_run(workspace, image_ids, 2)
    with Workspace.open(root) as collector:
        store = Interrupted(collector.store)
        setattr(store, moment, lambda: commit_run(workspace, run))
        collector.store = store  # type: ignore[assignment]
        # No grace at all: the order of listing and marking alone protects what is complete.
        collect_garbage(collector, LATER, grace=timedelta(0))
        assert getattr(store, moment) is None
    assert [release.name for release in list_releases(workspace)] == ["r1", "r2"]
    assert_whole(workspace)


def test_a_collection_that_is_killed_is_completed_by_the_next(
    workspace: Workspace, root: Path, image_ids: tuple[int, ...]
) -> None:
    litter(workspace, root)
    total = len(collect_garbage(workspace, LATER, dry_run=True).garbage)

    def die(removed: int, of: int) -> None:
        if removed == of // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect_garbage(workspace, LATER, on_object=die)
    assert_whole(workspace)
    rest = collect_garbage(workspace, LATER)
    assert 0 < len(rest.garbage) < total
    assert rest.snapshots == 0
    assert collect_garbage(workspace, LATER).garbage == ()
    assert_whole(workspace)


@pytest.mark.slow
def test_collections_and_publishers_at_once_lose_nothing(
    workspace: Workspace, root: Path, image_ids: tuple[int, ...]
) -> None:
    runs = [written_run(workspace, image_ids, number) for number in (2, 3, 4)]
    failed: list[BaseException] = []

    def publish_all() -> None:
        try:
            with Workspace.open(root) as publisher:
                for run in runs:
                    litter(publisher, root)
                    commit_run(publisher, run)
        except BaseException as error:
            failed.append(error)

    for path in root.glob("tables/*/*/*"):
        os.utime(path, (1, 1))
    thread = threading.Thread(target=publish_all)
    thread.start()
    while thread.is_alive():
        collect_garbage(workspace, datetime.now(UTC), grace=timedelta(minutes=5))
    thread.join()
    assert not failed
    collect_garbage(workspace, LATER)
    assert [release.runs[-1] for release in list_releases(workspace)[1:]] == [
        r.run_id for r in runs
    ]
    assert_whole(workspace)


def test_a_rollback_can_be_repeated_and_undone(
    workspace: Workspace, image_ids: tuple[int, ...]
) -> None:
    second = commit_run(workspace, written_run(workspace, image_ids, 2))
    back = rollback(workspace, "r1", NOW, "out of focus")
    assert (back.name, back.kind, back.restores, back.parent) == ("r3", "rollback", "r1", "r2")
    assert back.note == "out of focus"
    assert rollback(workspace, "r1", NOW) == back
    assert back.masks < second.masks
    assert workspace.table("masks").scan().to_arrow().num_rows == back.masks
    forth = rollback(workspace, "r2", NOW)
    assert (forth.masks, forth.runs, forth.models) == (second.masks, second.runs, second.models)
    assert_whole(workspace)
    with pytest.raises(BadInputError, match="r4 is the latest"):
        rollback(workspace, "r4", NOW)
    with pytest.raises(BadInputError, match="'r9'"):
        rollback(workspace, "r9", NOW)


def test_a_publication_of_an_old_state_needs_no_new_files(
    workspace: Workspace, image_ids: tuple[int, ...]
) -> None:
    commit_run(workspace, written_run(workspace, image_ids, 2))
    first = list_releases(workspace)[0]
    publication = Publication(commit_id="back", kind="rollback", created_at=NOW, restores=first)
    release = publish(workspace, publication)
    assert release.checksums is not None
    listed = workspace.store.get(f"releases/files/{release.checksums}.json")
    assert b'"files": []' in listed
