"""A release as labelled images: the rows of its shards, image by image."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.dataset.catalog import Workspace
from engine.dataset.labelled_sets import LabelledImage
from engine.dataset.parquet_files import ParquetFiles
from engine.dataset.release_files import table_files
from engine.dataset.release_masks import HUMAN_STAGES, ReleaseMasks
from engine.dataset.releases import data_files
from engine.dataset.runs import Recipe, commit_run, plan_runs
from engine.errors import BadInputError, WorkspaceError
from engine.records import MaskRecord
from tests.dataset.dataset_builders import NOW
from tests.quality.release_builders import (
    RECIPE,
    id_of,
    photo,
    random_rectangles,
    release_of,
    write_photos,
    write_shards,
)

NAMES = ("d.png", "b.png", "a.png", "c.png", "e.png")
MASKS: dict[str, list[MaskRecord]] = {
    "a.png": random_rectangles(1, 3),
    "b.png": random_rectangles(2, 5),
    "d.png": random_rectangles(3, 1),
    "e.png": random_rectangles(4, 2),
}


def images_of(data: ReleaseMasks) -> list[LabelledImage]:
    return [data[i] for i in range(len(data))]


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    write_photos(tmp_path / "photos", NAMES)
    with Workspace.open(tmp_path / "workspace") as opened:
        yield opened


def test_every_image_has_its_masks_ordered_by_address(workspace: Workspace) -> None:
    release = release_of(workspace, workspace.local_folder.parent / "photos", MASKS)
    data = ReleaseMasks.open(workspace, release)
    assert [image.path.name for image in images_of(data)] == ["a.png", "b.png", "d.png", "e.png"]
    for image in images_of(data):
        expected = MASKS[image.path.name]
        assert [mask.rle for mask in image.masks] == [mask.rle for mask in expected]
        assert [mask.area for mask in image.masks] == [mask.area for mask in expected]
        x, y, w, h = expected[0].bbox_xywh
        assert image.masks[0].bbox_xywh == (x, y, w + 1, h + 1)
        assert (image.read() == photo(NAMES.index(image.path.name))).all()


def test_masks_of_several_runs_are_put_together(workspace: Workspace) -> None:
    photos = workspace.local_folder.parent / "photos"
    release_of(workspace, photos, MASKS)
    later = {"a.png": random_rectangles(9, 4), "c.png": random_rectangles(8, 1)}
    release = release_of(workspace, photos, later, recipe=Recipe.of("another", {}))
    data = ReleaseMasks.open(workspace, release)
    both = MASKS["a.png"] + later["a.png"]
    assert sorted(mask.rle.counts for mask in data[0].masks) == sorted(m.rle.counts for m in both)
    assert [len(image.masks) for image in images_of(data)] == [7, 5, 1, 1, 2]


def test_a_release_does_not_see_later_runs(workspace: Workspace) -> None:
    photos = workspace.local_folder.parent / "photos"
    first = release_of(workspace, photos, MASKS)
    release_of(workspace, photos, {"c.png": random_rectangles(8, 1)}, recipe=Recipe.of("x", {}))
    assert len(ReleaseMasks.open(workspace, first)) == 4


def test_a_worker_process_gets_a_small_copy_that_reads_the_same(workspace: Workspace) -> None:
    release = release_of(workspace, workspace.local_folder.parent / "photos", MASKS)
    data = ReleaseMasks.open(workspace, release)
    copy = pickle.loads(pickle.dumps(data))  # noqa: S301 - made here
    assert images_of(copy) == images_of(data)


def test_a_release_without_masks_and_an_unknown_split_are_refused(workspace: Workspace) -> None:
    photos = workspace.local_folder.parent / "photos"
    empty = release_of(workspace, photos, {})
    with pytest.raises(BadInputError, match="r1 has no masks"):
        ReleaseMasks.open(workspace, empty)
    full = release_of(workspace, photos, MASKS, recipe=Recipe.of("x", {}))
    with pytest.raises(BadInputError, match="split 'train'"):
        ReleaseMasks.open(workspace, full, split="train")


def test_masks_of_some_stages_are_read_from_their_own_files_only(workspace: Workspace) -> None:
    photos = workspace.local_folder.parent / "photos"
    release_of(workspace, photos, {**MASKS, "c.png": random_rectangles(5, 2)})
    ids = [id_of(workspace, name) for name in ("a.png", "d.png")]
    people = plan_runs(workspace, ids, Recipe.of("human", {}), 1, NOW, kind="import", stage="semi")
    drawn = {"a.png": random_rectangles(9, 2), "d.png": []}
    write_shards(workspace, people[-1], drawn)
    release = commit_run(workspace, people[-1])
    by_hand = ReleaseMasks.open(workspace, release, stages=HUMAN_STAGES)
    assert [image.path.name for image in images_of(by_hand)] == ["a.png"]
    assert [mask.rle for mask in by_hand[0].masks] == [mask.rle for mask in drawn["a.png"]]
    for key in data_files(workspace, release, "masks"):
        if "auto-" in key:
            (workspace.local_folder / key).unlink()
    again = ReleaseMasks.open(workspace, release, stages=HUMAN_STAGES)
    assert len(images_of(again)) == 1
    with pytest.raises(BadInputError, match="no masks of the stages manual; people make them"):
        ReleaseMasks.open(workspace, release, stages=("manual",))


def test_the_stage_of_a_file_without_statistics_is_read_from_the_file(workspace: Workspace) -> None:
    photos = workspace.local_folder.parent / "photos"
    release = release_of(workspace, photos, MASKS)
    known = table_files(workspace, "masks", release.snapshots["masks"])
    assert {file.stage for file in known if file.rows} == {"auto"}
    bare = [replace(file, stage=None) for file in known]
    files = ParquetFiles(workspace.store, "masks", bare)
    assert len(files.of_stages(("auto",)).files) == len([file for file in bare if file.rows])
    assert not files.of_stages(HUMAN_STAGES).files


def test_a_shard_that_is_gone_or_damaged_is_said(workspace: Workspace) -> None:
    release = release_of(workspace, workspace.local_folder.parent / "photos", MASKS, recipe=RECIPE)
    data = ReleaseMasks.open(workspace, release)
    path = workspace.local_folder / data_files(workspace, release, "masks")[0]
    data.reader.close()  # what is open may have been read already
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(WorkspaceError, match="is not a shard"):
        images_of(data)
    path.unlink()
    with pytest.raises(WorkspaceError, match="missing"):
        ReleaseMasks.open(workspace, release)
