"""Simulated annotators at one service: how long calls take while many people work.

    python -m tests.benchmarks.bench_annotation --data coco/annotations.json
        [--annotators 50] [--minutes 5] [--speed 1] [--decoder server] [--kills 0]

The service is a process of its own with the bundled model and a SQLite database; the people are
threads of this process, on the same machine. Prints rows for RESULTS.md.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.annotation.load_run import LoadPlan, LoadResult, load_run


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="COCO file with its photos")
    parser.add_argument("--annotators", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--images", type=int, default=80)
    parser.add_argument("--decoder", choices=("server", "local"), default="server")
    parser.add_argument("--kills", type=int, default=0)
    options = parser.parse_args()
    plan = LoadPlan(
        annotators=options.annotators,
        minutes=options.minutes,
        speed=options.speed,
        images=options.images,
        decoder=options.decoder,
        kills=options.kills,
    )
    with tempfile.TemporaryDirectory() as folder:
        show(load_run(Path(folder), options.data, plan))


def show(result: LoadResult) -> None:
    """Print what happened, then a line of each route."""
    report = result.report
    calls = sum(route.calls for route in report.routes)
    print(
        f"{report.annotators} people, {report.seconds:.0f} s: {calls:,} calls "
        f"({calls / report.seconds:.1f}/s), {report.tasks_submitted} tasks and "
        f"{report.masks_made} masks handed in, {result.stored} in the database, "
        f"{len(result.lost)} lost, {len(result.doubled)} doubled, {result.kills} kills"
    )
    print(
        f"processor time: service {result.service_cpu_seconds:.0f} s, "
        f"people {result.people_cpu_seconds:.0f} s"
    )
    print(
        f"masks: {report.clicks_per_mask} clicks, {report.strokes_per_mask} strokes, "
        f"{report.seconds_per_mask} simulated s each, mean IoU {report.mean_iou}"
    )
    print("\n| route | calls | failed | p50 ms | p95 ms | p99 ms | slowest ms |")
    print("|---|---|---|---|---|---|---|")
    for route in (report.api, *report.routes):
        print(
            f"| {route.route} | {route.calls:,} | {route.failed} | {route.p50_ms} | "
            f"{route.p95_ms} | {route.p99_ms} | {route.slowest_ms} |"
        )
    for route in report.routes:
        if route.failed:
            print(f"{route.route}: {route.failures}")
    for failure in report.failures:
        print(f"{failure.person}: {failure.message}")


if __name__ == "__main__":
    main()
