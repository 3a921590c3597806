"""Commits to a workspace's tables, wherever the workspace and its catalog are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from engine.dataset.catalog import Workspace, commit_history
from engine.errors import WorkspaceError
from tests.dataset.catalog_places import image_rows, main_ids, place, workspace

__all__ = ["place", "workspace"]  # fixtures


def test_rows_come_back_as_they_were_appended(workspace: Workspace) -> None:
    rows = image_rows(1, 2**63 - 1)
    workspace.append_rows("images", rows, "c1")
    assert workspace.table("images").scan().to_arrow().to_pylist() == rows.to_pylist()


def test_a_commit_id_is_committed_once(workspace: Workspace) -> None:
    first = workspace.append_rows("images", image_rows(1), "c1")
    workspace.append_rows("images", image_rows(2), "c2")
    assert workspace.append_rows("images", image_rows(1), "c1") == first
    history = commit_history(workspace.table("images"))
    assert [(commit.commit_id, commit.rows) for commit in history] == [("c1", 1), ("c2", 2)]
    assert history[0].snapshot_id == first


def test_no_new_rows_make_no_commit(workspace: Workspace) -> None:
    assert workspace.append_rows("images", lambda _: image_rows(), "c1") is None
    assert commit_history(workspace.table("images")) == []


def test_shards_without_any_file_still_enter_the_history(workspace: Workspace) -> None:
    snapshot_id = workspace.add_shards("masks", [], "run-1")
    assert workspace.add_shards("masks", [], "run-1") == snapshot_id
    assert [c.commit_id for c in commit_history(workspace.table("masks"))] == ["run-1"]


def test_a_commit_that_loses_the_race_makes_its_rows_again_from_the_new_state(
    workspace: Workspace,
) -> None:
    heads: list[int] = []

    def rows(table: object) -> pa.Table:
        if not heads:
            workspace.append_rows("images", image_rows(7), "rival")
        heads.append(len(main_ids(workspace)))
        return image_rows(8)

    workspace.append_rows("images", rows, "mine")
    assert len(heads) == 2
    assert main_ids(workspace) == [7, 8]


def test_a_rival_with_the_same_commit_id_wins_instead_of_doubling_the_rows(
    workspace: Workspace,
) -> None:
    calls = 0

    def rows(table: object) -> pa.Table:
        nonlocal calls
        calls += 1
        if calls == 1:
            workspace.append_rows("images", image_rows(7), "same")
        return image_rows(7)

    workspace.append_rows("images", rows, "same")
    assert main_ids(workspace) == [7]


def test_tags_can_be_set_again_but_never_move(workspace: Workspace) -> None:
    first = workspace.append_rows("images", image_rows(1), "c1")
    second = workspace.append_rows("images", image_rows(2), "c2")
    assert first is not None
    assert second is not None
    workspace.tag("images", "r1", first)
    workspace.tag("images", "r1", first)
    with pytest.raises(WorkspaceError, match="r1 points to"):
        workspace.tag("images", "r1", second)
    assert workspace.table("images").refs()["r1"].snapshot_id == first


def test_concurrent_committers_lose_nothing(place: str) -> None:
    def commit_three(first: int) -> None:
        with Workspace.open(place) as workspace:
            for image_id in range(first, first + 3):
                workspace.append_rows("images", image_rows(image_id), f"c{image_id}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(commit_three, [0, 10, 20, 30]))
    with Workspace.open(place) as workspace:
        assert main_ids(workspace) == [a + b for a in (0, 10, 20, 30) for b in range(3)]


def test_a_workspace_is_reopened_with_its_rows(place: str) -> None:
    with Workspace.open(place) as workspace:
        workspace.append_rows("images", image_rows(1), "c1")
    with Workspace.open(place, create=False) as workspace:
        assert main_ids(workspace) == [1]
