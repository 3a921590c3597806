"""One annotation of COCO or SA-1B as a mask.

    mask = read_annotation(annotation, height=480, width=640, image_key="7")

SA-1B's fields are COCO's and some more. Box and area are computed from the pixels, whatever the
annotation says. Masks without scores, as people draw them, count as certain: 1.0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from engine.dataset.imports.protocol import ImportedMask, Rejected
from engine.errors import BadInputError, InvalidMaskError
from engine.masks import (
    encode_polygons,
    encode_runs,
    mask_area,
    mask_box_xyxy,
    validate_rle,
)
from engine.records import MaskRecord, Rle

__all__ = ["read_annotation"]

_MALFORMED = (KeyError, TypeError, ValueError, IndexError, OverflowError)


def read_annotation(
    annotation: object, *, height: int, width: int, image_key: str, keep_crowd: bool = False
) -> ImportedMask | Rejected:
    """Read an annotation, whatever it is.

    Args:
        annotation: as it stands in the JSON.
        height: rows of the image in pixels.
        width: columns of the image in pixels.
        image_key: the source's name of the image.
        keep_crowd: whether a region of many objects counts as a mask.
    """

    def rejected(reason: str, message: str) -> Rejected:
        return Rejected(image_key, source_id, reason, message)

    source_id: str | None = None
    if not isinstance(annotation, dict):
        return rejected("malformed", f"got {type(annotation).__name__}, expected an object")
    source_id = str(annotation.get("id", ""))
    is_crowd = bool(annotation.get("iscrowd"))
    if is_crowd and not keep_crowd:
        return rejected("crowd", "a region of many objects, not one object")
    if not annotation.get("segmentation"):
        return rejected("no-mask", "it has a box at most: no segmentation")
    try:
        rle = _rle(annotation["segmentation"], height, width)
        record = _record(rle, annotation)
        category = annotation.get("category_id")
        if record is None:
            return rejected("empty", "no pixel of the image is in the mask")
        return ImportedMask(
            record,
            image_key,
            source_id,
            None if category is None else str(category),
            is_crowd,
            *(_text(annotation.get(name)) for name in ("stage", "model_id", "run_id")),
        )
    except _SizeError as error:
        return rejected("size", str(error))
    except (BadInputError, InvalidMaskError) as error:
        return rejected("malformed", str(error))
    except _MALFORMED as error:
        return rejected("malformed", f"{type(error).__name__}: {error}")


class _SizeError(Exception):
    """A mask of another size than its image."""


def _rle(segmentation: object, height: int, width: int) -> Rle:
    if isinstance(segmentation, list):
        return encode_polygons(segmentation, height, width)
    if not isinstance(segmentation, dict):
        raise TypeError(f"got a segmentation of type {type(segmentation).__name__}")
    rows, columns = segmentation["size"]
    if (rows, columns) != (height, width):
        raise _SizeError(f"the mask is {rows} x {columns}, its image {height} x {width} pixels")
    counts = segmentation["counts"]
    if not isinstance(counts, str):
        return encode_runs(counts, height, width)
    rle = Rle(height, width, counts)
    validate_rle(rle)
    return rle


def _record(rle: Rle, annotation: Mapping[str, Any]) -> MaskRecord | None:
    """Return the mask; None when it is empty."""
    box = mask_box_xyxy(rle)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    points = annotation.get("point_coords") or []
    crop = annotation.get("crop_box") or (0, 0, rle.width, rle.height)
    score = annotation.get("predicted_iou", annotation.get("score"))
    return MaskRecord(
        rle=rle,
        bbox_xywh=(x0, y0, x1 - x0, y1 - y0),
        area=mask_area(rle),
        predicted_iou=_number(score, 1.0),
        stability_score=_number(annotation.get("stability_score"), 1.0),
        crop_box_xywh=_box(crop),
        point_xy=(_number(points[0][0], 0.0), _number(points[0][1], 0.0)) if points else None,
    )


def _number(value: object, absent: float) -> float:
    if value is None:
        return absent
    number = float(value)  # type: ignore[arg-type]  # a TypeError is what shall come of it
    if not math.isfinite(number):
        raise ValueError(f"got {number}, expected a number")
    return number


def _box(values: Sequence[Any]) -> tuple[int, int, int, int]:
    x, y, w, h = (int(value) for value in values)
    return x, y, w, h


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
