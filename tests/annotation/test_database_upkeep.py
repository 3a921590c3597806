"""The databases of a workspace are tidied wherever they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from engine.annotation.campaigns import list_campaigns
from engine.annotation.database_upkeep import tidy_databases
from engine.annotation.opening import find_workspace_database, open_workspace_database
from engine.dataset.catalog import Workspace
from tests.annotation.annotation_builders import a_campaign


@pytest.mark.parametrize("place", ["folder", "postgresql"])
def test_both_databases_are_tidied_beside_an_open_reader(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if place == "postgresql":
        monkeypatch.setenv("MASKWHEEL_DATABASE_URL", request.getfixturevalue("postgres_url"))
    with Workspace.open(tmp_path / "birds") as workspace:
        if place == "folder":
            (catalog,) = tidy_databases(workspace)
            assert catalog.what == "catalog"
            assert find_workspace_database(workspace) is None
        with open_workspace_database(workspace) as db, db.reading() as session:
            a_campaign(db)
            session.execute(text("SELECT count(*) FROM campaigns")).one()
            promised = tidy_databases(workspace, dry_run=True)
            freed = tidy_databases(workspace)
            assert [one.what for one in freed] == ["annotation database", "catalog"]
            assert [one.what for one in promised] == [one.what for one in freed]
            assert len(list_campaigns(db)) == 1
        assert workspace.table("images").scan().to_arrow().num_rows == 0
