"""Every export opens with the reader of its own format, and holds what the release holds."""

from __future__ import annotations

import gc
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import datasets  # type: ignore[import-untyped]
import numpy as np
import pytest
import webdataset  # type: ignore[import-untyped]
import yaml  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from engine.dataset.exports.yolo import join_rings
from engine.images import mask_contours
from engine.records import MaskRecord
from tests.dataset.export_builders import HEIGHT, WIDTH, Made, export, make_release, pixels
from tests.quality.release_builders import photo

# pycocotools 2.0.11 with numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TRAIN = {"plain.jpg", "shapes.png", "empty.png", "extra.jpg"}
VAL = {"turned.jpg", "later.png"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_release(tmp_path_factory.mktemp("release"))


def decode(segmentation: dict[str, Any]) -> NDArray[np.bool_]:
    return np.asarray(coco_mask.decode(segmentation), dtype=bool)


def test_pycocotools_reads_coco(made: Made, tmp_path: Path) -> None:
    export(made, tmp_path / "out", format="coco")
    seen = {}
    for split in ("train", "val"):
        coco = COCO(tmp_path / "out" / f"instances_{split}.json")
        assert coco.getCatIds() == [1]
        for image in coco.loadImgs(coco.getImgIds()):
            with Image.open(tmp_path / "out/images" / image["file_name"]) as opened:
                assert opened.size == (image["width"], image["height"]) == (WIDTH, HEIGHT)
            name = made.name_of(int(image["maskwheel_id"]))
            loaded = coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]], iscrowd=False))
            seen[name] = split
            for annotation, record in zip(loaded, made.masks[name], strict=True):
                assert (coco.annToMask(annotation) == pixels(record)).all()
                assert annotation["bbox"] == coco_mask.toBbox(coco.annToRLE(annotation)).tolist()
                assert annotation["area"] == record.area
                assert isinstance(annotation["id"], int)
                assert annotation["predicted_iou"] == record.predicted_iou
        assert sorted(coco.getImgIds()) == list(range(1, len(coco.getImgIds()) + 1))
        assert all(
            isinstance(side, float) for a in coco.dataset["annotations"] for side in a["bbox"]
        )
    assert seen == dict.fromkeys(TRAIN, "train") | dict.fromkeys(VAL, "val")


def test_cocos_own_evaluation_finds_a_release_equal_to_itself(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pycocotools.cocoeval import COCOeval

    export(made, tmp_path / "out", format="coco", images="none")
    truth = COCO(tmp_path / "out/instances_train.json")
    found = truth.loadRes([{**a, "score": 0.5} for a in truth.dataset["annotations"]])
    evaluation = COCOeval(truth, found, "segm")
    evaluation.params.maxDets = [100, 100, 100]
    evaluation.evaluate()
    evaluation.accumulate()
    recall = evaluation.eval["recall"][:, 0, 0, -1]
    assert (recall == 1).all()
    capsys.readouterr()


def read_sa1b(folder: Path) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]], Path]]:
    """Read SA-1B as its README describes it, with nothing of ours."""
    for path in sorted(folder.rglob("sa_*.json")):
        content = json.loads(path.read_text())
        assert set(content) == {"image", "annotations"}
        yield content["image"], content["annotations"], path.with_suffix(".jpg")


def test_a_reader_of_sa1b_reads_sa1b(made: Made, tmp_path: Path) -> None:
    export(made, tmp_path / "out", format="sa1b")
    seen = set()
    for image, listed, file in read_sa1b(tmp_path / "out"):
        assert set(image) == {"image_id", "width", "height", "file_name"}
        assert image["file_name"] == file.name == f"sa_{image['image_id']}.jpg"
        with Image.open(file) as opened:
            assert (opened.format, opened.size) == ("JPEG", (image["width"], image["height"]))
        name = made.name_of(image["image_id"])
        seen.add(name)
        for annotation, record in zip(listed, made.masks[name], strict=True):
            assert set(annotation) == {
                *("id", "segmentation", "bbox", "area", "predicted_iou", "stability_score"),
                *("crop_box", "point_coords"),
            }
            assert (decode(annotation["segmentation"]) == pixels(record)).all()
            assert annotation["bbox"] == list(record.bbox_xywh)
    assert seen == TRAIN | VAL


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # its open files
def test_webdataset_reads_the_tars(made: Made, tmp_path: Path) -> None:
    export(made, tmp_path / "out", format="webdataset", images_per_part=2)
    tars = sorted((tmp_path / "out").rglob("*.tar"))
    assert [path.relative_to(tmp_path / "out").as_posix() for path in tars] == [
        "train/sa_000000.tar",
        "train/sa_000001.tar",
        "val/sa_000000.tar",
    ]
    seen = set()
    samples = webdataset.WebDataset([str(path) for path in tars], shardshuffle=False)
    for sample in samples.decode("pil"):
        assert sample["jpg"].size == (WIDTH, HEIGHT)
        name = made.name_of(sample["json"]["image"]["image_id"])
        seen.add(name)
        assert sample["__key__"] == f"sa_{made.ids[name]}"
        for annotation, record in zip(sample["json"]["annotations"], made.masks[name], strict=True):
            assert (decode(annotation["segmentation"]) == pixels(record)).all()
    assert seen == TRAIN | VAL
    gc.collect()
    with tarfile.open(tars[0]) as tar:
        assert {(m.mtime, m.uid, m.uname, m.mode) for m in tar} == {(0, 0, "", 0o644)}


def test_datasets_reads_parquet(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(made, tmp_path / "out", format="huggingface", images_per_part=2)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(rows) for name, rows in loaded.items()} == {"train": 4, "val": 2}
    single = datasets.Dataset.from_parquet(
        str(tmp_path / "out/data/val-00000.parquet"), cache_dir=str(tmp_path / "cache")
    )
    assert isinstance(single.features["image"], datasets.Image)
    seen = set()
    for row in (*loaded["train"], *loaded["val"], *single):
        assert row["image"].size == (row["width"], row["height"]) == (WIDTH, HEIGHT)
        name = made.name_of(row["image_id"])
        seen.add(name)
        for one, record in zip(row["objects"], made.masks[name], strict=True):
            size = [row["height"], row["width"]]
            assert (decode({"size": size, "counts": one["counts"]}) == pixels(record)).all()
            assert (one["bbox"], one["stage"]) == (list(record.bbox_xywh), "auto")
    assert seen == TRAIN | VAL


def test_the_card_of_a_hugging_face_export_has_yaml_that_names_the_splits(
    made: Made, tmp_path: Path
) -> None:
    export(made, tmp_path / "out", format="huggingface")
    _, header, text = (tmp_path / "out/README.md").read_text().split("---\n", 2)
    about = yaml.safe_load(header)
    assert about["task_categories"] == ["image-segmentation", "mask-generation"]
    assert about["size_categories"] == ["n<1K"]
    assert about["configs"][0]["data_files"] == [
        {"split": "train", "path": "data/train-*.parquet"},
        {"split": "val", "path": "data/val-*.parquet"},
    ]
    assert "CC-BY-4.0" in text


def read_yolo(folder: Path, split: str) -> Iterator[tuple[int, list[NDArray[np.float64]]]]:
    """Read label files as YOLO's tools do: class, then pairs of relative coordinates."""
    about = yaml.safe_load((folder / "data.yaml").read_text())
    assert about["names"] == {0: "object"}
    images = folder / about[split]
    for image in sorted(images.iterdir()):
        label = folder / "labels" / images.name / f"{image.stem}.txt"
        rings = []
        for line in label.read_text().splitlines():
            kind, *numbers = line.split()
            assert kind == "0"
            assert len(numbers) >= 6
            rings.append(np.array(numbers, dtype=np.float64).reshape(-1, 2))
        yield int(image.stem), rings


def fill(ring_K2: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Rasterise a ring of relative coordinates with Pillow: even-odd, outline included."""
    canvas = Image.new("1", (WIDTH, HEIGHT))
    points = np.floor(ring_K2 * [WIDTH, HEIGHT]).astype(int)
    ImageDraw.Draw(canvas).polygon([(int(x), int(y)) for x, y in points], fill=1, outline=1)
    return np.asarray(canvas)


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize(("tolerance_px", "least"), [(0.0, 0.97), (1.0, 0.75)])
def test_a_reader_of_yolo_fills_polygons_to_the_masks(
    made: Made, tmp_path: Path, tolerance_px: float, least: float
) -> None:
    export(made, tmp_path / "out", format="yolo", tolerance_px=tolerance_px)
    seen = set()
    for split in ("train", "val"):
        for image_id, rings in read_yolo(tmp_path / "out", split):
            name = made.name_of(image_id)
            seen.add(name)
            assert all((ring >= 0).all() and (ring <= 1).all() for ring in rings)
            for ring, record in zip(rings, made.masks[name], strict=True):
                assert iou(fill(ring), pixels(record)) >= least, (name, record.area)
    assert seen == TRAIN | VAL


def test_filled_as_yolo_fills_it_a_ring_is_the_mask_and_its_bridges() -> None:
    draw = np.random.default_rng(7)
    for _ in range(20):
        shape = draw.random((HEIGHT // 6, WIDTH // 8)) < 0.5
        mask_HW = np.kron(shape, np.ones((6, 8), dtype=bool))
        rings = mask_contours(mask_HW)
        canvas = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        cv2.fillPoly(canvas, [join_rings(rings)], 1)
        assert (canvas[mask_HW] == 1).all()
        assert canvas[~mask_HW].sum() <= 12 * len(rings)


def test_pillow_reads_label_maps(made: Made, tmp_path: Path) -> None:
    export(made, tmp_path / "out", format="png")
    seen = set()
    for path in sorted((tmp_path / "out/labels").rglob("*.png")):
        with Image.open(path) as opened:
            assert opened.mode == "I;16"
            labels = np.asarray(opened)
        key = json.loads(path.with_suffix(".json").read_text())
        name = made.name_of(key["image_id"])
        seen.add(name)
        expected = np.zeros((HEIGHT, WIDTH), dtype=int)
        areas = [entry["area"] for entry in key["labels"]]
        assert areas == sorted(areas, reverse=True)
        for entry, record in zip(key["labels"], _by_area(made.masks[name]), strict=True):
            expected[pixels(record)] = entry["label"]
        for entry in key["labels"]:
            assert entry["visible_area"] == (labels == entry["label"]).sum() <= entry["area"]
        assert (labels == expected).all()
        assert (tmp_path / "out" / key["file_name"]).is_file()
    assert seen == TRAIN | VAL


def _by_area(masks: Any) -> list[MaskRecord]:
    areas = [record.area for record in masks]
    assert len(set(areas)) == len(areas), "equal areas are ordered by id, which is not known here"
    return sorted(masks, key=lambda record: -record.area)


def test_an_upright_file_is_copied_and_a_turned_one_is_put_upright(
    made: Made, tmp_path: Path
) -> None:
    export(made, tmp_path / "out", format="coco")
    images = tmp_path / "out/images"
    for name in ("plain.jpg", "shapes.png"):
        copy = images / "train" / f"{made.ids[name]}{Path(name).suffix}"
        assert copy.read_bytes() == (made.photos / name).read_bytes()
    with Image.open(images / "val" / f"{made.ids['turned.jpg']}.jpg") as opened:
        assert opened.getexif().get(0x0112, 1) == 1
        difference = np.asarray(opened).astype(int) - photo(3)
    assert abs(difference).mean() < 3
