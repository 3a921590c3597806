"""The stream behind exports: every image once, its masks of all runs, in bounded memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pytest

from engine.dataset.catalog import Workspace
from engine.dataset.exports.source import ReleaseSource
from engine.dataset.schemas import arrow_schema
from engine.records import ImageRecord, MaskRecord
from tests.dataset.dataset_builders import NOW, make_masks
from tests.dataset.export_builders import publish


def add_images(workspace: Workspace, image_ids: Sequence[int], split: str | None = None) -> None:
    """Put rows into table images; there are no such files."""
    rows = [
        asdict(
            ImageRecord(
                image_id=image_id,
                uri=f"/nowhere/{image_id}.png",
                sha256="0" * 64,
                width=32,
                height=24,
                format="png",
                split=split,
                ingested_at=NOW,
            )
        )
        for image_id in image_ids
    ]
    table = pa.Table.from_pylist(rows, schema=arrow_schema("images"))
    workspace.append_rows("images", table, f"images-{image_ids[0]}-{len(image_ids)}")


def counts(source: ReleaseSource, split: str | None = None, after: int = -1) -> dict[int, int]:
    images = list(source.images(split, masks=True, after=after))
    assert [image.image_id for image in images] == sorted({image.image_id for image in images})
    return {image.image_id: len(image.masks) for image in images}


def masks_of(numbers: Mapping[int, int]) -> dict[int, list[MaskRecord]]:
    return {image_id: make_masks(count) for image_id, count in numbers.items()}


def test_masks_of_several_runs_come_together_by_image(tmp_path: Path) -> None:
    with Workspace.open(str(tmp_path / "w")) as workspace:
        add_images(workspace, range(100, 0, -1))
        publish(workspace, masks_of({i: i % 4 for i in range(1, 61)}), "a", shard=7)
        publish(workspace, masks_of(dict.fromkeys(range(30, 100, 3), 2)), "b", shard=5)
        release = publish(workspace, masks_of(dict.fromkeys((2, 45), 1)), "c")
        with ReleaseSource.open(workspace, release, tmp_path) as source:
            found = counts(source)
            later = counts(source, after=44)
    expected = {i: i % 4 for i in range(1, 61)}
    for i in range(30, 100, 3):
        expected[i] = expected.get(i, 0) + 2
    expected[2] += 1
    expected[45] += 1
    assert found == expected
    assert later == {i: n for i, n in expected.items() if i > 44}


def test_an_image_whose_masks_span_row_groups_comes_once(tmp_path: Path) -> None:
    with Workspace.open(str(tmp_path / "w")) as workspace:
        add_images(workspace, [1, 2, 3])
        release = publish(workspace, masks_of({1: 1500, 2: 2900, 3: 10}), "a", shard=3)
        with ReleaseSource.open(workspace, release, tmp_path) as source:
            assert counts(source) == {1: 1500, 2: 2900, 3: 10}


def test_memory_does_not_grow_with_the_release(tmp_path: Path) -> None:
    peaks = []
    for number, shards in enumerate((4, 16)):
        folder = tmp_path / str(number)
        folder.mkdir()
        with Workspace.open(str(folder / "w")) as workspace:
            ids = range(1, shards * 100 + 1)
            add_images(workspace, ids)
            masks = masks_of(dict.fromkeys(ids, 10))
            release = publish(workspace, masks, "a", shard=100)
            del masks
            with ReleaseSource.open(workspace, release, folder) as source:
                tracemalloc.start()
                assert sum(len(image.masks) for image in source.images(None, masks=True)) == (
                    10 * len(ids)
                )
                peaks.append(tracemalloc.get_traced_memory()[1])
                tracemalloc.stop()
    assert peaks[1] < 1.25 * peaks[0]


@pytest.mark.parametrize("where", [None, "area > 30 and predicted_iou < 1"])
def test_a_condition_is_met_by_every_mask(tmp_path: Path, where: str | None) -> None:
    with Workspace.open(str(tmp_path / "w")) as workspace:
        add_images(workspace, [7])
        release = publish(workspace, masks_of({7: 40}), "a")
        with ReleaseSource.open(workspace, release, tmp_path, where=where) as source:
            (image,) = source.images(None, masks=True)
    areas = [record.area for record in make_masks(40)]
    assert [mask.record.area for mask in image.masks] == [
        area for area in areas if where is None or area > 30
    ]
