"""Small real data sets for the tests of engine.dataset, and what can be compared of them."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from engine.dataset.catalog import Workspace
from engine.dataset.ingest import expand_inputs, ingest
from engine.dataset.releases import list_releases
from engine.dataset.runs import Recipe, RunManifest, commit_run, pending_shards, plan_runs
from engine.dataset.schemas import TABLES
from engine.dataset.shards import ImageMasks, write_shard
from engine.images import ImageLimits, encode_png
from engine.masks import encode_region
from engine.records import MaskRecord, Release, SkippedImage

NOW = datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)
RECIPE = Recipe.of("bundled-1", {"points_per_side": 8, "pred_iou_thresh": 0.5})
LIMITS = ImageLimits()


def write_images(folder: Path, count: int, *, first: int = 0) -> list[Path]:
    """Write `count` PNGs of different content, 24 x 32 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(first, first + count):
        image_HWC3 = np.full((24, 32, 3), number % 251, dtype=np.uint8)
        image_HWC3[0, 0] = number // 251
        path = folder / f"{number:04d}.png"
        path.write_bytes(encode_png(image_HWC3))
        paths.append(path)
    return paths


def make_masks(count: int) -> list[MaskRecord]:
    """Make masks of growing width in a 24 x 32 image; every second one has a point."""
    return [
        MaskRecord(
            rle=encode_region(np.ones((3, i % 20 + 1), dtype=np.bool_), i % 12, 4, 24, 32),
            bbox_xywh=(i % 12, 4, i % 20, 2),
            area=3 * (i % 20 + 1),
            predicted_iou=0.5 + i / 1e5,
            stability_score=0.9 + 1 / (i + 11),
            crop_box_xywh=(0, 0, 32, 24),
            point_xy=(i % 12 + 0.5, 5.25) if i % 2 == 0 else None,
        )
        for i in range(count)
    ]


def result_of(image_id: int) -> ImageMasks:
    """What the pretended model finds: 0 to 3 masks; some images cannot be used."""
    if image_id % 7 == 0:
        return ImageMasks(image_id, (), SkippedImage(f"/{image_id}", "truncated", "cut off"))
    return ImageMasks(image_id, make_masks(image_id // 64 % 4))


def write_pending(workspace: Workspace, run: RunManifest) -> None:
    """Do the workers' part of a run."""
    for shard in pending_shards(workspace.store, run):
        write_shard(workspace.store, shard, map(result_of, shard.image_ids), run.provenance)


def auto(root: Path, inputs: Path, *, images_per_shard: int = 3) -> list[Release]:
    """Do what `maskwheel auto` does, without a model."""
    with Workspace.open(root) as workspace:
        found = ingest(workspace, expand_inputs([str(inputs)]), LIMITS, NOW)
        releases = []
        for run in plan_runs(workspace, found.image_ids, RECIPE, images_per_shard, NOW):
            write_pending(workspace, run)
            releases.append(commit_run(workspace, run))
        return releases


def state_of(root: Path) -> dict[str, object]:
    """All that a user can see of a workspace, without the catalog's random snapshot ids."""
    with Workspace.open(root, create=False) as workspace:
        state: dict[str, object] = {
            table: sorted(map(str, workspace.table(table).scan().to_arrow().to_pylist()))
            for table in TABLES
        }
        releases = [asdict(release) for release in list_releases(workspace)]
        state["tags"] = sorted(
            name for table in TABLES for name in workspace.table(table).refs() if name != "main"
        )
        state["objects"] = [
            (key, hashlib.sha256(workspace.store.get(key)).hexdigest())
            for key in workspace.store.list("runs/")
        ]
    for release in releases:
        assert sorted(release.pop("snapshots")) == sorted(TABLES)
        # It covers the tables' own files, whose names are random.
        assert release.pop("checksums")
    state["releases"] = releases
    return state
