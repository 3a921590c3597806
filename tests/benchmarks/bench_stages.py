"""Where the time of masking photos goes, and what a second process brings.

    python -m tests.benchmarks.bench_stages --images demo-data/photos/*.jpg
    python -m tests.benchmarks.bench_stages --model vit_b --height 1500 --width 2250 --count 1
    python -m tests.benchmarks.bench_stages --images ... --profile profiles/
    python -m tests.benchmarks.bench_stages --images ... --processes 2 --rounds 3

The first forms read photos, mask them and write them as a shard of Parquet, in one process; the
stages are the calls at the seams, whose time is their own. SAM's sizes get plausible random weights
(see `plausible_weights`), unless there is a checkpoint. One photo goes all the way before the clock
starts. `--profile` masks one more photo under torch's profiler and under cProfile, and keeps
a trace (for Perfetto), torch's table of operators and cProfile's statistics in a folder.

`--processes N` has N one-thread processes share the work of one, in turn: once from the start of
the processes, and once from the moment when all have loaded the model and masked a photo.
"""

from __future__ import annotations

import argparse
import cProfile
import multiprocessing
import platform
import pstats
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import torch

from engine.automatic import AutomaticConfig, generate_masks, generator
from engine.automatic import measuring as masks_measuring
from engine.automatic.nms import box_nms
from engine.automatic.point_grid import layer_point_grids
from engine.dataset.shards import ImageMasks, Provenance, write_shard
from engine.images import decode_image, encode_jpeg
from engine.masks import encode_region
from engine.objects import LocalStore
from engine.records import Shard
from model import SIZES, Sam, build_sam, load_sam
from model.image_encoder import VitConfig
from tests.benchmarks.peers import painted, peak_bytes
from tests.benchmarks.plausible_weights import plausible_sam
from tests.benchmarks.stopwatch import Spent, Stopwatch

STAGES = (
    "read",
    "encode",
    "score",
    "draw",
    "measure",
    "NMS",
    "run lengths",
    "small regions",
    "write",
    "rest",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is masked and how; small enough to be sent to a process.

    Attributes:
        model: a named size.
        checkpoint: its weights, if not its own or random ones.
        photos: encoded images.
        settings: of `AutomaticConfig`, that differ from the model's recommended ones.
        threads: of torch.
    """

    model: str
    checkpoint: Path | None
    photos: tuple[bytes, ...]
    settings: dict[str, int]
    threads: int

    def load(self) -> tuple[Sam, AutomaticConfig]:
        """Set up this process."""
        torch.set_num_threads(self.threads)
        if self.checkpoint is not None:
            sam = load_sam(self.checkpoint, device="cpu")
        elif isinstance(SIZES[self.model].encoder, VitConfig):
            sam, _ = plausible_sam(SIZES[self.model], decode_image(self.photos[0]))
        else:
            sam = build_sam(self.model, device="cpu")
        return sam, AutomaticConfig.recommended(sam, **self.settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one pass over the photos took.

    Attributes:
        stages: by name.
        masks: found, in all.
        prompts: asked, in all.
    """

    stages: dict[str, Spent]
    masks: int
    prompts: int

    @property
    def wall(self) -> float:
        """Seconds."""
        return sum(spent.wall for spent in self.stages.values())


def watch(clock: Stopwatch, sam: Sam) -> None:
    """Wrap the seams between the stages."""
    for name, stage in (
        ("encode", "encode"),
        ("encode_batch", "encode"),
        ("score", "score"),
        ("draw", "draw"),
    ):
        clock.wrap(sam, name, stage)
    clock.wrap_everywhere(masks_measuring.measure_masks, "measure")
    clock.wrap_everywhere(box_nms, "NMS")
    clock.wrap_everywhere(encode_region, "run lengths")
    for kind in (masks_measuring.MaskWindow, masks_measuring.PackedMask):
        clock.wrap(kind, "encode", "run lengths")
    clock.wrap(generator, "_cleaned_records", "small regions")
    clock.wrap_everywhere(write_shard, "write")


def mask_all(work: Work, sam: Sam, config: AutomaticConfig) -> Measured:
    """Read, mask and write all photos with the clock running."""
    clock = Stopwatch()
    watch(clock, sam)
    masks = 0

    def results() -> Iterator[ImageMasks]:
        nonlocal masks
        for i, data in enumerate(work.photos):
            with clock.stage("read"):
                image = decode_image(data)
            with clock.stage("rest"):
                found = generate_masks(sam, image, config)
            masks += len(found)
            yield ImageMasks(i, found)

    shard = Shard("benchmark", 0, tuple(range(len(work.photos))))
    provenance = Provenance(
        run_id="benchmark",
        recipe_id="benchmark",
        model_id=sam.config.name,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    with tempfile.TemporaryDirectory() as folder:
        write_shard(LocalStore(Path(folder)), shard, results(), provenance)
    clock.restore()
    return Measured(
        stages=clock.spent, masks=masks, prompts=prompts_for_each(config) * len(work.photos)
    )


def prompts_for_each(config: AutomaticConfig) -> int:
    """Return how many points an image is prompted with."""
    grids = layer_point_grids(
        config.points_per_side, config.crop_n_layers, config.crop_n_points_downscale_factor
    )
    return sum(4**layer * len(grid) for layer, grid in enumerate(grids))


def rows(work: Work, name: str, measured: Sequence[Measured]) -> str:
    """Return a line of totals and a table of stages, medians over the rounds."""
    images = len(work.photos)
    wall = median(m.wall for m in measured)
    lines = [
        f"{name}, {images} images, {measured[0].prompts // images} points and "
        f"{measured[0].masks / images:.0f} masks each, {work.threads} threads: "
        f"{images / wall:.3f} images/s, {measured[0].prompts / wall:.0f} prompts/s, "
        f"peak {peak_bytes() / 1e9:.2f} GB",
        "| stage | wall, ms/image | processor, ms/image | share | calls per image |",
        "|---|---|---|---|---|",
    ]
    for stage in STAGES:
        spent = [m.stages.get(stage, Spent()) for m in measured]
        taken = median(s.wall for s in spent)
        lines.append(
            f"| {stage} | {taken / images * 1e3:.1f} "
            f"| {median(s.processor for s in spent) / images * 1e3:.1f} | {taken / wall:.1%} "
            f"| {spent[0].calls / images:.0f} |"
        )
    return "\n".join(lines)


def keep_profile(folder: Path, work: Work, sam: Sam, config: AutomaticConfig) -> None:
    """Mask one photo under both profilers; write what they saw."""
    folder.mkdir(parents=True, exist_ok=True)
    image = decode_image(work.photos[0])
    with torch.profiler.profile(record_shapes=True) as profile:
        generate_masks(sam, image, config)
    profile.export_chrome_trace(str(folder / "trace.json.gz"))
    averages = profile.key_averages(group_by_input_shape=True)
    (folder / "operators.txt").write_text(averages.table(sort_by="self_cpu_time_total"))
    calls = cProfile.Profile()
    calls.runcall(generate_masks, sam, image, config)
    with (folder / "calls.txt").open("w") as file:
        pstats.Stats(calls, stream=file).sort_stats("tottime").print_stats(60)


def serve(work: Work, connection: Connection) -> None:
    """Be one of several processes: load, say so, wait for the word, work, say so."""
    sam, config = work.load()
    mask_all(replace(work, photos=work.photos[:1]), sam, config)
    connection.send("ready")
    connection.recv()
    mask_all(work, sam, config)
    connection.send("done")


def shared_seconds(work: Work, processes: int) -> tuple[float, float]:
    """Have processes share the photos, each as many; return seconds from the start, from ready."""
    context = multiprocessing.get_context("spawn")
    began = time.perf_counter()
    started = []
    for i in range(processes):
        here, there = context.Pipe()
        share = replace(work, photos=work.photos[i::processes])
        process = context.Process(target=serve, args=(share, there))
        process.start()
        started.append((process, here))
    for _, connection in started:
        connection.recv()
    ready = time.perf_counter()
    for _, connection in started:
        connection.send("go")
    for _, connection in started:
        connection.recv()
    done = time.perf_counter()
    for process, _ in started:
        process.join()
    return done - began, done - ready


def compare_processes(work: Work, processes: int, rounds: int) -> None:
    """Print what several processes do in the time of one; every share has the same photos."""
    alone: list[tuple[float, float]] = []
    together: list[tuple[float, float]] = []
    whole = replace(work, photos=tuple(p for p in work.photos for _ in range(processes)), threads=1)
    for _ in range(rounds):
        alone.append(shared_seconds(whole, 1))
        together.append(shared_seconds(whole, processes))
    images = len(whole.photos)
    print(f"{work.model}, {images} images, one thread in each process, {rounds} rounds, medians")
    print("| processes | images/s with their start | images/s at work |")
    print("|---|---|---|")
    for count, taken in ((1, alone), (processes, together)):
        rates = [images / median(seconds) for seconds in zip(*taken, strict=True)]
        print(f"| {count} | {rates[0]:.3f} | {rates[1]:.3f} |")
    with_start, at_work = (
        median(a[i] / b[i] for a, b in zip(alone, together, strict=True)) for i in (0, 1)
    )
    print(f"{processes} do {at_work:.2f} times as much at work, {with_start:.2f} with their start")


def the_photos(arguments: argparse.Namespace) -> tuple[bytes, ...]:
    """Read the photos' files, or encode painted scenes."""
    if arguments.images is not None:
        return tuple(path.read_bytes() for path in arguments.images[: arguments.count])
    scenes = (
        painted(arguments.height, arguments.width, seed) for seed in range(arguments.count or 2)
    )
    return tuple(encode_jpeg(scene, 95) for scene in scenes)


def main() -> None:
    """Print a table of stages, or of processes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="bundled", choices=sorted(SIZES))
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--images", type=Path, nargs="+", help="photos; default: painted scenes")
    parser.add_argument("--count", type=int, help="how many of them; default: all, 2 scenes")
    parser.add_argument("--height", type=int, default=480, help="of a scene")
    parser.add_argument("--width", type=int, default=640, help="of a scene")
    parser.add_argument("--points-per-side", type=int, default=32)
    parser.add_argument("--crop-n-layers", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--processes", type=int, help="compare so many with one")
    parser.add_argument("--profile", type=Path, metavar="FOLDER", help="keep profiles here")
    arguments = parser.parse_args()
    work = Work(
        model=arguments.model,
        checkpoint=arguments.checkpoint,
        photos=the_photos(arguments),
        settings={
            "points_per_side": arguments.points_per_side,
            "crop_n_layers": arguments.crop_n_layers,
        },
        threads=arguments.threads,
    )
    if arguments.processes is not None:
        compare_processes(work, arguments.processes, arguments.rounds)
        return
    sam, config = work.load()
    mask_all(replace(work, photos=work.photos[:1]), sam, config)
    measured = [mask_all(work, sam, config) for _ in range(arguments.rounds)]
    print(rows(work, arguments.model, measured))
    print(f"torch {torch.__version__}, {platform.machine()}")
    if arguments.profile is not None:
        keep_profile(arguments.profile, work, sam, config)


if __name__ == "__main__":
    main()
