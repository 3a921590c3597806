"""Releases in a bucket are tagged, compared, verified, restored and cleaned up like local ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from engine.dataset.catalog import Workspace
from engine.dataset.release_diff import Changes, diff
from engine.dataset.release_gc import collect_garbage
from engine.dataset.release_verify import verify_release
from engine.dataset.releases import list_releases, load_release, tag_release
from engine.dataset.rollback import rollback
from engine.dataset.runs import commit_run
from tests.dataset.dataset_builders import NOW
from tests.dataset.publishing_builders import ingest_photos, written_run


def test_releases_live_in_a_bucket(
    s3_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKWHEEL_LOCAL_FOLDER", str(tmp_path / "here"))
    with Workspace.open(f"{s3_address}/birds") as workspace:
        image_ids = ingest_photos(workspace, tmp_path / "photos", 5)
        first = commit_run(workspace, written_run(workspace, image_ids, 1))
        second = commit_run(workspace, written_run(workspace, image_ids, 2))
        tag_release(workspace, "v1", "r1", NOW)
        assert load_release(workspace, "v1") == first
        difference = diff(workspace, first, second)
        assert difference.masks == Changes(added=second.masks - first.masks)
        rollback(workspace, "v1", NOW)
        workspace.store.put_if_absent("tables/masks/metadata/lost.avro", b"left over")
        report = collect_garbage(workspace, datetime.now(UTC) + timedelta(days=30))
        assert "tables/masks/metadata/lost.avro" in [item.key for item in report.garbage]
        assert not workspace.store.exists("tables/masks/metadata/lost.avro")
        assert [release.name for release in list_releases(workspace)] == ["r1", "r2", "r3"]
        checked = verify_release(workspace, second)
        assert checked.problems == ()
        assert checked.without_checksum == 0
