"""Embeddings of models out of use go, those that somebody may ask for stay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from engine.annotation.campaigns import close_campaign
from engine.annotation.database import Database, database_url, open_database
from engine.annotation.embedding_upkeep import remove_unused_embeddings
from engine.annotation.embeddings import embedding_key
from engine.dataset.catalog import Workspace
from engine.errors import BadInputError
from engine.learning.registry import built_in_version
from tests.annotation.annotation_builders import NOW as CAMPAIGN_TIME
from tests.annotation.annotation_builders import a_campaign

GRACE = timedelta(days=7)
LATER = datetime.now(UTC) + timedelta(days=8)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """Return a workspace with two embeddings of each of three models."""
    with Workspace.open(tmp_path / "birds") as opened:
        for model_id in (built_in_version().model_id, "model-1", "model-0"):
            for image_id in (1, 2):
                opened.store.put_if_absent(embedding_key(model_id, image_id), b"12345")
        yield opened


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with open_database(database_url(tmp_path)) as opened:
        yield opened


def models(workspace: Workspace) -> list[str]:
    return [key.split("/")[1] for key in workspace.store.list("embeddings/")]


def test_the_champion_and_open_campaigns_keep_theirs(workspace: Workspace, db: Database) -> None:
    campaign = a_campaign(db)  # with model-1
    (gone,) = remove_unused_embeddings(workspace, db, now=LATER, grace=GRACE)
    assert (gone.what, gone.objects, gone.size_bytes) == ("embeddings of model-0", 2, 10)
    champion = built_in_version().model_id
    assert sorted(models(workspace)) == sorted([champion, champion, "model-1", "model-1"])
    assert remove_unused_embeddings(workspace, db, now=LATER, grace=GRACE) == ()

    close_campaign(db, campaign.campaign_id, now=CAMPAIGN_TIME)
    (gone,) = remove_unused_embeddings(workspace, db, now=LATER, grace=GRACE)
    assert gone.what == "embeddings of model-1"
    assert models(workspace) == [champion, champion]


def test_young_ones_stay_and_a_dry_run_removes_nothing(workspace: Workspace) -> None:
    now = datetime.now(UTC)
    assert remove_unused_embeddings(workspace, None, now=now, grace=GRACE) == ()
    promised = remove_unused_embeddings(workspace, None, now=LATER, grace=GRACE, dry_run=True)
    assert [one.objects for one in promised] == [2, 2]
    assert len(models(workspace)) == 6
    done = remove_unused_embeddings(workspace, None, now=LATER, grace=GRACE)
    assert [replace(one, note="") for one in done] == [replace(one, note="") for one in promised]
    with pytest.raises(BadInputError, match="grace"):
        remove_unused_embeddings(workspace, None, now=now, grace=-GRACE)
