"""COCO files as labelled images: every form of segmentation, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.dataset.labelled_sets import CocoMasks, hold_out
from engine.errors import BadInputError, ImageError
from engine.images import encode_png
from engine.masks import decode_mask, encode_mask
from tests.dataset.coco_builders import write_coco


def write(path: Path, annotations: list[dict[str, Any]], **image: object) -> Path:
    row = {"id": 7, "file_name": "a.png", "width": 8, "height": 6, **image}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": [row], "annotations": annotations}))
    return path


def annotation(segmentation: object, **more: object) -> dict[str, Any]:
    return {"id": 1, "image_id": 7, "segmentation": segmentation, **more}


@pytest.fixture
def data(tmp_path: Path) -> CocoMasks:
    return CocoMasks.load(write_coco(tmp_path / "discs", 5))


def test_the_same_mask_loads_from_every_form_of_segmentation(tmp_path: Path) -> None:
    expected = np.zeros((6, 8), dtype=np.bool_)
    expected[1:4, 2:7] = True
    forms = [
        {"size": [6, 8], "counts": encode_mask(expected).counts},
        {"size": [6, 8], "counts": [13, *[3, 3] * 4, 3, 8]},
        [[2, 1, 7, 1, 7, 4, 2, 4]],
    ]
    loaded = CocoMasks.load(write(tmp_path / "x.json", [annotation(form) for form in forms]))
    for mask in loaded[0].masks:
        assert (decode_mask(mask.rle) == expected).all()
        assert mask.bbox_xywh == (2, 1, 5, 3)
        assert mask.area == 15


def test_crowds_and_empty_masks_are_left_out(tmp_path: Path) -> None:
    square = [[2, 1, 7, 1, 7, 4, 2, 4]]
    path = write(
        tmp_path / "x.json",
        [
            annotation(square, iscrowd=1),
            annotation([]),
            annotation(square, area=0),
            annotation(square, votes=3),
        ],
    )
    assert [mask.votes for mask in CocoMasks.load(path)[0].masks] == [3]


def test_an_image_without_masks_is_not_in_the_set(tmp_path: Path) -> None:
    assert len(CocoMasks.load(write(tmp_path / "x.json", []))) == 0


def test_photos_lie_in_images_or_beside_the_file_or_where_one_says(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", [annotation([[2, 1, 7, 1, 7, 4, 2, 4]])])
    assert CocoMasks.load(path)[0].path == tmp_path / "a.png"
    assert CocoMasks.load(path, photos=tmp_path / "else")[0].path == tmp_path / "else" / "a.png"
    (tmp_path / "images").mkdir()
    assert CocoMasks.load(path)[0].path == tmp_path / "images" / "a.png"


def test_a_set_is_called_after_its_folder_or_its_file(tmp_path: Path, data: CocoMasks) -> None:
    assert data.name == "discs"
    assert CocoMasks.load(write(tmp_path / "birds.json", [])).name == "birds"


def test_a_photo_of_another_size_than_its_masks_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", [annotation([[2, 1, 7, 1, 7, 4, 2, 4]])])
    (tmp_path / "a.png").write_bytes(encode_png(np.zeros((8, 6, 3), dtype=np.uint8)))
    with pytest.raises(ImageError, match="6 x 8 pixels") as caught:
        CocoMasks.load(path)[0].read()
    assert caught.value.reason == "changed"


def test_holding_out_splits_without_loss(data: CocoMasks) -> None:
    rest, held = data.hold_out(2)
    assert len(held.images) == 2
    assert sorted(i.path for s in (rest, held) for i in s.images) == [i.path for i in data.images]
    part = hold_out(data, 2)[1]
    assert [part[i].uri for i in range(len(part))] == [image.uri for image in held.images]
    with pytest.raises(BadInputError, match="6 images of the 5"):
        data.hold_out(6)


def test_a_split_is_kept_apart(tmp_path: Path) -> None:
    path = write_coco(tmp_path / "val", 2, split="val")
    assert len(CocoMasks.load(path, split="val").images) == 2
    assert not CocoMasks.load(path, split="train").images


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        json.dumps({"images": [], "annotations": [{"image_id": 1}]}),
        json.dumps({"images": [{"id": 1, "file_name": "a"}], "annotations": []}),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "annotations.json"
    path.write_text(content)
    with pytest.raises(BadInputError, match=r"annotations\.json"):
        CocoMasks.load(path)


@pytest.mark.parametrize(
    "segmentation",
    [
        "text",
        None,
        {"size": [6, 9], "counts": "1"},
        {"size": [6, 8], "counts": [1, 2]},
        {"size": [6, 8]},
        [[0, 0, 1]],
        [[0, 0, 1e9, 0, 1, 1]],
    ],
)
def test_segmentations_that_fit_no_image_are_refused(tmp_path: Path, segmentation: object) -> None:
    path = write(tmp_path / "x.json", [annotation(segmentation, bbox=[0, 0, 1, 1], area=1)])
    with pytest.raises(BadInputError, match=r"x\.json"):
        CocoMasks.load(path)


def test_the_real_annotations_load(data_pack: Path) -> None:
    bsds = CocoMasks.load(data_pack / "bsds500_trainval" / "annotations.json", split="val")
    assert len(bsds.images) == 100
    assert all(image.masks for image in bsds.images)
