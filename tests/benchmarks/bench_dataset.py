"""A release of a million masks: bytes, look-ups, scans and iteration, locally and through S3.

    python -m tests.benchmarks.bench_dataset [--masks 1000000] [--folder KEPT] [--only lookups]

The masks are blobs as SAM cuts them (a smooth map of 256 steps, scaled up and thresholded), 4,096
different ones in turn, so that no row group holds one twice. The shards are written by the
project's own writer and published by its own commit. Files are in the page cache.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import ndimage

from engine.dataset.catalog import Workspace
from engine.dataset.image_rows import ImageRows
from engine.dataset.parquet_files import ParquetFiles
from engine.dataset.reader import ReleaseReader, open_release
from engine.dataset.runs import Recipe, commit_run, pending_shards, plan_runs, shard_size
from engine.dataset.schemas import arrow_schema
from engine.dataset.shards import ImageMasks, write_shard
from engine.dataset.sql import open_database
from engine.masks import encode_region, mask_box_xyxy
from engine.objects import open_store
from engine.records import MaskRecord
from tests.servers import run_moto

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HEIGHT, WIDTH, DIFFERENT, MASKS_PER_IMAGE = 1500, 2250, 4096, 100


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--masks", type=int, default=1_000_000)
    parser.add_argument("--images-per-shard", type=int, help="default: as `maskwheel auto` does")
    parser.add_argument("--folder", type=Path, help="build it here and keep it")
    parser.add_argument("--only", choices=("bytes", "lookups", "scans", "iteration", "s3"))
    options = parser.parse_args()
    with ExitStack() as stack:
        kept = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        root = kept / "workspace"
        if not root.exists():
            build(root, options.masks, options.images_per_shard)
        with open_release(root) as reader:
            describe(reader)
        measures: dict[str, Callable[[Path], None]] = {
            "bytes": print_bytes,
            "lookups": lambda root: print_lookups("local", lambda: open_release(root)),
            "scans": print_scans,
            "iteration": print_iteration,
            "s3": print_s3,
        }
        for name, measure in measures.items():
            if options.only in (None, name):
                measure(root)


def print_s3(root: Path) -> None:
    """Copy the shards to a server on this machine and look images up there."""
    with run_moto() as server, open_release(root) as local:
        os.environ.update(server.environment())
        store = open_store(f"s3://{server.make_bucket()}/bench")
        for file in local.mask_files.files:
            store.put_file_if_absent(file.key, root / file.key)
        remote = ParquetFiles(store, "masks", local.mask_files.files)
        print_lookups("S3 (moto, loopback)", lambda: moved(local, remote), count=200)


def build(root: Path, masks: int, images_per_shard: int | None) -> None:
    """Write and publish a release of so many masks."""
    began = time.perf_counter()
    pool = different_masks(np.random.default_rng(0))
    print(f"{len(pool)} different masks in {time.perf_counter() - began:.0f} s")
    images = image_rows(masks // MASKS_PER_IMAGE)
    ids = images["image_id"].to_pylist()
    began = time.perf_counter()
    with Workspace.open(root) as workspace:
        workspace.append_rows("images", images, "bench")
        size = images_per_shard or shard_size(len(ids))
        run = plan_runs(workspace, ids, Recipe.of("bench", {}), size, NOW)[-1]
        turn = endless(pool)
        for shard in pending_shards(workspace.store, run):
            found = (
                ImageMasks(i, [next(turn) for _ in range(MASKS_PER_IMAGE)]) for i in shard.image_ids
            )
            write_shard(workspace.store, shard, found, run.provenance)
        written = time.perf_counter() - began
        began = time.perf_counter()
        release = commit_run(workspace, run)
    print(
        f"{release.masks:,} masks in {len(run.shards)} shards written in {written:.0f} s "
        f"({release.masks / written:,.0f}/s), published in {time.perf_counter() - began:.1f} s"
    )


def image_rows(count: int) -> pa.Table:
    """Rows of images that nobody will look at; ids are as random as real ones."""
    digests = [hashlib.sha256(str(number).encode()) for number in range(count)]
    return pa.Table.from_pylist(
        [
            {
                "image_id": int.from_bytes(digest.digest()[:8], "big") >> 1,
                "uri": f"/data/photos/{number // 1000:04d}/sa_{number}.jpg",
                "sha256": digest.hexdigest(),
                "width": WIDTH,
                "height": HEIGHT,
                "format": "jpeg",
                "ingested_at": NOW,
            }
            for number, digest in enumerate(digests)
        ],
        schema=arrow_schema("images"),
    )


def different_masks(draw: np.random.Generator) -> list[MaskRecord]:
    """Blobs of log-normal size: logits on a coarse grid, scaled up, above zero."""
    return [blob(draw) for _ in range(DIFFERENT)]


def blob(draw: np.random.Generator) -> MaskRecord:
    """One mask with its true box and area."""
    side = float(np.clip(draw.lognormal(5.55, 0.8), 12, 1400))
    # SAM's logits have 256 steps along the longer side of the image.
    steps = max(int(side * 256 / WIDTH), 3)
    y, x = np.mgrid[-1 : 1 : (steps + 2) * 1j, -1 : 1 : (steps + 2) * 1j]
    noise = ndimage.gaussian_filter(draw.normal(size=x.shape), max(steps / 9, 0.8), mode="reflect")
    logits = 0.75 - np.hypot(x, y) + 0.22 * noise / (noise.std() + 1e-9)
    logits[[0, -1]] = logits[:, [0, -1]] = -1
    pixels = ndimage.zoom(logits, side / (steps + 2), order=1) > 0
    if not pixels.any():
        pixels[pixels.shape[0] // 2, pixels.shape[1] // 2] = True
    h, w = pixels.shape
    x0, y0 = int(draw.integers(0, WIDTH - w)), int(draw.integers(0, HEIGHT - h))
    rle = encode_region(pixels, x0, y0, HEIGHT, WIDTH)
    left, top, right, bottom = mask_box_xyxy(rle) or (0, 0, 0, 0)
    return MaskRecord(
        rle=rle,
        bbox_xywh=(left, top, right - left, bottom - top),
        area=int(pixels.sum()),
        predicted_iou=0.0,
        stability_score=0.0,
        crop_box_xywh=(0, 0, WIDTH, HEIGHT),
        point_xy=(0.0, 0.0),
    )


def endless(pool: Sequence[MaskRecord]) -> Iterator[MaskRecord]:
    """The pool again and again, with scores and points of their own each time."""
    draw = np.random.default_rng(1)
    while True:
        scores = 0.88 + 0.12 * draw.random((len(pool), 2)).astype(np.float32)
        points = (draw.random((len(pool), 2)) * (WIDTH, HEIGHT)).astype(np.float32)
        for mask, (iou, stability), (x, y) in zip(
            pool, scores.tolist(), points.tolist(), strict=True
        ):
            yield replace(mask, predicted_iou=iou, stability_score=stability, point_xy=(x, y))


def describe(reader: ReleaseReader) -> None:
    """Say what there is."""
    files = reader.mask_files.files
    groups = sum(len(reader.mask_files.row_groups(place).rows_G) for place in range(len(files)))
    print(
        f"{reader.release.masks:,} masks of {len(reader):,} images in {len(files)} files, "
        f"{groups} row groups, {sum(file.size_bytes for file in files) / 1e6:,.0f} MB"
    )


def print_bytes(root: Path, images: int = 100) -> None:
    """Compare with SA-1B's JSON files of the same masks, as its authors write them."""
    plain = packed = masks = counts = 0
    with open_release(root) as reader:
        for image in reader.images(stop=images):
            document = {
                "image": {
                    "image_id": masks,
                    "width": image.record.width,
                    "height": image.record.height,
                    "file_name": f"sa_{masks}.jpg",
                },
                # SA-1B numbers its masks with nine digits.
                "annotations": [
                    mask.to_sa1b(10**8 + masks + number) for number, mask in enumerate(image.masks)
                ],
            }
            text = json.dumps(document).encode()
            plain, packed = plain + len(text), packed + len(gzip.compress(text))
            masks += len(image.masks)
            counts += sum(len(mask.rle.counts) for mask in image.masks)
        ours = sum(file.size_bytes for file in reader.mask_files.files) / reader.release.masks
        print(
            f"bytes per mask: counts {counts / masks:.0f}, SA-1B JSON {plain / masks:.0f}, its "
            f"gzip {packed / masks:.0f}, Parquet {ours:.0f} = {ours * masks / plain:.3f} of JSON"
        )
        sizes = column_bytes(reader)
        total = sum(sizes.values())
        shares = sorted(sizes.items(), key=lambda item: -item[1])[:8]
        print("  of it: " + ", ".join(f"{name} {size / total:.1%}" for name, size in shares))


def column_bytes(reader: ReleaseReader) -> dict[str, int]:
    """Compressed bytes by column, of the first file."""
    metadata: pq.FileMetaData = reader.mask_files._file(0).parquet.metadata
    sizes: dict[str, int] = {}
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            column = metadata.row_group(group).column(number)
            name = column.path_in_schema.split(".")[0]
            sizes[name] = sizes.get(name, 0) + column.total_compressed_size
    return sizes


def print_lookups(where: str, open_reader: Callable[[], ReleaseReader], count: int = 300) -> None:
    """Time random images: with a reader that is new each time, and with one that is not."""
    draw = np.random.default_rng(2)
    new = []
    for _ in range(10):
        with timed() as opening:
            reader = open_reader()
        with reader:
            ids = reader.image_rows.sorted_ids
            with timed() as first:
                reader[int(draw.choice(ids))]
        new.append((opening.processor_ms, first.processor_ms))
    with open_reader() as reader:
        ids = reader.image_rows.sorted_ids
        for image_id in draw.choice(ids, 2 * count).tolist():  # all files are open afterwards
            reader[image_id]
        warm = []
        for image_id in draw.choice(ids, count).tolist():
            with timed() as one:
                reader[image_id]
            warm.append((one.ms, one.processor_ms))
    opened, first_image = np.median(np.array(new), axis=0)
    waited, worked = np.array(warm).T
    print(
        f"one image's masks, {where}: median {np.median(waited):.1f} ms, p99 "
        f"{np.percentile(waited, 99):.1f} ms; processor time {np.median(worked):.1f} / "
        f"{np.percentile(worked, 99):.1f} ms; opening a release {opened:.0f} ms, its first image "
        f"{first_image:.1f} ms (processor time)"
    )


class timed:  # noqa: N801 - reads as a word
    """Measures a block in milliseconds: by the clock, and of this process's processor time."""

    ms = processor_ms = 0.0

    def __enter__(self) -> timed:
        self._began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.ms = (time.perf_counter() - self._began[0]) * 1e3
        self.processor_ms = (time.process_time() - self._began[1]) * 1e3


def moved(local: ReleaseReader, masks: ParquetFiles) -> ReleaseReader:
    """The same release with its shards elsewhere, nothing open."""
    images = ImageRows(local.image_rows.files)
    return ReleaseReader(local.release, images, ParquetFiles(masks.store, "masks", masks.files))


def print_scans(root: Path) -> None:
    """Time questions about numbers on one thread, of processor time: others use the machine."""
    with open_database(root, threads=1) as database, open_release(root) as reader:
        masks = reader.release.masks
        for statement in (
            "select count(*), avg(area) from masks",
            "select avg(area), avg(predicted_iou), max(stability_score) from masks",
            "select count(distinct image_id) from masks where area < 1000",
            "select sum(length(counts)) from masks",
        ):
            seconds = best(lambda: database.query(statement).read_all())  # noqa: B023
            print(f"DuckDB, one thread: {statement}: {masks / seconds / 1e6:.1f} M masks/s")
        areas = best(lambda: sum(batch.num_rows for batch in reader.masks(("area",))))
        print(f"Arrow batches of area, one thread: {masks / areas / 1e6:.1f} M masks/s")


def print_iteration(root: Path, images: int = 1000) -> None:
    """Time reading everything, one thread."""
    with open_release(root) as reader:
        images = min(images, len(reader))
        count = 0

        def iterate() -> None:
            nonlocal count
            count = sum(len(image.masks) for image in reader.images(stop=images))

        seconds = best(iterate, 2)
        print(f"iteration as records, one thread: {count / seconds:,.0f} masks/s")
        seconds = best(lambda: sum(batch.num_rows for batch in reader.masks()), 1)
        masks = reader.release.masks
        print(f"Arrow batches of all columns, one thread: {masks / seconds:,.0f} masks/s")


def best(work: Callable[[], object], repeats: int = 5) -> float:
    """Return the least processor time of several runs, in seconds."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


if __name__ == "__main__":
    main()
