"""Imports: masks from COCO and SA-1B become a release; what cannot be used is recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.dataset.catalog import Workspace
from engine.dataset.imports.coco import CocoSource
from engine.dataset.imports.importing import ImportOptions, ImportReport, import_masks
from engine.dataset.imports.protocol import ImportSource
from engine.dataset.imports.sa1b import Sa1bSource
from engine.dataset.releases import latest_release, list_releases, scan
from engine.dataset.shards import masks_from_arrow
from engine.errors import BadInputError
from engine.images import encode_png
from engine.masks import decode_mask, encode_mask
from engine.quality.gate import audit
from engine.records import MaskRecord
from tests.dataset.dataset_builders import NOW
from tests.dataset.export_builders import (
    HEIGHT,
    LIMITS,
    WIDTH,
    Made,
    export,
    make_release,
    turned_jpeg,
)
from tests.quality.release_builders import photo, rectangle

SQUARE = [[10, 10, 30, 10, 30, 25, 10, 25]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three photos in ``images``."""
    (tmp_path / "images").mkdir()
    for seed in range(3):
        (tmp_path / f"images/{seed}.png").write_bytes(encode_png(photo(seed)))
    return tmp_path


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(str(tmp_path / "workspace")) as opened:
        yield opened


def coco_image(number: int, **more: object) -> dict[str, object]:
    about = {"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT}
    return about | more


def coco_mask(number: int, image: int, segmentation: Any, **more: object) -> dict[str, object]:
    row = {"id": number, "image_id": image, "segmentation": segmentation, "category_id": 3}
    return row | {"iscrowd": 0} | more


def write(folder: Path, images: list[Any], annotations: list[Any], **more: Any) -> CocoSource:
    path = folder / "annotations.json"
    path.write_text(json.dumps({**more, "images": images, "annotations": annotations}))
    return CocoSource(str(path))


def run(workspace: Workspace, source: ImportSource, **options: Any) -> ImportReport:
    return import_masks(
        workspace, source, ImportOptions(**options), limits=LIMITS, now=NOW, gate=audit
    )


def masks_by_photo(workspace: Workspace) -> dict[str, list[MaskRecord]]:
    release = latest_release(workspace)
    assert release is not None
    images = scan(workspace, release, "images").to_pylist()
    rows = scan(workspace, release, "masks")
    found = {}
    for image in images:
        of_image = rows.filter([i == image["image_id"] for i in rows["image_id"].to_pylist()])
        found[Path(image["uri"]).name] = masks_from_arrow(of_image)
    return found


def rejected(report: ImportReport) -> list[dict[str, Any]]:
    assert report.rejected is not None
    lines = Path(report.rejected.removeprefix("file://")).read_text().splitlines()
    return [json.loads(line) for line in lines]


def beside(workspace: Workspace, report: ImportReport, name: str) -> Path:
    return Path(workspace.address) / "runs" / report.runs[0] / name


def test_every_spelling_of_a_mask_is_read(folder: Path, workspace: Workspace) -> None:
    mask_HW = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask_HW[5:9, 60:70] = True
    changes = np.flatnonzero(np.diff(mask_HW.T.ravel(), prepend=False))
    runs = np.diff(changes, prepend=0, append=mask_HW.size).tolist()
    size = [HEIGHT, WIDTH]
    annotations = [
        coco_mask(1, 0, SQUARE),
        coco_mask(2, 0, {"size": size, "counts": runs}),
        coco_mask(3, 0, {"size": size, "counts": encode_mask(mask_HW).counts}, score=0.25),
    ]
    report = run(workspace, write(folder, [coco_image(0), coco_image(1)], annotations))
    assert (report.images, report.masks, report.rejected) == (2, 3, None)
    polygon, *others = masks_by_photo(workspace)["0.png"]
    assert decode_mask(polygon.rle)[10:25, 10:30].all()
    assert polygon.area == decode_mask(polygon.rle).sum() == 300
    assert (polygon.bbox_xywh, polygon.crop_box_xywh) == ((10, 10, 19, 14), (0, 0, WIDTH, HEIGHT))
    assert (polygon.predicted_iou, polygon.stability_score) == (1.0, 1.0)
    assert all((decode_mask(other.rle) == mask_HW).all() for other in others)
    assert [other.predicted_iou for other in others] == [1.0, 0.25]


def test_the_release_says_that_it_was_imported_and_by_whom_the_masks_are(
    folder: Path, workspace: Workspace
) -> None:
    categories = [{"id": 3, "name": "cat"}]
    licenses = [{"id": 1, "name": "CC0"}]
    source = write(
        folder,
        [coco_image(0, license=1, split="train"), coco_image(1)],
        [coco_mask(41, 0, SQUARE)],
        categories=categories,
        licenses=licenses,
    )
    report = run(workspace, source, split="rest")
    release = latest_release(workspace)
    assert release is not None
    assert (release.kind, release.models, release.runs) == ("import", ("human",), report.runs)
    assert report.runs[0].startswith("import-")
    (row,) = scan(workspace, release, "masks").to_pylist()
    assert (row["stage"], row["model_id"], row["run_id"]) == ("manual", "human", report.runs[0])
    images = scan(workspace, release, "images").to_pylist()
    assert {(i["license"], i["split"]) for i in images} == {("CC0", "train"), (None, "rest")}
    summary = json.loads(beside(workspace, report, "import.json").read_text())
    assert summary["notes"]["categories"] == categories
    (note,) = pq.read_table(beside(workspace, report, "notes.parquet")).to_pylist()
    assert (note["mask_id"], note["source_id"]) == (row["mask_id"], "41")
    assert (note["category"], note["image_key"]) == ("3", "0")


def test_bad_annotations_are_recorded_with_a_reason_and_stop_nothing(
    folder: Path, workspace: Workspace
) -> None:
    size = [HEIGHT, WIDTH]
    bad = {
        "crowd": coco_mask(1, 0, {"size": size, "counts": [0, HEIGHT * WIDTH]}, iscrowd=1),
        "no-mask": coco_mask(2, 0, []),
        "empty": coco_mask(3, 0, {"size": size, "counts": [HEIGHT * WIDTH]}),
        "size": coco_mask(4, 0, {"size": [10, 10], "counts": [100]}),
        "malformed": coco_mask(5, 0, {"size": size, "counts": "damaged!"}),
        "no-image": coco_mask(6, 99, SQUARE),
    }
    malformed = [
        coco_mask(7, 0, [[1, 2, 3]]),
        coco_mask(8, 0, {"counts": "abc"}),
        coco_mask(9, 0, "everything"),
        coco_mask(10, 0, [[1e9, 2, 3, 4, 5, 6]]),
        coco_mask(11, 0, SQUARE, predicted_iou="good"),
        coco_mask(12, 0, SQUARE, predicted_iou=float("nan")),
        coco_mask(13, 0, SQUARE, crop_box=[1, 2]),
        coco_mask(14, 0, SQUARE, point_coords=[[1]]),
        coco_mask(15, 0, {"size": size, "counts": [-1, HEIGHT * WIDTH + 1]}),
    ]
    good = coco_mask(99, 1, SQUARE)
    source = write(folder, [coco_image(0), coco_image(1)], [*bad.values(), *malformed, 7, good])
    report = run(workspace, source)
    assert report.masks == 1
    assert report.masks_rejected == dict.fromkeys(bad, 1) | {
        "malformed": 1 + len(malformed),
        "no-image": 2,  # the number 7 belongs to no image either
    }
    reasons = {line["source_id"]: line["reason"] for line in rejected(report)}
    assert {str(row["id"]): reason for reason, row in bad.items()}.items() <= reasons.items()
    assert {str(row["id"]) for row in malformed} <= {i for i in reasons if i}
    assert all(line["message"] for line in rejected(report))


def test_crowds_come_along_when_asked_for(folder: Path, workspace: Workspace) -> None:
    crowd = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]}
    source = write(folder, [coco_image(0)], [coco_mask(1, 0, crowd, iscrowd=1)])
    report = run(workspace, source, keep_crowd=True)
    assert (report.masks, report.masks_rejected) == (1, {})
    assert pq.read_table(beside(workspace, report, "notes.parquet"))["is_crowd"].to_pylist() == [
        True
    ]


def test_images_that_cannot_be_used_are_recorded(folder: Path, workspace: Workspace) -> None:
    (folder / "images/turned.jpg").write_bytes(turned_jpeg(photo(5)))
    (folder / "images/broken.png").write_bytes(b"no image")
    images = [
        coco_image(0),
        coco_image(1, width=7),
        coco_image(7),
        coco_image(8, file_name="broken.png"),
        coco_image(9, file_name="turned.jpg", width=HEIGHT, height=WIDTH),
        {"id": 11},
        "cat.jpg",
    ]
    masks = [coco_mask(i, image, SQUARE) for i, image in enumerate((0, 1, 7, 8, 9))]
    report = run(workspace, write(folder, images, masks))
    assert (report.images, report.masks) == (1, 1)
    assert report.images_rejected == {
        "size": 2,
        "not-found": 1,
        "not-an-image": 1,
        "malformed": 2,
    }
    assert report.masks_rejected == {"no-image": 4}
    found = {(line["image_key"], line["reason"]) for line in rejected(report)}
    assert {("1", "size"), ("7", "not-found"), ("8", "not-an-image"), ("9", "size")} <= found


def test_the_same_import_adds_nothing_and_images_that_came_later_join(
    folder: Path, workspace: Workspace
) -> None:
    hidden = folder / "images/1.png"
    data = hidden.read_bytes()
    hidden.unlink()
    masks = [coco_mask(1, 0, SQUARE), coco_mask(2, 1, SQUARE)]
    source = write(folder, [coco_image(0), coco_image(1)], masks)
    first = run(workspace, source)
    assert (first.masks, first.images_rejected) == (1, {"not-found": 1})
    again = run(workspace, source)
    assert (again.runs, again.release) == ((), first.release)
    hidden.write_bytes(data)
    later = run(workspace, source)
    assert (later.images, later.masks, later.rejected) == (1, 1, None)
    assert [len(masks) for _, masks in sorted(masks_by_photo(workspace).items())] == [1, 1]
    assert len(list_releases(workspace)) == 2


def test_an_import_that_was_interrupted_goes_on(folder: Path, workspace: Workspace) -> None:
    masks = [coco_mask(i, i, SQUARE) for i in range(3)]
    source = write(folder, [coco_image(i) for i in range(3)], masks)

    def stop(uri: str, masks: int) -> None:
        if masks:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_masks(workspace, source, ImportOptions(), limits=LIMITS, now=NOW, on_image=stop)
    assert not list_releases(workspace)
    report = run(workspace, source)
    assert (report.images, report.masks) == (3, 3)


def test_two_names_of_one_photo_are_one_image_with_the_masks_of_both(
    folder: Path, workspace: Workspace
) -> None:
    (folder / "images/copy.png").write_bytes((folder / "images/0.png").read_bytes())
    images = [coco_image(0), coco_image(5, file_name="copy.png"), coco_image(6, file_name="0.png")]
    masks = [coco_mask(i, image, SQUARE) for i, image in enumerate((0, 5, 6, 6))]
    report = run(workspace, write(folder, images, masks))
    assert (report.images, report.masks) == (1, 4)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"images": [{]}',
        '{"images": 7}',
        '{"images": [], "annotations": []}',
        "\xff",
    ],
)
def test_a_file_that_is_not_cocos_says_so(folder: Path, workspace: Workspace, text: str) -> None:
    path = folder / "annotations.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(BadInputError, match=str(path)):
        run(workspace, CocoSource(str(path)))
    assert not list_releases(workspace)


def test_sources_that_do_not_exist_are_bad_input(tmp_path: Path, workspace: Workspace) -> None:
    with pytest.raises(BadInputError, match="expected a COCO file"):
        CocoSource(str(tmp_path / "no.json"))
    with pytest.raises(BadInputError, match="expected a folder"):
        Sa1bSource(str(tmp_path / "no"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInputError, match="no JSON file"):
        run(workspace, Sa1bSource(str(tmp_path / "empty")))


def test_files_that_are_not_sa1bs_are_recorded(folder: Path, workspace: Workspace) -> None:
    record = rectangle(3, 4, 10, 12)
    about = {"image_id": 1, "width": WIDTH, "height": HEIGHT, "file_name": "0.png"}
    content = {"image": about, "annotations": [record.to_sa1b(5), {"id": 6}]}
    (folder / "images/sa_1.json").write_text(json.dumps(content))
    (folder / "images/other.json").write_text("[1, 2]")
    report = run(workspace, Sa1bSource(str(folder / "images")), stage="auto", model_id="sam_vit_h")
    assert (report.masks, report.images_rejected) == (1, {"malformed": 1})
    assert report.masks_rejected == {"no-mask": 1}
    assert masks_by_photo(workspace)["0.png"] == [record]
    release = latest_release(workspace)
    assert release is not None
    assert release.models == ("sam_vit_h",)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_release(tmp_path_factory.mktemp("release"))


@pytest.mark.parametrize("name", ["coco", "sa1b"])
def test_an_export_comes_back_equal(
    made: Made, tmp_path: Path, workspace: Workspace, name: str
) -> None:
    """Images too, where the export holds their own files."""
    export(made, tmp_path / "out", format=name, images="copy")
    stage: dict[str, Any] = {"stage": "auto", "model_id": "again"}
    if name == "coco":
        for split in ("train", "val"):
            run(workspace, CocoSource(str(tmp_path / f"out/instances_{split}.json")), **stage)
    else:
        run(workspace, Sa1bSource(str(tmp_path / "out")), **stage)
    release = latest_release(workspace)
    assert release is not None
    images = scan(workspace, release, "images")["image_id"].to_pylist()
    turned = made.ids["turned.jpg"]
    assert {made.ids[name] for name in made.masks} - {turned} <= set(images)
    found = masks_by_photo(workspace)
    by_id = {Path(name).stem.removeprefix("sa_"): masks for name, masks in found.items()}
    assert by_id == {str(made.ids[name]): list(masks) for name, masks in made.masks.items()}
