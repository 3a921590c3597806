"""One shard: real files, bad ones among them, one Parquet file."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from engine.automatic import AutomaticConfig
from engine.automatic.shard_worker import ModelSpec, cached_model, run_shard
from engine.dataset.catalog import Workspace
from engine.dataset.ingest import expand_inputs, ingest
from engine.dataset.runs import Recipe, RunManifest, plan_runs
from engine.dataset.shards import iter_image_masks, read_shard_statuses
from engine.errors import BadInputError
from engine.images import ImageLimits, encode_png
from engine.objects import open_store
from tests.automatic.oracle_segmenter import OracleScene
from tests.automatic.segmenters import OracleSegmenter
from tests.engine.http_server import http_site

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CONFIG = AutomaticConfig(points_per_side=3, pred_iou_thresh=0.5, stability_score_thresh=0.5)
SCENE = OracleScene(seed=2, height=64, width=80)


@pytest.fixture
def planned(tmp_path: Path) -> tuple[Workspace, RunManifest, Path]:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(4):
        shifted = np.ascontiguousarray(np.roll(SCENE.image_HWC3, 11 * i, axis=1))
        (photos / f"{i}.png").write_bytes(encode_png(shifted))
    workspace = Workspace.open(tmp_path / "workspace")
    found = ingest(workspace, expand_inputs([str(photos)]), ImageLimits(), NOW)
    recipe = Recipe.of("oracle-0", CONFIG.result_fields())
    (run,) = plan_runs(workspace, found.image_ids, recipe, 10, NOW)
    return workspace, run, photos


def test_a_shard_holds_the_masks_of_its_images_and_reports_them(
    planned: tuple[Workspace, RunManifest, Path],
) -> None:
    workspace, run, _ = planned
    heard: list[tuple[str, int]] = []
    segmenter = OracleSegmenter(SCENE)
    shard = run.shards[0]
    first = run_shard(
        workspace, shard, run, segmenter, ImageLimits(), lambda *event: heard.append(event)
    )
    stored = {image: len(masks) for image, masks in iter_image_masks(workspace.store, shard)}
    assert len(heard) == 4
    assert sum(count for _, count in heard) == sum(stored.values()) > 4
    again = run_shard(workspace, shard, run, segmenter, ImageLimits())
    assert (first.wrote, again.wrote) == (True, False)
    assert (first.images, first.skipped) == (again.images, again.skipped) == (4, 0)
    assert first.masks == again.masks == sum(stored.values())


def test_photos_that_vanish_change_or_break_are_recorded_with_their_reason(
    planned: tuple[Workspace, RunManifest, Path],
) -> None:
    workspace, run, photos = planned
    (photos / "0.png").unlink()
    (photos / "1.png").write_bytes((photos / "2.png").read_bytes())
    outcome = run_shard(workspace, run.shards[0], run, OracleSegmenter(SCENE), ImageLimits())
    assert (outcome.images, outcome.skipped) == (4, 2)
    statuses = read_shard_statuses(workspace.store, run.shards[0])
    assert sorted(str(s.reason) for s in statuses) == ["None", "None", "changed", "not-found"]
    assert all((s.status == "masked") == (s.reason is None) for s in statuses)


def test_photos_are_read_from_buckets_and_the_web(tmp_path: Path, s3_address: str) -> None:
    data = encode_png(SCENE.image_HWC3)
    other = encode_png(np.ascontiguousarray(np.roll(SCENE.image_HWC3, 11, axis=1)))
    store = open_store(s3_address)
    for key in ("a.png", "b.png"):
        store.put_if_absent(key, data if key == "a.png" else encode_png(SCENE.image_HWC3[::-1]))
    with http_site() as site, Workspace.open(tmp_path / "workspace") as workspace:
        url = site.serve("/c.png", lambda exchange, number: exchange.send(other))
        listed = expand_inputs([f"{s3_address}/", url])
        found = ingest(workspace, listed, ImageLimits(), NOW)
        recipe = Recipe.of("oracle-0", CONFIG.result_fields())
        (run,) = plan_runs(workspace, found.image_ids, recipe, 10, NOW)
        store.delete("b.png")
        run_shard(workspace, run.shards[0], run, OracleSegmenter(SCENE), ImageLimits())
        statuses = read_shard_statuses(workspace.store, run.shards[0])
    assert sorted(str(s.reason) for s in statuses) == ["None", "None", "not-found"]


def test_limits_are_kept_when_decoding(planned: tuple[Workspace, RunManifest, Path]) -> None:
    workspace, run, _ = planned
    run_shard(workspace, run.shards[0], run, OracleSegmenter(SCENE), ImageLimits(max_pixels=100))
    reasons = {s.reason for s in read_shard_statuses(workspace.store, run.shards[0])}
    assert reasons == {"too-large"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ModelSpec("vit_z"), "unknown model"),
        (ModelSpec("nowhere.pth"), "no such file"),
        (ModelSpec("bundled", precision="int4"), "precision"),
        (ModelSpec("bundled", device="cuda:99"), "cannot be used"),
    ],
)
def test_models_that_cannot_be_used_are_refused_by_name(spec: ModelSpec, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        cached_model(spec)
