from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from engine.dataset import runs
from engine.dataset.catalog import Workspace, commit_history
from engine.dataset.ingest import expand_inputs, ingest
from engine.dataset.releases import list_releases
from engine.dataset.runs import (
    Recipe,
    commit_run,
    load_run,
    pending_shards,
    plan_runs,
    publish_run,
    record_unusable,
    run_statuses,
    shard_size,
    unusable_files,
)
from engine.dataset.shards import ImageMasks, write_shard
from engine.errors import BadInputError, WorkspaceError
from engine.objects import LocalStore
from engine.records import SkippedImage
from tests.dataset.dataset_builders import (
    LIMITS,
    NOW,
    RECIPE,
    result_of,
    write_images,
    write_pending,
)

LATER = NOW + timedelta(days=1)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "work") as workspace:
        yield workspace


def ingested(workspace: Workspace, count: int) -> tuple[int, ...]:
    folder = workspace.local_folder.parent / "photos"
    write_images(folder, count)
    return ingest(workspace, expand_inputs([str(folder)]), LIMITS, NOW).image_ids


def test_equal_settings_are_one_recipe_and_others_another() -> None:
    recipe = Recipe.of("m", {"a": 1, "b": (1, 2)})
    assert recipe.recipe_id == Recipe.of("m", {"b": [1, 2], "a": 1}).recipe_id
    others = {Recipe.of("n", {"a": 1, "b": (1, 2)}), Recipe.of("m", {"a": 2, "b": (1, 2)})}
    assert recipe.recipe_id not in {other.recipe_id for other in others}
    with pytest.raises(BadInputError, match="JSON"):
        Recipe.of("m", {"a": float("nan")})


def test_a_run_is_cut_into_ascending_shards(workspace: Workspace) -> None:
    [run] = plan_runs(workspace, [5, 3, 9, 1, 5], RECIPE, 3, NOW)
    assert run.run_id == f"auto-{RECIPE.recipe_id}-0001"
    assert [shard.image_ids for shard in run.shards] == [(1, 3, 5), (9,)]
    assert run.shards[1].key == f"runs/{run.run_id}/masks-00001.parquet"
    assert load_run(workspace.store, run.run_id) == run


def test_a_shard_needs_at_least_one_image(workspace: Workspace) -> None:
    with pytest.raises(BadInputError, match="at least 1"):
        plan_runs(workspace, [1], RECIPE, 0, NOW)


def test_nothing_to_mask_is_no_run(workspace: Workspace) -> None:
    assert plan_runs(workspace, [], RECIPE, 3, NOW) == []


def test_many_images_become_runs_of_neighbouring_ids(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "MOST_IMAGES_OF_A_RUN", 3)
    image_ids = ingested(workspace, 7)
    planned = plan_runs(workspace, image_ids, RECIPE, 2, NOW)
    assert [[len(s.image_ids) for s in run.shards] for run in planned] == [[2, 1], [2, 1], [1]]
    assert [i for run in planned for s in run.shards for i in s.image_ids] == sorted(image_ids)
    assert plan_runs(workspace, image_ids, RECIPE, 2, LATER) == planned


def test_an_unfinished_run_is_continued_as_it_was_planned(workspace: Workspace) -> None:
    [run] = plan_runs(workspace, [1, 2, 3], RECIPE, 2, NOW)
    assert plan_runs(workspace, [1, 2, 3], RECIPE, 1, LATER) == [run]


def test_new_images_become_a_run_after_the_unfinished_one(workspace: Workspace) -> None:
    [run] = plan_runs(workspace, [1, 2, 3], RECIPE, 2, NOW)
    first, second = plan_runs(workspace, [2, 3, 4], RECIPE, 2, LATER)
    assert first == run
    assert [shard.image_ids for shard in second.shards] == [(4,)]
    assert second.created_at == LATER


def test_a_planner_that_loses_its_number_to_a_rival_plans_again(workspace: Workspace) -> None:
    store = workspace.store

    class RivalFirst(LocalStore):
        def put_if_absent(self, key: str, data: bytes) -> bool:
            if key.endswith("-0001/run.json"):
                workspace.store = store
                plan_runs(workspace, [2, 3], RECIPE, 2, NOW)
            return super().put_if_absent(key, data)

    workspace.store = RivalFirst(workspace.local_folder)
    rivals, mine = plan_runs(workspace, [1, 2, 3, 4], RECIPE, 2, LATER)
    assert [shard.image_ids for shard in rivals.shards] == [(2, 3)]
    assert [shard.image_ids for shard in mine.shards] == [(1, 4)]
    assert mine.run_id.endswith("-0002")


def test_pending_are_the_shards_that_do_not_exist(workspace: Workspace) -> None:
    [run] = plan_runs(workspace, [1, 2, 3], RECIPE, 1, NOW)
    assert pending_shards(workspace.store, run) == list(run.shards)
    write_shard(workspace.store, run.shards[1], [ImageMasks(2)], run.provenance)
    assert pending_shards(workspace.store, run) == [run.shards[0], run.shards[2]]


def test_a_committed_run_is_a_release_of_all_its_masks(workspace: Workspace) -> None:
    image_ids = ingested(workspace, 7)
    [run] = plan_runs(workspace, image_ids, RECIPE, 3, NOW)
    write_pending(workspace, run)
    release = commit_run(workspace, run)
    expected = [result_of(image_id) for image_id in image_ids]
    assert release.name == "r1"
    assert release.runs == (run.run_id,)
    assert release.models == (RECIPE.model_id,)
    assert (release.images, release.parent, release.created_at) == (7, None, NOW)
    assert release.masks == sum(len(result.masks) for result in expected)
    rows = workspace.table("image_runs").scan().to_arrow().to_pylist()
    assert sorted((r["image_id"], r["status"], r["masks"], r["reason"]) for r in rows) == [
        (
            result.image_id,
            "skipped" if result.skipped else "masked",
            len(result.masks),
            result.skipped.reason if result.skipped else None,
        )
        for result in expected
    ]
    assert {row["created_at"] for row in rows} == {NOW}
    assert [status.image_id for status in run_statuses(workspace.store, run)] == list(image_ids)


def test_a_second_plan_is_empty_also_for_images_without_masks(workspace: Workspace) -> None:
    image_ids = ingested(workspace, 4)
    [run] = plan_runs(workspace, image_ids, RECIPE, 2, NOW)
    for shard in run.shards:
        write_shard(workspace.store, shard, map(ImageMasks, shard.image_ids), run.provenance)
    release = commit_run(workspace, run)
    assert (release.masks, release.images) == (0, 4)
    assert plan_runs(workspace, image_ids, RECIPE, 2, LATER) == []


def test_another_recipe_masks_the_same_images_again(workspace: Workspace) -> None:
    image_ids = ingested(workspace, 3)
    [run] = plan_runs(workspace, image_ids, RECIPE, 2, NOW)
    write_pending(workspace, run)
    commit_run(workspace, run)
    other = Recipe.of("bundled-2", {"points_per_side": 8})
    [second] = plan_runs(workspace, image_ids, other, 2, LATER)
    write_pending(workspace, second)
    release = commit_run(workspace, second)
    assert (release.name, release.parent, release.images) == ("r2", "r1", 3)
    assert release.runs == (run.run_id, second.run_id)
    assert release.models == ("bundled-1", "bundled-2")


def test_only_new_images_are_planned_after_a_commit(workspace: Workspace) -> None:
    image_ids = ingested(workspace, 3)
    [run] = plan_runs(workspace, image_ids, RECIPE, 2, NOW)
    write_pending(workspace, run)
    commit_run(workspace, run)
    more = ingested(workspace, 5)
    [second] = plan_runs(workspace, more, RECIPE, 2, LATER)
    planned = {image_id for shard in second.shards for image_id in shard.image_ids}
    assert planned == set(more) - set(image_ids)
    assert second.run_id.endswith("-0002")


def test_an_incomplete_run_is_not_committed(workspace: Workspace) -> None:
    image_ids = ingested(workspace, 4)
    [run] = plan_runs(workspace, image_ids, RECIPE, 1, NOW)
    shard = run.shards[0]
    write_shard(workspace.store, shard, map(result_of, shard.image_ids), run.provenance)
    with pytest.raises(WorkspaceError, match="lacks 3 of 4 shards"):
        commit_run(workspace, run)
    assert commit_history(workspace.table("masks")) == []


def test_committing_again_gives_the_same_release(workspace: Workspace) -> None:
    image_ids = ingested(workspace, 4)
    [run] = plan_runs(workspace, image_ids, RECIPE, 2, NOW)
    write_pending(workspace, run)
    release = commit_run(workspace, run)
    assert commit_run(workspace, run) == release
    assert list_releases(workspace) == [release]
    assert workspace.table("masks").scan().to_arrow().num_rows == release.masks


def test_what_an_older_version_left_on_main_without_a_release_is_published_once(
    workspace: Workspace,
) -> None:
    image_ids = ingested(workspace, 6)
    [first] = plan_runs(workspace, image_ids[:3], RECIPE, 2, NOW)
    write_pending(workspace, first)
    # Older versions committed to main first; this is what a kill right after it left.
    uris = [workspace.store.uri(s.key) for s in first.shards if any(map(_has_masks, s.image_ids))]
    workspace.add_shards("masks", uris, first.run_id)
    unfinished, second = plan_runs(workspace, image_ids, RECIPE, 2, LATER)
    assert unfinished == first
    write_pending(workspace, second)
    assert commit_run(workspace, second).runs == (second.run_id,)
    release = commit_run(workspace, first)
    assert (release.name, release.runs) == ("r2", (second.run_id, first.run_id))
    masks = workspace.table("masks").scan().to_arrow()["mask_id"].to_pylist()
    assert len(masks) == len(set(masks)) == release.masks
    assert release.masks == sum(len(result_of(image_id).masks) for image_id in image_ids)


def test_a_number_stays_taken_when_the_manifest_of_a_published_run_is_gone(
    workspace: Workspace,
) -> None:
    image_ids = ingested(workspace, 3)
    [run] = plan_runs(workspace, image_ids[:2], RECIPE, 2, NOW)
    write_pending(workspace, run)
    commit_run(workspace, run)
    (workspace.local_folder / "runs" / run.run_id / "run.json").unlink()
    [second] = plan_runs(workspace, image_ids, RECIPE, 2, LATER)
    assert second.run_id.endswith("-0002")


def test_publishing_by_id_needs_a_run(workspace: Workspace) -> None:
    with pytest.raises(BadInputError, match="got the run 'auto-1'"):
        publish_run(workspace, "auto-1")


def test_a_damaged_manifest_is_reported(workspace: Workspace) -> None:
    run_id = f"auto-{RECIPE.recipe_id}-0001"
    workspace.store.put_if_absent(f"runs/{run_id}/run.json", b'{"run_id": 1')
    with pytest.raises(WorkspaceError, match=f"{run_id}/run.json is damaged"):
        plan_runs(workspace, [1], RECIPE, 2, NOW)


def _has_masks(image_id: int) -> bool:
    return len(result_of(image_id).masks) > 0


@pytest.mark.parametrize(
    ("reason", "tried_again"), [("not-found", True), ("changed", True), ("truncated", False)]
)
def test_an_image_whose_trouble_may_pass_is_tried_again(
    workspace: Workspace, reason: str, tried_again: bool
) -> None:
    image_ids = ingested(workspace, 2)
    [run] = plan_runs(workspace, image_ids, RECIPE, 2, NOW)
    trouble = SkippedImage("/photo", reason, "what happened")
    results = [ImageMasks(image_ids[0]), ImageMasks(image_ids[1], skipped=trouble)]
    write_shard(workspace.store, run.shards[0], results, run.provenance)
    commit_run(workspace, run)
    again = plan_runs(workspace, image_ids, RECIPE, 2, LATER)
    assert [shard.image_ids for r in again for shard in r.shards] == [(image_ids[1],)] * tried_again
    if tried_again:
        write_shard(
            workspace.store,
            again[0].shards[0],
            [ImageMasks(image_ids[1])],
            again[0].provenance,
        )
        assert commit_run(workspace, again[0]).name == "r2"
        assert plan_runs(workspace, image_ids, RECIPE, 2, LATER) == []


@pytest.mark.parametrize(
    ("images", "size"), [(0, 4), (30, 4), (10_000, 50), (1_000_000, 512), (11_000_000, 512)]
)
def test_small_runs_have_small_shards_and_large_runs_few_files(images: int, size: int) -> None:
    assert shard_size(images) == size


def test_files_that_never_became_images_are_kept_beside_the_run(workspace: Workspace) -> None:
    files = [SkippedImage("/b.jpg", "truncated", "cut off"), SkippedImage("/ü.jpg", "empty", "")]
    record_unusable(workspace.store, "run-1", files)
    record_unusable(workspace.store, "run-1", [])  # a resumed call changes nothing
    record_unusable(workspace.store, "run-2", files[:1])
    assert unusable_files(workspace.store, ["run-1", "run-2", "run-3"]) == tuple(files)
