"""A table made by another version gets the columns of this one, and keeps its own."""

from __future__ import annotations

import io
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.types import DoubleType, StringType

import engine.dataset.schemas as schemas
from engine.dataset.catalog import Workspace
from engine.dataset.schemas import TableName, arrow_schema, iceberg_schema
from engine.errors import WorkspaceError
from tests.dataset.catalog_places import image_rows, main_ids

_NEW = {
    "images": schemas._Column("camera", "string", "a test's", required=False, field_id=10),
    "masks": schemas._Column("blur", "double", "a test's", required=False, field_id=30),
}


def with_columns(
    monkeypatch: pytest.MonkeyPatch, added: Mapping[str, schemas._Column] = _NEW
) -> None:
    """Be a version that knows more columns."""
    columns = {
        table: (*known, added[table]) if table in added else known
        for table, known in schemas._COLUMNS.items()
    }
    monkeypatch.setattr(schemas, "_COLUMNS", columns)


def with_camera(rows: pa.Table) -> pa.Table:
    place = rows.schema.get_field_index("camera")
    return rows.set_column(place, rows.schema.field(place), pa.array(["Leica"] * len(rows)))


def cameras(workspace: Workspace, snapshot_id: int | None = None) -> dict[int, str | None]:
    rows = workspace.table("images").scan(snapshot_id=snapshot_id).to_arrow()
    return dict(zip(rows["image_id"].to_pylist(), rows["camera"].to_pylist(), strict=True))


def test_a_new_column_is_added_to_a_table_with_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Workspace.open(tmp_path / "work") as workspace:
        first_rows = image_rows(1)
        old = workspace.append_rows("images", first_rows, "c1")
        workspace.tag("images", "r1", old or 0)
    old_rows = image_rows(2)
    with_columns(monkeypatch)
    with Workspace.open(tmp_path / "work") as workspace:
        assert cameras(workspace) == {1: None}
        buffer = io.BytesIO()
        pq.write_table(old_rows, buffer)  # a shard that was written before the update
        workspace.store.put_if_absent("runs/a/masks-00000.parquet", buffer.getvalue())
        uri = workspace.store.uri("runs/a/masks-00000.parquet")
        workspace.add_shards("images", [uri], "run-a")
        workspace.append_rows("images", with_camera(image_rows(3)), "c3")
        assert cameras(workspace) == {1: None, 2: None, 3: "Leica"}
        where = workspace.table("images").scan("camera = 'Leica'", selected_fields=("image_id",))
        assert where.to_arrow().to_pylist() == [{"image_id": 3}]
        # A release from before reads as it was.
        released = workspace.table("images").scan(snapshot_id=old).to_arrow()
        assert released.to_pylist() == first_rows.to_pylist()
        for name in _NEW:
            table: TableName = "images" if name == "images" else "masks"
            wanted = iceberg_schema(table).as_struct()
            assert workspace.table(table).schema().as_struct() == wanted


def test_shards_carry_the_ids_that_the_table_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Workspace.open(tmp_path / "work").close()
    with_columns(monkeypatch)
    with Workspace.open(tmp_path / "work") as workspace:
        field = workspace.table("masks").schema().find_field("blur")
        assert (field.field_id, field.field_type) == (30, DoubleType())
    assert arrow_schema("masks").field("blur").metadata[b"PARQUET:field_id"] == b"30"
    assert arrow_schema("masks").field("created_at").metadata[b"PARQUET:field_id"] == b"23"


def test_a_new_workspace_has_the_new_column_with_the_same_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_columns(monkeypatch)
    with Workspace.open(tmp_path / "work") as workspace:
        assert workspace.table("masks").schema().find_field("blur").field_id == 30
        assert workspace.table("images").schema().find_field("camera").field_id == 10
    with Workspace.open(tmp_path / "work") as workspace:  # and is not changed again
        assert len(workspace.table("masks").schemas()) == 2


def test_processes_that_open_at_once_add_a_column_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Workspace.open(tmp_path / "work").close()
    with_columns(monkeypatch)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: Workspace.open(tmp_path / "work").close(), range(4)))
    with Workspace.open(tmp_path / "work") as workspace:
        assert len(workspace.table("images").schemas()) == 2


def test_a_column_of_a_newer_version_stays_and_is_empty_in_rows_of_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as newer:
        with_columns(newer)
        with Workspace.open(tmp_path / "work") as workspace:
            workspace.append_rows("images", with_camera(image_rows(1)), "c1")
    with Workspace.open(tmp_path / "work") as workspace:
        workspace.append_rows("images", image_rows(2), "c2")
        assert main_ids(workspace) == [1, 2]
        assert cameras(workspace) == {1: "Leica", 2: None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": schemas._Column("camera", "string", "x", field_id=10)}, "lacks camera"),
        (
            {"images": schemas._Column("camera", "string", "x", required=False, field_id=77)},
            "with id 77",
        ),
    ],
)
def test_columns_that_cannot_be_added_are_refused_and_nothing_is_changed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, schemas._Column],
    message: str,
) -> None:
    Workspace.open(tmp_path / "work").close()
    with monkeypatch.context() as newer:
        with_columns(newer, change)
        with pytest.raises(WorkspaceError, match=message):
            Workspace.open(tmp_path / "work")
    with Workspace.open(tmp_path / "work") as workspace:
        assert len(workspace.table("images").schemas()) == 1


def test_a_column_that_another_version_made_differently_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Workspace.open(tmp_path / "work") as workspace:
        change = workspace.table("images").update_schema()
        change.add_column("camera", DoubleType()).add_column("lens", StringType()).commit()
    with_columns(monkeypatch)
    with pytest.raises(WorkspaceError, match="camera is double with id 10, expected string"):
        Workspace.open(tmp_path / "work")


def test_a_table_that_requires_what_this_version_does_not_know_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    required = schemas._Column("camera", "string", "x")  # of its first version
    with monkeypatch.context() as newer:
        with_columns(newer, {"images": required})
        Workspace.open(tmp_path / "work").close()
    with pytest.raises(WorkspaceError, match=r"requires camera.*update maskwheel"):
        Workspace.open(tmp_path / "work")
