from __future__ import annotations

import pytest
from pyiceberg.io.pyarrow import pyarrow_to_schema

from engine.dataset.schemas import TABLES, TableName, arrow_schema, iceberg_schema


@pytest.mark.parametrize("table", TABLES)
def test_the_arrow_schema_means_the_iceberg_schema(table: TableName) -> None:
    read_back = pyarrow_to_schema(arrow_schema(table))
    expected = iceberg_schema(table)
    assert [
        (field.field_id, field.name, field.field_type, field.required) for field in read_back.fields
    ] == [
        (field.field_id, field.name, field.field_type, field.required) for field in expected.fields
    ]


def test_field_ids_are_those_that_written_shards_carry() -> None:
    # Files outlive versions: a column may be added at the end, never renumbered.
    numbers = {
        field.name: int(field.metadata[b"PARQUET:field_id"]) for field in arrow_schema("masks")
    }
    assert numbers["mask_id"] == 1
    assert numbers["counts"] == 5
    assert numbers["point_coords"] == 17
    assert numbers["created_at"] == 23


@pytest.mark.parametrize("table", TABLES)
def test_every_column_is_explained(table: TableName) -> None:
    assert all(field.doc for field in iceberg_schema(table).fields)
