"""`maskwheel releases verify`: read a whole release again."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from flows.cli import EXIT_PARTLY_DONE
from flows.commands.options import json_option, print_json, workspace_address, workspace_option

if TYPE_CHECKING:
    from engine.dataset.release_verify import VerifyReport


@click.command(
    "verify",
    epilog="""\b
Examples:
  maskwheel releases verify
  maskwheel releases verify v1.0 --threads 16
  maskwheel releases verify r3 --json > r3-verified.json

Every byte is read: checksums, run lengths, areas and boxes against the masks, unique ids, images,
runs and models that exist. Exit code 4: something is wrong; the first problems are listed.""",
)
@click.argument("name", default="latest")
@click.option(
    "--threads", type=click.IntRange(1), default=4, show_default=True, help="Files read at once."
)
@click.option(
    "--shown", type=click.IntRange(0), default=20, show_default=True, help="Problems to describe."
)
@workspace_option
@json_option
def command(name: str, threads: int, shown: int, workspace: str | None, as_json: bool) -> int:
    """Read release NAME (the latest, unless named) again and say what is wrong with it."""
    from engine.dataset.catalog import Workspace
    from engine.dataset.release_verify import verify_release
    from engine.dataset.releases import load_release
    from flows.commands.count_bar import CountBar

    start = time.monotonic()
    with Workspace.open(workspace_address(workspace), create=False) as opened:
        release = load_release(opened, name)
        with CountBar("verifying", "rows") as bar:
            report = verify_release(
                opened, release, threads=threads, on_rows=bar.update, shown=shown
            )
    if as_json:
        print_json({**asdict(report), "passed": report.passed})
    else:
        _show(report, time.monotonic() - start)
    return 0 if report.passed else EXIT_PARTLY_DONE


def _show(report: VerifyReport, seconds: float) -> None:
    from flows.commands.release_tables import console, size, table

    out = console()
    for problem in report.problems:
        row = "" if problem.row is None else f", row {problem.row}"
        out.print(
            f"{problem.kind}: {problem.file}{row}: {problem.message}", markup=False, soft_wrap=True
        )
    if report.problem_count > len(report.problems):
        out.print(f"... and {report.problem_count - len(report.problems):,} more")
    if report.counts:
        shown = table("problem", ">found")
        for count in report.counts:
            shown.add_row(count.kind, f"{count.count:,}")
        out.print(shown)
    verdict = "is whole" if report.passed else f"has {report.problem_count:,} problems"
    style = "green" if report.passed else "red"
    out.print(
        f"{report.release} {verdict}: {report.masks:,} masks on {report.images:,} images, "
        f"{report.files:,} files, {size(report.size_bytes)} read in {seconds:.1f} s",
        style=style,
        soft_wrap=True,
    )
    if report.without_checksum and report.passed:
        out.print(
            f"{report.without_checksum:,} files are older than recorded checksums: their content "
            "was checked, not their bytes",
            soft_wrap=True,
        )
