"""How long a person waits for commands: the help, the first masks of a photo, the status.

    python -m tests.benchmarks.bench_start [--rounds 5] [--against OTHER_CHECKOUT]

Each command runs in a process of its own, with no Prefect server known, after one run that warms
the page cache and compiles the bytecode. The first mask counts from the process's start until its
shard is in the workspace. Two checkouts take turns.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from engine.dataset.demo_photos import copy_demo_photos

HERE = Path(__file__).resolve().parents[2]
MAIN = "from flows.cli import main; main()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One run of a command, in seconds."""

    wall: float
    processor: float
    first_mask: float | None = None


def main() -> None:
    """Measure and print a row for each command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", type=Path, help="another checkout, measured in turns")
    parser.add_argument("--points-per-side", type=int, default=32)
    arguments = parser.parse_args()
    checkouts = [HERE] + ([arguments.against.resolve()] if arguments.against else [])
    with TemporaryDirectory() as folder:
        photo = small_photo(Path(folder))
        points = ("--points-per-side", str(arguments.points_per_side))
        for name in ("--help", "auto", "status"):
            runs: dict[Path, list[Measured]] = {checkout: [] for checkout in checkouts}
            for turn in range(arguments.rounds + 1):
                for checkout in checkouts:
                    workspace = Path(folder) / f"{name}-{turn}-{checkouts.index(checkout)}"
                    given = {
                        "--help": ("--help",),
                        "auto": ("auto", str(photo), "-w", str(workspace), *points),
                        "status": ("status", "-w", str(Path(folder) / "auto-0-0")),
                    }[name]
                    runs[checkout].append(timed(given, checkout, Path(folder), workspace))
            for checkout in checkouts:
                print(row(name, checkout, runs[checkout]), flush=True)


def small_photo(folder: Path) -> Path:
    """Copy the sample photos; return one of 640 x 427 pixels."""
    copy_demo_photos(folder / "photos")
    return folder / "photos" / "china.jpg"


def timed(arguments: Sequence[str], checkout: Path, folder: Path, workspace: Path) -> Measured:
    """Run a command of a checkout."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began, clock = time.perf_counter(), time.time()
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *arguments],
        env=environment(checkout, folder),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    wall = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    written = [path.stat().st_mtime - clock for path in workspace.glob("runs/*/masks-*.parquet")]
    return Measured(
        wall=wall,
        processor=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        first_mask=min(written, default=None),
    )


def environment(checkout: Path, folder: Path) -> Mapping[str, str]:
    """Return that of a user without a Prefect server."""
    ours = ("PREFECT", "MASKWHEEL", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "PYTHONPATH": str(checkout), "PREFECT_HOME": str(folder / "prefect")}


def row(name: str, checkout: Path, runs: Sequence[Measured]) -> str:
    """Write the medians of the warm runs as a row of a table, beside the first."""
    warm = runs[1:]
    first = [run.first_mask for run in warm if run.first_mask is not None]
    cells = [
        f"`maskwheel {name}`",
        "this checkout" if checkout == HERE else checkout.name,
        f"first mask {median(first):.2f} s" if first else "",
        f"{median(run.wall for run in warm):.2f} s",
        f"{median(run.processor for run in warm):.2f} s of processor time",
        f"first run {runs[0].wall:.2f} s",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
