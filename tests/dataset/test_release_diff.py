"""What differs between releases, counted as a person would count it row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.dataset import id_buckets
from engine.dataset.catalog import Workspace
from engine.dataset.release_diff import Changes, ReleaseDiff, diff
from engine.dataset.releases import scan
from engine.dataset.rollback import rollback
from engine.dataset.row_digests import digest_rows
from engine.dataset.runs import commit_run
from engine.dataset.schemas import arrow_schema
from engine.errors import BadInputError, WorkspaceError
from engine.quality.difference_pictures import write_difference_pictures
from engine.records import Release
from tests.dataset.dataset_builders import NOW
from tests.dataset.publishing_builders import ingest_photos, written_run
from tests.dataset.test_row_checks import changed, mask_rows


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, Release]]:
    """r1: a run; r2: another on more photos; r3: back to r1; r4: the second run's recipe again."""
    folder = tmp_path_factory.mktemp("diff")
    with Workspace.open(folder / "work") as workspace:
        few = ingest_photos(workspace, folder / "photos", 6)
        r1 = commit_run(workspace, written_run(workspace, few, 1))
        more = ingest_photos(workspace, folder / "photos", 11)
        r2 = commit_run(workspace, written_run(workspace, more, 2))
        r3 = rollback(workspace, "r1", NOW, "too many")
        r4 = commit_run(workspace, written_run(workspace, few, 2))
    return folder / "work", {release.name: release for release in (r1, r2, r3, r4)}


@pytest.fixture
def workspace(history: tuple[Path, Mapping[str, Release]]) -> Iterator[Workspace]:
    with Workspace.open(history[0]) as workspace:
        yield workspace


@pytest.fixture
def releases(history: tuple[Path, Mapping[str, Release]]) -> Mapping[str, Release]:
    return history[1]


def by_id(workspace: Workspace, release: Release) -> dict[int, dict[str, object]]:
    rows = scan(workspace, release, "masks").to_pylist()
    return {row["mask_id"]: row for row in rows}


def expected(workspace: Workspace, before: Release, after: Release) -> dict[object, Changes]:
    """Count changes by group, the slow way."""
    old, new = by_id(workspace, before), by_id(workspace, after)
    counted: dict[object, Changes] = {}
    for mask_id in old.keys() | new.keys():
        row = new.get(mask_id) or old[mask_id]
        if mask_id not in old:
            change = Changes(added=1)
        elif mask_id not in new:
            change = Changes(removed=1)
        elif old[mask_id] != new[mask_id]:
            change = Changes(changed=1)
        else:
            continue
        group = row["stage"], row["model_id"], row["annotator_id"]
        counted[group] = counted.get(group, Changes()) + change
    return counted


def groups(difference: ReleaseDiff) -> dict[object, Changes]:
    return {(g.stage, g.model_id, g.annotator_id): g.masks for g in difference.groups}


@pytest.mark.parametrize(
    ("before", "after"),
    [("r1", "r2"), ("r2", "r1"), ("r2", "r3"), ("r2", "r4"), ("r4", "r2"), ("r1", "r4")],
)
def test_a_diff_counts_what_a_comparison_row_by_row_does(
    workspace: Workspace, releases: Mapping[str, Release], before: str, after: str
) -> None:
    difference = diff(workspace, releases[before], releases[after], threads=2)
    wanted = expected(workspace, releases[before], releases[after])
    assert wanted
    assert groups(difference) == wanted
    assert difference.masks == sum(wanted.values(), start=Changes())
    old, new = by_id(workspace, releases[before]), by_id(workspace, releases[after])
    touched = {
        (new.get(i) or old[i])["image_id"]
        for i in old.keys() | new.keys()
        if old.get(i) != new.get(i)
    }
    assert difference.images_with_other_masks == len(touched)
    assert set(difference.sample) <= touched


def test_masks_made_again_by_another_run_are_changed(
    workspace: Workspace, releases: Mapping[str, Release]
) -> None:
    difference = diff(workspace, releases["r2"], releases["r4"])
    assert difference.masks.changed > 0
    assert difference.masks.removed > 0
    assert difference.runs_added == (releases["r4"].runs[-1],)
    assert difference.runs_removed == (releases["r2"].runs[-1],)


def test_a_rollback_has_the_masks_of_what_it_restores_and_no_file_is_read(
    workspace: Workspace, releases: Mapping[str, Release]
) -> None:
    difference = diff(workspace, releases["r1"], releases["r3"])
    assert difference.masks == Changes()
    assert difference.images == Changes(added=5)
    assert difference.groups == ()
    assert difference.sample == ()
    same = diff(workspace, releases["r4"], releases["r4"])
    assert same.files_read == 0
    assert (same.images, same.masks) == (Changes(), Changes())


def test_images_are_counted_too(workspace: Workspace, releases: Mapping[str, Release]) -> None:
    assert diff(workspace, releases["r1"], releases["r2"]).images == Changes(added=5)
    assert diff(workspace, releases["r2"], releases["r1"]).images == Changes(removed=5)


def test_many_small_buckets_give_the_same_answer(
    workspace: Workspace, releases: Mapping[str, Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = diff(workspace, releases["r2"], releases["r4"])
    monkeypatch.setattr(id_buckets.IdBuckets.__init__, "__defaults__", (64,))
    assert diff(workspace, releases["r2"], releases["r4"]) == whole


def test_the_sample_follows_its_seed(workspace: Workspace, releases: Mapping[str, Release]) -> None:
    before, after = releases["r1"], releases["r2"]
    samples = [diff(workspace, before, after, sample=3, seed=seed).sample for seed in range(3)]
    assert samples[0] == diff(workspace, before, after, sample=3, seed=0).sample
    assert len(set(samples)) > 1
    assert all(len(sample) == 3 for sample in samples)


def test_progress_counts_the_files_that_are_read(
    workspace: Workspace, releases: Mapping[str, Release]
) -> None:
    seen: list[tuple[int, int]] = []
    difference = diff(
        workspace, releases["r2"], releases["r4"], on_file=lambda n, total: seen.append((n, total))
    )
    total = difference.files_read
    assert seen == [(n, total) for n in range(1, total + 1)]


def test_a_damaged_file_and_wrong_arguments_are_refused(
    workspace: Workspace, releases: Mapping[str, Release], history: tuple[Path, object]
) -> None:
    with pytest.raises(BadInputError, match="0 threads"):
        diff(workspace, releases["r1"], releases["r2"], threads=0)
    gone = replace(releases["r2"], snapshots={**releases["r2"].snapshots, "masks": 1})
    with pytest.raises(WorkspaceError, match="is gone"):
        diff(workspace, releases["r1"], gone)
    run = releases["r4"].runs[-1]
    shard = max((history[0] / "runs" / run).glob("masks-*"), key=lambda path: path.stat().st_size)
    data = shard.read_bytes()
    shard.write_bytes(data[:-40])
    try:
        with pytest.raises(WorkspaceError, match="is damaged"):
            diff(workspace, releases["r2"], releases["r4"])
    finally:
        shard.write_bytes(data)


def test_pictures_show_the_sample_and_name_what_cannot_be_read(
    workspace: Workspace,
    releases: Mapping[str, Release],
    tmp_path: Path,
    history: tuple[Path, object],
) -> None:
    difference = diff(workspace, releases["r1"], releases["r2"], sample=4)
    lost = difference.sample[1]
    rows = scan(workspace, releases["r2"], "images", ("uri",), f"image_id = {lost}")
    photo = Path(rows["uri"][0].as_py().removeprefix("file://"))
    data = photo.read_bytes()
    photo.unlink()
    try:
        drawn = write_difference_pictures(
            workspace, releases["r1"], releases["r2"], difference.sample, tmp_path / "pictures"
        )
    finally:
        photo.write_bytes(data)
    assert len(drawn.paths) == 3
    assert sorted((tmp_path / "pictures").iterdir()) == sorted(drawn.paths)
    assert len(drawn.left_out) == 1
    assert str(lost) in drawn.left_out[0]


def test_equal_rows_have_equal_digests_and_any_value_changes_one() -> None:
    rows = mask_rows()
    digests = digest_rows(rows)
    assert len(set(digests.tolist())) == rows.num_rows
    assert np.array_equal(digest_rows(pa.concat_tables([rows, rows])), [*digests, *digests])
    others: dict[str, object] = {
        "counts": "04",
        "area": 1,
        "predicted_iou": -0.0,
        "stage": "x",
        "annotator_id": "eve",
        "active_seconds": 0.0,
        "point_coords": [[2.5, 2.0]],
        "created_at": NOW.replace(microsecond=1),
    }
    for column, value in others.items():
        found = digest_rows(changed(rows, 0, column, value))
        assert np.flatnonzero(found != digests).tolist() == [0], column


def test_digests_of_lists_know_order_and_nesting() -> None:
    kind = arrow_schema("masks").field("point_coords").type
    lists: Sequence[object] = [
        [],
        [[]],
        [[], []],
        [[1.0, 2.0]],
        [[2.0, 1.0]],
        [[1.0], [2.0]],
        [[1.0, 2.0], []],
        [[0.0]],
        None,
    ]
    digests = digest_rows(pa.table({"points": pa.array(lists, kind)}))
    assert max(Counter(digests.tolist()).values()) == 1
    texts = digest_rows(pa.table({"text": pa.array(["", None, "a", "0"])}))
    assert len(set(texts.tolist())) == 4


def test_rows_read_from_another_file_have_the_same_digests(
    workspace: Workspace, releases: Mapping[str, Release], tmp_path: Path
) -> None:
    rows = scan(workspace, releases["r2"], "masks")
    pq.write_table(rows.sort_by("mask_id"), tmp_path / "again.parquet")
    again = pq.read_table(tmp_path / "again.parquet")
    assert sorted(digest_rows(again).tolist()) == sorted(digest_rows(rows).tolist())
