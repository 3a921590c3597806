"""A release read by image id, image after image, and as Arrow batches."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import engine.dataset
from engine.dataset import ReleaseReader, open_release
from engine.dataset.catalog import Workspace
from engine.dataset.image_rows import ImageRows
from engine.dataset.ingest import ListedImage, ingest
from engine.dataset.releases import load_release
from engine.dataset.runs import Recipe, commit_run, pending_shards, plan_runs
from engine.dataset.schemas import arrow_schema
from engine.dataset.shards import ImageMasks, mask_id, write_shard
from engine.dataset.sql import open_database
from engine.errors import BadInputError, WorkspaceError
from engine.records import MaskRecord, Release
from tests.dataset.dataset_builders import LIMITS, NOW, make_masks, write_images

FIRST, SECOND = Recipe.of("model-a", {}), Recipe.of("model-b", {})
IMAGES = 12


def ingest_images(workspace: Workspace, folder: Path) -> list[int]:
    """Ingest in two commits; every third image is of split ``val``."""
    paths = write_images(folder, IMAGES)
    listed = [
        ListedImage(str(path), None, "val" if number % 3 == 0 else "train")
        for number, path in enumerate(paths)
    ]
    ids: set[int] = set()
    for part in (listed[:7], listed[7:]):
        ids |= set(ingest(workspace, part, LIMITS, NOW).image_ids)
    return sorted(ids)


def publish(
    workspace: Workspace,
    recipe: Recipe,
    masks: Mapping[int, Sequence[MaskRecord]],
    *,
    images_per_shard: int = 5,
) -> Release:
    """Run a recipe over the images that `masks` names, and publish it."""
    run = plan_runs(workspace, list(masks), recipe, images_per_shard, NOW)[-1]
    for shard in pending_shards(workspace.store, run):
        found = [ImageMasks(image_id, masks[image_id]) for image_id in shard.image_ids]
        write_shard(workspace.store, shard, found, run.provenance)
    return commit_run(workspace, run)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two releases: the second recipe has masked every second image once more."""
    folder = tmp_path_factory.mktemp("reader")
    with Workspace.open(folder / "workspace") as workspace:
        ids = ingest_images(workspace, folder / "photos")
        publish(workspace, FIRST, {image_id: make_masks(i % 4) for i, image_id in enumerate(ids)})
        publish(workspace, SECOND, {image_id: make_masks(2) for image_id in ids[::2]})
    return folder / "workspace"


@pytest.fixture
def reader(root: Path) -> Iterator[ReleaseReader]:
    with open_release(root) as opened:
        yield opened


def expected_masks(reader: ReleaseReader, release: str) -> dict[int, list[MaskRecord]]:
    """What was put in, by image id."""
    ids = sorted(image.image_id for image in reader)
    masks = {image_id: make_masks(i % 4) for i, image_id in enumerate(ids)}
    if release == "r2":
        for image_id in ids[::2]:
            masks[image_id] = masks[image_id] + make_masks(2)
    return masks


def test_all_images_come_ordered_by_id_with_the_masks_of_all_runs(reader: ReleaseReader) -> None:
    images = list(reader)
    assert len(images) == len(reader) == IMAGES
    assert all(a.image_id < b.image_id for a, b in pairwise(images))
    expected = expected_masks(reader, "r2")
    for image in images:
        key = lambda mask: (mask.predicted_iou, mask.area)  # noqa: E731
        assert sorted(image.masks, key=key) == sorted(expected[image.image_id], key=key)


def test_one_image_by_its_id_is_what_iteration_gives(reader: ReleaseReader) -> None:
    for image in reader:
        assert reader[image.image_id] == image
    assert images_have_ids_of_their_recipes(reader)


def images_have_ids_of_their_recipes(reader: ReleaseReader) -> bool:
    recipes = {recipe.model_id: recipe.recipe_id for recipe in (FIRST, SECOND)}
    for image in reader:
        seen = dict.fromkeys(recipes, 0)
        for number, origin in zip(image.mask_ids, image.origins, strict=True):
            place = seen[origin.model_id]
            assert number == mask_id(recipes[origin.model_id], image.image_id, place)
            assert origin.run_id.startswith(f"auto-{recipes[origin.model_id]}")
            assert (origin.stage, origin.annotator_id) == ("auto", None)
            assert origin.created_at == NOW
            seen[origin.model_id] += 1
    return True


def test_the_record_of_an_image_is_that_of_its_ingestion(reader: ReleaseReader) -> None:
    splits = set()
    for image in reader:
        record = image.record
        assert (record.height, record.width, record.format) == (24, 32, "png")
        assert record.ingested_at == NOW
        assert image.read().shape == (24, 32, 3)
        splits.add(record.split)
    assert splits == {"val", "train"}


def test_an_older_release_is_read_as_it_was(root: Path) -> None:
    with open_release(root, "r1") as first, open_release(root, "r2") as second:
        assert first.release.name == "r1"
        assert sum(len(image.masks) for image in first) == first.release.masks
        assert sum(len(image.masks) for image in second) == second.release.masks
        assert first.release.masks < second.release.masks


def test_parts_of_the_order_are_what_the_whole_has_there(reader: ReleaseReader) -> None:
    whole = list(reader)
    assert list(reader.images(3, 8)) == whole[3:8]
    assert list(reader.images(10)) == whole[10:]
    assert list(reader.images(4, 4)) == []
    val = [image for image in whole if image.record.split == "val"]
    assert list(reader.images(split="val")) == val
    assert 0 < len(val) < len(whole)
    assert list(reader.images(split="test")) == []


def test_an_unknown_image_is_refused(reader: ReleaseReader) -> None:
    assert 5 not in reader
    assert next(iter(reader)).image_id in reader
    with pytest.raises(BadInputError, match="r2 has no image 5"):
        reader[5]


def test_masks_come_as_arrow_batches_with_the_columns_asked_for(reader: ReleaseReader) -> None:
    whole = reader.masks().read_all()
    assert whole.schema == arrow_schema("masks")
    assert whole.num_rows == reader.release.masks
    areas = reader.masks(("area", "image_id")).read_all()
    assert areas.column_names == ["area", "image_id"]
    assert areas["area"].to_pylist() == whole["area"].to_pylist()
    assert reader.masked_ids().tolist() == sorted(set(whole["image_id"].to_pylist()))
    with pytest.raises(BadInputError, match="colour"):
        reader.masks(("colour",))


def test_columns_of_one_image(reader: ReleaseReader) -> None:
    image = max(reader, key=lambda image: len(image.masks))
    rows = reader.masks_of(image.image_id, ("area",))
    assert rows.column_names == ["area"]
    assert rows["area"].to_pylist() == [mask.area for mask in image.masks]
    assert reader.masks_of(5, ("area", "counts")).num_rows == 0


def test_row_groups_are_cut_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.dataset.shards.ROW_GROUP_ROWS", 3)
    with Workspace.open(tmp_path / "workspace") as workspace:
        ids = ingest_images(workspace, tmp_path / "photos")
        masks = {image_id: make_masks(i % 5) for i, image_id in enumerate(ids)}
        publish(workspace, FIRST, masks, images_per_shard=IMAGES)
    with open_release(tmp_path / "workspace") as reader:
        assert len(reader.mask_files.row_groups(0).rows_G) > 3
        assert [list(image.masks) for image in reader] == [masks[image_id] for image_id in ids]
        for image_id in ids:
            assert list(reader[image_id].masks) == masks[image_id]
        some = list(reader.images(5, 9))
        assert [list(image.masks) for image in some] == [masks[i] for i in ids[5:9]]


def test_a_reader_works_with_few_open_files_pickled_and_in_threads(reader: ReleaseReader) -> None:
    reader.mask_files._limit = 1
    expected = {image.image_id: image for image in reader}
    copy = pickle.loads(pickle.dumps(reader))  # noqa: S301 - made here
    with copy, ThreadPoolExecutor(4) as pool:
        found = pool.map(copy.__getitem__, [*expected, *expected])
        assert list(found) == [*expected.values(), *expected.values()]
    assert len(copy.mask_files._open) == 0


def test_a_release_without_masks_gives_images_without_masks(tmp_path: Path) -> None:
    with Workspace.open(tmp_path / "workspace") as workspace:
        ids = ingest_images(workspace, tmp_path / "photos")
        publish(workspace, FIRST, dict.fromkeys(ids, ()))
    with open_release(tmp_path / "workspace") as reader:
        assert [(image.image_id, image.masks) for image in reader] == [(i, ()) for i in ids]
        assert reader[ids[0]].masks == ()
        assert reader.masks().read_all().num_rows == 0
        assert reader.masked_ids().tolist() == []


def test_a_workspace_without_release_and_a_wrong_name_are_refused(tmp_path: Path) -> None:
    Workspace.open(tmp_path / "empty").close()
    with pytest.raises(BadInputError, match="no release"):
        open_release(tmp_path / "empty")
    with pytest.raises(BadInputError, match="r7"):
        open_release(tmp_path / "empty", "r7")
    with pytest.raises(WorkspaceError, match="holds no workspace"):
        open_release(tmp_path / "nothing")


def test_damage_is_named(tmp_path: Path) -> None:
    with Workspace.open(tmp_path / "workspace") as workspace:
        ids = ingest_images(workspace, tmp_path / "photos")
        publish(workspace, FIRST, {image_id: make_masks(2) for image_id in ids})
    with open_release(tmp_path / "workspace") as reader:
        shard = tmp_path / "workspace" / reader.mask_files.files[0].key
        shard.write_bytes(shard.read_bytes()[:200])
        with pytest.raises(WorkspaceError, match="is not a shard"):
            list(reader)
        shard.unlink()
        with pytest.raises(WorkspaceError, match="missing"):
            reader[ids[0]]


def test_masks_of_an_image_that_is_not_in_the_release_are_not_passed_over(tmp_path: Path) -> None:
    with Workspace.open(tmp_path / "workspace") as workspace:
        ids = ingest_images(workspace, tmp_path / "photos")
        publish(workspace, FIRST, {image_id: make_masks(2) for image_id in ids})
        release = load_release(workspace, "r1")
        first = workspace.table("images").snapshots()[0].snapshot_id
        fields = json.loads(workspace.store.get("releases/r1.json"))
        fields |= {"name": "r2", "snapshots": {**release.snapshots, "images": first}}
        workspace.store.put_if_absent("releases/r2.json", json.dumps(fields).encode())
    with open_release(tmp_path / "workspace", "r2") as reader:
        assert len(reader) == 7
        with pytest.raises(WorkspaceError, match="but not the image"):
            list(reader)
        known = reader.image_rows.sorted_ids.tolist()
        assert len(reader[known[0]].masks) == 2


def test_the_rows_of_each_ingestion_lie_ordered_by_id(reader: ReleaseReader) -> None:
    files = reader.image_rows.files
    assert len(files.files) == 2
    for table in files.tables(("image_id",)):
        ids = table["image_id"].to_pylist()
        assert ids == sorted(ids)


def test_more_images_than_fit_into_the_cache_are_read_again(reader: ReleaseReader) -> None:
    expected = list(reader)
    small = ReleaseReader(
        reader.release, ImageRows(reader.image_rows.files, cache_bytes=1), reader.mask_files
    )
    assert list(small) == expected
    assert [small[image.image_id] for image in expected] == expected


def test_ids_at_both_ends_of_their_range_are_found(tmp_path: Path) -> None:
    with Workspace.open(tmp_path / "workspace") as workspace:
        ids = ingest_images(workspace, tmp_path / "photos")
        publish(workspace, FIRST, {i: make_masks(1) for i in ids}, images_per_shard=1)
    with open_release(tmp_path / "workspace") as reader:
        assert len(reader.mask_files.files) == IMAGES
        for image_id in (ids[0], ids[-1]):
            assert len(list(reader.mask_files.holding(image_id))) == 1
        assert reader.image_rows.position(ids[-1]) == IMAGES - 1
        assert reader.image_rows.position(int(np.iinfo(np.int64).max)) is None


def test_the_package_offers_its_public_names_and_no_others() -> None:
    assert engine.dataset.open_release is open_release
    assert all(getattr(engine.dataset, name) for name in engine.dataset.__all__)
    with pytest.raises(AttributeError, match="open_everything"):
        engine.dataset.open_everything  # noqa: B018


def test_a_release_in_a_bucket_is_read_like_one_in_a_folder(
    s3_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKWHEEL_LOCAL_FOLDER", str(tmp_path / "local"))
    address = f"{s3_address}/birds"
    with Workspace.open(address) as workspace:
        ids = ingest_images(workspace, tmp_path / "photos")
        masks = {image_id: make_masks(i % 4) for i, image_id in enumerate(ids)}
        publish(workspace, FIRST, masks)
    with open_release(address) as reader:
        assert [list(image.masks) for image in reader] == list(masks.values())
        copy = pickle.loads(pickle.dumps(reader))  # noqa: S301 - made here
        assert list(copy[ids[3]].masks) == masks[ids[3]]
    with open_database(address, threads=1) as database:
        rows = database.query("select count(*) as n, sum(area) as area from masks").read_all()
        expected = [mask for found in masks.values() for mask in found]
        assert rows["n"].to_pylist() == [len(expected)]
        assert int(rows["area"][0].as_py()) == sum(mask.area for mask in expected)
        some = database.query(f"select area from masks where image_id = {ids[3]} and area > 2")  # noqa: S608
        assert some.read_all().num_rows == len(masks[ids[3]])
        with pytest.raises(BadInputError):
            database.query("from read_parquet('s3://other/file.parquet')")
