"""Runs ready to be published, gates that say what a test wants, and what must hold afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from engine.dataset.audit_reports import GateCheck, GateReport
from engine.dataset.catalog import Workspace
from engine.dataset.ingest import expand_inputs, ingest
from engine.dataset.publishing import Staged
from engine.dataset.releases import list_releases, scan
from engine.dataset.runs import Recipe, RunManifest, plan_runs
from engine.dataset.schemas import TABLES
from engine.records import Release
from tests.dataset.dataset_builders import LIMITS, NOW, result_of, write_images, write_pending


def ingest_photos(workspace: Workspace, folder: Path, count: int) -> tuple[int, ...]:
    write_images(folder, count)
    return ingest(workspace, expand_inputs([str(folder)]), LIMITS, NOW).image_ids


def written_run(workspace: Workspace, image_ids: Sequence[int], number: int = 1) -> RunManifest:
    """A complete run of recipe `number` over the images, not yet committed."""
    recipe = Recipe.of(f"model-{number}", {"number": number})
    *_, run = plan_runs(workspace, image_ids, recipe, 3, NOW)
    write_pending(workspace, run)
    return run


def passing(workspace: Workspace, staged: Staged) -> GateReport:
    return _report(staged, GateCheck(name="mood", passed=True))


def refusing(workspace: Workspace, staged: Staged) -> GateReport:
    return _report(staged, GateCheck(name="mood", passed=False, detail="too blue"))


def assert_settled(workspace: Workspace, runs: Sequence[RunManifest]) -> list[Release]:
    """The releases are those of the runs, in any order, and the tables follow them."""
    releases = list_releases(workspace)
    assert [release.name for release in releases] == [f"r{n + 1}" for n in range(len(runs))]
    assert [release.parent for release in releases] == [None, *(r.name for r in releases)][:-1]
    assert sorted(r.runs[-1] for r in releases) == sorted(run.run_id for run in runs)
    for earlier, later in pairwise(releases):
        assert later.runs[:-1] == earlier.runs
    for table in TABLES:
        refs = {name: ref.snapshot_id for name, ref in workspace.table(table).refs().items()}
        main = refs.pop("main")
        assert refs == {release.name: release.snapshots[table] for release in releases}
        if table != "images":
            assert main == releases[-1].snapshots[table]
    masks = scan(workspace, releases[-1], "masks", ("mask_id", "run_id"))
    assert max(Counter(masks["mask_id"].to_pylist()).values()) == 1
    assert Counter(masks["run_id"].to_pylist()) == +Counter(
        {run.run_id: _masks(run) for run in runs}
    )
    rows = scan(workspace, releases[-1], "image_runs", ("run_id", "image_id")).to_pylist()
    assert sorted((row["run_id"], row["image_id"]) for row in rows) == sorted(
        (run.run_id, i) for run in runs for shard in run.shards for i in shard.image_ids
    )
    return releases


def _masks(run: RunManifest) -> int:
    return sum(len(result_of(i).masks) for shard in run.shards for i in shard.image_ids)


def _report(staged: Staged, check: GateCheck) -> GateReport:
    return GateReport(
        commit_id=staged.publication.commit_id,
        parent=staged.parent.name if staged.parent else None,
        release=staged.release.name,
        seed=0,
        checks=(check,),
    )
