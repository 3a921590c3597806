"""Rows, tables, JSON and pictures of scores that were made up."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.evaluation.plots import report_plots
from engine.evaluation.points import ModelScores, PromptConfig
from engine.evaluation.report import (
    EvaluationReport,
    FigureRow,
    calibration_rows,
    clicks_rows,
    figure_rows,
    look_row,
    prompt_rows,
)
from engine.evaluation.tables import markdown, report_json, report_markdown, report_tables
from engine.images import decode_image
from model.evaluate import AnswerQuality

CONFIG = PromptConfig(max_clicks=2, report_at=(1, 2, 5))


def quality(*trusted: float, best: float = 0.9, predicted: float = 0.5) -> AnswerQuality:
    n = len(trusted)
    return AnswerQuality(
        np.stack([np.array(trusted), np.full(n, best)], axis=1),
        np.stack([np.full(n, predicted), np.full(n, 0.1)], axis=1),
        np.zeros(n, dtype=np.int64),
    )


def scores(method: str = "model", lift: float = 0.0) -> ModelScores:
    return ModelScores(
        method=method,
        data="photos",
        image_N=np.array([0, 0, 1, 1]),
        area_N=np.array([100, 2000, 20_000, 30_000]),
        votes_N=np.array([1, 2, 1, 2]),
        by_clicks=(quality(0.2, 0.4, 0.6, 0.8), quality(0.5, 0.5, 0.9, 0.95)),
        box=quality(0.7 + lift, 0.7 + lift, 0.7 + lift, 0.7 + lift, predicted=1.1),
    )


def report() -> EvaluationReport:
    model, disc = scores(), scores("disc")
    rows = [*prompt_rows(model, 1, CONFIG), *prompt_rows(disc, 1, CONFIG)]
    clean = look_row(model, 1, "clean")
    return EvaluationReport(
        model="bundled",
        model_id="bundled-0123",
        created_at="2026-11-21T12:00:00+00:00",
        masks_per_image=10,
        seed=3,
        prompts=(*rows, *prompt_rows(model, 2, CONFIG)),
        clicks=tuple(clicks_rows(model, 1, CONFIG)),
        calibration=tuple(calibration_rows(model, 1, CONFIG)),
        looks=(clean, look_row(model, 1, "grey", clean)),
        figures=(
            FigureRow(
                task="edges",
                data="photos",
                images=2,
                method="model",
                figure="ODS",
                value=0.5,
                low=0.4,
                high=0.6,
            ),
            FigureRow(task="edges", data="photos", images=2, method="a|b", figure="AP", value=0.25),
        ),
    )


def test_prompts_are_summed_up_by_kind_and_size() -> None:
    one, two, box = prompt_rows(scores(), 1, CONFIG)
    assert (one.prompt, two.prompt, box.prompt) == ("1 click", "2 clicks", "box")
    assert one.trusted.mean == pytest.approx(0.5)
    assert one.trusted.low == pytest.approx(0.3)  # both draws are the first image
    assert one.oracle.mean == pytest.approx(0.9)
    assert (one.small, one.medium, one.large) == pytest.approx((0.2, 0.4, 0.7))
    assert (one.first_click, box.first_click) == ("centre", None)
    assert (one.case.masks, one.case.images) == (4, 2)


def test_a_size_without_masks_has_no_score() -> None:
    large = scores().rows(np.array([False, False, True, True]))
    assert [row.small for row in prompt_rows(large, 1, CONFIG)] == [None] * 3


def test_clicks_to_a_good_mask_are_counted() -> None:
    at_85, at_90 = clicks_rows(scores(), 1, CONFIG)
    assert at_85.iou == 0.85
    assert at_85.clicks.mean == 2
    assert at_85.reached == 0.5
    assert at_85.most == 2
    assert at_90.reached == 0.5


def test_calibration_covers_every_prompt_and_all_answers_of_one_click() -> None:
    rows = {
        (row.prompt, row.answers): row.calibration for row in calibration_rows(scores(), 1, CONFIG)
    }
    assert [*rows] == [
        ("1 click", "trusted"),
        ("1 click", "all"),
        ("2 clicks", "trusted"),
        ("box", "trusted"),
    ]
    assert rows["box", "trusted"].above_one == 1
    assert rows["box", "trusted"].bias == pytest.approx(0.4)
    assert rows["1 click", "all"].bias == pytest.approx(0.3 - 0.7)


def test_looks_tell_what_is_left_of_the_clean_score() -> None:
    clean = look_row(scores(), 1, "clean")
    changed = look_row(scores(lift=-0.35), 1, "grey", clean)
    assert clean.kept_box is None
    assert changed.kept_box == pytest.approx(0.5)
    assert changed.kept_trusted == pytest.approx(1)


def test_looks_need_boxes() -> None:
    no_box = ModelScores(
        method="m",
        data="d",
        image_N=np.zeros(1, int),
        area_N=np.ones(1, int),
        votes_N=np.ones(1, int),
        by_clicks=(quality(0.5),),
    )
    with pytest.raises(ValueError, match="need boxes"):
        look_row(no_box, 1, "clean")


@dataclass
class Shares:
    """A benchmark whose one figure is a mean over images."""

    values_I: NDArray[np.float64]
    method: str = "model"

    def resampled(self, images_I: NDArray[np.int64]) -> Shares:
        return Shares(self.values_I[images_I])

    def rows(self) -> tuple[tuple[str, float], ...]:
        return (("mean", float(self.values_I.mean())),)


def test_figures_get_intervals_by_resampling_images() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.1, 100)
    (row,) = figure_rows("shares", "photos", 100, [Shares(values)])
    assert row.value == pytest.approx(values.mean())
    assert row.low is not None
    assert row.high is not None
    assert row.high - row.low == pytest.approx(4 * 0.1 / 10, rel=0.25)


def test_tables_hold_what_a_reader_looks_for() -> None:
    prompts, sizes, calibration, looks, edges = report_tables(report())
    assert prompts.columns[3:] == ("1 click", "2 clicks", "box", "NoC@85", "NoC@90")
    assert prompts.rows[0][:4] == ("photos", "4 of 2 images", "model", "50.0 ± 20.0 / 90.0")
    assert prompts.rows[0][-2] == "2.00 (50%)"
    assert prompts.rows[1][2] == "disc"
    assert prompts.rows[1][-1] == "-"
    assert prompts.rows[2][0] == "photos, votes ≥ 2"
    assert "drawn with seed 3" in prompts.note
    assert "2 where it is never reached" in prompts.note
    assert sizes.rows[0][3:] == ("1 click", "20.0", "40.0", "70.0")
    assert calibration.rows[-1][-1] == "100.0%"
    assert looks.rows[1][4:] == ("50.0 (100%)", "90.0 (100%)", "70.0 (100%)")
    assert edges.rows[0][3:] == ("0.500 ± 0.100", "-")
    assert all(len(t.columns) == len(row) for t in report_tables(report()) for row in t.rows)


def test_random_first_clicks_have_rows_of_their_own() -> None:
    random = PromptConfig(max_clicks=2, report_at=(1, 2), first_click="random")
    rows = (*prompt_rows(scores(), 1, CONFIG), *prompt_rows(scores(), 1, random))
    found = EvaluationReport(
        model="m", model_id="m-1", created_at="2026", masks_per_image=0, seed=0, prompts=rows
    )
    table = report_tables(found)[0]
    assert [row[2] for row in table.rows] == ["model", "model, random"]
    assert "all masks of each image" in table.note


def test_markdown_is_a_table_whatever_the_names() -> None:
    text = markdown(report_tables(report())[-1])
    lines = text.splitlines()
    assert lines[0] == "**Edges**"
    assert lines[2] == "| data | images | method | ODS | AP |"
    assert lines[3] == "| --- | --- | --- | ---: | ---: |"
    assert "a\\|b" in lines[5]
    assert "`bundled-0123`" in report_markdown(report())


def test_json_holds_every_row() -> None:
    found = json.loads(report_json(report()))
    assert found["model_id"] == "bundled-0123"
    assert found["prompts"][0]["trusted"]["mean"] == pytest.approx(0.5)
    assert len(found["calibration"][0]["calibration"]["bins"]) == 4
    assert found["figures"][1]["low"] is None


def test_plots_are_pictures_of_every_set_and_level() -> None:
    plots = dict(report_plots(report()))
    assert [*plots] == [
        "clicks-photos-votes-1.png",
        "clicks-photos-votes-2.png",
        "reliability-photos-votes-1.png",
    ]
    for png in plots.values():
        assert decode_image(png).std() > 5
    assert dict(report_plots(report())) == plots
