"""Masks per second of each export and of an import, and their memory.

    python -m tests.benchmarks.bench_exports --images 200 --masks 100

Every format runs in a process of its own, first over half of the images. Rates are per second of
processor time, as wall time on a busy machine says little.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from engine.dataset.catalog import Workspace
from engine.dataset.exports.exporting import export_release
from engine.dataset.exports.formats import FORMATS
from engine.dataset.exports.protocol import ExportOptions
from engine.dataset.imports.coco import CocoSource
from engine.dataset.imports.importing import ImportOptions, import_masks
from engine.dataset.ingest import ingest
from engine.dataset.inputs import ListedImage
from engine.dataset.releases import load_release
from engine.dataset.runs import Recipe, commit_run, pending_shards, plan_runs
from engine.dataset.shards import ImageMasks, write_shard
from engine.images import ImageLimits, encode_jpeg
from engine.masks import encode_region, mask_box_xyxy
from engine.records import MaskRecord
from tests.dataset.dataset_builders import NOW

HEIGHT, WIDTH = 1500, 2250
LIMITS = ImageLimits()


def blob(random: np.random.Generator) -> MaskRecord:
    """A wobbly disc of a size that SA-1B's masks have: some 900 bytes of RLE."""
    radius = int(random.uniform(10, 200))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    angle = np.arctan2(y, x)
    edge = 0.7 + 0.2 * np.sin(random.integers(2, 9) * angle) + 0.1 * np.sin(23 * angle)
    x0, y0 = random.integers(0, WIDTH - 2 * radius - 1), random.integers(0, HEIGHT - 2 * radius - 1)
    rle = encode_region(np.hypot(x, y) < radius * edge, int(x0), int(y0), HEIGHT, WIDTH)
    left, top, right, bottom = mask_box_xyxy(rle) or (0, 0, 0, 0)
    return MaskRecord(
        rle=rle,
        bbox_xywh=(left, top, right - left, bottom - top),
        area=int((np.hypot(x, y) < radius * edge).sum()),
        predicted_iou=float(random.uniform(0.88, 1)),
        stability_score=float(random.uniform(0.95, 1)),
        crop_box_xywh=(0, 0, WIDTH, HEIGHT),
        point_xy=(float(left), float(top)),
    )


def make_release(root: Path, images: int, masks: int) -> None:
    """Publish two releases: the first half of the images, and all of them."""
    random = np.random.default_rng(0)
    photo = np.kron(random.integers(0, 255, (15, 15, 3)), np.ones((100, 150, 1))).astype(np.uint8)
    data = encode_jpeg(photo)
    (root / "photos").mkdir()
    for number in range(images):  # what follows the end of a JPEG makes it another file
        (root / f"photos/{number}.jpg").write_bytes(data + number.to_bytes(4, "big"))
    paths = sorted((root / "photos").iterdir())
    with Workspace.open(str(root / "workspace")) as workspace:
        for some in (paths[: images // 2], paths):
            listed = [ListedImage(str(path)) for path in some]
            ids = ingest(workspace, listed, LIMITS, NOW).image_ids
            for run in plan_runs(workspace, ids, Recipe.of("bench", {}), 50, NOW):
                for shard in pending_shards(workspace.store, run):
                    found = (
                        ImageMasks(i, [blob(random) for _ in range(masks)]) for i in shard.image_ids
                    )
                    write_shard(workspace.store, shard, found, run.provenance)
                commit_run(workspace, run)


def one_export(root: Path, format_name: str, release: str) -> None:
    """Export once, without copying images; print what it took."""
    with Workspace.open(str(root / "workspace"), create=False) as workspace:
        began, wall = time.process_time(), time.perf_counter()
        report = export_release(
            workspace,
            load_release(workspace, release),
            ExportOptions(format=format_name, images="none"),
            str(root / f"{format_name}-{release}"),
            limits=LIMITS,
            now=NOW,
        )
    tell(report.masks, began, wall, report.size_bytes)


def one_import(root: Path) -> None:
    """Import the COCO export; print what it took. Reading the images counts."""
    source = CocoSource(str(root / "coco-r2/instances_all.json"))
    with Workspace.open(str(root / "import")) as workspace:
        began, wall = time.process_time(), time.perf_counter()
        report = import_masks(workspace, source, ImportOptions(), limits=LIMITS, now=NOW)
    tell(report.masks, began, wall, 0)


def tell(masks: int, began: float, wall: float, size_bytes: int) -> None:
    """Print a line for the process that asked."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu, took = time.process_time() - began, time.perf_counter() - wall
    print(json.dumps([masks, cpu, took, peak / 1024, size_bytes]))


def measure(root: Path, *what: str) -> list[float]:
    """Run one export or import in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_exports", "--root", str(root), *what]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    numbers: list[float] = json.loads(done.stdout.splitlines()[-1])
    return numbers


def main() -> None:
    """Print a row for each format."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--masks", type=int, default=100)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--export", nargs=2)
    parser.add_argument("--import", dest="source", choices=["coco"])
    given = parser.parse_args()
    if given.export:
        one_export(given.root, *given.export)
        return
    if given.source:
        one_import(given.root)
        return
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make_release(root, given.images, given.masks)
        print("format, masks/s of processor time (wall), bytes per mask, MB at half and at all")
        for format_name in FORMATS:
            half = measure(root, "--export", format_name, "r1")
            masks, cpu, took, peak, size_bytes = measure(root, "--export", format_name, "r2")
            print(
                f"{format_name:12} {masks / cpu:9,.0f} ({masks / took:9,.0f}) "
                f"{size_bytes / masks:7,.0f} {half[3]:6,.0f} {peak:6,.0f}",
                flush=True,
            )
        masks, cpu, took, peak, _ = measure(root, "--import", "coco")
        print(f"import coco  {masks / cpu:9,.0f} ({masks / took:9,.0f}) {peak:6,.0f} MB")


if __name__ == "__main__":
    main()
