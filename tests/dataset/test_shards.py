from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco_mask

from engine.dataset.shards import (
    ImageMasks,
    ImageStatus,
    Provenance,
    iter_image_masks,
    mask_id,
    masks_from_arrow,
    read_shard_statuses,
    write_shard,
)
from engine.errors import BadInputError, WorkspaceError
from engine.objects import LocalStore
from engine.records import Shard, SkippedImage
from tests.dataset.dataset_builders import NOW, make_masks

PROVENANCE = Provenance(run_id="run-1", recipe_id="c0ffee", model_id="m1", created_at=NOW)
SKIPPED = SkippedImage("/photos/30.png", "truncated", 'cut off at "the end" — sorry')


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "work")


def shard_of(*image_ids: int, index: int = 0) -> Shard:
    return Shard("run-1", index, image_ids)


def small_results() -> Iterator[ImageMasks]:
    yield ImageMasks(10, make_masks(3))
    yield ImageMasks(20, [])
    yield ImageMasks(30, [], SKIPPED)
    yield ImageMasks(2**63 - 1, make_masks(2))


SMALL = shard_of(10, 20, 30, 2**63 - 1)


def path_of(store: LocalStore, shard: Shard) -> Path:
    return store.root / shard.key


def test_masks_come_back_as_they_went_in(store: LocalStore) -> None:
    assert write_shard(store, SMALL, small_results(), PROVENANCE)
    assert dict(iter_image_masks(store, SMALL)) == {
        10: make_masks(3),
        2**63 - 1: make_masks(2),
    }
    assert dict(iter_image_masks(store, SMALL, {10, 20})) == {10: make_masks(3)}


def test_the_footer_tells_what_became_of_every_image(store: LocalStore) -> None:
    write_shard(store, SMALL, small_results(), PROVENANCE)
    assert read_shard_statuses(store, SMALL) == (
        ImageStatus(10, "masked", 3),
        ImageStatus(20, "masked", 0),
        ImageStatus(30, "skipped", 0, SKIPPED.reason, SKIPPED.message),
        ImageStatus(2**63 - 1, "masked", 2),
    )


def test_equal_input_gives_equal_bytes(store: LocalStore, tmp_path: Path) -> None:
    other = LocalStore(tmp_path / "other")
    write_shard(store, SMALL, small_results(), PROVENANCE)
    write_shard(other, SMALL, list(small_results()), PROVENANCE)
    assert store.get(SMALL.key) == other.get(SMALL.key)


def test_a_written_shard_is_not_written_again(store: LocalStore) -> None:
    assert write_shard(store, SMALL, small_results(), PROVENANCE)
    before = store.get(SMALL.key)
    later = replace(PROVENANCE, created_at=datetime(2030, 1, 1, tzinfo=UTC))
    assert not write_shard(store, SMALL, small_results(), later)
    assert store.get(SMALL.key) == before


def test_row_groups_end_where_images_end_at_about_2000_rows(store: LocalStore) -> None:
    shard = shard_of(1, 2, 3, 4, 5)
    counts = {1: 900, 2: 900, 3: 900, 4: 4500, 5: 1}
    write_shard(store, shard, (ImageMasks(i, make_masks(n)) for i, n in counts.items()), PROVENANCE)
    metadata = pq.read_metadata(path_of(store, shard))
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    assert [group.num_rows for group in groups] == [2700, 4500, 1]
    bounds = [(g.column(1).statistics.min, g.column(1).statistics.max) for g in groups]
    assert bounds == [(1, 3), (4, 4), (5, 5)]
    assert {group.column(4).compression for group in groups} == {"ZSTD"}
    assert dict(iter_image_masks(store, shard, {4})) == {4: make_masks(4500)}


def test_results_are_taken_one_at_a_time(store: LocalStore) -> None:
    alive: list[int] = []

    class Tracked(list):  # type: ignore[type-arg]  # only to see when it is freed
        def __del__(self) -> None:
            alive.remove(len(self))

    def results() -> Iterator[ImageMasks]:
        for image_id in range(1, 9):
            masks = Tracked(make_masks(700 + image_id))
            alive.append(len(masks))
            yield ImageMasks(image_id, masks)
            del masks
            assert len(alive) <= 2

    write_shard(store, shard_of(*range(1, 9)), results(), PROVENANCE)
    assert alive == []


def test_a_shard_without_any_mask_is_a_readable_file(store: LocalStore) -> None:
    shard = shard_of(1, 2)
    write_shard(store, shard, [ImageMasks(1), ImageMasks(2, [], SKIPPED)], PROVENANCE)
    assert [status.masks for status in read_shard_statuses(store, shard)] == [0, 0]
    assert list(iter_image_masks(store, shard)) == []
    path = str(path_of(store, shard))
    assert duckdb.execute("select count(*) from read_parquet(?)", [path]).fetchall() == [(0,)]
    assert len(pd.read_parquet(path)) == 0


@pytest.mark.parametrize(
    "results",
    [
        [ImageMasks(1)],
        [ImageMasks(2), ImageMasks(1)],
        [ImageMasks(1), ImageMasks(2), ImageMasks(3)],
        [ImageMasks(1), ImageMasks(2, make_masks(1), SKIPPED)],
    ],
    ids=["one missing", "wrong order", "one too many", "skipped with masks"],
)
def test_results_that_do_not_fit_the_shard_store_nothing(
    store: LocalStore, results: list[ImageMasks]
) -> None:
    with pytest.raises(BadInputError):
        write_shard(store, shard_of(1, 2), results, PROVENANCE)
    assert list(store.list("")) == []


def test_a_worker_that_fails_halfway_stores_nothing(store: LocalStore) -> None:
    def results() -> Iterator[ImageMasks]:
        yield ImageMasks(1, make_masks(2500))
        raise RuntimeError("the GPU fell off the bus")

    with pytest.raises(RuntimeError, match="GPU"):
        write_shard(store, shard_of(1, 2), results(), PROVENANCE)
    assert list(store.list("")) == []


def test_a_shard_about_other_images_is_refused(store: LocalStore) -> None:
    write_shard(store, shard_of(1, 2), [ImageMasks(1), ImageMasks(2)], PROVENANCE)
    with pytest.raises(WorkspaceError, match="other images"):
        read_shard_statuses(store, shard_of(1, 3))


def test_a_damaged_shard_is_reported(store: LocalStore) -> None:
    store.put_if_absent(SMALL.key, b"PAR1 and then nothing that would be a footer PAR1")
    with pytest.raises(WorkspaceError, match="is not a shard"):
        read_shard_statuses(store, SMALL)


def test_mask_ids_are_stable_distinct_and_63_bits() -> None:
    ids = {mask_id(recipe, image, i) for recipe in "ab" for image in (1, 11) for i in range(200)}
    assert len(ids) == 800
    assert all(0 <= value < 2**63 for value in ids)
    assert mask_id("c0ffee", 10, 0) == 8550808600001631259


def test_duckdb_reads_a_shard(store: LocalStore) -> None:
    write_shard(store, SMALL, small_results(), PROVENANCE)
    path = str(path_of(store, SMALL))
    rows = duckdb.execute(
        "select image_id, bbox_x, area, point_coords[1][2], annotator_id from read_parquet(?) "
        "where area < 6 order by image_id",
        [path],
    ).fetchall()
    assert rows == [(10, 0, 3, 5.25, None), (2**63 - 1, 0, 3, 5.25, None)]
    [(statuses,)] = duckdb.execute(
        "select decode(value) from parquet_kv_metadata(?) where decode(key) = 'maskwheel.images'",
        [path],
    ).fetchall()
    assert json.loads(statuses)[1] == {"image_id": 20, "status": "masked", "masks": 0}


def test_pandas_and_pycocotools_read_a_shard(store: LocalStore) -> None:
    write_shard(store, SMALL, small_results(), PROVENANCE)
    frame = pd.read_parquet(path_of(store, SMALL))
    assert list(frame["image_id"]) == [10, 10, 10, 2**63 - 1, 2**63 - 1]
    assert frame["created_at"][0] == pd.Timestamp(NOW)
    areas = [
        int(coco_mask.area({"size": [height, width], "counts": counts.encode()}))
        for height, width, counts in zip(
            frame["size_h"], frame["size_w"], frame["counts"], strict=True
        )
    ]
    assert areas == list(frame["area"])


def test_rows_of_a_query_become_records(store: LocalStore) -> None:
    write_shard(store, SMALL, small_results(), PROVENANCE)
    rows = pq.read_table(path_of(store, SMALL), filters=[("image_id", "=", 10)])
    assert masks_from_arrow(rows) == make_masks(3)
