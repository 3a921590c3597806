"""A release is announced once, when it is the latest, by who wrote it; telling harms nothing."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from engine.announcements import Announcement, ReleasePublished
from engine.dataset.catalog import Workspace
from engine.dataset.releases import latest_release
from engine.dataset.rollback import rollback
from engine.dataset.runs import commit_run, publish_run
from engine.errors import RefusedError
from tests.dataset.dataset_builders import NOW
from tests.dataset.publishing_builders import ingest_photos, passing, refusing, written_run

LATER = NOW + timedelta(days=1)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "work") as workspace:
        yield workspace


@pytest.fixture
def image_ids(workspace: Workspace, tmp_path: Path) -> tuple[int, ...]:
    return ingest_photos(workspace, tmp_path / "photos", 4)


def test_a_release_is_told_once_and_is_the_latest_when_it_is(
    workspace: Workspace, image_ids: tuple[int, ...]
) -> None:
    heard: list[Announcement] = []

    def hear(announcement: Announcement) -> None:
        assert isinstance(announcement, ReleasePublished)
        assert latest_release(workspace) == announcement.release
        heard.append(announcement)

    run = written_run(workspace, image_ids)
    with pytest.raises(RefusedError):
        commit_run(workspace, run, refusing, announce=hear)
    assert heard == []
    first = commit_run(workspace, run, passing, announce=hear)
    assert publish_run(workspace, run.run_id, announce=hear) == first
    second = commit_run(workspace, written_run(workspace, image_ids, 2), announce=hear)
    third = rollback(workspace, "r1", LATER, announce=hear)
    assert heard == [
        ReleasePublished(workspace=workspace.address, release=release)
        for release in (first, second, third)
    ]


def test_of_processes_that_publish_the_same_at_once_one_tells(
    workspace: Workspace, image_ids: tuple[int, ...]
) -> None:
    heard: list[Announcement] = []
    run = written_run(workspace, image_ids)

    def publish_it(_: int) -> None:
        with Workspace.open(workspace.address) as opened:
            commit_run(opened, run, passing, announce=heard.append)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(publish_it, range(4)))
    assert len(heard) == 1


def test_who_cannot_hear_does_not_undo_the_release(
    workspace: Workspace, image_ids: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(announcement: Announcement) -> None:
        raise OSError("the line is cut")

    release = commit_run(workspace, written_run(workspace, image_ids), announce=fail)
    assert latest_release(workspace) == release
    assert "ReleasePublished was not announced: OSError('the line is cut')" in caplog.text
