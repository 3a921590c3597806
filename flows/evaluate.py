"""The evaluation of a model as a flow: clicks, boxes, edges and more, beside classical methods.

>>> evaluate("birds", model="champion")

What was measured is kept in the workspace; the same model on the same masks is measured once.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from prefect import flow, task

from engine.automatic.shard_worker import ModelSpec, cached_model, pinned
from engine.config import current_time
from engine.dataset.catalog import Workspace
from engine.dataset.releases import LATEST
from engine.evaluation.keeping import KeptEvaluation, evaluate_and_keep
from engine.evaluation.run import TASKS, EvaluationPlan
from engine.evaluation.run import Task as Kind
from engine.evaluation.sets import evaluation_sources
from engine.evaluation.tables import report_markdown
from engine.learning.retraining_data import unseen_data
from engine.learning.training_data import DataSource
from flows.artifacts.pages import show_page
from flows.artifacts.texts import code, escaped
from flows.naming import describe_run
from flows.progress import listener
from flows.retrying import RETRIED

__all__ = ["evaluate"]

logger = logging.getLogger(__name__)


@flow(name="evaluate", flow_run_name="evaluate {model}")
def evaluate(
    workspace: str,
    model: str = "champion",
    data: list[str] | None = None,
    tasks: list[Kind] | None = None,
    split: str | None = None,
    hold_out: int | None = None,
    max_images: int | None = 200,
    masks_per_image: int = 10,
    first_click: Literal["centre", "random", "both"] = "centre",
    max_clicks: int = 9,
    looks: bool = False,
    baselines: bool = False,
    seed: int = 0,
    device: str | None = None,
) -> str:
    """Put prompts for what people drew to a model and keep how good its answers are.

    Args:
        workspace: folder of the data set, or ``s3://bucket/prefix``.
        model: ``champion``, ``bundled``, a version, or a checkpoint file.
        data: COCO files and releases; by default the images of the newest release with people's
            masks that no retraining has learned from.
        tasks: of ``points``, ``boxes``, ``proposals``, ``edges``, ``instances``; by default the
            first two.
        split: only images of this split, in sets that know splits.
        hold_out: only so many evenly spaced images of `data`.
        max_images: of each set, evenly spaced; none: all.
        masks_per_image: prompted for, drawn at random; 0: all.
        first_click: farthest from the mask's border, anywhere in it, or both.
        max_clicks: length of the conversations.
        looks: also on grey, inverted, noisy ... images and drawn scenes.
        baselines: classical methods on the same prompts.
        seed: of the draw.
        device: ``cpu``, ``cuda``, ``mps``; by default the best there is.

    Returns:
        The address of the folder with the report.

    Raises:
        BadInputError: data or a model that cannot be used.
    """
    spec = pinned(ModelSpec(model, device, workspace=workspace))
    describe_run(
        f"evaluate {Path(spec.model).name}",
        workspace=workspace,
        stage="evaluate",
        model=spec.model,
    )
    plan = EvaluationPlan(
        tasks=tuple(kind for kind in TASKS if kind in (tasks or ("points", "boxes"))),
        first_clicks=("centre", "random") if first_click == "both" else (first_click,),
        max_clicks=max_clicks,
        baselines=baselines,
        looks=looks,
        masks_per_image=masks_per_image,
        max_images=max_images,
        seed=seed,
    )
    kept = measure(spec, tuple(data or ()), split, hold_out, plan, workspace)
    show(kept)
    return kept.address


@task(task_run_name="measure {spec.model}", **RETRIED)
def measure(
    spec: ModelSpec,
    data: tuple[str, ...],
    split: str | None,
    hold_out: int | None,
    plan: EvaluationPlan,
    workspace: str,
) -> KeptEvaluation:
    """Measure the model on the sets and keep the report; or find it kept."""
    with Workspace.open(workspace, create=False) as opened:
        return evaluate_and_keep(
            opened.store,
            cached_model(spec),
            open_sources(opened, data, split, hold_out),
            plan,
            listener(),
            name=Path(spec.model).stem,
            now=current_time(),
        )


def open_sources(
    workspace: Workspace, data: tuple[str, ...], split: str | None, hold_out: int | None
) -> tuple[DataSource, ...]:
    """Open what was named; by default what no retraining has learned from."""
    if data:
        return evaluation_sources(data, workspace, split, hold_out)
    return (unseen_data(workspace, LATEST),)


def show(kept: KeptEvaluation) -> None:
    """Leave the tables in the Prefect UI."""
    report = kept.report
    known = "" if kept.is_new else " (measured before)"
    logger.info("%s%s: %s", report.model, known, kept.address)
    show_page(
        "evaluation",
        f"{report_markdown(report)}\n\nAll of it, with plots: {code(kept.address)}\n",
        f"{escaped(report.model)} on {', '.join(escaped(name) for name in report.sets)}{known}",
    )
