"""`maskwheel releases gc`: remove what no release needs."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from flows.commands.options import json_option, print_json, workspace_address, workspace_option

if TYPE_CHECKING:
    from engine.dataset.release_gc import GarbageReport

_SHOWN = 10


@click.command(
    "gc",
    epilog="""\b
Examples:
  maskwheel releases gc --dry-run
  maskwheel releases gc
  maskwheel releases gc --runs --grace-days 30

Releases, and whatever they need, are never removed. Runs that were not finished can be resumed and
stay, unless --runs is given; a run that an audit refused stays in any case.""",
)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option(
    "--grace-days",
    type=click.FloatRange(0),
    default=7.0,
    show_default=True,
    help="What is younger stays: running jobs may be about to need it.",
)
@click.option("--runs", is_flag=True, help="Also the shards of runs that were never finished.")
@workspace_option
@json_option
def command(
    dry_run: bool, grace_days: float, runs: bool, workspace: str | None, as_json: bool
) -> None:
    """Remove old objects that no release, branch or running job needs."""
    from engine.config import current_time
    from engine.dataset.catalog import Workspace
    from engine.dataset.release_gc import collect_garbage
    from flows.commands.count_bar import CountBar

    with (
        Workspace.open(workspace_address(workspace), create=False) as opened,
        CountBar("removing", "objects") as bar,
    ):
        report = collect_garbage(
            opened,
            current_time(),
            grace=timedelta(days=grace_days),
            unfinished_runs=runs,
            dry_run=dry_run,
            on_object=bar.update,
        )
    if as_json:
        print_json({**asdict(report), "size_bytes": report.size_bytes})
    else:
        _show(report)


def _show(report: GarbageReport) -> None:
    from flows.commands.release_tables import console, size, table

    verb = "would remove" if report.dry_run else "removed"
    out = console()
    if report.garbage:
        counts, sizes = Counter[str](), Counter[str]()
        for item in report.garbage:
            counts[item.kind] += 1
            sizes[item.kind] += item.size_bytes
        shown = table(verb, ">objects", ">size")
        for kind, count in counts.most_common():
            shown.add_row(kind, f"{count:,}", size(sizes[kind]))
        out.print(shown)
        if report.dry_run:
            for item in report.garbage[:_SHOWN]:
                out.print(f"  {item.key}", markup=False)
            if len(report.garbage) > _SHOWN:
                out.print(f"  ... and {len(report.garbage) - _SHOWN:,} more; --json names all")
    unfinished = report.unfinished_writes
    extra = f", {unfinished:,} unfinished writes" if unfinished else ""
    out.print(
        f"{verb} {len(report.garbage):,} objects ({size(report.size_bytes)}), "
        f"{report.snapshots:,} table snapshots{extra}",
        soft_wrap=True,
    )
    if report.young:
        out.print(f"{report.young:,} more are younger than the grace period and stay for now")
