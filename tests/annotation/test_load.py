"""Fifty people for five minutes: nothing that was acknowledged is lost, nothing is there twice.

Times are printed (`pytest -s`), and `tests.benchmarks.bench_annotation` measures them; a test
asserts none.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.annotation.load_run import LoadPlan, LoadResult, load_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def coco_file(data_pack: Path) -> Path:
    return data_pack / "coco_subset" / "annotations.json"


def check(result: LoadResult) -> None:
    report = result.report
    print(report.api)
    assert not result.lost
    assert not result.doubled
    assert not [failure for failure in report.failures if failure.ended]
    assert report.tasks_submitted > 0
    # Whoever was cut off after a submission arrived repeated it: none is there that nobody knows.
    assert result.stored == report.tasks_submitted


def test_fifty_people_for_five_minutes(tmp_path: Path, coco_file: Path) -> None:
    result = load_run(tmp_path, coco_file, LoadPlan(annotators=50, minutes=5.0))
    check(result)
    assert not result.report.failures


def test_fifty_people_while_the_service_is_killed_again_and_again(
    tmp_path: Path, coco_file: Path
) -> None:
    plan = LoadPlan(annotators=50, minutes=5.0, kills=4)
    result = load_run(tmp_path, coco_file, plan)
    check(result)
    assert result.kills == 4
