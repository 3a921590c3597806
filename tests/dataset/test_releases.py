from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.dataset.catalog import Workspace
from engine.dataset.ingest import expand_inputs, ingest
from engine.dataset.releases import (
    code_version,
    latest_release,
    list_releases,
    list_tags,
    load_release,
    scan,
    scan_batches,
    tag_release,
    tag_releases,
    write_release,
)
from engine.dataset.runs import RunManifest, commit_run, plan_runs
from engine.dataset.schemas import TABLES, arrow_schema
from engine.dataset.shards import masks_from_arrow
from engine.errors import BadInputError, WorkspaceError
from engine.records import Release
from tests.dataset.dataset_builders import (
    LIMITS,
    NOW,
    RECIPE,
    result_of,
    write_images,
    write_pending,
)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "work") as workspace:
        yield workspace


def released(workspace: Workspace, count: int) -> Release:
    folder = workspace.local_folder.parent / "photos"
    write_images(folder, count)
    image_ids = ingest(workspace, expand_inputs([str(folder)]), LIMITS, NOW).image_ids
    [run] = plan_runs(workspace, image_ids, RECIPE, 4, NOW)
    assert isinstance(run, RunManifest)
    write_pending(workspace, run)
    return commit_run(workspace, run)


def test_a_release_does_not_change_when_the_data_set_grows(workspace: Workspace) -> None:
    first = released(workspace, 6)
    before = {table: scan(workspace, first, table).num_rows for table in TABLES}
    second = released(workspace, 11)
    assert {table: scan(workspace, first, table).num_rows for table in TABLES} == before
    assert scan(workspace, second, "images").num_rows == second.images == 11
    assert scan(workspace, second, "masks").num_rows == second.masks
    assert list_releases(workspace) == [first, second]
    assert latest_release(workspace) == second
    assert load_release(workspace, "r1") == first


def test_a_scan_has_the_types_of_the_schema(workspace: Workspace) -> None:
    release = released(workspace, 6)
    for table in TABLES:
        assert scan(workspace, release, table).schema.equals(arrow_schema(table))


def test_a_scan_takes_columns_and_a_condition(workspace: Workspace) -> None:
    release = released(workspace, 8)
    everything = scan(workspace, release, "masks")
    image_id = max(everything["image_id"].to_pylist(), key=lambda i: len(result_of(i).masks))
    rows = scan(workspace, release, "masks", row_filter=f"image_id = {image_id}")
    assert masks_from_arrow(rows) == list(result_of(image_id).masks)
    small = scan(workspace, release, "masks", ("image_id", "area"), "area < 6")
    assert small.column_names == ["image_id", "area"]
    assert set(small["area"].to_pylist()) == {3}


def test_a_scan_in_batches_gives_the_same_rows(workspace: Workspace) -> None:
    release = released(workspace, 8)
    batched = scan_batches(workspace, release, "masks", ("mask_id",)).read_all()
    whole = scan(workspace, release, "masks", ("mask_id",))
    assert sorted(batched["mask_id"].to_pylist()) == sorted(whole["mask_id"].to_pylist())


def test_columns_and_conditions_that_do_not_fit_are_named(workspace: Workspace) -> None:
    release = released(workspace, 2)
    with pytest.raises(BadInputError, match="'colour'"):
        scan(workspace, release, "masks", ("area", "colour"))
    for condition in ("colour = 1", "area >", "area = 'large'"):
        with pytest.raises(BadInputError, match="got the condition"):
            scan(workspace, release, "masks", row_filter=condition)


def test_a_release_whose_snapshot_is_gone_is_reported(workspace: Workspace) -> None:
    release = released(workspace, 2)
    gone = replace(release, snapshots={**release.snapshots, "masks": 1})
    with pytest.raises(WorkspaceError, match="is gone"):
        scan(workspace, gone, "masks")


def test_every_table_is_tagged_and_a_missing_tag_comes_back(workspace: Workspace) -> None:
    release = released(workspace, 2)
    for table in TABLES:
        assert workspace.table(table).refs()["r1"].snapshot_id == release.snapshots[table]
        workspace.table(table).manage_snapshots().remove_tag("r1").commit()
    plan_runs(workspace, [], RECIPE, 2, NOW)
    for table in TABLES:
        assert workspace.table(table).refs()["r1"].snapshot_id == release.snapshots[table]


def test_a_tag_that_was_moved_is_reported(workspace: Workspace) -> None:
    release = released(workspace, 2)
    moved = replace(release, snapshots={**release.snapshots, "masks": 1})
    with pytest.raises(WorkspaceError, match="something outside Maskwheel moved it"):
        tag_releases(workspace, [moved])


def test_a_name_is_given_once(workspace: Workspace) -> None:
    assert write_release(workspace, Release(name="r1", masks=1, created_at=NOW))
    assert not write_release(workspace, Release(name="r1", masks=2, created_at=NOW))
    assert load_release(workspace, "r1").masks == 1


def test_releases_are_listed_by_number(workspace: Workspace) -> None:
    for name in ("r10", "r9", "r2"):
        write_release(workspace, Release(name=name, created_at=NOW))
    assert [release.name for release in list_releases(workspace)] == ["r2", "r9", "r10"]


def test_no_release_yet_and_unknown_names(workspace: Workspace) -> None:
    assert latest_release(workspace) is None
    with pytest.raises(BadInputError, match="'r7'"):
        load_release(workspace, "r7")
    with pytest.raises(BadInputError):
        load_release(workspace, "../workspace")


def test_a_release_is_found_by_its_tags_and_as_the_latest(workspace: Workspace) -> None:
    for name in ("r1", "r2"):
        write_release(workspace, Release(name=name, created_at=NOW))
    assert tag_release(workspace, "v1.0", "r1", NOW, "first").name == "r1"
    assert tag_release(workspace, "paper-2026", "v1.0", NOW).name == "r1"
    assert load_release(workspace, "v1.0") == load_release(workspace, "paper-2026")
    assert load_release(workspace, "latest").name == "r2"
    assert [(t.name, t.release, t.note) for t in list_tags(workspace)] == [
        ("paper-2026", "r1", ""),
        ("v1.0", "r1", "first"),
    ]
    assert [release.name for release in list_releases(workspace)] == ["r1", "r2"]


def test_a_tag_never_moves(workspace: Workspace) -> None:
    for name in ("r1", "r2"):
        write_release(workspace, Release(name=name, created_at=NOW))
    tag_release(workspace, "v1", "r1", NOW)
    assert tag_release(workspace, "v1", "r1", NOW, "again").name == "r1"
    with pytest.raises(BadInputError, match="belongs to release r1"):
        tag_release(workspace, "v1", "r2", NOW)
    assert load_release(workspace, "v1").name == "r1"


@pytest.mark.parametrize(
    "tag", ["", "r1", "r12", "latest", "main", "a/b", "..", ".v1", "-v1", "a b", "ä", "v" * 101]
)
def test_tags_that_could_be_taken_for_something_else_are_refused(
    workspace: Workspace, tag: str
) -> None:
    write_release(workspace, Release(name="r1", created_at=NOW))
    with pytest.raises(BadInputError, match="expected up to 100"):
        tag_release(workspace, tag, "r1", NOW)
    assert not list_tags(workspace)


def test_a_tag_of_no_release_is_refused(workspace: Workspace) -> None:
    with pytest.raises(BadInputError, match="'r1'"):
        tag_release(workspace, "v1", "r1", NOW)
    with pytest.raises(BadInputError, match="no release yet"):
        load_release(workspace, "latest")


def test_records_of_older_versions_load_with_defaults(workspace: Workspace) -> None:
    record = {
        "name": "r1",
        "snapshots": {"masks": 5},
        "runs": ["a"],
        "models": ["m"],
        "parent": None,
        "images": 1,
        "masks": 2,
        "created_at": NOW.isoformat(),
    }
    workspace.store.put_if_absent("releases/r1.json", json.dumps(record).encode())
    assert load_release(workspace, "r1") == Release(
        name="r1",
        snapshots={"masks": 5},
        runs=("a",),
        models=("m",),
        images=1,
        masks=2,
        created_at=NOW,
    )


def test_every_field_of_a_record_comes_back(workspace: Workspace) -> None:
    release = Release(
        name="r3",
        snapshots={"images": 1, "masks": 2**62},
        runs=("a", "b"),
        models=("m",),
        parent="r2",
        images=3,
        masks=4,
        created_at=NOW,
        kind="rollback",
        configs={"b": "{}"},
        code_version=code_version(),
        note="zurück — ünïcode",
        accepted="looked at it",
        restores="r1",
        checksums="ab",
        commit_id="c",
    )
    write_release(workspace, release)
    assert load_release(workspace, "r3") == release


@pytest.mark.parametrize("key", ["releases/r1.json", "releases/tags/v1.json"])
@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"name": 5, "kind": "magic"}'])
def test_damaged_records_and_tags_are_reported(workspace: Workspace, key: str, text: bytes) -> None:
    workspace.store.put_if_absent(key, text)
    with pytest.raises(WorkspaceError, match="damaged"):
        load_release(workspace, key.rpartition("/")[2].removesuffix(".json"))


def test_a_damaged_record_is_reported(workspace: Workspace) -> None:
    workspace.store.put_if_absent("releases/r1.json", b'{"name": "r1"}')
    with pytest.raises(WorkspaceError, match="damaged"):
        list_releases(workspace)
