"""A data set of 11M images and 1.1B masks, metadata only: what grows, and how fast.

    python -m tests.benchmarks.bench_scale                  # minutes, one core, ~100 MB of disk
    python -m tests.benchmarks.bench_scale --scale 0.01     # seconds

Real tables, real commits through the workspace, real manifests; only the Parquet files that they
name do not exist. Each entry has the statistics of a real shard, with bounds of its own. Printed
while the tables grow: seconds to publish a release (stage, tag, move main, drop the branch),
seconds to load a table, to list a release's files, to find the files of one image, and bytes of
metadata. Then what a worker pays for its images' rows and for its run's plan.

All seconds are of processor time, which other work on the machine leaves alone; a disk or a bucket
adds its waiting.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyiceberg.conversions import to_bytes
from pyiceberg.expressions import BooleanExpression, EqualTo, Reference
from pyiceberg.expressions.literals import literal
from pyiceberg.io import FileIO
from pyiceberg.io import pyarrow as pyiceberg_arrow
from pyiceberg.manifest import DataFile
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.types import LongType

from engine.dataset.catalog import Workspace
from engine.dataset.ingest import load_images
from engine.dataset.release_files import table_files
from engine.dataset.runs import Recipe, RunManifest, load_run, shard_size
from engine.dataset.schemas import TABLES, TableName, arrow_schema
from engine.dataset.shards import ImageMasks, Provenance, write_shard
from engine.masks import encode_region
from engine.records import MaskRecord, Shard

NOW = datetime(2026, 1, 1, tzinfo=UTC)
IDS = 2**63
BYTES_PER_MASK = 433
BYTES_PER_IMAGE = {"images": 49, "image_runs": 10}
CHECKPOINTS = (0.01, 0.1, 0.5, 1.0)
_FIELDS = (
    "content",
    "file_path",
    "file_format",
    "partition",
    "record_count",
    "file_size_in_bytes",
    "column_sizes",
    "value_counts",
    "null_value_counts",
    "nan_value_counts",
    "lower_bounds",
    "upper_bounds",
    "key_metadata",
    "split_offsets",
    "equality_ids",
    "sort_order_id",
)


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """A data file that does not exist.

    Attributes:
        first_id: no image id in it is smaller.
        last_id: nor larger.
        rows: number of rows.
        size_bytes: of the file.
    """

    first_id: int
    last_id: int
    rows: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What was measured when the data set had some size.

    Attributes:
        images: images in it.
        files: files of table ``masks``.
        releases: releases made.
        publish_seconds: the releases since the state before, one each.
        load_seconds: table ``masks``, from the catalog.
        list_seconds: all files of the latest release's masks.
        find_seconds: the files that may hold one image's masks.
        found_files: how many these are.
        table_bytes: the three tables' current metadata file.
        manifest_bytes: the lists and manifests that the latest release needs.
        disk_bytes: everything below ``tables/``.
    """

    images: int
    files: int
    releases: int
    publish_seconds: tuple[float, ...]
    load_seconds: float
    list_seconds: float
    find_seconds: float
    found_files: int
    table_bytes: int
    manifest_bytes: int
    disk_bytes: int


def simulate(
    folder: Path,
    images: int,
    masks_per_image: int,
    images_per_shard: int,
    images_per_run: int,
    show: Callable[[State], None],
) -> list[State]:
    """Publish runs of `images_per_run` images, in the order of their ids, until all are in."""
    runs = -(-images // images_per_run)
    due = {max(1, round(runs * share)): share for share in CHECKPOINTS}
    states: list[State] = []
    seconds: list[float] = []
    with Workspace.open(folder) as workspace, _nonexistent_files(workspace) as entries:
        root = workspace.store.uri("runs")
        for run in range(runs):
            first, last = run * images_per_run, min((run + 1) * images_per_run, images)
            uris: list[str] = []
            for index, start in enumerate(range(first, last, images_per_shard)):
                uris.append(f"{root}/auto-0123456789abcdef-{run:04d}/masks-{index:05d}.parquet")
                stop = min(start + images_per_shard, last)
                rows = (stop - start) * masks_per_image
                entries[uris[-1]] = Entry(
                    start * (IDS // images), stop * (IDS // images) - 1, rows, rows * BYTES_PER_MASK
                )
            for table in ("images", "image_runs"):
                # Ingested in any order: every file of images has ids from the whole range.
                bounds = (0, IDS - 1) if table == "images" else (first, last)
                size = (last - first) * BYTES_PER_IMAGE[table]
                entries[f"{root}/{table}-{run}"] = Entry(*bounds, last - first, size)
            seconds.append(_publish(workspace, run, uris, root))
            if run + 1 in due:
                states.append(_measure(workspace, last, run + 1, tuple(seconds)))
                show(states[-1])
                seconds = []
            entries.clear()
    return states


@contextmanager
def _nonexistent_files(workspace: Workspace) -> Iterator[dict[str, Entry]]:
    """Let commits take the statistics of files from a table instead of from their footers."""
    templates = _templates(workspace)
    entries: dict[str, Entry] = {}

    def describe(io: FileIO, metadata: TableMetadata, uri: str) -> DataFile:
        return _data_file(templates[len(metadata.schema().fields)], uri, entries[uri])

    with patch.object(pyiceberg_arrow, "parquet_file_to_data_file", describe):
        yield entries


def _templates(workspace: Workspace) -> Mapping[int, DataFile]:
    """Real files' entries, by the table's number of columns."""
    describe = pyiceberg_arrow.parquet_file_to_data_file
    found: dict[int, DataFile] = {}
    for name in TABLES:
        table = workspace.table(name)
        uri = _write_real_file(workspace, name)
        found[len(table.schema().fields)] = describe(table.io, table.metadata, uri)
    return found


def _write_real_file(workspace: Workspace, table: TableName) -> str:
    if table == "masks":
        shard = Shard("auto-0123456789abcdef-9999", 0, tuple(range(10, 30)))
        mask = MaskRecord(
            rle=encode_region(np.ones((30, 40), dtype=np.bool_), 5, 5, 1500, 2250),
            bbox_xywh=(5, 5, 39, 29),
            area=1200,
            predicted_iou=0.93,
            stability_score=0.97,
            crop_box_xywh=(0, 0, 2250, 1500),
            point_xy=(20.5, 20.5),
        )
        provenance = Provenance(
            run_id=shard.run_id, recipe_id="0123456789abcdef", model_id="bundled-1", created_at=NOW
        )
        results = [ImageMasks(image_id, [mask] * 50) for image_id in shard.image_ids]
        write_shard(workspace.store, shard, results, provenance)
        return workspace.store.uri(shard.key)
    sink = pa.BufferOutputStream()
    pq.write_table(_rows(table, np.arange(100)), sink)
    workspace.store.put_if_absent(f"runs/{table}.parquet", sink.getvalue().to_pybytes())
    return workspace.store.uri(f"runs/{table}.parquet")


def _rows(table: TableName, ids: NDArray[np.int64]) -> pa.Table:
    """Rows of table ``images`` or ``image_runs`` for image ids."""
    count = len(ids)
    digest = np.random.default_rng(0).bytes(32 * count).hex()
    columns: dict[str, object] = {
        "image_id": ids,
        "uri": [f"s3://photos/2024/part-{i // 1000:05d}/{i:08d}.jpg" for i in range(count)],
        "sha256": [digest[64 * i : 64 * i + 64] for i in range(count)],
        "width": np.full(count, 2250),
        "height": np.full(count, 1500),
        "format": ["jpeg"] * count,
        "run_id": ["auto-0123456789abcdef-0001"] * count,
        "recipe_id": ["0123456789abcdef"] * count,
        "status": ["masked"] * count,
        "masks": np.full(count, 100),
        "ingested_at": [NOW] * count,
        "created_at": [NOW] * count,
    }
    schema = arrow_schema(table)
    return pa.table(
        [pa.array(columns.get(field.name, [None] * count), field.type) for field in schema], schema
    )


def _data_file(template: DataFile, uri: str, entry: Entry) -> DataFile:
    values = {name: getattr(template, name) for name in _FIELDS}
    growth = entry.rows // template.record_count + 1
    for name in ("column_sizes", "value_counts"):
        values[name] = {field: count * growth for field, count in values[name].items()}
    field = 1 if "images" in uri or "image_runs" in uri else 2  # of image_id
    for name, value in (("lower_bounds", entry.first_id), ("upper_bounds", entry.last_id)):
        values[name] = {**values[name], field: to_bytes(LongType(), value)}
    values |= {
        "file_path": uri,
        "record_count": entry.rows,
        "file_size_in_bytes": entry.size_bytes,
    }
    return DataFile.from_args(**values)


def _publish(workspace: Workspace, run: int, uris: Sequence[str], root: str) -> float:
    """Do to the tables what publishing a run does; return its seconds."""
    run_id = f"auto-0123456789abcdef-{run:04d}"
    workspace.add_shards("images", [f"{root}/images-{run}"], f"ingest-{run}")
    files = {"masks": uris, "image_runs": [f"{root}/image_runs-{run}"]}
    began = time.process_time()
    heads: dict[TableName, int] = {}
    for table in ("masks", "image_runs"):
        head = workspace.table(table).current_snapshot()
        base = None if head is None else head.snapshot_id
        heads[table] = workspace.stage(table, run_id, base, files[table], run_id)
    images = workspace.table("images").current_snapshot()
    if images is not None:
        workspace.tag("images", f"r{run + 1}", images.snapshot_id)
    for table, snapshot_id in heads.items():
        workspace.tag(table, f"r{run + 1}", snapshot_id)
        workspace.set_main(table, snapshot_id)
        workspace.drop_branch(table, run_id)
    return time.process_time() - began


def _measure(workspace: Workspace, images: int, releases: int, publish: tuple[float, ...]) -> State:
    load_seconds, table = _timed(lambda: workspace.table("masks"))
    head = table.current_snapshot()
    if head is None:
        raise SystemExit("nothing was committed")
    list_seconds, files = _timed(lambda: table_files(workspace, "masks", head.snapshot_id))
    tries: list[float] = []
    found = 0
    for image_id in np.random.default_rng(0).integers(0, files[-1].image_ids[1], 5).tolist():
        chosen = EqualTo(term=Reference("image_id"), value=literal(image_id))
        taken, tasks = _timed(partial(_tasks, table, chosen))
        tries.append(taken)
        found = max(found, len(tasks))
    return State(
        images=images,
        files=len(files),
        releases=releases,
        publish_seconds=publish,
        load_seconds=load_seconds,
        list_seconds=list_seconds,
        find_seconds=statistics.median(tries),
        found_files=found,
        table_bytes=sum(
            len(workspace.table(name).io.new_input(workspace.table(name).metadata_location))
            for name in TABLES
        ),
        manifest_bytes=len(table.io.new_input(head.manifest_list))
        + sum(manifest.manifest_length for manifest in head.manifests(table.io)),
        disk_bytes=sum(item.size_bytes for item in workspace.store.objects("tables/")),
    )


def _tasks(table: Table, chosen: BooleanExpression) -> list[FileScanTask]:
    return list(table.scan(chosen).plan_files())


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def rows_for_one_shard(folder: Path, files: int, rows_per_file: int) -> dict[str, float]:
    """Seconds to load 512 neighbouring images' rows, from files by id and in order of ingestion."""
    generator = np.random.default_rng(0)
    ids = generator.integers(0, IDS, files * rows_per_file)
    wanted = np.sort(ids)[1000:1512].tolist()
    seconds: dict[str, float] = {}
    for name in ("order of ingestion", "by id"):
        with Workspace.open(folder / name.replace(" ", "-")) as workspace:
            for number in range(files):
                part = ids[number * rows_per_file : (number + 1) * rows_per_file]
                part = np.sort(part) if name == "by id" else part
                workspace.append_rows("images", _rows("images", part), f"ingest-{number}")
            load_images(workspace, wanted)
            seconds[name] = min(_timed(lambda: load_images(workspace, wanted))[0] for _ in range(3))
    return seconds


def bytes_per_image(rows: int) -> dict[TableName, float]:
    """Parquet bytes per image in its two tables, as they are appended."""
    ids = np.sort(np.random.default_rng(0).integers(0, IDS, rows))
    sizes: dict[TableName, float] = {}
    for table in ("images", "image_runs"):
        sink = pa.BufferOutputStream()
        pq.write_table(_rows(table, ids), sink, 8192, compression="zstd", compression_level=3)
        sizes[table] = sink.getvalue().size / rows
    return sizes


def plan_of_a_run(folder: Path, images: int) -> tuple[int, float]:
    """Bytes of a run's manifest and the seconds in which every task of the run loads it."""
    shard = shard_size(images)
    manifest = RunManifest("auto-0123456789abcdef-0001", Recipe.of("m", {}), NOW, ())
    ids = np.sort(np.random.default_rng(0).integers(0, IDS, images)).tolist()
    fields = {
        "run_id": manifest.run_id,
        "model_id": "m",
        "config": {},
        "created_at": NOW.isoformat(),
        "shards": [ids[i : i + shard] for i in range(0, images, shard)],
    }
    with Workspace.open(folder) as workspace:
        data = json.dumps(fields).encode()
        workspace.store.put_if_absent(f"runs/{manifest.run_id}/run.json", data)
        return len(data), _timed(lambda: load_run(workspace.store, manifest.run_id))[0]


def show_state(state: State) -> None:
    """Print a row."""
    publish = state.publish_seconds
    print(
        f"| {state.images:,} | {state.files:,} | {state.releases} | "
        f"{statistics.median(publish):.2f} / {max(publish):.2f} s | {state.load_seconds * 1e3:.0f} "
        f"ms | {state.list_seconds:.2f} s | {state.find_seconds * 1e3:.0f} ms, "
        f"{state.found_files} | {state.table_bytes / 1e3:,.0f} kB | "
        f"{state.manifest_bytes / 1e6:.2f} MB | {state.disk_bytes / 1e6:.1f} MB |",
        flush=True,
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of 11M images")
    parser.add_argument("--masks-per-image", type=int, default=100)
    parser.add_argument("--images-per-shard", type=int, default=512)
    parser.add_argument("--images-per-run", type=int, default=131_072)
    given = parser.parse_args()
    images = round(11_000_000 * given.scale)
    run = min(given.images_per_run, images)
    with tempfile.TemporaryDirectory(prefix="maskwheel-scale-") as folder:
        print(
            "| images | mask files | releases | publish, median / max | load a table | "
            "list all files | find one image, files | table metadata | manifests | all on disk |"
        )
        simulate(
            Path(folder, "simulated"),
            images,
            given.masks_per_image,
            given.images_per_shard,
            run,
            show_state,
        )
        rows = max(1000, round(50_000 * given.scale))
        for name, seconds in rows_for_one_shard(Path(folder), 4, rows).items():
            print(f"one shard's 512 rows of {4 * rows:,}, files {name}: {seconds * 1e3:.0f} ms")
        for table, size_bytes in bytes_per_image(max(1000, rows)).items():
            print(f"table {table}: {size_bytes:.0f} bytes per image")
        for size in (run, max(run, images // 10)):
            plan_bytes, seconds = plan_of_a_run(Path(folder, f"plan-{size}"), size)
            print(f"plan of {size:,} images: {plan_bytes / 1e6:.1f} MB, {seconds:.2f} s per task")


if __name__ == "__main__":
    main()
