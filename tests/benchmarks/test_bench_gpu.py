"""The GPU benchmark runs from end to end, on a processor too."""

from __future__ import annotations

import sys

import pytest

from tests.benchmarks import bench_gpu
from tests.benchmarks.gpu_gauges import covered


def test_a_small_run_on_the_processor_prints_a_row_and_the_agreement(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = "--device cpu --models bundled --precisions float32 --crops 1 --images 1"
    size = "--height 120 --width 160 --points-per-side 3"
    monkeypatch.setattr(sys, "argv", ["bench_gpu", *small.split(), *size.split()])
    bench_gpu.main()
    row, agreement = capsys.readouterr().out.strip().splitlines()[-2:]
    assert row.startswith("| bundled | float32 | 1 | 160x120 | ")
    assert len(row.split("|")) == len(bench_gpu.HEADER.splitlines()[0].split("|"))
    assert "lowest IoU with the best match 1.0000" in agreement


def test_the_busy_time_counts_what_overlaps_once() -> None:
    assert covered([(5, 6), (0, 2), (1, 3), (1, 2)]) == 4
    assert covered([]) == 0
