"""`maskwheel plan`: what a data set takes, before it is made."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeVar

import click

from engine.dataset.capacity_rates import RATES, Rate
from flows.commands.options import json_option, print_json

if TYPE_CHECKING:
    from engine.dataset.capacity import CapacityPlan

F = TypeVar("F", bound=Callable[..., object])

_BYTES = ("B", "kB", "MB", "GB", "TB", "PB")


class _Count(click.ParamType[int]):
    """A whole number of at least 1; 11e6 is one."""

    name = "number"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        try:
            number = float(str(value).replace("_", "").replace(",", ""))
        except ValueError:
            self.fail(f"{value!r} is not a number, such as 11000000 or 11e6", param, ctx)
        if not 1 <= number < 1e15 or number != math.floor(number):
            self.fail(f"{value!r} is not a whole number of at least 1", param, ctx)
        return int(number)


def _rate_options(function: F) -> F:
    """Add an option for every rate."""
    for rate in reversed(tuple(RATES.values())):
        function = click.option(
            f"--{rate.name.replace('_', '-')}",
            type=click.FloatRange(0, min_open=True),
            help=f"{rate.unit} {rate.what}.  [default: {rate.value:g}]",
        )(function)
    return function


@click.command(
    "plan",
    epilog="""\b
Examples:
  maskwheel plan --images 11e6 --masks-per-image 100 --gpus 64
  maskwheel plan --images 50000 --masks-per-image 40 --seconds-per-image 0.8
  maskwheel plan --images 11e6 --masks-per-image 100 --gpus 64 --images-per-shard 2048 --json""",
)
@click.option("--images", type=_Count(), required=True, help="Number of images, e.g. 11e6.")
@click.option(
    "--masks-per-image", type=click.FloatRange(0), default=100.0, show_default=True, help="Average."
)
@click.option("--gpus", type=_Count(), default=1, show_default=True, help="That work at once.")
@click.option(
    "--images-per-shard", type=_Count(), help="Of one task and file.  [default: by the run's size]"
)
@click.option("--images-per-run", type=_Count(), help="Of one run and release.  [default: 131072]")
@_rate_options
@json_option
def command(
    images: int,
    masks_per_image: float,
    gpus: int,
    images_per_shard: int | None,
    images_per_run: int | None,
    as_json: bool,
    **rates: float | None,
) -> None:
    """Predict shards, files, bytes, hours and cost from measured rates.

    Nothing is read or written. Every rate can be given; the table says which were measured and
    which are only assumed.
    """
    from engine.dataset.capacity import GOOD_RUN_IMAGES, Workload, predict

    workload = Workload(
        images=images,
        masks_per_image=masks_per_image,
        gpus=gpus,
        images_per_shard=images_per_shard,
        images_per_run=images_per_run or GOOD_RUN_IMAGES,
    )
    plan = predict(workload, {name: value for name, value in rates.items() if value is not None})
    if as_json:
        print_json(asdict(plan))
    else:
        _show(plan)


def _show(plan: CapacityPlan) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(show_header=False, box=None, padding=(0, 2), pad_edge=False)
    for name, value, note in _lines(plan):
        table.add_row(name, value, note)
    console.print(table, soft_wrap=True, highlight=False)
    console.print("\nRests on:", highlight=False)
    rates = Table(show_header=False, box=None, padding=(0, 2), pad_edge=False)
    for rate in plan.rates:
        rates.add_row(f"--{rate.name.replace('_', '-')}", _value(rate), _origin(rate))
    console.print(rates, soft_wrap=True, highlight=False)
    for title, lines in (("Dominates:", plan.dominates), ("Change:", plan.advice)):
        if lines:
            console.print(f"\n{title}", highlight=False)
        for line in lines:
            console.print(f"  {line}", highlight=False, soft_wrap=True, markup=False)


def _lines(plan: CapacityPlan) -> Iterator[tuple[str, str, str]]:
    layout, storage, duration, cost = plan.layout, plan.storage, plan.duration, plan.cost
    yield "images", f"{plan.workload.images:,}", f"{plan.workload.masks_per_image:g} masks each"
    yield "masks", f"{layout.masks:,}", ""
    yield (
        "shards",
        f"{layout.shards:,}",
        f"tasks and files of {layout.images_per_shard:,} images, {_size(layout.shard_bytes)}, "
        f"{_time(layout.shard_seconds)} of a GPU",
    )
    yield (
        "runs",
        f"{layout.runs:,}",
        f"and releases; {layout.table_commits:,} table commits; a plan of "
        f"{_size(layout.run_plan_bytes)} each",
    )
    yield (
        "stored",
        _size(storage.stored),
        f"masks {_size(storage.masks)}, image tables {_size(storage.image_tables)}, metadata "
        f"{_size(storage.metadata)}",
    )
    yield (
        "read",
        _size(storage.read),
        f"of images, {_size(storage.read_per_second)}/s in {storage.requests_per_second:,.0f} "
        "requests/s",
    )
    yield "GPUs", f"{duration.gpu_hours:,.4g} hours", "of all together"
    yield (
        "time",
        _time(duration.wall_hours * 3600),
        f"on {plan.workload.gpus:,} GPUs until the last release, after "
        f"{_time(duration.ingest_hours * 3600)} of ingest",
    )
    yield (
        "committer",
        _time(duration.commit_hours * 3600),
        f"beside the GPUs; {_time(duration.last_commit_seconds)} for the last release",
    )
    yield "finding an image", _time(duration.find_seconds), "by a reader's first look"
    yield (
        "cost",
        f"${cost.total:,.0f}",
        f"GPUs ${cost.gpu:,.0f}, reads ${cost.reads:,.2f}, a year's storage "
        f"${cost.storage_year:,.2f}",
    )


def _origin(rate: Rate) -> str:
    if rate.source == "given":
        return f"{rate.what}; given"
    return f"{rate.what}; {'measured' if rate.measured else 'assumed'}: {rate.source}"


def _value(rate: Rate) -> str:
    return f"{rate.value:g} {rate.unit}"


def _size(size_bytes: float) -> str:
    power = 0
    while size_bytes >= 999.5 and power < len(_BYTES) - 1:
        size_bytes /= 1000
        power += 1
    return f"{size_bytes:.3g} {_BYTES[power]}"


def _time(seconds: float) -> str:
    for length, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * length:
            return (
                f"{seconds / length:,.3g} {unit}"
                if seconds < 1000 * length
                else (f"{seconds / length:,.0f} {unit}")
            )
    return f"{seconds:.2g} s"
