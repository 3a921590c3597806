from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from scipy.stats import ks_2samp

from engine.dataset.audit_reports import GateCheck, GateReport, load_reports
from engine.dataset.catalog import Workspace
from engine.dataset.publishing import Publication, Staged, publish
from engine.dataset.releases import list_releases
from engine.dataset.runs import Recipe, RunManifest, commit_run, plan_runs
from engine.dataset.shards import ImageMasks, write_shard
from engine.errors import BadInputError, RefusedError
from engine.quality.gate import GateConfig, audit
from engine.quality.score_shift import ShiftLimits, ks_distance, ks_noise
from engine.records import MaskRecord
from tests.dataset.dataset_builders import NOW, make_masks
from tests.dataset.publishing_builders import ingest_photos

IMAGES, MASKS = 40, 15
Make = Callable[[random.Random], list[MaskRecord]]


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "work") as workspace:
        yield workspace


@pytest.fixture
def image_ids(workspace: Workspace, tmp_path: Path) -> tuple[int, ...]:
    return ingest_photos(workspace, tmp_path / "photos", 2 * IMAGES)


def scored(rng: random.Random, low: float = 0.5, high: float = 1.0) -> list[MaskRecord]:
    """Masks with scores spread evenly over a range."""
    return [
        replace(mask, predicted_iou=rng.uniform(low, high), stability_score=rng.uniform(0.9, 1.0))
        for mask in make_masks(MASKS)
    ]


def run_of(
    workspace: Workspace,
    image_ids: Sequence[int],
    make: Make = scored,
    settings: dict[str, float] | None = None,
    model: str = "model-1",
) -> RunManifest:
    *_, run = plan_runs(workspace, image_ids, Recipe.of(model, settings or {}), 10, NOW)
    for shard in run.shards:
        rng = random.Random(shard.index)  # noqa: S311
        results = [ImageMasks(image_id, make(rng)) for image_id in shard.image_ids]
        write_shard(workspace.store, shard, results, run.provenance)
    return run


def report_of(workspace: Workspace, run: RunManifest) -> GateReport:
    return load_reports(workspace.store, run.run_id)[-1]


def checks_of(workspace: Workspace, run: RunManifest) -> dict[str, GateCheck]:
    return {check.name: check for check in report_of(workspace, run).checks}


def refused(workspace: Workspace, run: RunManifest) -> list[str]:
    """Names of the checks that refuse a run."""
    before = list_releases(workspace)
    with pytest.raises(RefusedError) as error:
        commit_run(workspace, run, audit)
    assert list_releases(workspace) == before
    failed = [check for check in report_of(workspace, run).checks if not check.passed]
    assert all(check.detail in str(error.value) for check in failed)
    return [check.name for check in failed]


def test_the_first_run_passes_without_anything_to_compare_it_with(
    workspace: Workspace, image_ids: tuple[int, ...]
) -> None:
    run = run_of(workspace, image_ids[:IMAGES])
    commit_run(workspace, run, audit)
    report = report_of(workspace, run)
    assert report.passed
    assert (report.parent, report.release, report.reasons) == (None, "r1", ())
    assert (report.files, report.sampled_files, report.sampled_masks) == (4, 4, IMAGES * MASKS)
    assert [c.name for c in report.checks] == [
        "columns",
        "numbers of masks",
        "masks",
        "images",
        "ids",
    ]


def test_a_run_like_the_ones_before_passes_all_comparisons(
    workspace: Workspace, image_ids: tuple[int, ...]
) -> None:
    commit_run(workspace, run_of(workspace, image_ids[:IMAGES]), audit)
    run = run_of(workspace, image_ids)
    commit_run(workspace, run, audit)
    compared = [check for check in report_of(workspace, run).checks if "r1" in check.name]
    assert [check.name for check in compared] == [
        "predicted IoU against r1",
        "stability against r1",
        "mask size against r1",
        "masks per image against r1",
    ]
    for check in compared:
        assert check.figure is not None
        assert check.limit is not None
        assert check.figure < 0.2 < check.limit < 0.9


def test_other_scores_than_before_are_refused(
    workspace: Workspace, image_ids: tuple[int, ...]
) -> None:
    commit_run(workspace, run_of(workspace, image_ids[:IMAGES]), audit)
    run = run_of(workspace, image_ids, lambda rng: scored(rng, 0.99, 1.0))
    assert refused(workspace, run) == ["predicted IoU against r1"]
    release = commit_run(workspace, run, audit, accepted="a better model")
    assert release.accepted == "a better model"


def test_another_threshold_alone_is_no_other_score(
    workspace: Workspace, image_ids: tuple[int, ...]
) -> None:
    commit_run(workspace, run_of(workspace, image_ids[:IMAGES]), audit)
    run = run_of(
        workspace, image_ids, lambda rng: scored(rng, 0.9), settings={"pred_iou_thresh": 0.9}
    )
    commit_run(workspace, run, audit, accepted=None)
    checks = checks_of(workspace, run)
    assert "not compared" in checks["predicted IoU against r1"].detail, "120 masks are left"
    assert "not compared" in checks["masks per image against r1"].detail
    assert checks["stability against r1"].figure is not None


def test_far_more_masks_per_image_and_far_larger_ones_are_refused(
    workspace: Workspace, image_ids: tuple[int, ...]
) -> None:
    commit_run(workspace, run_of(workspace, image_ids[:IMAGES]), audit)

    def many(rng: random.Random) -> list[MaskRecord]:
        return [mask for _ in range(15) for mask in scored(rng) if mask.area > 40]

    run = run_of(workspace, image_ids, many)
    assert refused(workspace, run) == ["mask size against r1", "masks per image against r1"]


def test_a_run_that_finds_nothing_any_more_is_refused(
    workspace: Workspace, image_ids: tuple[int, ...]
) -> None:
    commit_run(workspace, run_of(workspace, image_ids[:IMAGES]), audit)
    run = run_of(workspace, image_ids, lambda _: [])
    assert refused(workspace, run) == ["masks per image against r1"]


def test_few_images_are_not_compared(workspace: Workspace, image_ids: tuple[int, ...]) -> None:
    commit_run(workspace, run_of(workspace, image_ids[:IMAGES]), audit)
    run = run_of(workspace, image_ids[: IMAGES + 5], lambda rng: scored(rng, 0.99))
    commit_run(workspace, run, audit)
    details = [c.detail for n, c in checks_of(workspace, run).items() if "r1" in n]
    assert all("not compared" in detail for detail in details)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"area": 4}, "area 4, its mask has 3"),
        ({"bbox_xywh": (0, 4, 1, 2)}, "box"),
        ({"predicted_iou": float("nan")}, "predicted_iou nan"),
    ],
)
def test_a_mask_that_contradicts_its_run_lengths_is_refused(
    workspace: Workspace,
    image_ids: tuple[int, ...],
    change: dict[str, object],
    message: str,
) -> None:
    broken = replace(make_masks(1)[0], **change)  # type: ignore[arg-type]
    run = run_of(workspace, image_ids[:4], lambda rng: [*scored(rng)[1:], broken])
    assert refused(workspace, run) == ["masks"]
    check = checks_of(workspace, run)["masks"]
    assert (check.figure, check.limit) == (4.0, 0.0)
    assert message in check.detail
    assert "and 3 more" in check.detail


def test_masks_of_images_that_were_never_ingested_are_refused(
    workspace: Workspace, image_ids: tuple[int, ...]
) -> None:
    run = run_of(workspace, [*image_ids[:3], 12345])
    assert refused(workspace, run) == ["masks", "images"]
    assert "12345" in checks_of(workspace, run)["images"].detail


def rewrite(workspace: Workspace, run: RunManifest, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change the first shard on disk, as a broken writer or disk would."""
    path = workspace.local_folder / run.shards[0].key
    table = change(pq.read_table(path))
    metadata = pq.read_metadata(path).metadata
    path.unlink()
    pq.write_table(table.replace_schema_metadata(metadata), path)


def test_a_file_with_other_columns_is_refused(
    workspace: Workspace, image_ids: tuple[int, ...]
) -> None:
    run = run_of(workspace, image_ids[:4])
    rewrite(workspace, run, lambda t: t.append_column("colour", pa.nulls(len(t), pa.string())))
    with pytest.raises((RefusedError, BadInputError, ValueError)):
        commit_run(workspace, run, audit)
    assert list_releases(workspace) == []


def test_rows_that_went_missing_are_noticed(
    workspace: Workspace, image_ids: tuple[int, ...]
) -> None:
    run = run_of(workspace, image_ids[:4])
    rewrite(workspace, run, lambda t: t.slice(0, len(t) - 1))
    assert refused(workspace, run) == ["numbers of masks"]


def test_ids_that_are_there_twice_are_noticed(
    workspace: Workspace, image_ids: tuple[int, ...]
) -> None:
    run = run_of(workspace, image_ids[:4])

    def double(table: pa.Table) -> pa.Table:
        ids = pc.replace_with_mask(
            table["mask_id"], pa.array([i == 1 for i in range(len(table))]), table["mask_id"][0]
        )
        return table.set_column(0, table.schema.field(0), ids)

    rewrite(workspace, run, double)
    assert refused(workspace, run) == ["ids"]


def test_a_damaged_page_is_noticed(workspace: Workspace, image_ids: tuple[int, ...]) -> None:
    run = run_of(workspace, image_ids[:4])
    path = workspace.local_folder / run.shards[0].key
    data = bytearray(path.read_bytes())
    data[4:300] = bytes(296)
    path.write_bytes(bytes(data))
    assert refused(workspace, run) == ["masks"]
    assert "cannot be read" in checks_of(workspace, run)["masks"].detail


def test_the_same_data_give_the_same_report_and_a_sample_is_a_sample(
    workspace: Workspace, image_ids: tuple[int, ...]
) -> None:
    run = run_of(workspace, image_ids)
    reports: list[GateReport] = []

    def gate(workspace: Workspace, staged: Staged) -> GateReport:
        config = GateConfig(files=3, row_groups=1)
        reports.extend(audit(workspace, staged, config) for _ in range(2))
        return reports[-1]

    commit_run(workspace, run, gate)
    assert reports[0] == reports[1]
    assert (reports[0].files, reports[0].sampled_files) == (8, 3)


def test_a_rollback_needs_no_gate(workspace: Workspace, image_ids: tuple[int, ...]) -> None:
    first = commit_run(workspace, run_of(workspace, image_ids[:4]), audit)
    rollback = Publication(commit_id="back", kind="rollback", created_at=NOW, restores=first)
    assert publish(workspace, rollback).masks == first.masks


@pytest.mark.parametrize(
    "make",
    [
        lambda: GateConfig(files=0),
        lambda: GateConfig(row_groups=0),
        lambda: ShiftLimits(min_images=0),
        lambda: ShiftLimits(score=1.5),
    ],
)
def test_limits_outside_their_range_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(BadInputError, match="must be"):
        make()


def test_the_distance_is_that_of_scipy() -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        a, b = rng.integers(0, 9, rng.integers(1, 50)), rng.integers(2, 12, rng.integers(1, 50))
        expected = ks_2samp(a, b, method="asymp").statistic
        assert ks_distance(a.astype(float), b.astype(float)) == pytest.approx(expected)


def test_equal_sources_are_rarely_further_apart_than_the_noise() -> None:
    rng = np.random.default_rng(4)
    beyond = sum(ks_distance(rng.random(60), rng.random(40)) > ks_noise(60, 40) for _ in range(500))
    assert beyond <= 3
