"""A release is verified: damaged on disk, or published with rows that cannot be right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from engine.dataset.catalog import Workspace
from engine.dataset.id_buckets import IdBuckets
from engine.dataset.release_checksums import recorded_checksums
from engine.dataset.release_verify import VerifyReport, verify_release
from engine.dataset.runs import commit_run, plan_runs
from engine.dataset.shards import ImageMasks, write_shard
from engine.errors import BadInputError, WorkspaceError
from engine.records import Release
from tests.dataset.dataset_builders import NOW, RECIPE
from tests.dataset.publishing_builders import ingest_photos, written_run

Change = Callable[[pa.Table], pa.Table]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Release]:
    """A release of two runs over the same photos, several shards each."""
    folder = tmp_path_factory.mktemp("verify")
    with Workspace.open(folder / "work") as workspace:
        image_ids = ingest_photos(workspace, folder / "photos", 9)
        commit_run(workspace, written_run(workspace, image_ids, 1))
        return folder / "work", commit_run(workspace, written_run(workspace, image_ids, 2))


@pytest.fixture
def root(published: tuple[Path, Release]) -> Iterator[Path]:
    """The workspace's folder, whose objects a test may damage."""
    root = published[0]
    files = {p: p.read_bytes() for n in ("runs", "releases", "tables") for p in _files(root / n)}
    yield root
    for path, data in files.items():
        path.write_bytes(data)


@pytest.fixture
def release(published: tuple[Path, Release]) -> Release:
    return published[1]


@pytest.fixture
def workspace(root: Path) -> Iterator[Workspace]:
    with Workspace.open(root) as workspace:
        yield workspace


def largest_shard(root: Path) -> Path:
    return max(root.glob("runs/*/masks-*.parquet"), key=lambda path: (path.stat().st_size, path))


def rewrite(path: Path, change: Change) -> str:
    """Replace a Parquet file by one with other rows; return its key."""
    pq.write_table(change(pq.read_table(path)), path)
    return "/".join(path.parts[-3:])


def kinds(report: VerifyReport) -> dict[str, int]:
    return {count.kind: count.count for count in report.counts}


def test_a_release_as_published_passes(workspace: Workspace, release: Release) -> None:
    progress: list[tuple[int, int]] = []
    report = verify_release(
        workspace, release, threads=2, on_rows=lambda done, total: progress.append((done, total))
    )
    assert report.passed
    assert not report.problems
    assert not report.counts
    assert (report.images, report.masks) == (release.images, release.masks)
    assert report.masks > 10
    assert report.without_checksum == 0
    assert len(progress) == report.files
    assert progress[-1][0] == progress[-1][1]


def test_a_flipped_bit_breaks_the_checksum(
    workspace: Workspace, release: Release, root: Path
) -> None:
    shard = largest_shard(root)
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 4
    shard.write_bytes(data)
    report = verify_release(workspace, release)
    assert "checksum" in kinds(report)
    first = report.problems[0]
    assert first.file == shard.relative_to(root).as_posix()
    assert first.row is None
    assert recorded_checksums(workspace, release)[first.file].sha256 in first.message


def test_a_cut_file_and_a_missing_one_are_found(
    workspace: Workspace, release: Release, root: Path
) -> None:
    shard = largest_shard(root)
    shard.write_bytes(shard.read_bytes()[:-300])
    largest_shard(root).unlink()
    found = kinds(verify_release(workspace, release))
    assert found["unreadable"] == found["length"] == found["missing"] == 1
    assert found["tally"] > 0  # what was to be read there is missing in the sums as well


def test_old_releases_have_no_checksums_but_their_rows_are_checked(
    workspace: Workspace, release: Release, root: Path
) -> None:
    old = replace(release, checksums=None, parent=None)
    report = verify_release(workspace, old)
    assert report.passed
    assert report.without_checksum == report.files
    rewrite(largest_shard(root), lambda rows: _with(rows, "area", 0, 9999))
    assert kinds(verify_release(workspace, old))["area"] == 1


def test_a_wrong_row_is_named_by_file_and_row(
    workspace: Workspace, release: Release, root: Path
) -> None:
    key = rewrite(largest_shard(root), lambda rows: _with(rows, "bbox_x", 2, 31))
    report = verify_release(workspace, release)
    assert kinds(report) == {"length": 1, "box": 1}
    [box] = [problem for problem in report.problems if problem.kind == "box"]
    assert (box.file, box.row) == (key, 2)
    assert "31" in box.message


def test_an_id_that_is_there_twice_is_found_across_files(
    workspace: Workspace, release: Release, root: Path
) -> None:
    first, second = sorted(root.glob("runs/*/masks-*.parquet"), key=lambda p: -p.stat().st_size)[:2]
    taken = pq.read_table(first)["mask_id"][1].as_py()
    rewrite(second, lambda rows: _with(rows, "mask_id", 0, taken))
    report = verify_release(workspace, release)
    assert kinds(report) == {"length": 1, "duplicate": 1}
    [twice] = [problem for problem in report.problems if problem.kind == "duplicate"]
    places = sorted([(first, 1), (second, 0)])
    assert (twice.file, twice.row) == (places[1][0].relative_to(root).as_posix(), places[1][1])
    assert f"row {places[0][1]} of {places[0][0].relative_to(root).as_posix()}" in twice.message


def test_masks_that_a_run_does_not_speak_of_are_found(
    workspace: Workspace, release: Release, root: Path
) -> None:
    shard = largest_shard(root)
    rows = pq.read_table(shard)
    lost = rows["image_id"][0].as_py()
    rewrite(shard, lambda rows: rows.filter(pc.not_equal(rows["image_id"], lost)))
    report = verify_release(workspace, release)
    tallies = [problem for problem in report.problems if problem.kind == "tally"]
    assert [f"image {lost} in run" in tally.message for tally in tallies] == [True]
    assert tallies[0].message.endswith("table masks has 0")


def test_columns_and_values_that_are_missing_are_found(
    workspace: Workspace, release: Release, root: Path
) -> None:
    shard = largest_shard(root)
    rows = pq.read_table(shard)
    rewrite(shard, lambda rows: rows.drop_columns(["stage"]))
    report = verify_release(workspace, release)
    assert "lacks stage of table masks" in next(
        p.message for p in report.problems if p.kind == "columns"
    )
    empty = pa.array([None, *rows["stage"].to_pylist()[1:]])
    place = rows.schema.get_field_index("stage")
    pq.write_table(rows.set_column(place, "stage", empty), shard)
    report = verify_release(workspace, release)
    missing = [problem for problem in report.problems if problem.kind == "missing"]
    assert [(problem.row, problem.message) for problem in missing] == [(0, "no stage")]


def test_columns_that_came_after_a_file_was_written_may_be_missing(
    workspace: Workspace, release: Release, root: Path
) -> None:
    old = replace(release, checksums=None, parent=None)
    rewrite(largest_shard(root), lambda rows: rows.drop_columns(["annotator_id"]))
    assert set(kinds(verify_release(workspace, old))) == {"length"}


def test_a_record_that_disagrees_with_its_tables_is_found(
    workspace: Workspace, release: Release
) -> None:
    wrong = replace(release, masks=release.masks + 1, models=release.models[:1])
    report = verify_release(workspace, wrong)
    second = pc.sum(pc.equal(_masks_of(workspace, release)["model_id"], release.models[1])).as_py()
    assert kinds(report) == {"record": 1, "model": second}


def test_a_list_of_checksums_that_was_changed_is_found(
    workspace: Workspace, release: Release, root: Path
) -> None:
    listed = root / f"releases/files/{release.checksums}.json"
    listed.write_text(listed.read_text().replace("a", "b", 1))
    report = verify_release(workspace, release)
    assert report.problems[0].kind == "checksum"
    assert "was changed" in report.problems[0].message


def test_all_problems_are_counted_and_some_are_shown(
    workspace: Workspace, release: Release, root: Path
) -> None:
    rows = pq.read_table(largest_shard(root)).num_rows
    rewrite(
        largest_shard(root),
        lambda rows: rows.set_column(
            rows.schema.get_field_index("area"),
            "area",
            pa.array([7777] * rows.num_rows, pa.int64()),
        ),
    )
    report = verify_release(workspace, release, shown=2)
    assert kinds(report)["area"] == rows > 2
    assert len(report.problems) == 2
    assert report.problem_count == rows + 1


def test_threads_do_not_change_what_is_found(
    workspace: Workspace, release: Release, root: Path
) -> None:
    for path in root.glob("runs/*/masks-*.parquet"):
        if pq.read_metadata(path).num_rows:
            rewrite(path, lambda rows: _with(rows, "area", 0, 5555))
    reports = [verify_release(workspace, release, threads=n, shown=5) for n in (1, 4)]
    assert reports[0] == reports[1]
    assert not reports[0].passed


def test_a_snapshot_that_is_gone_and_wrong_arguments_are_refused(
    workspace: Workspace, release: Release
) -> None:
    with pytest.raises(WorkspaceError, match="is gone"):
        verify_release(workspace, replace(release, snapshots={**release.snapshots, "masks": 1}))
    with pytest.raises(BadInputError, match="0 threads"):
        verify_release(workspace, release, threads=0)


def test_a_release_without_a_mask_passes(tmp_path: Path) -> None:
    with Workspace.open(tmp_path / "work") as workspace:
        image_ids = ingest_photos(workspace, tmp_path / "photos", 3)
        [run] = plan_runs(workspace, image_ids, RECIPE, 2, NOW)
        for shard in run.shards:
            nothing = map(ImageMasks, shard.image_ids)
            write_shard(workspace.store, shard, nothing, run.provenance)
        report = verify_release(workspace, commit_run(workspace, run))
    assert report.passed
    assert (report.images, report.masks) == (3, 0)


@pytest.mark.parametrize("rows", [10, 100_000])
def test_equal_ids_meet_in_one_bucket(rows: int) -> None:
    dtype = np.dtype([("id", "<i8"), ("place", "<i8")])
    records = np.empty(rows, dtype)
    records["id"] = np.arange(rows) % (rows // 2) - 3
    records["place"] = np.arange(rows)
    with IdBuckets(dtype, rows, bucket_bytes=64 * 1024) as buckets:
        buckets.add(records[: rows // 3])
        buckets.add(records[rows // 3 :])
        found = list(buckets)
        again = list(buckets)
    assert len(found) == len(again) == (1 if rows == 10 else len(found))
    assert len(found) <= 256
    assert (len(found) > 16) == (rows > 10)
    assert np.array_equal(np.sort(np.concatenate(found), order="place"), records)
    seen = [set(bucket["id"].tolist()) for bucket in found]
    assert sum(map(len, seen)) == rows // 2


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _with(rows: pa.Table, column: str, row: int, value: object) -> pa.Table:
    values = rows[column].to_pylist()
    values[row] = value
    place = rows.schema.get_field_index(column)
    return rows.set_column(place, rows.schema.field(column), pa.array(values, rows[column].type))


def _masks_of(workspace: Workspace, release: Release) -> pa.Table:
    return workspace.table("masks").scan(snapshot_id=release.snapshots["masks"]).to_arrow()
