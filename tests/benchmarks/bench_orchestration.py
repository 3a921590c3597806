"""What orchestration costs, what a second worker brings, and how busy an accelerator is kept.

    python -m tests.benchmarks.bench_orchestration overhead --shards 8 --shard-seconds 30
    OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_orchestration workers --images 40
    OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_orchestration overlap --images 16
    python -m tests.benchmarks.bench_orchestration overlap --device cuda --model vit_h

`overhead`: the flow, with a Prefect server in a process of its own, against the engine's functions
called one after the other; both load the model before the clock starts, in turns. `workers`: the
flow with one process and with two. `overlap`: images per second by how many are masked at once;
without an accelerator one is played: it takes its time without taking a core, and answers with
what the bundled model said of the same photo, so that the work of the processor is real.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.automatic.config import AutomaticConfig
from engine.automatic.generator import Segmenter, generate_masks
from engine.automatic.pipeline import mask_images
from engine.automatic.shard_worker import ModelSpec, cached_model, run_shard
from engine.config import current_time
from engine.dataset.catalog import Workspace
from engine.dataset.ingest import expand_inputs, ingest, load_images
from engine.dataset.runs import Recipe, commit_run, pending_shards, plan_runs
from engine.images import ImageLimits, encode_jpeg
from engine.quality.gate import audit
from engine.records import ShardOutcome
from model import ImageEmbedding, Prompts, Sam, ScoredPrompts
from tests.automatic.oracle_segmenter import paint_scene
from tests.prefect_server import run_prefect_server

SPEC = ModelSpec("bundled", "cpu")
HEIGHT, WIDTH, SHAPES = 480, 640, 25
SETTINGS: dict[str, float | int | bool] = {"points_per_side": 16}


@dataclass(frozen=True)
class Measured:
    """One way through all photos.

    Attributes:
        seconds: wall time, after the model is loaded.
        in_shards: the part of it that tasks spent on their shards; more than `seconds` where
            several work.
        images: that were masked.
        workers: how many did.
        rate: images per second of the workers, added up: without their start.
        processor_seconds: of all processes, with their start; what a busy machine does not change.
    """

    seconds: float
    in_shards: float
    images: int
    workers: int
    rate: float
    processor_seconds: float = 0.0


def make_photos(folder: Path, count: int, height: int, width: int) -> Path:
    """Write pictures of shapes."""
    folder.mkdir()
    for seed in range(count):
        scene = paint_scene(seed=seed, height=height, width=width, n_shapes=SHAPES)
        (folder / f"{seed:04d}.jpg").write_bytes(encode_jpeg(np.ascontiguousarray(scene)))
    return folder


def seconds_per_image() -> float:
    """Return what the model takes for one photo."""
    sam = cached_model(SPEC)
    config = AutomaticConfig.for_model(sam, SETTINGS, None)
    images = [
        paint_scene(seed=seed, height=HEIGHT, width=WIDTH, n_shapes=SHAPES) for seed in range(3)
    ]
    generate_masks(sam, images[0], config)
    began = time.perf_counter()
    for image in images[1:]:
        generate_masks(sam, np.ascontiguousarray(image), config)
    return (time.perf_counter() - began) / 2


def directly(photos: Path, workspace: Path, images_per_shard: int) -> Measured:
    """Do with the engine what the flow does."""
    sam = cached_model(SPEC)
    config = AutomaticConfig.for_model(sam, SETTINGS, None)
    began = time.perf_counter()
    with Workspace.open(workspace) as opened:
        found = ingest(opened, expand_inputs([str(photos)]), ImageLimits(), current_time())
        recipe = Recipe.of(sam.model_id(), config.result_fields())
        outcomes = []
        for run in plan_runs(opened, found.image_ids, recipe, images_per_shard, current_time()):
            outcomes += [
                run_shard(opened, shard, run, sam, ImageLimits())
                for shard in pending_shards(opened.store, run)
            ]
            commit_run(opened, run, audit)
    seconds = time.perf_counter() - began
    in_shards = sum(outcome.seconds for outcome in outcomes)
    images = sum(outcome.images for outcome in outcomes)
    return Measured(seconds, in_shards, images, 1, images / in_shards)


def by_the_flow(
    photos: Path, workspace: Path, images_per_shard: int, staff: Mapping[str, Any]
) -> Measured:
    """Run the flow in this process; PREFECT_API_URL says where its server is."""
    from flows import masking
    from flows.artifacts.automatic import show_outcome
    from flows.fully_automatic import fully_automatic

    cached_model(SPEC)
    with patch.object(masking, "show_outcome", wraps=show_outcome) as shown:
        began = time.perf_counter()
        outcome = fully_automatic(
            [str(photos)],
            workspace=str(workspace),
            device="cpu",
            images_per_shard=images_per_shard,
            settings=SETTINGS,
            task_runner=staff.get("task_runner"),
            workers=staff.get("workers"),
        )
        seconds = time.perf_counter() - began
    shards: Sequence[ShardOutcome] = shown.call_args.args[2]
    spent: dict[str, float] = {}
    images: dict[str, int] = {}
    for shard in shards:
        spent[shard.worker] = spent.get(shard.worker, 0) + shard.seconds
        images[shard.worker] = images.get(shard.worker, 0) + shard.images
    rate = sum(images[worker] / spent[worker] for worker in spent)
    return Measured(seconds, sum(spent.values()), outcome.images_masked, len(spent), rate)


def in_a_process(way: str, environment: Mapping[str, str], **arguments: object) -> Measured:
    """Measure in a process of its own, as a user's call has."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "tests.benchmarks.bench_orchestration", "child", way]
    done = subprocess.run(
        [*command, json.dumps(arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(**json.loads(done.stdout.splitlines()[-1]), processor_seconds=spent)


def child(way: str, given: str) -> None:
    """Measure here, and print it."""
    arguments = json.loads(given)
    photos, workspace = Path(arguments["photos"]), Path(arguments["workspace"])
    if way == "directly":
        measured = directly(photos, workspace, arguments["images_per_shard"])
    else:
        measured = by_the_flow(photos, workspace, arguments["images_per_shard"], arguments["staff"])
    figures = asdict(measured)
    del figures["processor_seconds"]  # known when the process has ended
    print(json.dumps(figures))


def overhead(shards: int, shard_seconds: float, repeats: int) -> None:
    """Print what the flow takes and what the engine alone takes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = max(1, round(shard_seconds / seconds_per_image()))
        photos = make_photos(folder / "photos", shards * size, HEIGHT, WIDTH)
        taken: dict[str, list[Measured]] = {"directly": [], "by the flow": []}
        with run_prefect_server(folder / "prefect") as server:
            for repeat in range(repeats):
                for way, measured in taken.items():
                    given = {
                        "photos": str(photos),
                        "workspace": str(folder / f"{way} {repeat}"),
                        "images_per_shard": size,
                        "staff": {},
                    }
                    measured.append(in_a_process(way, server.environment(), **given))
    alone, flow = (taken[way] for way in taken)
    print(f"{shards} shards of {size} photos, {repeats} times, medians; seconds")
    print("| way | wall time | outside of shards | processor time |")
    print("|---|---|---|---|")
    for way, measured in taken.items():
        outside = median(m.seconds - m.in_shards for m in measured)
        wall = median(m.seconds for m in measured)
        spent = median(m.processor_seconds for m in measured)
        print(f"| {way} | {wall:.1f} | {outside:.2f} | {spent:.0f} |")
    walls = [median(m.seconds for m in measured) for measured in (alone, flow)]
    more = median(m.seconds - m.in_shards for m in flow) - median(
        m.seconds - m.in_shards for m in alone
    )
    print(f"wall time: {walls[1] / walls[0] - 1:+.1%}; outside of shards: {more / walls[0]:+.1%}")


def workers(images: int, images_per_shard: int) -> None:
    """Print what one process and two do, torch with one thread in each."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = make_photos(folder / "photos", images, HEIGHT, WIDTH)
        rows = []
        with run_prefect_server(folder / "prefect") as server:
            for count in (1, 2):
                given = {
                    "photos": str(photos),
                    "workspace": str(folder / f"workspace {count}"),
                    "images_per_shard": images_per_shard,
                    "staff": {"task_runner": "processes", "workers": count},
                }
                environment = {**server.environment(), "OMP_NUM_THREADS": "1"}
                rows.append(in_a_process("by the flow", environment, **given))
    print(f"{images} photos, {images_per_shard} to a shard, OMP_NUM_THREADS=1")
    print("| workers | wall time, s | images/s | images/s of work | processor time, s |")
    print("|---|---|---|---|---|")
    for row in rows:
        speed = row.images / row.seconds
        print(
            f"| {row.workers} | {row.seconds:.1f} | {speed:.2f} | {row.rate:.2f} "
            f"| {row.processor_seconds:.0f} |"
        )
    one, two = rows
    print(
        f"two do {one.seconds / two.seconds:.2f} times as much, {two.rate / one.rate:.2f} at work"
    )


@dataclass
class PlayedAccelerator:
    """A model that takes its time without taking a core.

    Attributes:
        sam: answers once for each photo; the answers are kept.
        encode_seconds: for an image.
        ask_seconds: for a batch of prompts, scored or drawn.
        busy_seconds: so far.
    """

    sam: Sam
    encode_seconds: float
    ask_seconds: float
    busy_seconds: float = 0.0
    _embeddings: dict[bytes, ImageEmbedding] = field(default_factory=dict)
    _scores: dict[tuple[int, bytes], ScoredPrompts] = field(default_factory=dict)
    _drawn: dict[int, Tensor] = field(default_factory=dict)

    def _work(self, seconds: float) -> None:
        time.sleep(seconds)
        self.busy_seconds += seconds

    def encode(self, image_HWC3: NDArray[np.uint8]) -> ImageEmbedding:
        key = image_HWC3[::16, ::16].tobytes()
        if key not in self._embeddings:
            self._embeddings[key] = self.sam.encode(image_HWC3)
        self._work(self.encode_seconds)
        return self._embeddings[key]

    def score(self, embedding: ImageEmbedding, prompts: Prompts) -> ScoredPrompts:
        key = (id(embedding), np.asarray(prompts.points_xy).tobytes())
        if key not in self._scores:
            self._scores[key] = self.sam.score(embedding, prompts)
        self._work(self.ask_seconds)
        return self._scores[key]

    def draw(self, scored: ScoredPrompts, chosen: Tensor) -> Tensor:
        # The first that were drawn of a batch stand for all of it: other masks, the same work.
        if id(scored) not in self._drawn:
            self._drawn[id(scored)] = self.sam.draw(scored, chosen)
        self._work(self.ask_seconds)
        drawn = self._drawn[id(scored)]
        return drawn[torch.arange(len(chosen)) % len(drawn)]


def overlap(given: argparse.Namespace) -> None:
    """Print images per second by how many are masked at once."""
    at_once: Sequence[int] = given.at_once
    with tempfile.TemporaryDirectory() as name:
        photos = make_photos(Path(name) / "photos", given.distinct, given.height, given.width)
        with Workspace.open(Path(name) / "workspace") as opened:
            listed = expand_inputs([str(photos)])
            found = ingest(opened, listed, ImageLimits(), current_time())
            records = load_images(opened, found.image_ids)
        images = [records[i % len(records)] for i in range(given.images)]
        sam = cached_model(replace(SPEC, model=given.model, device=given.device))
        config = AutomaticConfig.for_model(sam, {"points_per_side": given.points_per_side}, None)
        played = None
        asked: Segmenter = sam
        if given.device == "cpu":
            seconds = given.encode_ms / 1000, given.ask_ms / 1000
            asked = played = PlayedAccelerator(sam, *seconds)
        list(mask_images(records, asked, config, ImageLimits()))
        print(
            f"{given.images} photos of {given.width}x{given.height}, {given.model}, on "
            f"{'a played accelerator' if played else given.device}"
        )
        print("| images at once | images/s | accelerator busy |")
        print("|---|---|---|")
        for count in at_once:
            before = played.busy_seconds if played else 0.0
            began = time.perf_counter()
            list(mask_images(images, asked, config, ImageLimits(), images_at_once=count))
            wall = time.perf_counter() - began
            busy = f"{(played.busy_seconds - before) / wall:.0%}" if played else "-"
            print(f"| {count} | {len(images) / wall:.2f} | {busy} |")


def main() -> None:
    """Print the table that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    tables = parser.add_subparsers(dest="table", required=True)
    table = tables.add_parser("overhead")
    table.add_argument("--shards", type=int, default=8)
    table.add_argument("--shard-seconds", type=float, default=30)
    table.add_argument("--repeats", type=int, default=1)
    table = tables.add_parser("workers")
    table.add_argument("--images", type=int, default=40)
    table.add_argument("--images-per-shard", type=int, default=4)
    table = tables.add_parser("overlap")
    table.add_argument("--images", type=int, default=16)
    table.add_argument("--distinct", type=int, default=4)
    table.add_argument("--height", type=int, default=1500)
    table.add_argument("--width", type=int, default=2250)
    table.add_argument("--points-per-side", type=int, default=16)
    table.add_argument("--at-once", type=int, nargs="+", default=[1, 2, 3, 4, 8])
    table.add_argument("--encode-ms", type=float, default=60)
    table.add_argument("--ask-ms", type=float, default=4)
    table.add_argument("--model", default="bundled")
    table.add_argument("--device", default="cpu")
    table = tables.add_parser("child")
    table.add_argument("way")
    table.add_argument("given")
    given = parser.parse_args()
    match given.table:
        case "overhead":
            overhead(given.shards, given.shard_seconds, given.repeats)
        case "workers":
            workers(given.images, given.images_per_shard)
        case "overlap":
            overlap(given)
        case "child":
            child(given.way, given.given)


if __name__ == "__main__":
    main()
