"""The tables' columns, once, as Iceberg schemas and as Arrow schemas with the same field ids.

    iceberg_schema("masks"), arrow_schema("masks")

Columns are added at the end, optional, with the next free field id (`_Column.field_id`), and never
renumbered: files outlive versions, and are read by id.

Boxes are flat columns (``bbox_x``, ...), so that SQL and min/max pruning reach them.
``point_coords`` is SA-1B's ``[[x, y]]``: a row maps to an annotation without a conversion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
from pyiceberg.schema import Schema
from pyiceberg.types import (
    BooleanType,
    DoubleType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    NestedField,
    StringType,
    TimestamptzType,
)

__all__ = ["TABLES", "TABLE_PROPERTIES", "TableName", "arrow_schema", "iceberg_schema"]

TableName = Literal["images", "masks", "image_runs"]
TABLES: tuple[TableName, ...] = ("images", "masks", "image_runs")

TABLE_PROPERTIES: Mapping[str, str] = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    "write.parquet.compression-level": "3",
    # Small enough that finding one shard's images reads a few thousand rows per file.
    "write.parquet.row-group-limit": "8192",
    "commit.manifest-merge.enabled": "true",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    # pyiceberg >= 0.12 re-bases a conflicting append by itself. That would append rows that the
    # other writer has just committed under the same commit id: we retry, after looking it up.
    "commit.retry.num-retries": "0",
    # Never searched by range: shards hold no statistics of them, and none are expected.
    "write.metadata.metrics.column.counts": "none",
    "write.metadata.metrics.column.point_coords.element.element": "none",
}

_Kind = Literal["bool", "int", "long", "double", "string", "timestamp", "points"]


@dataclass(frozen=True, slots=True)
class _Column:
    """A column.

    Attributes:
        name: as in SQL.
        kind: its type; ``"points"`` takes two more ids, right after the first version's columns.
        doc: what it holds.
        required: whether every row has a value.
        field_id: for a column of a later version; None: its place in the first version, from 1.
    """

    name: str
    kind: _Kind
    doc: str
    required: bool = True
    field_id: int | None = None


_COLUMNS: Mapping[TableName, tuple[_Column, ...]] = {
    "images": (
        _Column("image_id", "long", "first 63 bits of the sha256 of the file's bytes"),
        _Column("uri", "string", "absolute path or URL of the image"),
        _Column("sha256", "string", "hex digest of the file's bytes"),
        _Column("width", "int", "columns in pixels, after EXIF orientation"),
        _Column("height", "int", "rows in pixels, after EXIF orientation"),
        _Column("format", "string", "jpeg, png, webp, ..."),
        _Column("license", "string", "as given by the list that named the image", required=False),
        _Column("split", "string", "as given by the list that named the image", required=False),
        _Column("ingested_at", "timestamp", "UTC"),
    ),
    "masks": (
        _Column("mask_id", "long", "63 bits, from the recipe, the image and the mask's position"),
        _Column("image_id", "long", "the image in table images"),
        _Column("size_h", "int", "rows of the RLE in pixels"),
        _Column("size_w", "int", "columns of the RLE in pixels"),
        _Column("counts", "string", "COCO's compressed run lengths, column-major"),
        _Column("bbox_x", "int", "left of the tight box, pixels"),
        _Column("bbox_y", "int", "top of the tight box, pixels"),
        _Column("bbox_w", "int", "max x - min x, pixels"),
        _Column("bbox_h", "int", "max y - min y, pixels"),
        _Column("area", "long", "mask pixels"),
        _Column("predicted_iou", "double", "the model's estimate of the mask's IoU"),
        _Column("stability_score", "double", "IoU of the mask thresholded high and low"),
        _Column("crop_x", "int", "left of the crop that the mask was found in, pixels"),
        _Column("crop_y", "int", "top of the crop, pixels"),
        _Column("crop_w", "int", "width of the crop, pixels"),
        _Column("crop_h", "int", "height of the crop, pixels"),
        _Column("point_coords", "points", "[[x, y]] of the prompting point; [] without one"),
        _Column("stage", "string", "manual, semi or auto"),
        _Column("model_id", "string", "the model that made the mask"),
        _Column("run_id", "string", "the run that wrote the mask"),
        _Column("annotator_id", "string", "the person who confirmed the mask", required=False),
        _Column("active_seconds", "double", "the person's time on the mask", required=False),
        _Column("created_at", "timestamp", "start of the run, UTC"),
        # The ids 24 and 25 are inside of point_coords.
        _Column("made", "string", "kept, corrected or new", required=False, field_id=26),
        _Column("prompts", "string", "clicks, boxes, strokes: JSON", required=False, field_id=27),
        _Column("decoder", "string", "browser or server", required=False, field_id=28),
        _Column("reviewer_id", "string", "the person who judged it", required=False, field_id=29),
    ),
    "image_runs": (
        _Column("image_id", "long", "the image in table images"),
        _Column("run_id", "string", "the run that processed it"),
        _Column("recipe_id", "string", "model and settings of the run"),
        _Column("status", "string", "masked (with any number of masks, also 0) or skipped"),
        _Column("reason", "string", "why it was skipped, for machines", required=False),
        _Column("message", "string", "why it was skipped, for people", required=False),
        _Column("masks", "int", "number of masks of this image in this run"),
        _Column("created_at", "timestamp", "start of the run, UTC"),
        _Column("exhaustive", "bool", "a person left nothing out", required=False, field_id=9),
    ),
}


def iceberg_schema(table: TableName, *, first_version: bool = False) -> Schema:
    """Return the table's Iceberg schema.

    Args:
        table: the table's name.
        first_version: without the columns that were added later. New tables begin with these:
            Iceberg numbers the fields of a new table itself, and would number them differently.
    """
    columns = _COLUMNS[table]
    return Schema(
        *(
            NestedField(
                field_id=column.field_id or i,
                name=column.name,
                field_type=_iceberg_type(column.kind, _first_version(columns)),
                required=column.required,
                doc=column.doc,
            )
            for i, column in enumerate(columns, start=1)
            if column.field_id is None or not first_version
        )
    )


def arrow_schema(table: TableName) -> pa.Schema:
    """Return the table's Arrow schema, with the field ids that Iceberg finds columns by."""
    columns = _COLUMNS[table]
    return pa.schema(
        _arrow_field(
            column.name,
            _arrow_type(column.kind, _first_version(columns)),
            column.field_id or i,
            nullable=not column.required,
        )
        for i, column in enumerate(columns, start=1)
    )


def _first_version(columns: Sequence[_Column]) -> int:
    return sum(column.field_id is None for column in columns)


def _iceberg_type(kind: _Kind, last_column_id: int) -> IcebergType:
    match kind:
        case "bool":
            return BooleanType()
        case "int":
            return IntegerType()
        case "long":
            return LongType()
        case "double":
            return DoubleType()
        case "string":
            return StringType()
        case "timestamp":
            return TimestamptzType()
        case "points":
            point = ListType(
                element_id=last_column_id + 2, element_type=DoubleType(), element_required=True
            )
            return ListType(
                element_id=last_column_id + 1, element_type=point, element_required=True
            )


def _arrow_type(kind: _Kind, last_column_id: int) -> pa.DataType:
    match kind:
        case "bool":
            return pa.bool_()
        case "int":
            return pa.int32()
        case "long":
            return pa.int64()
        case "double":
            return pa.float64()
        case "string":
            return pa.string()
        case "timestamp":
            return pa.timestamp("us", tz="UTC")
        case "points":
            coordinate = _arrow_field("element", pa.float64(), last_column_id + 2)
            return pa.list_(_arrow_field("element", pa.list_(coordinate), last_column_id + 1))


def _arrow_field(
    name: str, data_type: pa.DataType, field_id: int, *, nullable: bool = False
) -> pa.Field:
    return pa.field(name, data_type, nullable, metadata={"PARQUET:field_id": str(field_id)})
