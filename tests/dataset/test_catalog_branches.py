"""Branches of a table, wherever the workspace and its catalog are."""

from __future__ import annotations

import pyarrow as pa
import pytest

from engine.dataset.catalog import Workspace, commit_history
from engine.errors import BadInputError, WorkspaceError
from tests.dataset.catalog_places import ids_at, image_rows, main_ids, place, workspace

__all__ = ["place", "workspace"]  # fixtures


def no_rows() -> pa.Table:
    return image_rows()


def test_what_is_staged_is_on_its_branch_only(workspace: Workspace) -> None:
    main = workspace.append_rows("images", image_rows(1), "c1")
    staged = workspace.stage("images", "run-a", main, image_rows(2), "run-a")
    assert ids_at(workspace, staged) == [1, 2]
    assert main_ids(workspace) == [1]
    assert workspace.branches("images") == {"run-a": staged}
    assert [c.commit_id for c in commit_history(workspace.table("images"))] == ["c1"]
    on_branch = commit_history(workspace.table("images"), branch="run-a")
    assert [(c.commit_id, c.rows, c.staged_on) for c in on_branch] == [
        ("c1", 1, None),
        ("run-a", 2, "run-a"),
    ]


def test_the_first_state_of_a_table_can_be_staged_from_nothing(workspace: Workspace) -> None:
    staged = workspace.stage("images", "run-a", None, image_rows(1), "run-a")
    assert ids_at(workspace, staged) == [1]
    assert workspace.table("images").current_snapshot() is None


def test_a_branch_from_nothing_does_not_hold_what_main_has(workspace: Workspace) -> None:
    workspace.append_rows("images", image_rows(1), "c1")
    staged = workspace.stage("images", "run-a", None, image_rows(2), "run-a")
    assert ids_at(workspace, staged) == [2]


@pytest.mark.parametrize("base_is_nothing", [True, False])
def test_a_commit_is_staged_once_also_when_others_follow_it(
    workspace: Workspace, base_is_nothing: bool
) -> None:
    main = workspace.append_rows("images", image_rows(1), "c1")
    base = None if base_is_nothing else main
    first = workspace.stage("images", "b", base, image_rows(2), "one")
    second = workspace.stage("images", "b", base, image_rows(3), "two")
    assert workspace.stage("images", "b", base, image_rows(2), "one") == first
    assert workspace.stage("images", "b", base, image_rows(3), "two") == second
    assert ids_at(workspace, second) == ([] if base_is_nothing else [1]) + [2, 3]
    assert workspace.branches("images") == {"b": second}


def test_a_commit_that_the_base_already_has_is_not_staged_again(workspace: Workspace) -> None:
    published = workspace.stage("images", "run-a", None, image_rows(1), "run-a")
    workspace.drop_branch("images", "run-a")
    assert workspace.stage("images", "run-a", published, image_rows(1), "run-a") == published
    assert workspace.branches("images") == {}


def test_staging_on_a_newer_base_takes_nothing_from_the_old_one(workspace: Workspace) -> None:
    first = workspace.append_rows("images", image_rows(1), "c1")
    lost = workspace.stage("images", "run-b", first, image_rows(9), "run-b")
    winner = workspace.stage("images", "run-a", first, image_rows(2), "run-a")
    again = workspace.stage("images", "run-b", winner, image_rows(9), "run-b")
    assert again != lost
    assert ids_at(workspace, again) == [1, 2, 9]
    assert workspace.stage("images", "run-b", winner, image_rows(9), "run-b") == again
    from_nothing = workspace.stage("images", "run-b", None, image_rows(9), "run-b")
    assert ids_at(workspace, from_nothing) == [9]


def test_a_branch_whose_name_was_used_before_starts_where_it_is_told(workspace: Workspace) -> None:
    first = workspace.stage("images", "import", None, image_rows(1), "one")
    workspace.set_main("images", first)
    workspace.drop_branch("images", "import")
    second = workspace.stage("images", "import", first, image_rows(2), "two")
    assert ids_at(workspace, second) == [1, 2]


def test_a_rival_on_another_branch_does_not_disturb_staging(workspace: Workspace) -> None:
    base = workspace.append_rows("images", image_rows(1), "c1")
    held = workspace.table("images")
    rival = workspace.stage("images", "rival", base, image_rows(2), "rival")
    with pytest.raises(Exception, match="moved on"):
        held.append(image_rows(3), branch="mine")
    mine = workspace.stage("images", "mine", base, image_rows(3), "mine")
    sequence = {s.snapshot_id: s.sequence_number for s in workspace.table("images").snapshots()}
    assert len(set(sequence.values())) == len(sequence), "two snapshots share a sequence number"
    assert (ids_at(workspace, rival), ids_at(workspace, mine)) == ([1, 2], [1, 3])


def test_nothing_to_add_is_still_a_commit(workspace: Workspace) -> None:
    staged = workspace.stage("masks", "run-a", None, [], "run-a")
    assert workspace.stage("masks", "run-a", None, [], "run-a") == staged
    rows = workspace.stage("images", "run-a", None, no_rows(), "run-a")
    assert ids_at(workspace, rows) == []


def test_main_moves_forward_and_back(workspace: Workspace) -> None:
    first = workspace.append_rows("images", image_rows(1), "c1")
    assert first is not None
    staged = workspace.stage("images", "run-a", first, image_rows(2), "run-a")
    for target, expected in ((staged, [1, 2]), (staged, [1, 2]), (first, [1])):
        workspace.set_main("images", target)
        assert main_ids(workspace) == expected


def test_dropping_a_branch_keeps_its_snapshots_for_garbage_collection(workspace: Workspace) -> None:
    staged = workspace.stage("images", "run-a", None, image_rows(1), "run-a")
    workspace.drop_branch("images", "run-a")
    workspace.drop_branch("images", "run-a")
    assert workspace.branches("images") == {}
    assert ids_at(workspace, staged) == [1]


def test_names_that_are_not_branches_are_refused(workspace: Workspace) -> None:
    snapshot = workspace.append_rows("images", image_rows(1), "c1")
    assert snapshot is not None
    workspace.tag("images", "r1", snapshot)
    for name in ("main", "r1", ""):
        with pytest.raises(BadInputError, match="branch name"):
            workspace.stage("images", name, None, no_rows(), "c")
        with pytest.raises(BadInputError, match="branch name"):
            workspace.drop_branch("images", name)
    assert workspace.table("images").refs()["r1"].snapshot_id == snapshot


def test_snapshots_that_are_not_there_are_refused(workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="no snapshot 7"):
        workspace.stage("images", "run-a", 7, no_rows(), "c")
    with pytest.raises(WorkspaceError, match="no snapshot 7"):
        workspace.set_main("images", 7)
