"""How fast a release is verified and compared, on one core.

    python -m tests.benchmarks.bench_releases --masks 100000

The masks are wobbly blobs of about 900 bytes of run lengths, 100 on each image.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from engine.dataset.catalog import Workspace
from engine.dataset.release_diff import diff
from engine.dataset.release_verify import verify_release
from engine.dataset.rollback import rollback
from engine.dataset.runs import Recipe, commit_run, plan_runs
from engine.dataset.schemas import arrow_schema
from engine.dataset.shards import ImageMasks, write_shard
from engine.masks import encode_mask, mask_area, mask_box_xyxy, measure_masks
from engine.records import MaskRecord, Release

HEIGHT, WIDTH, MASKS_PER_IMAGE = 768, 1024, 100
NOW = datetime(2026, 11, 1, tzinfo=UTC)


def blobs(count: int) -> list[MaskRecord]:
    """Return different masks with their true areas and boxes."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    found = []
    for _ in range(count):
        centre_y, centre_x = random.integers(100, 600), random.integers(100, 900)
        angle = np.arctan2(y - centre_y, x - centre_x)
        radius = random.integers(20, 200) * (
            1 + 0.2 * np.sin(7 * angle) + 0.02 * np.sin(60 * angle)
        )
        rle = encode_mask(np.hypot(y - centre_y, x - centre_x) < radius)
        x0, y0, x1, y1 = mask_box_xyxy(rle) or (0, 0, 0, 0)
        found.append(
            MaskRecord(
                rle=rle,
                bbox_xywh=(x0, y0, x1 - x0, y1 - y0),
                area=mask_area(rle),
                predicted_iou=float(random.uniform(0.8, 1)),
                stability_score=float(random.uniform(0.9, 1)),
                crop_box_xywh=(0, 0, WIDTH, HEIGHT),
                point_xy=(float(centre_x), float(centre_y)),
            )
        )
    return found


def image_rows(count: int) -> pa.Table:
    """Return rows of images that need not exist."""
    digests = sorted(hashlib.sha256(str(number).encode()).hexdigest() for number in range(count))
    rows = [
        {
            "image_id": int(digest[:16], 16) >> 1,
            "uri": f"/photos/{digest[:8]}.jpg",
            "sha256": digest,
            "width": WIDTH,
            "height": HEIGHT,
            "format": "jpeg",
            "ingested_at": NOW,
        }
        for digest in digests
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema("images"))


def published(workspace: Workspace, images: pa.Table, masks: list[MaskRecord], n: int) -> Release:
    """Publish masks of every image as run number `n`."""
    image_ids = images["image_id"].to_pylist()
    [run] = plan_runs(workspace, image_ids, Recipe.of(f"model-{n}", {}), 250, NOW)

    def results(ids: tuple[int, ...]) -> Iterator[ImageMasks]:
        return (ImageMasks(image_id, masks) for image_id in ids)

    for shard in run.shards:
        write_shard(workspace.store, shard, results(shard.image_ids), run.provenance)
    return commit_run(workspace, run)


def row(name: str, masks: int, work: Callable[[], object]) -> None:
    """Print how many masks a second of processor time, and of the clock, gets through."""
    began, began_cpu = time.perf_counter(), time.process_time()
    work()
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    print(f"{name}: {masks / cpu:,.0f} masks/s of CPU, {masks / seconds:,.0f} of the clock")


def main() -> None:
    """Print a row for each way of going through the masks."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--masks", type=int, default=100_000)
    count = parser.parse_args().masks
    masks = blobs(MASKS_PER_IMAGE)
    texts = [mask.rle.counts.encode() for mask in masks] * 20
    text = np.frombuffer(b"".join(texts), np.uint8)
    offsets = np.cumsum([0, *map(len, texts)])
    heights, widths = np.full(len(texts), HEIGHT), np.full(len(texts), WIDTH)
    print(f"{len(text) / len(texts):,.0f} bytes of run lengths per mask")
    row(
        "area and box, all at once",
        len(texts),
        lambda: measure_masks(text, offsets, heights, widths),
    )
    row(
        "area and box, one by one",
        len(masks) * 2,
        lambda: [(mask_area(m.rle), mask_box_xyxy(m.rle)) for m in masks * 2],
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        Workspace.open(Path(folder) / "work") as workspace,
    ):
        images = image_rows(count // MASKS_PER_IMAGE)
        workspace.append_rows("images", images, "images")
        first = published(workspace, images, masks, 1)
        row("verify", first.masks, lambda: verify_release(workspace, first, threads=1))
        second = published(workspace, images, masks, 2)
        row(
            "diff to the next release",
            second.masks - first.masks,
            lambda: diff(workspace, first, second, threads=1),
        )
        rollback(workspace, "r1", NOW)
        other = published(workspace, images, masks, 3)
        row(
            "diff of two that both have own masks",
            2 * (other.masks - first.masks),
            lambda: diff(workspace, second, other, threads=1),
        )


if __name__ == "__main__":
    main()
