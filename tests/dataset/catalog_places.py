"""Where a workspace can be, for tests that hold for each place.

    from tests.dataset.catalog_places import place, workspace      # fixtures
    def test_it(workspace: Workspace) -> None: ...                 # runs three times

A folder with SQLite, a bucket (moto) with SQLite, a folder with a real PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from engine.dataset.catalog import Workspace
from engine.dataset.schemas import arrow_schema
from tests.dataset.dataset_builders import NOW

__all__ = ["ids_at", "image_rows", "main_ids", "place", "workspace"]


@pytest.fixture(params=["folder", "postgres", pytest.param("s3", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return an address without a workspace; the environment leads to its catalog."""
    monkeypatch.setenv("MASKWHEEL_LOCAL_FOLDER", str(tmp_path / "local"))
    if request.param == "postgres":
        monkeypatch.setenv("MASKWHEEL_DATABASE_URL", request.getfixturevalue("postgres_url"))
    if request.param == "s3":
        return f"{request.getfixturevalue('s3_address')}/team/birds"
    return str(tmp_path / "work")


@pytest.fixture
def workspace(place: str) -> Iterator[Workspace]:
    """Return a new workspace."""
    with Workspace.open(place) as workspace:
        yield workspace


def image_rows(*image_ids: int) -> pa.Table:
    """Make rows of table ``images``."""
    rows = [
        {
            "image_id": image_id,
            "uri": f"/photos/{image_id}.png",
            "sha256": f"{image_id:064x}",
            "width": 4,
            "height": 3,
            "format": "png",
            "license": None,
            "split": "train",
            "ingested_at": NOW + timedelta(seconds=1),
        }
        for image_id in image_ids
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema("images"))


def main_ids(workspace: Workspace) -> list[int]:
    """Return the ids in table ``images``, ascending."""
    ids: list[int] = workspace.table("images").scan().to_arrow()["image_id"].to_pylist()
    return sorted(ids)


def ids_at(workspace: Workspace, snapshot_id: int) -> list[int]:
    """Return the ids in a snapshot of table ``images``, ascending."""
    rows = workspace.table("images").scan(snapshot_id=snapshot_id).to_arrow()
    return sorted(rows["image_id"].to_pylist())
