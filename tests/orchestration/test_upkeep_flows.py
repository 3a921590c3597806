"""Audit, release and maintenance as flows against a real Prefect server."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterName,
)
from prefect.client.schemas.objects import FlowRun

from engine.annotation.database import FILE_NAME
from engine.annotation.embeddings import embedding_key
from engine.annotation.opening import open_workspace_database
from engine.annotation.tables import PropertyRow
from engine.dataset.catalog import Workspace
from engine.dataset.releases import data_files, list_releases, list_tags, load_release
from engine.dataset.schemas import TABLES
from engine.errors import BadInputError, PartlyDoneError, TransientError, WorkspaceError
from engine.quality.audit_records import load_audits
from flows import maintenance as maintenance_module
from flows.audit import audit
from flows.maintenance import maintenance
from flows.release import release
from tests.learning.wheel_builders import add_photos, publish_masks, small_discs, true_discs
from tests.orchestration.conftest import newest_artifact


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """Return six photos with people's masks, r1, and a model's that are too small, r2."""
    with Workspace.open(tmp_path / "birds") as opened:
        add_photos(opened, tmp_path / "photos", 6)
        publish_masks(opened, true_discs, stage="manual")
        publish_masks(opened, small_discs, stage="auto", maker="model-0")
        yield opened


def newest_run(client: SyncPrefectClient, name: str) -> FlowRun:
    """Return the newest flow run of a name."""
    runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name])))
    return max(runs, key=lambda run: str(run.created))


def damage(workspace: Workspace) -> None:
    """Change one bit of a file with masks."""
    newest = load_release(workspace, "latest")
    path = Path(workspace.address) / data_files(workspace, newest, "masks")[-1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def test_an_audit_below_the_bar_is_a_run_that_worked(
    workspace: Workspace, prefect_client: SyncPrefectClient
) -> None:
    record = audit(workspace.address, min_pairs=5)
    assert (record.outcome, record.release, record.model) == ("failed", "r2", "model-0")
    run = newest_run(prefect_client, "audit r2")
    assert run.state is not None
    assert run.state.is_completed()
    assert {"stage:audit", "release:r2"} <= set(run.tags)
    page = newest_artifact(prefect_client, "release-audit")
    assert "mean IoU with people" in str(page.data)
    assert "data:image/jpeg;base64," in str(page.data)

    assert audit(workspace.address, "r2", min_pairs=5) == record
    lower = audit(workspace.address, min_mean_iou=0.5, min_pairs=5)
    assert lower.outcome == "passed"
    assert audit(workspace.address, "r1").outcome == "nothing to compare"
    assert len(load_audits(workspace.store)) == 3


def test_a_damaged_release_fails_its_audit_and_gets_no_tag(
    workspace: Workspace, prefect_client: SyncPrefectClient
) -> None:
    damage(workspace)
    with pytest.raises(WorkspaceError, match="release r2 is damaged"):
        audit(workspace.address)
    run = newest_run(prefect_client, "audit r2")
    assert run.state is not None
    assert run.state.is_failed()
    assert load_audits(workspace.store)[-1].outcome == "damaged"
    with pytest.raises(WorkspaceError, match="It gets no tag"):
        release(workspace.address, tag="v1.0")
    assert list_tags(workspace) == []
    assert "checksum" in str(newest_artifact(prefect_client, "release-problems").data)


def test_a_release_is_verified_tagged_reported_and_exported_and_again_the_same(
    workspace: Workspace, prefect_client: SyncPrefectClient, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "share"
    wish = ["coco", f"png:{elsewhere}"]
    outcome = release(workspace.address, tag="v1.0", note="first", export=wish, max_images=2)
    assert (outcome.release, outcome.tag, outcome.files > 3) == ("r2", "v1.0", True)
    assert [(tag.name, tag.release, tag.note) for tag in list_tags(workspace)] == [
        ("v1.0", "r2", "first")
    ]
    assert outcome.exports == (f"{workspace.address}/exports/r2-coco", str(elsewhere))
    assert (Path(outcome.exports[0]) / "export.json").is_file()
    assert (elsewhere / "export.json").is_file()
    assert outcome.report is not None
    page = Path(outcome.report.removeprefix("file://"))
    assert page.read_text().startswith("<!doctype html>")
    assert newest_artifact(prefect_client, "release-report").data
    assert "v1.0" in str(newest_artifact(prefect_client, "release").data)

    assert release(workspace.address, "v1.0", tag="v1.0", export=wish, max_images=2) == outcome
    with pytest.raises(BadInputError, match="expected FORMAT or FORMAT:ADDRESS"):
        release(workspace.address, export=["zip"])
    bare = release(workspace.address, "r1", report=False)
    assert (bare.tag, bare.report, bare.exports) == (None, None, ())


def test_maintenance_says_what_would_go_and_then_it_goes(
    workspace: Workspace, prefect_client: SyncPrefectClient
) -> None:
    with open_workspace_database(workspace) as db, db.writing() as session:
        session.add_all(PropertyRow(name=str(i), value="x" * 5000) for i in range(800))
    database = workspace.local_folder / FILE_NAME
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("DELETE FROM properties WHERE length(value) = 5000")
    workspace.store.put_if_absent(embedding_key("model-0", 1), b"12345")
    orphan = Path(workspace.address) / "tables" / "masks" / "data" / "orphan.parquet"
    orphan.parent.mkdir(parents=True, exist_ok=True)
    orphan.write_bytes(b"nobody's")
    wish: dict[str, Any] = {"grace_days": 0.0, "checkpoint_days": 0.0}

    promised = maintenance(workspace.address, dry_run=True, **wish)
    assert orphan.exists()
    sizes = {one.what: one.size_bytes for one in promised}
    assert sizes["embeddings of model-0"] == 5
    assert sizes["objects: data file"] == 8
    assert sizes["annotation database"] > 3_000_000
    assert "would be given back" in str(newest_artifact(prefect_client, "maintenance").description)

    done = maintenance(workspace.address, **wish)
    assert {one.what for one in promised} <= {one.what for one in done}
    assert not orphan.exists()
    assert not list(workspace.store.list("embeddings/"))
    assert database.stat().st_size < 1_000_000
    assert [r.name for r in list_releases(workspace)] == ["r1", "r2"]
    assert audit(workspace.address, min_mean_iou=0.1, min_pairs=1).outcome == "passed"
    for table in TABLES:
        assert workspace.table(table).scan().to_arrow().num_rows > 0
    again = maintenance(workspace.address, **wish)
    assert not any(one.what.startswith(("embeddings", "objects: data")) for one in again)


def test_young_things_stay(workspace: Workspace, prefect_client: SyncPrefectClient) -> None:
    workspace.store.put_if_absent(embedding_key("model-0", 1), b"12345")
    assert not any("embeddings" in one.what for one in maintenance(workspace.address))
    assert len(list(workspace.store.list("embeddings/"))) == 1


def test_a_database_in_use_leaves_the_rest_done(
    workspace: Workspace, prefect_client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(workspace: Workspace, *, dry_run: bool) -> None:
        raise TransientError("the catalog is in use")

    monkeypatch.setattr(maintenance_module, "tidy_databases", busy)
    quick = maintenance_module.tidy.with_options(retries=0)
    monkeypatch.setattr(maintenance_module, "tidy", quick)
    workspace.store.put_if_absent(embedding_key("model-0", 1), b"12345")
    with pytest.raises(PartlyDoneError, match="in use; everything else is done"):
        maintenance(workspace.address, grace_days=0.0)
    assert not list(workspace.store.list("embeddings/"))
