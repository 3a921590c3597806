"""Each rule of the row checks, broken by one value in rows that are otherwise right."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest

from engine.dataset.row_checks import (
    Fault,
    KnownImages,
    image_faults,
    image_run_faults,
    mask_faults,
)
from engine.dataset.schemas import arrow_schema
from tests.dataset.dataset_builders import NOW, make_masks

_SHA256 = "f" * 64
_IMAGE = 2**63 - 1


def mask_rows(count: int = 5) -> pa.Table:
    rows = [
        {
            "mask_id": 1000 + number,
            "image_id": _IMAGE,
            "size_h": 24,
            "size_w": 32,
            "counts": mask.rle.counts,
            "area": mask.area,
            "predicted_iou": mask.predicted_iou,
            "stability_score": mask.stability_score,
            "point_coords": [] if mask.point_xy is None else [list(mask.point_xy)],
            "stage": ("auto", "semi", "manual")[number % 3],
            "model_id": "m",
            "run_id": "run",
            "annotator_id": None if number % 3 == 0 else "ada",
            "active_seconds": None if number % 3 == 0 else 1.5,
            "created_at": NOW,
            **dict(zip(("bbox_x", "bbox_y", "bbox_w", "bbox_h"), mask.bbox_xywh, strict=True)),
            **dict(zip(("crop_x", "crop_y", "crop_w", "crop_h"), mask.crop_box_xywh, strict=True)),
        }
        for number, mask in enumerate(make_masks(count))
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema("masks"))


def image_rows() -> pa.Table:
    row = {
        "image_id": _IMAGE,
        "uri": "/a.png",
        "sha256": _SHA256,
        "width": 32,
        "height": 24,
        "format": "png",
        "ingested_at": NOW,
    }
    return pa.Table.from_pylist([row], schema=arrow_schema("images"))


def image_run_rows() -> pa.Table:
    row = {"image_id": _IMAGE, "run_id": "run", "recipe_id": "x", "created_at": NOW}
    done = {**row, "status": "masked", "masks": 3}
    skipped = {**row, "status": "skipped", "masks": 0, "reason": "cut", "message": "it is cut"}
    return pa.Table.from_pylist([done, skipped], schema=arrow_schema("image_runs"))


def changed(rows: pa.Table, row: int, column: str, value: object) -> pa.Table:
    values = rows[column].to_pylist()
    values[row] = value
    field = rows.schema.field(column)
    place = rows.schema.get_field_index(column)
    return rows.set_column(place, field, pa.array(values, field.type))


def faults_of(rows: pa.Table) -> list[Fault]:
    return list(mask_faults(rows, KnownImages.of(image_rows()), ["run"], ["m"]))


def test_right_rows_have_no_faults() -> None:
    assert not faults_of(mask_rows())
    assert not faults_of(mask_rows(0))
    assert not list(image_faults(image_rows()))
    assert not list(image_run_faults(image_run_rows(), KnownImages.of(image_rows()), ["run"]))


@pytest.mark.parametrize(
    ("column", "value", "kind", "message"),
    [
        ("mask_id", -1, "id", "id -1"),
        ("image_id", 5, "image", "image 5 is not part of the release"),
        ("size_w", 64, "size", "24 x 64 pixels, its image has 24 x 32"),
        ("counts", "04", "rle", "add up to 4 pixels"),
        ("counts", "", "rle", "empty"),
        ("counts", "täg", "rle", "outside"),
        ("area", 10, "area", "area 10, its mask has 12 pixels"),
        ("bbox_x", 4, "box", r"box \[4, 4, 3, 2\] .* its mask has \[3, 4, 3, 2\]"),
        ("bbox_h", 3, "box", r"\[3, 4, 3, 3\]"),
        ("predicted_iou", float("nan"), "score", "predicted_iou nan"),
        ("stability_score", float("inf"), "score", "stability_score inf"),
        ("crop_w", 33, "crop", r"\[0, 0, 33, 24\] .* leaves the image"),
        ("crop_y", -1, "crop", "leaves"),
        ("point_coords", [[1.0, 24.5]], "point", "inside"),
        ("point_coords", [[1.0, 2.0], [3.0]], "point", r"\[\[1.0, 2.0\], \[3.0\]\]"),
        ("point_coords", [[float("nan"), 2.0]], "point", "nan"),
        ("stage", "magic", "stage", "'magic'; expected one of auto, manual, semi"),
        ("model_id", "other", "model", "model 'other' is not part"),
        ("run_id", "other", "run", "run 'other' is not part"),
        ("active_seconds", 3.0, "annotator", "annotator None, 3.0 seconds"),
        ("annotator_id", "ada", "annotator", "stage auto, annotator 'ada'"),
    ],
)
def test_a_wrong_value_of_a_mask_is_found_where_it_is(
    column: str, value: object, kind: str, message: str
) -> None:
    faults = faults_of(changed(mask_rows(), 3, column, value))
    assert [fault.rows.tolist() for fault in faults if fault.kind == kind] == [[3]]
    [description] = [fault.describe(3) for fault in faults if fault.kind == kind]
    assert re.search(message, description), description
    # Another run length also has another area and box; every other value breaks one rule.
    assert len(faults) == 1 or column in ("counts", "size_w", "image_id")


def test_negative_time_and_an_empty_name_are_no_annotation() -> None:
    for column, value in (("active_seconds", -1.0), ("annotator_id", "")):
        [fault] = faults_of(changed(mask_rows(), 1, column, value))
        assert (fault.kind, fault.rows.tolist()) == ("annotator", [1])


def test_masks_that_no_model_made_name_none() -> None:
    assert not faults_of(changed(mask_rows(), 2, "model_id", ""))


def test_a_point_on_the_far_edge_is_inside() -> None:
    assert not faults_of(changed(mask_rows(), 2, "point_coords", [[32.0, 24.0]]))


def test_rows_in_several_chunks_and_slices_keep_their_places() -> None:
    rows = changed(pa.concat_tables([mask_rows(), mask_rows()]), 7, "area", 1)
    assert [fault.rows.tolist() for fault in faults_of(rows)] == [[7]]
    assert [fault.rows.tolist() for fault in faults_of(rows.slice(5, 4))] == [[2]]


def test_without_images_every_mask_is_of_an_unknown_one() -> None:
    known = KnownImages.of(image_rows().slice(0, 0))
    [fault] = mask_faults(mask_rows(), known, ["run"], ["m"])
    assert (fault.kind, len(fault.rows)) == ("image", 5)


@pytest.mark.parametrize(
    ("column", "value", "kind"),
    [
        ("image_id", 7, "id"),
        ("sha256", "f" * 63 + "g", "checksum"),
        ("sha256", "ff", "checksum"),
        ("width", 0, "size"),
        ("uri", "", "address"),
    ],
)
def test_a_wrong_value_of_an_image_is_found(column: str, value: object, kind: str) -> None:
    [fault] = image_faults(changed(image_rows(), 0, column, value))
    assert (fault.kind, fault.rows.tolist()) == (kind, [0])
    assert fault.describe(0)


@pytest.mark.parametrize(
    ("row", "column", "value", "kind"),
    [
        (0, "image_id", 7, "image"),
        (0, "run_id", "other", "run"),
        (0, "status", "lost", "status"),
        (0, "masks", -1, "status"),
        (1, "masks", 2, "status"),
        (1, "reason", None, "status"),
    ],
)
def test_a_wrong_value_of_a_run_is_found(row: int, column: str, value: object, kind: str) -> None:
    rows = changed(image_run_rows(), row, column, value)
    [fault] = image_run_faults(rows, KnownImages.of(image_rows()), ["run"])
    assert (fault.kind, fault.rows.tolist()) == (kind, [row])
    assert fault.describe(row)


def test_images_are_found_by_their_ids() -> None:
    sizes = arrow_schema("images")
    rows = pa.table(
        {
            "image_id": pa.array([9, 2, 5], pa.int64()),
            "height": pa.array([90, 20, 50], sizes.field("height").type),
            "width": pa.array([91, 21, 51], sizes.field("width").type),
        }
    )
    known = KnownImages.of(rows)
    places = known.find(np.array([5, 1, 9, 10, 2]))
    assert [int(known.heights_I[p]) if p >= 0 else None for p in places] == [50, None, 90, None, 20]
