"""`maskwheel simulate`: people who have the masks already work at an annotation service."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from flows.commands.options import json_option, print_json, workspace_address, workspace_option

if TYPE_CHECKING:
    from engine.annotation.simulation.report import SimulationReport
    from engine.annotation.simulation.simulate import SimulationPlan
    from engine.annotation.simulation.truth import Truth

_FAILURES_SHOWN = 5


@click.command(
    "simulate",
    epilog="""\b
Examples:
  maskwheel simulate --inside --truth coco/annotations.json --annotators 5
  maskwheel simulate 'http://127.0.0.1:8765/join#token=...' --truth coco/annotations.json
  maskwheel simulate LINK --truth annotations.json --annotators 50 --minutes 5 --speed 1
  maskwheel simulate LINK --truth annotations.json --annotators 8 --reviewers 2 --sloppy 0.25

LINK is the admin's, as `maskwheel annotate` prints it; it invites everybody else, and their
invitations end with the simulation. Time is simulated: --speed 1 lets people take as long as
people do, --speed 0 lets none of it pass. Ctrl-C lets everybody save a draft and leave.
Exit code 4: somebody could not go on; the masks that were handed in are kept.""",
)
@click.argument("link", required=False)
@click.option("--inside", is_flag=True, help="Start a service, with the photos of --truth.")
@click.option(
    "--truth",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="COCO file of what people drew; photos in images/ beside it.",
)
@click.option("--split", help="Only photos of this split, in files that know splits.")
@click.option("--token", help="Of the admin, where LINK has none.")
@click.option("--campaign", help="Its name.  [default: the one that is open]")
@click.option("--annotators", type=click.IntRange(0, 500), default=1, show_default=True)
@click.option("--reviewers", type=click.IntRange(0, 100), default=0, show_default=True)
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    help="That each works, by their own clock.  [default: until all is done]",
)
@click.option(
    "--speed",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="Simulated seconds in a second; 0: as fast as possible.",
)
@click.option(
    "--skill",
    type=click.Choice(["perfect", "careful", "sloppy"]),
    default="careful",
    show_default=True,
    help="How well they aim and look.",
)
@click.option(
    "--sloppy",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of them that is sloppy whatever --skill says.",
)
@click.option(
    "--decoder",
    type=click.Choice(["server", "local"]),
    default="server",
    show_default=True,
    help="Who answers prompts; local: this process, as the page in a browser does.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of chance.")
@workspace_option
@json_option
def command(
    link: str | None,
    inside: bool,
    truth: Path,
    split: str | None,
    token: str | None,
    campaign: str | None,
    annotators: int,
    reviewers: int,
    minutes: float | None,
    speed: float,
    skill: str,
    sloppy: float,
    decoder: Literal["server", "local"],
    seed: int,
    workspace: str | None,
    as_json: bool,
) -> None:
    """Let simulated people annotate at the service of LINK, or at one of their own.

    They see what people drew in --truth, click where a mask is wrongest, take the time that people
    take, and go through the service's API as the page does: a load test, and a rehearsal of a
    campaign with its figures.
    """
    if inside == (link is not None):
        raise click.UsageError("give the LINK of a running service, or --inside")
    from engine.annotation.simulation.simulate import SimulationPlan
    from engine.annotation.simulation.truth import Truth

    known = Truth.load(truth, split)
    plan = SimulationPlan(
        annotators=annotators,
        reviewers=reviewers,
        minutes=minutes,
        speed=speed,
        campaign=campaign or ("simulated" if inside else None),
        skill=skill,
        sloppy=sloppy,
        decoder=decoder,
        seed=seed,
    )
    with ExitStack() as stack:
        if inside:
            from flows.commands.inside_service import inside_service

            address = workspace_address(workspace)
            link = stack.enter_context(inside_service(address, known, plan))
        report = _run(str(link), token or "", known, plan)
    if as_json:
        print_json(asdict(report))
    else:
        _show(report)
    _complain(report)


def _run(link: str, token: str, truth: Truth, plan: SimulationPlan) -> SimulationReport:
    from engine.annotation.simulation.simulate import simulate
    from flows.commands.count_bar import CountBar

    with CountBar("annotating", "tasks") as bar:
        return simulate(link, token, truth, plan, on_progress=bar.update)


def _complain(report: SimulationReport) -> None:
    from engine.errors import PartlyDoneError

    ended = [failure for failure in report.failures if failure.ended]
    if ended:
        raise PartlyDoneError(
            f"{len(ended)} of {report.annotators + report.reviewers} people could not go on, the "
            f"first because: {ended[0].message}"
        )


def _show(report: SimulationReport) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(show_header=False, box=None, padding=(0, 2), pad_edge=False)
    for what, value in _lines(report):
        table.add_row(what, value)
    console.print(table, soft_wrap=True)
    routes = Table(box=None, padding=(0, 2), pad_edge=False)
    routes.add_column("calls of the service")
    for heading in ("calls", "failed", "p50 ms", "p95 ms", "p99 ms", "slowest"):
        routes.add_column(heading, justify="right")
    for route in (*report.routes, report.api):
        times = (route.p50_ms, route.p95_ms, route.p99_ms, route.slowest_ms)
        shown = [f"{ms:.1f}" if ms is not None else "" for ms in times]
        routes.add_row(route.route, f"{route.calls:,}", f"{route.failed:,}", *shown)
    console.print()
    console.print(routes, soft_wrap=True)
    for failure in report.failures[:_FAILURES_SHOWN]:
        console.print(f"  {failure.person}: {failure.message}", style="yellow", soft_wrap=True)
    if len(report.failures) > _FAILURES_SHOWN:
        more = len(report.failures) - _FAILURES_SHOWN
        console.print(f"  ... and {more} more", style="yellow")


def _lines(report: SimulationReport) -> list[tuple[str, str]]:
    made = ", ".join(f"{count} {kind}" for kind, count in report.masks.items())
    lines = [
        ("people", f"{report.annotators} annotators, {report.reviewers} reviewers"),
        ("tasks", f"{report.tasks_submitted} handed in, {report.tasks_given_back} given back"),
        ("masks", f"{report.masks_made}" + (f"  ({made})" if made else "")),
    ]
    figures = (
        ("clicks per mask", report.clicks_per_mask, "{:.2f}"),
        ("strokes per mask", report.strokes_per_mask, "{:.2f}"),
        ("simulated seconds per mask", report.seconds_per_mask, "{:.1f} (mean)"),
        ("", report.seconds_per_mask_median, "{:.1f} (median)"),
        ("mean IoU with the truth", report.mean_iou, "{:.3f}"),
    )
    lines += [(what, text.format(value)) for what, value, text in figures if value is not None]
    if report.reviewers:
        said = ", ".join(f"{count} {kind}" for kind, count in report.verdicts.items())
        lines.append(("reviews", f"{said}; {report.tasks_returned} tasks sent back"))
    if report.tasks_skipped:
        lines.append(("skipped", f"{report.tasks_skipped} images that --truth does not know"))
    lines.append(("took", f"{report.seconds:.1f} s"))
    return lines
