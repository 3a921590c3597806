"""What an evaluation found, as values: a report is rows, ready for tables, JSON and plots.

    rows = prompt_rows(scores, votes=1, first_click="centre", config=config)

All means are over masks; all intervals resample images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.bootstrap import Estimate, bootstrap_mean
from engine.evaluation.calibration import Calibration, calibrate
from engine.evaluation.points import ModelScores, PromptConfig
from model.evaluate import AnswerQuality

_SMALL_PX, _LARGE_PX = 32**2, 96**2
_HIGH_IOUS = (0.85, 0.90)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Who was asked for what.

    Attributes:
        data: name of the set.
        votes: masks that at least so many people drew.
        method: the model or a baseline.
        images: with such masks.
        masks: that were asked for.
    """

    data: str
    votes: int
    method: str
    images: int
    masks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRow:
    """One kind of prompt.

    Attributes:
        case: who was asked for what.
        prompt: ``"1 click"``, ``"3 clicks"``, ``"box"``.
        first_click: ``"centre"`` or ``"random"``; None for boxes.
        trusted: mIoU of the answer with the highest predicted IoU.
        oracle: mIoU of the best answer.
        small: trusted mIoU of masks below 32^2 px; None where there are none.
        medium: of those below 96^2 px.
        large: of the others.
    """

    case: Case
    prompt: str
    first_click: str | None
    trusted: Estimate
    oracle: Estimate
    small: float | None
    medium: float | None
    large: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClicksRow:
    """How many clicks a good mask takes (NoC).

    Attributes:
        case: who was asked for what.
        first_click: ``"centre"`` or ``"random"``.
        iou: what counts as good.
        clicks: until then; `most` stands for masks that never got there.
        most: length of the conversations.
        reached: share of the masks that got there.
    """

    case: Case
    first_click: str
    iou: float
    clicks: Estimate
    most: int
    reached: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationRow:
    """Predicted against measured IoU.

    Attributes:
        case: who was asked for what.
        prompt: as in `PromptRow`.
        first_click: as in `PromptRow`.
        answers: ``"trusted"``, or ``"all"`` three.
        calibration: the figures.
    """

    case: Case
    prompt: str
    first_click: str | None
    answers: str
    calibration: Calibration


@dataclass(frozen=True, slots=True, kw_only=True)
class LookRow:
    """One click and a box on changed images.

    Attributes:
        case: who was asked for what.
        look: ``"clean"``, ``"grey"``, ...; ``"scenes"`` for drawn ones.
        trusted: mIoU after one click.
        oracle: of the best of three.
        box: trusted mIoU given the box.
        kept_trusted: share of the clean score; None where there is no clean one.
        kept_oracle: the same of the oracle's.
        kept_box: the same of the box's.
    """

    case: Case
    look: str
    trusted: Estimate
    oracle: Estimate
    box: Estimate
    kept_trusted: float | None = None
    kept_oracle: float | None = None
    kept_box: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureRow:
    """A figure of another benchmark: proposals, edges or instances.

    Attributes:
        task: which.
        data: name of the set.
        images: that count.
        method: the model or a baseline.
        figure: its name in that benchmark.
        value: the figure.
        low: lower end of the 95 % interval, None where it was not estimated.
        high: upper end.
    """

    task: str
    data: str
    images: int
    method: str
    figure: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationReport:
    """All that an evaluation found.

    Attributes:
        model: the name that was asked for.
        model_id: the exact weights.
        created_at: UTC, ISO 8601.
        masks_per_image: drawn, at most; 0 for all.
        seed: of the draw.
        prompts: mIoU by kind of prompt.
        clicks: NoC.
        calibration: of predicted IoU.
        looks: other looks.
        figures: of other benchmarks.
    """

    model: str
    model_id: str
    created_at: str
    masks_per_image: int
    seed: int
    prompts: tuple[PromptRow, ...] = ()
    clicks: tuple[ClicksRow, ...] = ()
    calibration: tuple[CalibrationRow, ...] = ()
    looks: tuple[LookRow, ...] = ()
    figures: tuple[FigureRow, ...] = ()

    @property
    def sets(self) -> tuple[str, ...]:
        """The names of what was measured on."""
        prompted = [row.case.data for row in self.prompts]
        looked_at = [row.case.data for row in self.looks]
        return tuple(dict.fromkeys([*prompted, *looked_at, *(row.data for row in self.figures)]))


def prompt_rows(
    scores: ModelScores, votes: int, config: PromptConfig, seed: int = 0
) -> Iterator[PromptRow]:
    """Sum up a method's scores by kind of prompt."""
    for prompt, quality in _by_prompt(scores, config):
        by_size = [
            float(quality.trusted_iou_N[chosen].mean()) if chosen.any() else None
            for chosen in _sizes(scores.area_N)
        ]
        yield PromptRow(
            case=_case(scores, votes),
            prompt=prompt,
            first_click=None if prompt == "box" else config.first_click,
            trusted=bootstrap_mean(quality.trusted_iou_N, scores.image_N, seed=seed),
            oracle=bootstrap_mean(quality.oracle_iou_N, scores.image_N, seed=seed),
            small=by_size[0],
            medium=by_size[1],
            large=by_size[2],
        )


def clicks_rows(
    scores: ModelScores, votes: int, config: PromptConfig, seed: int = 0
) -> Iterator[ClicksRow]:
    """Count the clicks that good masks took."""
    if len(scores.by_clicks) < 2:
        return
    for iou in _HIGH_IOUS:
        yield ClicksRow(
            case=_case(scores, votes),
            first_click=config.first_click,
            iou=iou,
            clicks=bootstrap_mean(scores.clicks_to(iou), scores.image_N, seed=seed),
            most=len(scores.by_clicks),
            reached=float(scores.reached(iou).mean()),
        )


def calibration_rows(
    scores: ModelScores, votes: int, config: PromptConfig
) -> Iterator[CalibrationRow]:
    """Compare what the model predicted with what was true."""
    for prompt, quality in _by_prompt(scores, config):
        compared = {"trusted": (quality.predicted_iou_N, quality.trusted_iou_N)}
        if prompt == "1 click":
            compared["all"] = (quality.predicted_NM.ravel(), quality.iou_NM.ravel())
        for answers, (predicted, measured) in compared.items():
            yield CalibrationRow(
                case=_case(scores, votes),
                prompt=prompt,
                first_click=None if prompt == "box" else config.first_click,
                answers=answers,
                calibration=calibrate(predicted, measured),
            )


def look_row(
    scores: ModelScores, votes: int, look: str, clean: LookRow | None = None, seed: int = 0
) -> LookRow:
    """Sum up one click and a box under a look, and what is left of the clean scores."""
    if scores.box is None:
        raise ValueError("scores of a look need boxes; got none")
    one = scores.after(1)
    trusted, oracle, box = (
        bootstrap_mean(values_N, scores.image_N, seed=seed)
        for values_N in (one.trusted_iou_N, one.oracle_iou_N, scores.box.trusted_iou_N)
    )
    return LookRow(
        case=_case(scores, votes),
        look=look,
        trusted=trusted,
        oracle=oracle,
        box=box,
        kept_trusted=_share(trusted, None if clean is None else clean.trusted),
        kept_oracle=_share(oracle, None if clean is None else clean.oracle),
        kept_box=_share(box, None if clean is None else clean.box),
    )


class Resampled(Protocol):
    """Scores of a benchmark that can be computed on other images."""

    @property
    def method(self) -> str:
        """Who scored."""
        ...

    def resampled(self, images_I: NDArray[np.int64]) -> Resampled:
        """Return the scores on some of the images, with repetition."""
        ...

    def rows(self) -> tuple[tuple[str, float], ...]:
        """Return the figures by name."""
        ...


def figure_rows(
    task: str, data: str, images: int, scores: Sequence[Resampled], seed: int = 0, draws: int = 200
) -> Iterator[FigureRow]:
    """Sum up a benchmark whose figures are no means over masks, with intervals by resampling."""
    random = np.random.default_rng(seed)
    drawn_RI = random.integers(0, images, (draws, images))
    for one in scores:
        again = [dict(one.resampled(images_I).rows()) for images_I in drawn_RI]
        for figure, value in one.rows():
            found = [figures[figure] for figures in again if figure in figures]
            low, high = np.nanquantile(found, [0.025, 0.975])
            yield FigureRow(
                task=task,
                data=data,
                images=images,
                method=one.method,
                figure=figure,
                value=value,
                low=float(low),
                high=float(high),
            )


def _by_prompt(scores: ModelScores, config: PromptConfig) -> Iterator[tuple[str, AnswerQuality]]:
    for count in config.report_at:
        if count <= len(scores.by_clicks):
            yield f"{count} click{'s' if count > 1 else ''}", scores.after(count)
    if scores.box is not None:
        yield "box", scores.box


def _case(scores: ModelScores, votes: int) -> Case:
    return Case(
        data=scores.data,
        votes=votes,
        method=scores.method,
        images=scores.images,
        masks=len(scores),
    )


def _sizes(area_N: NDArray[np.int64]) -> tuple[NDArray[np.bool_], ...]:
    small, large = area_N < _SMALL_PX, area_N >= _LARGE_PX
    return small, ~small & ~large, large


def _share(estimate: Estimate, clean: Estimate | None) -> float | None:
    return None if clean is None or not clean.mean else estimate.mean / clean.mean
