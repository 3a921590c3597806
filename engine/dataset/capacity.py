"""Scale on paper: what a data set of some size takes, before it is made.

    plan = predict(Workload(images=11_000_000, masks_per_image=100, gpus=64))
    print(plan.wall_hours, plan.mask_bytes, plan.gpu_cost)

Arithmetic on rates. Every rate says where it is from, and whether it was measured or is only
assumed; each can be replaced by what was measured on the machine that is meant.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from engine.dataset.capacity_rates import RATES, Rate
from engine.errors import BadInputError

__all__ = [
    "GOOD_RUN_IMAGES",
    "CapacityPlan",
    "Cost",
    "Duration",
    "Layout",
    "Storage",
    "Workload",
    "predict",
]

_GOOD_FILE_BYTES = 128e6
_LONG_TASK_SECONDS, _SHORT_TASK_SECONDS = 3600.0, 20.0
_LARGE_RUN_PLAN_BYTES = 20e6
GOOD_RUN_IMAGES = 131_072
_ID_DIGITS = 20.9  # of an image id in JSON, with its comma
_MANY_FILES = 10_000
# What one prefix of a bucket answers per second, and what one machine's network carries.
_REQUESTS_PER_PREFIX, _BUSY_NETWORK_BYTES = 5500, 3e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is to be made.

    Attributes:
        images: number of images.
        masks_per_image: on average.
        gpus: that work at the same time.
        images_per_shard: images of one task and file; None: as a run of that size chooses.
        images_per_run: images of one run, which becomes one release.
    """

    images: int
    masks_per_image: float
    gpus: int = 1
    images_per_shard: int | None = None
    images_per_run: int = GOOD_RUN_IMAGES

    def __post_init__(self) -> None:
        """Refuse what no data set has.

        Raises:
            BadInputError: a number that is not positive.
        """
        for name in ("images", "gpus", "images_per_run"):
            if getattr(self, name) < 1:
                raise BadInputError(f"got {name} = {getattr(self, name)}; expected at least 1")
        if not 0 <= self.masks_per_image < math.inf:
            raise BadInputError(f"got {self.masks_per_image} masks per image; expected 0 or more")
        if self.images_per_shard is not None and self.images_per_shard < 1:
            raise BadInputError(
                f"got {self.images_per_shard} images per shard; expected at least 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Into what the work is cut.

    Attributes:
        images_per_shard: as asked, or as a run chooses.
        shards: tasks; each makes one Parquet file of table ``masks``.
        runs: each becomes a release.
        table_commits: snapshots that the three tables get.
        masks: rows of table ``masks``.
        shard_seconds: of one GPU for one shard; what a kill costs at most.
        shard_bytes: of one file.
        run_plan_bytes: of a run's list of images, which each of its tasks loads.
    """

    images_per_shard: int
    shards: int
    runs: int
    table_commits: int
    masks: int
    shard_seconds: float
    shard_bytes: float
    run_plan_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """Bytes, and how fast they move.

    Attributes:
        masks: of table ``masks``.
        image_tables: of tables ``images`` and ``image_runs``.
        metadata: of the manifests that the latest release needs.
        stored: all of these; the images are not copied.
        read: of the images that the GPUs read.
        read_per_second: while all GPUs work.
        requests_per_second: reads of images, likewise.
    """

    masks: float
    image_tables: float
    metadata: float
    stored: float
    read: float
    read_per_second: float
    requests_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """Time.

    Attributes:
        gpu_hours: of all GPUs together.
        ingest_hours: of one machine that reads every image once, before the GPUs begin.
        wall_hours: from the first image that is ingested to the last release.
        commit_hours: of the one committer, mostly while the GPUs work on the next run.
        last_commit_seconds: to publish the last run, when the tables are largest.
        find_seconds: to find one image by the last release's metadata, which a reader does once.
    """

    gpu_hours: float
    ingest_hours: float
    wall_hours: float
    commit_hours: float
    last_commit_seconds: float
    find_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """US dollars.

    Attributes:
        gpu: for the GPUs.
        reads: for reading the images.
        storage_year: for keeping what was made, a year.
    """

    gpu: float
    reads: float
    storage_year: float

    @property
    def total(self) -> float:
        """All of it, with the first year of storage."""
        return self.gpu + self.reads + self.storage_year


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityPlan:
    """What a workload takes.

    Attributes:
        workload: what was asked.
        layout: into what the work is cut.
        storage: bytes.
        duration: hours.
        cost: US dollars.
        rates: what the prediction rests on.
        dominates: what takes most, one sentence each.
        advice: what to change, most useful first; empty when nothing stands out.
    """

    workload: Workload
    layout: Layout
    storage: Storage
    duration: Duration
    cost: Cost
    rates: tuple[Rate, ...]
    dominates: tuple[str, ...]
    advice: tuple[str, ...]


def predict(workload: Workload, given: Mapping[str, float] | None = None) -> CapacityPlan:
    """Predict what a workload takes.

    Args:
        workload: what is to be made.
        given: values that replace those of `RATES`, by name.

    Raises:
        BadInputError: an unknown rate, or one that is not positive.
    """
    rates = _rates(given or {})
    layout = _layout(workload, rates)
    storage = _storage(workload, layout, rates)
    duration = _duration(workload, layout, storage, rates)
    cost = Cost(
        gpu=duration.gpu_hours * rates["price_gpu_hour"].value,
        reads=workload.images / 1e6 * rates["price_million_reads"].value,
        storage_year=storage.stored / 1e9 * rates["price_gb_month"].value * 12,
    )
    return CapacityPlan(
        workload=workload,
        layout=layout,
        storage=storage,
        duration=duration,
        cost=cost,
        rates=tuple(rates.values()),
        dominates=_dominates(duration, cost, storage),
        advice=tuple(_advice(workload, layout, storage, duration, rates)),
    )


def _rates(given: Mapping[str, float]) -> dict[str, Rate]:
    if unknown := sorted(set(given) - set(RATES)):
        raise BadInputError(f"unknown rates {unknown}; expected some of {sorted(RATES)}")
    for name, value in given.items():
        if not 0 < value < math.inf:
            raise BadInputError(f"got {name} = {value}; expected a number above 0")
    return {
        name: replace(rate, value=given[name], source="given", measured=False)
        if name in given
        else rate
        for name, rate in RATES.items()
    }


def _layout(workload: Workload, rates: Mapping[str, Rate]) -> Layout:
    from engine.dataset.runs import shard_size  # with pyiceberg, which this module else spares

    in_a_run = min(workload.images, workload.images_per_run)
    per_shard = min(workload.images_per_shard or shard_size(in_a_run), in_a_run)
    full_runs, rest = divmod(workload.images, in_a_run)
    runs = full_runs + (rest > 0)
    return Layout(
        images_per_shard=per_shard,
        shards=full_runs * -(-in_a_run // per_shard) + -(-rest // per_shard),
        runs=runs,
        table_commits=3 * runs,
        masks=round(workload.images * workload.masks_per_image),
        shard_seconds=per_shard * rates["seconds_per_image"].value,
        shard_bytes=per_shard * workload.masks_per_image * rates["bytes_per_mask"].value,
        run_plan_bytes=in_a_run * _ID_DIGITS,
    )


def _storage(workload: Workload, layout: Layout, rates: Mapping[str, Rate]) -> Storage:
    masks = layout.masks * rates["bytes_per_mask"].value
    image_tables = workload.images * rates["bytes_per_image_row"].value
    metadata = (layout.shards + 2 * layout.runs) * rates["bytes_per_file_entry"].value
    images_per_second = workload.gpus / rates["seconds_per_image"].value
    return Storage(
        masks=masks,
        image_tables=image_tables,
        metadata=metadata,
        stored=masks + image_tables + metadata,
        read=workload.images * rates["image_bytes"].value,
        read_per_second=images_per_second * rates["image_bytes"].value,
        requests_per_second=images_per_second,
    )


def _duration(
    workload: Workload, layout: Layout, storage: Storage, rates: Mapping[str, Rate]
) -> Duration:
    gpu_seconds = workload.images * rates["seconds_per_image"].value
    # Shards are dealt out whole: at the end some GPUs wait for one that others still have.
    busy = gpu_seconds / workload.gpus
    masking = min(busy + layout.shard_seconds, gpu_seconds)
    hashing = storage.masks / layout.runs / rates["audit_bytes_per_second"].value
    entry = rates["seconds_per_listed_file"].value
    # Each release lists the files of its parent and its own.
    last = rates["seconds_per_release"].value + hashing + 2 * entry * layout.shards
    commits = layout.runs * (rates["seconds_per_release"].value + hashing + entry * layout.shards)
    ingest = workload.images / rates["ingest_images_per_second"].value
    return Duration(
        gpu_hours=gpu_seconds / 3600,
        ingest_hours=ingest / 3600,
        wall_hours=(ingest + masking + last) / 3600,
        commit_hours=commits / 3600,
        last_commit_seconds=last,
        find_seconds=entry * layout.shards,
    )


def _dominates(duration: Duration, cost: Cost, storage: Storage) -> tuple[str, ...]:
    money = {"GPUs": cost.gpu, "reading images": cost.reads, "a year's storage": cost.storage_year}
    most = max(money, key=lambda name: money[name])
    share = duration.commit_hours / duration.wall_hours
    return (
        f"money: {most}, {money[most] / cost.total:.0%} of ${cost.total:,.0f}",
        "time: the committer, as runs end faster than they are published"
        if share > 1
        else f"time: the GPUs; the committer is busy {share:.1%} of it",
        f"bytes: masks, {storage.masks / storage.stored:.0%} of what is stored",
    )


def _advice(
    workload: Workload,
    layout: Layout,
    storage: Storage,
    duration: Duration,
    rates: Mapping[str, Rate],
) -> Iterator[str]:
    if not rates["seconds_per_image"].measured and rates["seconds_per_image"].source != "given":
        yield (
            "seconds-per-image decides nearly everything and is only assumed; mask a hundred of "
            "your images (`maskwheel auto`) and plan again with what it prints"
        )
    good_images = _GOOD_FILE_BYTES / max(layout.shard_bytes / layout.images_per_shard, 1.0)
    affordable = _LONG_TASK_SECONDS / rates["seconds_per_image"].value
    larger = int(min(good_images, affordable))
    if layout.shards > _MANY_FILES and larger > 1.5 * layout.images_per_shard:
        yield (
            f"{layout.shards:,} files of {layout.shard_bytes / 1e6:.0f} MB: with "
            f"--images-per-shard {larger} there are {-(-workload.images // larger):,}, and finding "
            f"an image takes {duration.find_seconds * layout.images_per_shard / larger:.1f} s "
            f"instead of {duration.find_seconds:.1f} s"
        )
    if layout.shard_seconds > _LONG_TASK_SECONDS:
        yield (
            f"a shard takes {layout.shard_seconds / 60:.0f} minutes, which a kill costs: "
            f"--images-per-shard {max(1, int(affordable))} makes it an hour"
        )
    elif layout.shard_seconds < _SHORT_TASK_SECONDS and layout.shards > workload.gpus:
        yield (
            f"a shard takes {layout.shard_seconds:.0f} s, little beside the start of its task: "
            "use more --images-per-shard"
        )
    if layout.shards < 4 * workload.gpus:
        yield (
            f"{layout.shards:,} shards for {workload.gpus} GPUs leave some idle at the end: use "
            "fewer --images-per-shard, or fewer GPUs"
        )
    if duration.ingest_hours > duration.wall_hours / 5:
        yield (
            f"ingesting takes {duration.ingest_hours:.3g} of {duration.wall_hours:.3g} hours: read "
            "more at once (MASKWHEEL_READ_THREADS=64), near the bucket"
        )
    if layout.run_plan_bytes > _LARGE_RUN_PLAN_BYTES:
        yield (
            f"a run's plan has {layout.run_plan_bytes / 1e6:.0f} MB and every task loads it: give "
            f"`maskwheel auto` lists of {GOOD_RUN_IMAGES:,} images one after another"
        )
    if storage.read_per_second > _BUSY_NETWORK_BYTES:
        yield (
            f"the GPUs read {storage.read_per_second / 1e9:.1f} GB/s: more than one machine's "
            "network; spread them over machines near the bucket"
        )
    if storage.requests_per_second > _REQUESTS_PER_PREFIX / 2:
        yield (
            f"{storage.requests_per_second:,.0f} reads per second come near what S3 answers for "
            f"one prefix ({_REQUESTS_PER_PREFIX:,}): spread the images over several"
        )
