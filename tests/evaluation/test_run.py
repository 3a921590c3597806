"""Whole evaluations of small models: which rows there are, and what stops one."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine.dataset.labelled_sets import CocoMasks
from engine.errors import BadInputError
from engine.evaluation.report import EvaluationReport
from engine.evaluation.run import EvaluationPlan, evaluate_model
from engine.learning.looks import LOOKS
from tests.dataset.coco_builders import write_coco
from tests.evaluation.segmenters import disc_set
from tests.model.small_models import SMALL_COMPACT, small_sam

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@dataclass
class Watcher:
    """Notes the stages and how many images each had."""

    stages: list[tuple[str, int | None]] = field(default_factory=list)
    images: int = 0

    def stage(self, title: str, total: int | None) -> None:
        self.stages.append((title, total))

    def image(self, uri: str, masks: int) -> None:
        self.images += 1


def evaluated(plan: EvaluationPlan, watcher: Watcher | None = None) -> EvaluationReport:
    data = disc_set(images=2, per_image=4)
    sam = small_sam(SMALL_COMPACT)
    return evaluate_model(sam, [data], plan, watcher or Watcher(), now=NOW, name="small")


def test_points_and_boxes_put_the_model_beside_the_baselines_at_each_level() -> None:
    watcher = Watcher()
    plan = EvaluationPlan(max_clicks=3, masks_per_image=2)
    report = evaluated(plan, watcher)
    rows = {(row.case.method, row.case.votes, row.prompt) for row in report.prompts}
    methods = ("small", "felzenszwalb", "GrabCut", "disc")
    prompts = ("1 click", "2 clicks", "3 clicks", "box")
    assert rows == {(m, v, p) for m in methods for v in (1, 2) for p in prompts}
    assert {row.case.masks for row in report.prompts} == {4}
    assert {row.case.method for row in report.calibration} == {"small"}
    assert len(report.clicks) == len(methods) * 2 * 2
    assert report.model_id.startswith("small_compact-")
    assert report.created_at == "2026-11-21T12:00:00+00:00"
    assert watcher.stages == [(f"{method}, discs", 2) for method in methods]
    assert watcher.images == 8
    assert evaluated(plan) == report


def test_boxes_alone_need_no_clicks_and_random_clicks_no_second_boxes() -> None:
    boxes = evaluated(EvaluationPlan(tasks=("boxes",), baselines=False, votes=(1,)))
    assert [row.prompt for row in boxes.prompts] == ["box"]
    assert boxes.clicks == ()
    both = evaluated(
        EvaluationPlan(first_clicks=("centre", "random"), max_clicks=1, baselines=False, votes=(1,))
    )
    assert [(row.prompt, row.first_click) for row in both.prompts] == [
        ("1 click", "centre"),
        ("box", None),
        ("1 click", "random"),
    ]


def test_looks_are_compared_with_the_clean_images_and_scenes_stand_alone() -> None:
    report = evaluated(
        EvaluationPlan(tasks=("boxes",), baselines=False, looks=True, votes=(1,), max_images=1)
    )
    assert [row.look for row in report.looks] == ["clean", *LOOKS, "scenes"]
    assert report.looks[0].kept_box is None
    assert all(row.kept_box is not None for row in report.looks[1:-1])
    assert report.looks[-1].kept_box is None
    assert report.looks[-1].case.images == 1


def test_other_benchmarks_give_figures() -> None:
    report = evaluated(
        EvaluationPlan(tasks=("edges", "instances"), baselines=False, votes=(1,), max_images=1)
    )
    figures = {(row.task, row.figure) for row in report.figures}
    assert {("edges", "ODS"), ("instances", "AP")} <= figures
    assert {row.method for row in report.figures} == {"small"}
    assert report.prompts == ()


def test_a_level_that_nobody_reaches_is_bad_input() -> None:
    with pytest.raises(BadInputError, match="5 or more people"):
        evaluated(EvaluationPlan(votes=(5,)))


def test_a_damaged_photo_stops_the_evaluation_and_is_named(tmp_path: Path) -> None:
    annotations = write_coco(tmp_path / "set", 2)
    photo = tmp_path / "set" / "images" / "001.jpg"
    photo.write_bytes(photo.read_bytes()[:500])
    data = CocoMasks.load(annotations)
    plan = EvaluationPlan(tasks=("boxes",), baselines=False)
    with pytest.raises(BadInputError, match="cannot be used"):
        evaluate_model(small_sam(SMALL_COMPACT), [data], plan, Watcher(), now=NOW)


@pytest.mark.parametrize(
    "wrong",
    [{"tasks": ()}, {"tasks": ("points", "lines")}, {"max_clicks": 0}, {"first_clicks": ()}],
)
def test_plans_without_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BadInputError, match="points, boxes"):
        EvaluationPlan(**wrong)  # type: ignore[arg-type]
