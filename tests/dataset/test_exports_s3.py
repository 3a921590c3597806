"""Exports into a bucket, and imports from one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.dataset.catalog import Workspace
from engine.dataset.imports.coco import CocoSource
from engine.dataset.imports.importing import ImportOptions, import_masks
from engine.dataset.imports.sa1b import Sa1bSource
from engine.objects import open_store
from tests.dataset.dataset_builders import NOW
from tests.dataset.export_builders import LIMITS, Made, export, make_release


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_release(tmp_path_factory.mktemp("release"))


@pytest.mark.parametrize("name", ["sa1b", "webdataset"])
def test_an_export_into_a_bucket_equals_one_into_a_folder(
    made: Made, tmp_path: Path, s3_address: str, name: str
) -> None:
    export(made, tmp_path / "out", format=name, images_per_part=3)
    address = f"{s3_address}/shared/r2"
    done: list[str] = []

    def stop(uri: str, masks: int) -> None:
        done.append(uri)
        if len(done) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(made, address, format=name, images_per_part=3, on_image=stop)
    store = open_store(address)
    assert not store.exists("export.json")
    report = export(made, address, format=name, images_per_part=3)
    assert report.address == address
    checksums = (tmp_path / "out/SHA256SUMS").read_bytes()
    assert store.get("SHA256SUMS") == checksums
    listed = [line.split("  ")[1] for line in checksums.decode().splitlines()]
    assert sorted([*listed, "SHA256SUMS", "export.json"]) == list(store.list(""))


def test_an_import_reads_annotations_and_photos_from_a_bucket(
    made: Made, tmp_path: Path, s3_address: str
) -> None:
    export(made, f"{s3_address}/coco", format="coco")
    export(made, f"{s3_address}/sa1b", format="sa1b", images="copy")
    masks = sum(len(of_photo) for of_photo in made.masks.values())
    with Workspace.open(str(tmp_path / "workspace")) as workspace:
        found = 0
        for split in ("train", "val"):
            source = CocoSource(
                f"{s3_address}/coco/instances_{split}.json", f"{s3_address}/coco/images/"
            )
            options = ImportOptions()
            report = import_masks(workspace, source, options, limits=LIMITS, now=NOW)
            assert report.rejected is None
            found += report.masks
        assert found == masks
        options = ImportOptions(stage="auto")
        folder = Sa1bSource(f"{s3_address}/sa1b")
        report = import_masks(workspace, folder, options, limits=LIMITS, now=NOW)
        assert (report.masks, report.rejected) == (masks, None)
        about = json.loads(workspace.store.get(f"runs/{report.runs[0]}/import.json"))
        assert about["source"] == f"{s3_address}/sa1b"
