"""A whole evaluation: tasks on sets, the model beside the baselines, into one report.

report = evaluate_model(sam, sets, EvaluationPlan(), now=current_time())
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal, Protocol, get_args

from engine.dataset.labelled_sets import LabelledSet
from engine.errors import BadInputError, ImageError
from engine.evaluation.baselines import BASELINES
from engine.evaluation.edges import EdgeConfig, evaluate_edges
from engine.evaluation.human_boundaries import edge_images
from engine.evaluation.instances import InstanceConfig, evaluate_instances
from engine.evaluation.labelled import Selection, chosen_images, levels_of_agreement
from engine.evaluation.points import (
    FirstClick,
    Method,
    ModelMethod,
    ModelScores,
    PromptConfig,
    score_method,
)
from engine.evaluation.proposals import ProposalConfig, evaluate_proposals
from engine.evaluation.report import (
    CalibrationRow,
    ClicksRow,
    EvaluationReport,
    FigureRow,
    LookRow,
    PromptRow,
    calibration_rows,
    clicks_rows,
    figure_rows,
    look_row,
    prompt_rows,
)
from engine.evaluation.robustness import other_looks, scene_set
from model import Sam

Task = Literal["points", "boxes", "proposals", "edges", "instances"]
TASKS: tuple[Task, ...] = get_args(Task)
_SCENES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationPlan:
    """What is evaluated.

    Attributes:
        tasks: some of `TASKS`.
        first_clicks: where conversations begin; more than one makes more rows.
        max_clicks: length of the conversations.
        report_at: numbers of clicks in the tables.
        baselines: whether classical methods answer too.
        looks: whether changed images and drawn scenes are tried.
        votes: levels of agreement; None: 1, and 2 where a set's masks differ in it.
        masks_per_image: of the prompts, drawn; 0 for all.
        max_images: of each set, evenly spaced; None for all.
        seed: of all that is drawn.
    """

    tasks: tuple[Task, ...] = ("points", "boxes")
    first_clicks: tuple[FirstClick, ...] = ("centre",)
    max_clicks: int = 9
    report_at: tuple[int, ...] = (1, 2, 3, 5, 9)
    baselines: bool = True
    looks: bool = False
    votes: tuple[int, ...] | None = None
    masks_per_image: int = 10
    max_images: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.first_clicks or self.max_clicks < 1 or not set(self.tasks) <= {*TASKS}:
            raise BadInputError(
                f"expected tasks among {', '.join(TASKS)}, a first click and at least one click; "
                f"got {self.tasks}, {self.first_clicks} and {self.max_clicks}"
            )
        if not (self.tasks or self.looks):
            raise BadInputError(f"nothing to evaluate; name some of {', '.join(TASKS)}")


class Progress(Protocol):
    """Somebody who watches."""

    def stage(self, title: str, total: int | None) -> None:
        """Hear that a stage of `total` images begins."""
        ...

    def image(self, uri: str, masks: int) -> None:
        """Hear that an image is done."""
        ...


@dataclass(frozen=True, slots=True)
class _Run:
    """What stays the same from set to set."""

    model: ModelMethod
    sam: Sam
    plan: EvaluationPlan
    progress: Progress

    def begin(self, title: str, labelled_set: LabelledSet) -> None:
        """Announce a pass over a set."""
        total = len(chosen_images(labelled_set, self.plan.max_images))
        self.progress.stage(f"{title}, {labelled_set.name}", total)

    def selection(self, votes: tuple[int, ...]) -> Selection:
        """Say which masks are asked for."""
        return Selection(
            masks_per_image=self.plan.masks_per_image,
            votes=votes,
            max_images=self.plan.max_images,
            seed=self.plan.seed,
        )


@dataclass(slots=True)
class _Found:
    """Rows so far."""

    prompts: list[PromptRow] = field(default_factory=list)
    clicks: list[ClicksRow] = field(default_factory=list)
    calibration: list[CalibrationRow] = field(default_factory=list)
    looks: list[LookRow] = field(default_factory=list)
    figures: list[FigureRow] = field(default_factory=list)


def evaluate_model(
    sam: Sam,
    sets: Sequence[LabelledSet],
    plan: EvaluationPlan,
    progress: Progress,
    *,
    now: datetime,
    name: str = "model",
) -> EvaluationReport:
    """Evaluate a model, and the baselines on the same prompts.

    Args:
        sam: the model.
        sets: labelled images; each gives rows of its own.
        plan: what is evaluated.
        progress: hears of every image.
        now: UTC, for the report.
        name: of the model in tables.

    Raises:
        BadInputError: a set without fitting masks, or with an image that cannot be read.
    """
    run = _Run(ModelMethod(sam, name), sam, plan, progress)
    found = _Found()
    try:
        for labelled_set in sets:
            _evaluate_set(run, labelled_set, found)
        if plan.looks:
            scores = _look_scores(run, scene_set(_SCENES, plan.seed), (1,), "scenes")
            found.looks.append(look_row(scores, 1, "scenes", seed=plan.seed))
    except ImageError as error:
        raise BadInputError(
            f"an image of the evaluation cannot be used ({error.reason}): {error}; replace it, or "
            "leave it out of the set"
        ) from error
    return EvaluationReport(
        model=name,
        model_id=sam.model_id(),
        created_at=now.isoformat(timespec="seconds"),
        masks_per_image=plan.masks_per_image,
        seed=plan.seed,
        prompts=tuple(found.prompts),
        clicks=tuple(found.clicks),
        calibration=tuple(found.calibration),
        looks=tuple(found.looks),
        figures=tuple(found.figures),
    )


def _evaluate_set(run: _Run, labelled_set: LabelledSet, found: _Found) -> None:
    votes = run.plan.votes or levels_of_agreement(labelled_set, run.plan.max_images)
    if {"points", "boxes"} & {*run.plan.tasks}:
        _evaluate_prompts(run, labelled_set, votes, found)
    if run.plan.looks:
        found.looks += _look_rows(run, labelled_set, votes[:1])
    for task, benchmark in _BENCHMARKS.items():
        if task in run.plan.tasks:
            run.begin(task, labelled_set)
            found.figures += benchmark(run, labelled_set, votes[0])


def _evaluate_prompts(
    run: _Run, labelled_set: LabelledSet, votes: tuple[int, ...], found: _Found
) -> None:
    methods: tuple[Method, ...] = (run.model, *(BASELINES if run.plan.baselines else ()))
    for config in _prompt_configs(run, votes):
        by_method: list[ModelScores] = []
        for method in methods:
            run.begin(method.name, labelled_set)
            by_method.append(score_method(method, labelled_set, config, run.progress.image))
        for least in votes:
            for scores in by_method:
                agreed = scores.agreed(least, run.plan.masks_per_image)
                if not len(agreed):
                    continue
                found.prompts += prompt_rows(agreed, least, config, run.plan.seed)
                found.clicks += clicks_rows(agreed, least, config, run.plan.seed)
                if scores is by_method[0]:
                    found.calibration += calibration_rows(agreed, least, config)


def _prompt_configs(run: _Run, votes: tuple[int, ...]) -> Iterator[PromptConfig]:
    """Yield one config for each first click; the boxes go with the first of them."""
    clicked = "points" in run.plan.tasks
    for place, first_click in enumerate(run.plan.first_clicks if clicked else ("centre",)):
        yield PromptConfig(
            max_clicks=run.plan.max_clicks if clicked else 0,
            report_at=run.plan.report_at,
            first_click=first_click,
            box="boxes" in run.plan.tasks and place == 0,
            selection=run.selection(votes),
        )


def _look_rows(run: _Run, labelled_set: LabelledSet, votes: tuple[int, ...]) -> Iterator[LookRow]:
    scores = _look_scores(run, labelled_set, votes, "clean")
    clean = look_row(scores, votes[0], "clean", seed=run.plan.seed)
    yield clean
    for look, changed in other_looks(labelled_set, run.plan.seed):
        scores = _look_scores(run, changed, votes, look)
        yield look_row(scores, votes[0], look, clean, run.plan.seed)


def _look_scores(
    run: _Run, labelled_set: LabelledSet, votes: tuple[int, ...], look: str
) -> ModelScores:
    run.begin(look, labelled_set)
    config = PromptConfig(max_clicks=1, report_at=(1,), selection=run.selection(votes))
    return score_method(run.model, labelled_set, config, run.progress.image)


def _proposals(run: _Run, labelled_set: LabelledSet, votes: int) -> Iterator[FigureRow]:
    config = ProposalConfig(min_votes=votes, max_images=run.plan.max_images)
    if not run.plan.baselines:
        config = replace(config, pool=None)
    result = evaluate_proposals(run.sam, labelled_set, config, run.progress.image, run.model.name)
    return figure_rows(
        "proposals", labelled_set.name, result.images, result.scores, seed=run.plan.seed
    )


def _edges(run: _Run, labelled_set: LabelledSet, votes: int) -> Iterator[FigureRow]:
    config = EdgeConfig() if run.plan.baselines else replace(EdgeConfig(), sobel_sigma_px=None)
    images = edge_images(labelled_set, run.plan.max_images)
    result = evaluate_edges(run.sam, images, config, run.progress.image, run.model.name)
    return figure_rows("edges", labelled_set.name, result.images, result.scores, seed=run.plan.seed)


def _instances(run: _Run, labelled_set: LabelledSet, votes: int) -> Iterator[FigureRow]:
    config = InstanceConfig(min_votes=votes, max_images=run.plan.max_images)
    result = evaluate_instances(
        run.sam, labelled_set, config, on_image=run.progress.image, name=run.model.name
    )
    for method, figure, value in result.rows():
        yield FigureRow(
            task="instances",
            data=labelled_set.name,
            images=result.images,
            method=method,
            figure=figure,
            value=value,
        )


_BENCHMARKS: dict[Task, Callable[[_Run, LabelledSet, int], Iterator[FigureRow]]] = {
    "proposals": _proposals,
    "edges": _edges,
    "instances": _instances,
}
