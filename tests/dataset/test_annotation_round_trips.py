"""What formats write of a mask, an import reads again: any mask, any scores."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from engine.dataset.exports.coco import coco_annotation
from engine.dataset.exports.protocol import ExportImage, ExportMask
from engine.dataset.exports.sa1b import sa1b_json
from engine.dataset.imports.annotations import read_annotation
from engine.dataset.imports.protocol import ImportedMask
from engine.dataset.released_images import MaskOrigin
from engine.masks import encode_mask, mask_area, mask_box_xyxy
from engine.records import MaskRecord
from tests.dataset.dataset_builders import NOW

MASKS = arrays.arrays(
    np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12), fill=st.booleans()
).filter(lambda mask_HW: bool(mask_HW.any()))
SCORES = st.floats(allow_nan=False, allow_infinity=False)
POINTS = st.none() | st.tuples(SCORES, SCORES)


def exported(
    mask_HW: NDArray[np.bool_], iou: float, stability: float, point: tuple[float, float] | None
) -> ExportMask:
    rle = encode_mask(mask_HW)
    x0, y0, x1, y1 = mask_box_xyxy(rle) or (0, 0, 0, 0)
    record = MaskRecord(
        rle=rle,
        bbox_xywh=(x0, y0, x1 - x0, y1 - y0),
        area=mask_area(rle),
        predicted_iou=iou,
        stability_score=stability,
        crop_box_xywh=(1, 2, 3, 4),
        point_xy=point,
    )
    origin = MaskOrigin(
        stage="semi",
        model_id="m",
        run_id="r",
        annotator_id=None,
        active_seconds=None,
        created_at=NOW,
    )
    return ExportMask(record, 2**62 + 1, origin)


@settings(max_examples=60)
@given(MASKS, SCORES, SCORES, POINTS)
def test_a_mask_comes_back_from_coco_and_sa1b(
    mask_HW: NDArray[np.bool_], iou: float, stability: float, point: tuple[float, float] | None
) -> None:
    mask = exported(mask_HW, iou, stability, point)
    height, width = mask_HW.shape
    image = ExportImage(7, "/7.jpg", "0", width, height, "jpeg", None, None, (mask,))
    texts = (
        json.dumps({"id": 1, **coco_annotation(1, mask)}),
        json.dumps(json.loads(sa1b_json(image, "jpg"))["annotations"][0]),
    )
    for text in texts:
        back = read_annotation(json.loads(text), height=height, width=width, image_key="7")
        assert isinstance(back, ImportedMask)
        assert back.record == mask.record
    assert json.loads(texts[0])["maskwheel_id"] == str(mask.mask_id)
    assert json.loads(texts[1])["id"] == mask.mask_id
