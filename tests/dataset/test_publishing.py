from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from engine.dataset.audit_reports import GateReport, keep_report, load_reports
from engine.dataset.catalog import Workspace
from engine.dataset.publishing import Publication, Staged, publish, settle
from engine.dataset.releases import latest_release, list_releases, load_release, scan
from engine.dataset.runs import commit_run, plan_runs, publish_run
from engine.dataset.schemas import TABLES, arrow_schema
from engine.errors import BadInputError, RefusedError, WorkspaceError
from engine.records import Release
from tests.dataset.dataset_builders import NOW, RECIPE, write_pending
from tests.dataset.publishing_builders import (
    assert_settled,
    ingest_photos,
    passing,
    refusing,
    written_run,
)

LATER = NOW + timedelta(days=1)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "work") as workspace:
        yield workspace


@pytest.fixture
def image_ids(workspace: Workspace, tmp_path: Path) -> tuple[int, ...]:
    return ingest_photos(workspace, tmp_path / "photos", 8)


def rollback(restored: Release, commit_id: str = "rollback-1") -> Publication:
    return Publication(commit_id=commit_id, kind="rollback", created_at=LATER, restores=restored)


def test_a_published_run_says_where_it_came_from(
    workspace: Workspace, image_ids: tuple[int, ...]
) -> None:
    run = written_run(workspace, image_ids)
    release = commit_run(workspace, run, passing)
    assert load_release(workspace, "r1") == release
    assert (release.kind, release.commit_id, release.parent) == ("run", run.run_id, None)
    assert release.configs == {run.run_id: run.recipe.config_json}
    assert release.code_version
    assert (release.accepted, release.restores, release.note) == (None, None, "")
    assert release.created_at == NOW
    assert_settled(workspace, [run])


def test_publishing_again_gives_the_same_release_and_asks_no_gate(
    workspace: Workspace, image_ids: tuple[int, ...]
) -> None:
    run = written_run(workspace, image_ids)
    release = commit_run(workspace, run)
    assert commit_run(workspace, run, refusing) == release
    assert publish_run(workspace, run.run_id, refusing) == release
    assert_settled(workspace, [run])


def test_a_publisher_whose_name_is_taken_stages_again_on_the_new_release(
    workspace: Workspace, image_ids: tuple[int, ...]
) -> None:
    mine, first, second = (written_run(workspace, image_ids, number) for number in (1, 2, 3))
    rivals = [first, second]
    parents: list[str | None] = []

    def gate(workspace: Workspace, staged: Staged) -> GateReport:
        parents.append(staged.parent.name if staged.parent else None)
        if rivals:
            commit_run(workspace, rivals.pop(0))
        return passing(workspace, staged)

    release = commit_run(workspace, mine, gate)
    assert parents == [None, "r1", "r2"]
    assert release.runs == (first.run_id, second.run_id, mine.run_id)
    assert_settled(workspace, [mine, first, second])


def test_a_rival_that_publishes_the_same_run_makes_its_only_release(
    workspace: Workspace, image_ids: tuple[int, ...]
) -> None:
    run = written_run(workspace, image_ids)

    def gate(workspace: Workspace, staged: Staged) -> GateReport:
        commit_run(workspace, run)
        return passing(workspace, staged)

    assert commit_run(workspace, run, gate).name == "r1"
    assert_settled(workspace, [run])


def test_a_failed_gate_leaves_the_data_set_as_it_was_and_says_why(
    workspace: Workspace, image_ids: tuple[int, ...]
) -> None:
    first, bad = (written_run(workspace, image_ids, number) for number in (1, 2))
    commit_run(workspace, first)
    with pytest.raises(RefusedError, match="mood: too blue") as refused:
        commit_run(workspace, bad, refusing)
    assert f"publish {bad.run_id} --accept" in str(refused.value)
    assert [release.name for release in list_releases(workspace)] == ["r1"]
    [report] = load_reports(workspace.store, bad.run_id)
    assert (report.passed, report.parent, report.release) == (False, "r1", "r2")
    for table in ("masks", "image_runs"):
        assert list(workspace.branches(table)) == [f"{bad.run_id}-on-r1"]
        for branch in workspace.branches(table):
            workspace.drop_branch(table, branch)
    assert_settled(workspace, [first])


def test_a_refused_run_can_be_accepted_with_a_reason_that_stays(
    workspace: Workspace, image_ids: tuple[int, ...]
) -> None:
    run = written_run(workspace, image_ids)
    for _ in range(2):
        with pytest.raises(RefusedError):
            commit_run(workspace, run, refusing)
    release = publish_run(workspace, run.run_id, refusing, accepted="night photos")
    assert load_release(workspace, "r1").accepted == release.accepted == "night photos"
    assert len(load_reports(workspace.store, run.run_id)) == 1, "the same report is kept once"
    assert_settled(workspace, [run])


def test_a_reason_is_not_recorded_when_nothing_was_refused(
    workspace: Workspace, image_ids: tuple[int, ...]
) -> None:
    run = written_run(workspace, image_ids)
    assert commit_run(workspace, run, passing, accepted="in any case").accepted is None


def test_a_refused_run_stays_unfinished_and_does_not_hold_up_others(
    workspace: Workspace, image_ids: tuple[int, ...]
) -> None:
    [bad] = plan_runs(workspace, image_ids[:4], RECIPE, 3, NOW)
    write_pending(workspace, bad)
    with pytest.raises(RefusedError):
        commit_run(workspace, bad, refusing)
    again, good = plan_runs(workspace, image_ids, RECIPE, 3, LATER)
    assert again == bad
    write_pending(workspace, good)
    commit_run(workspace, good, passing)
    assert commit_run(workspace, bad, refusing, accepted="fine").runs == (
        good.run_id,
        bad.run_id,
    )
    assert_settled(workspace, [good, bad])


def test_after_a_rollback_its_images_are_masked_again(
    workspace: Workspace, image_ids: tuple[int, ...]
) -> None:
    [first] = plan_runs(workspace, image_ids[:3], RECIPE, 3, NOW)
    write_pending(workspace, first)
    r1 = commit_run(workspace, first)
    [second] = plan_runs(workspace, image_ids, RECIPE, 3, NOW)
    write_pending(workspace, second)
    r2 = commit_run(workspace, second)
    r3 = publish(workspace, rollback(r1))
    assert (r3.name, r3.parent, r3.kind, r3.restores) == ("r3", "r2", "rollback", "r1")
    assert (r3.runs, r3.masks, r3.models) == (r1.runs, r1.masks, r1.models)
    [third] = plan_runs(workspace, image_ids, RECIPE, 3, LATER)
    assert third.run_id.endswith("-0003")
    assert [s.image_ids for s in third.shards] == [s.image_ids for s in second.shards]
    write_pending(workspace, third)
    r4 = commit_run(workspace, third)
    assert (r4.runs, r4.masks) == ((first.run_id, third.run_id), r2.masks)
    ids = scan(workspace, r4, "masks", ("mask_id",))["mask_id"].to_pylist()
    assert sorted(ids) == sorted(scan(workspace, r2, "masks", ("mask_id",))["mask_id"].to_pylist())
    assert commit_run(workspace, second) == r2, "it was published, whatever came later"


def test_a_rollback_moves_main_and_can_itself_be_rolled_back(
    workspace: Workspace, image_ids: tuple[int, ...]
) -> None:
    r1, r2 = (commit_run(workspace, written_run(workspace, image_ids, n)) for n in (1, 2))
    r3 = publish(workspace, rollback(r1))
    assert publish(workspace, rollback(r1)) == r3
    assert workspace.table("masks").metadata.current_snapshot_id == r1.snapshots["masks"]
    r4 = publish(workspace, rollback(r2, "rollback-2"))
    assert workspace.table("masks").metadata.current_snapshot_id == r2.snapshots["masks"]
    assert (r4.runs, r4.parent) == (r2.runs, "r3")


class Crash(BaseException):
    """As a kill: nothing catches it."""


EFFECTS = ("stage", "set_main", "drop_branch", "tag")


class CrashingStore:
    def __init__(self, store: object, step: Callable[[], None]) -> None:
        self._store, self._step = store, step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        created: bool = self._store.put_if_absent(key, data)  # type: ignore[attr-defined]
        self._step()
        return created


def crash_after(workspace: Workspace, effects: int) -> None:
    """Make the workspace crash after so many effects: commits of the catalog, objects written."""
    left = iter(range(effects - 1))

    def step() -> None:
        if next(left, None) is None:
            raise Crash

    def crashing(method: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            result = method(*arguments, **options)
            step()
            return result

        return call

    for name in EFFECTS:
        setattr(workspace, name, crashing(getattr(workspace, name)))
    workspace.store = CrashingStore(workspace.store, step)


@pytest.mark.parametrize("stride", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_a_crash_after_any_step_loses_nothing_and_doubles_nothing(
    workspace: Workspace, image_ids: tuple[int, ...], stride: int
) -> None:
    runs = [written_run(workspace, image_ids, 0)]
    commit_run(workspace, runs[0], passing)
    crashed = True
    for effects in range(1, 100, stride):
        run = written_run(workspace, image_ids, effects)
        before = latest_release(workspace)
        with Workspace.open(workspace.local_folder) as victim:
            crash_after(victim, effects)
            try:
                commit_run(victim, run, passing)
                crashed = False
            except Crash:
                pass
        # Whoever comes next finds one of two states, and both are whole.
        published = latest_release(workspace) != before
        assert plan_runs(workspace, image_ids, run.recipe, 3, LATER) == [run] * (not published)
        if published:
            assert_settled(workspace, [*runs, run])
        runs.append(run)
        release = commit_run(workspace, run, passing)
        assert release.name == f"r{len(runs)}"
        assert_settled(workspace, runs)
        if not crashed:
            break
    assert not crashed
    assert stride * len(runs) > 10, "there are more steps than that"


def test_settling_repairs_what_follows_from_the_records(
    workspace: Workspace, image_ids: tuple[int, ...]
) -> None:
    runs = [written_run(workspace, image_ids, number) for number in (1, 2)]
    r1, r2 = (commit_run(workspace, run) for run in runs)
    for table in ("masks", "image_runs"):
        workspace.set_main(table, r1.snapshots[table])
        workspace.table(table).manage_snapshots().remove_tag("r2").commit()
        workspace.stage(table, f"{runs[1].run_id}-on-r1", r1.snapshots[table], [], "late")
    assert settle(workspace) == r2
    assert_settled(workspace, runs)


def test_settling_before_the_first_release_does_nothing(workspace: Workspace) -> None:
    assert settle(workspace) is None
    assert all(workspace.table(table).refs() == {} for table in TABLES)


def test_a_slow_process_does_not_leave_main_behind_the_latest_release(
    workspace: Workspace, image_ids: tuple[int, ...], tmp_path: Path
) -> None:
    first, second = (written_run(workspace, image_ids, number) for number in (1, 2))
    commit_run(workspace, first)
    set_main = workspace.set_main

    def late(*arguments: Any) -> None:
        workspace.set_main = set_main  # type: ignore[method-assign]
        with Workspace.open(tmp_path / "work") as other:
            commit_run(other, second)
        set_main(*arguments)

    workspace.set_main = late  # type: ignore[assignment, method-assign]
    settle(workspace)
    assert_settled(workspace, [first, second])


def test_a_record_of_an_older_version_can_be_built_upon(
    workspace: Workspace, image_ids: tuple[int, ...]
) -> None:
    first = written_run(workspace, image_ids, 1)
    commit_run(workspace, first)
    path = workspace.local_folder / "releases" / "r1.json"
    fields = json.loads(path.read_text())
    old = ("name", "snapshots", "runs", "models", "parent", "images", "masks", "created_at")
    path.write_text(json.dumps({name: fields[name] for name in old}))
    assert plan_runs(workspace, image_ids, first.recipe, 3, LATER) == []
    assert commit_run(workspace, first).name == "r1"
    second = written_run(workspace, image_ids, 2)
    assert commit_run(workspace, second).runs == (first.run_id, second.run_id)
    assert_settled(workspace, [first, second])


def test_threads_publishing_at_once_lose_nothing_and_double_nothing(
    workspace: Workspace, image_ids: tuple[int, ...], tmp_path: Path
) -> None:
    runs = [written_run(workspace, image_ids, number) for number in range(4)]

    def publish_two(number: int) -> None:
        with Workspace.open(tmp_path / "work") as mine:
            commit_run(mine, runs[number], passing)
            commit_run(mine, runs[(number + 1) % 4], passing)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(publish_two, range(4)))
    assert_settled(workspace, runs)


@pytest.mark.parametrize("commit_id", ["", "a/b", "../x", "a-on-r1", "-x", "a b"])
def test_a_commit_id_has_to_name_a_branch_and_a_folder(
    workspace: Workspace, commit_id: str
) -> None:
    rows = arrow_schema("image_runs").empty_table()
    publication = Publication(commit_id=commit_id, kind="import", created_at=NOW, image_runs=rows)
    with pytest.raises(BadInputError, match="got the commit id"):
        publish(workspace, publication)


def test_a_publication_without_images_is_refused(workspace: Workspace) -> None:
    with pytest.raises(BadInputError, match="about no image"):
        publish(workspace, Publication(commit_id="import-1", kind="import", created_at=NOW))


def test_images_have_to_be_ingested_first(workspace: Workspace) -> None:
    run = written_run(workspace, [1, 2])
    with pytest.raises(WorkspaceError, match="never ingested"):
        commit_run(workspace, run)
    assert list_releases(workspace) == []


def test_reports_are_numbered_and_a_repeated_one_is_kept_once(workspace: Workspace) -> None:
    report = GateReport(commit_id="run-1", parent=None, release="r1", seed=0)
    other = replace(report, parent="r1", release="r2")
    keys = [keep_report(workspace.store, r) for r in (report, report, other, other, report)]
    assert [key[-14:] for key in keys] == [f"gate-000{n}.json" for n in (1, 1, 2, 2, 3)]
    assert load_reports(workspace.store, "run-1") == (report, other, report)
    assert load_reports(workspace.store, "run-2") == ()
    workspace.store.put_if_absent("runs/run-3/gate-0001.json", b"{}")
    with pytest.raises(WorkspaceError, match="damaged"):
        load_reports(workspace.store, "run-3")
