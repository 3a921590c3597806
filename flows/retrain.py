"""Retraining as a flow: people's masks become a candidate, and the candidate meets the champion.

>>> retrain("birds", reason="1,000 new masks").outcome
'promoted'

The same call again, after a kill or by a doubled trigger, goes on or does nothing and says so: what
is trained is known by its content, see `engine.learning.retraining`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

from prefect import flow, task

from engine.config import current_time
from engine.dataset.catalog import Workspace
from engine.dataset.release_masks import HUMAN_STAGES
from engine.dataset.releases import LATEST
from engine.learning.promotion import GateConfig
from engine.learning.recipes import RecipeChanges
from engine.learning.retraining import (
    Candidate,
    Judgement,
    RetrainingRequest,
    judge_candidate,
    plan_retraining,
    train_candidate,
    training_entries,
)
from engine.learning.retrainings import Retraining
from engine.learning.training_folder import FolderBusyError
from flows.artifacts.training import show_promotion, show_training
from flows.events import announce
from flows.naming import describe_run
from flows.progress import listener
from flows.retrying import RETRIED
from flows.training_progress import TrainingProgress

__all__ = ["RetrainOutcome", "retrain"]

logger = logging.getLogger(__name__)

_DECIDED_BY = "retrain"
_POINTS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainOutcome:
    """What a call came to.

    Attributes:
        release: whose masks were learned from.
        version: the model; None: another process is training it.
        outcome: what the gate said; ``"candidate"``: it was not asked.
        is_new: whether this call trained or decided anything.
        champion: who is champion now, as far as the gate was asked.
        said: the same in a sentence.
    """

    release: str
    version: str | None
    outcome: Literal["promoted", "forced", "refused", "rolled back", "candidate", "in progress"]
    is_new: bool
    champion: str | None
    said: str


@flow(name="retrain", flow_run_name="retrain: {reason}")
def retrain(
    workspace: str,
    release: str | None = None,
    reason: str = "by hand",
    recipe: str = "finetune",
    init: str = "champion",
    steps: int | None = None,
    promote: bool = True,
    hold_out: int | None = None,
    device: str | None = None,
    stages: list[Literal["manual", "semi", "auto"]] | None = None,
    images_per_batch: int | None = None,
    learning_rate: float | None = None,
    precision: Literal["float32", "bfloat16"] | None = None,
    save_every: int | None = None,
    seed: int | None = None,
    compare_on: list[str] | None = None,
    margin: float = 0.5,
    tolerance: float = 1.0,
) -> RetrainOutcome:
    """Train on the masks of a release, register the model, and promote it if it became better.

    Args:
        workspace: folder of the data set, or ``s3://bucket/prefix``.
        release: whose masks; by default the newest release's.
        reason: why; goes into the record.
        recipe: ``finetune``, ``sam`` or ``bundled``.
        init: where to start: ``champion``, a version, a checkpoint, ``scratch``.
        steps: optimiser steps; by default the recipe's.
        promote: ask the promotion gate; if not, the model stays a candidate.
        hold_out: images never to train on and to compare on; by default 5 %, 10 to 200.
        device: ``cpu``, ``cuda``, ``mps``; by default the best there is.
        stages: whose masks count; by default ``manual`` and ``semi``, those that people made.
        images_per_batch: images in a step; by default the recipe's.
        learning_rate: its peak; by default the recipe's.
        precision: ``float32`` or ``bfloat16``; by default the recipe's.
        save_every: steps between two checkpoints; by default the recipe's.
        seed: of data and prompts; by default the recipe's.
        compare_on: COCO files and releases on which the model may not be worse either.
        margin: points of mIoU that it must be better by.
        tolerance: points that it may be worse by, anywhere.

    Raises:
        BadInputError: too few masks, or an unknown release, model or recipe.
        WorkspaceError: the release or a model is damaged.
    """
    request = RetrainingRequest(
        release=release or LATEST,
        recipe=recipe,
        changes=RecipeChanges(
            steps=steps,
            images_per_batch=images_per_batch,
            learning_rate=learning_rate,
            precision=precision,
            save_every=save_every,
            seed=seed,
        ),
        init=init,
        stages=tuple(stages or HUMAN_STAGES),
        hold_out=hold_out,
        reason=reason,
    )
    planned = plan(request, workspace)
    try:
        candidate = train(planned, workspace, device)
    except FolderBusyError:
        return _in_progress(planned)
    show(planned, candidate, workspace, reason)
    if not promote:
        return _outcome(planned, candidate, None)
    config = GateConfig(margin=margin / _POINTS, tolerance=tolerance / _POINTS)
    judgement = judge(planned, config, compare_on or [], workspace, device)
    show_promotion(judgement.decision, workspace=workspace)
    return _outcome(planned, candidate, judgement)


@task(task_run_name="plan", **RETRIED)
def plan(request: RetrainingRequest, workspace: str) -> Retraining:
    """Settle what is trained on, from where, and what is held out; or find it settled."""
    with Workspace.open(workspace, create=False) as opened:
        planned = plan_retraining(opened, request, now=current_time())
    describe_run(
        f"retrain {planned.init} on {planned.release}: {request.reason}",
        workspace=workspace,
        stage="retrain",
        release=planned.release,
        model=planned.init,
    )
    logger.info(
        "%d masks on %d images of %s; %d images are held out; from %s, %d steps of %s",
        planned.human_masks,
        planned.images,
        planned.release,
        planned.held_out,
        planned.init,
        planned.steps,
        planned.recipe,
    )
    return planned


@task(task_run_name="train {planned.init} on {planned.release}", **RETRIED)
def train(planned: Retraining, workspace: str, device: str | None) -> Candidate:
    """Train, or go on training, and register the model; or find it registered."""
    with (
        Workspace.open(workspace, create=False) as opened,
        TrainingProgress(f"{planned.init} on {planned.release}") as progress,
    ):
        return train_candidate(
            opened, planned, device=device, now=current_time(), listener=progress
        )


@task(task_run_name="compare with the champion", **RETRIED)
def judge(
    planned: Retraining,
    config: GateConfig,
    compare_on: list[str],
    workspace: str,
    device: str | None,
) -> Judgement:
    """Let the promotion gate decide; or find that it has."""
    listener().stage("comparing with the champion", None)
    with Workspace.open(workspace, create=False) as opened:
        return judge_candidate(
            opened,
            planned,
            config,
            by=_DECIDED_BY,
            now=current_time(),
            compare_on=compare_on,
            device=device,
            announce=announce,
            on_image=listener().image,
        )


def show(planned: Retraining, candidate: Candidate, workspace: str, reason: str) -> None:
    """Leave the model and its learning curve in the Prefect UI."""
    with Workspace.open(workspace, create=False) as opened:
        entries = training_entries(opened.store, planned)
    show_training(candidate.version, entries, workspace=workspace, reason=reason)
    for image in candidate.skipped:
        logger.warning("left out %s: %s", image.uri, image.message)


def _in_progress(planned: Retraining) -> RetrainOutcome:
    said = (
        f"another process of this machine is training {planned.init} on {planned.release} already; "
        "nothing was done"
    )
    logger.info("%s", said)
    return RetrainOutcome(
        release=planned.release,
        version=None,
        outcome="in progress",
        is_new=False,
        champion=None,
        said=said,
    )


def _outcome(
    planned: Retraining, candidate: Candidate, judgement: Judgement | None
) -> RetrainOutcome:
    trained, name = candidate.steps > 0, candidate.version.name
    known = f"model {name} was trained on these masks before, as {planned.release}"
    parts = [f"model {name} was trained on {planned.release}" if trained else known]
    if judgement is None:
        parts.append("the gate was not asked")
    else:
        decision = judgement.decision
        before = "" if judgement.is_new else f" before, in decision {decision.number}"
        parts.append(
            f"it was {decision.outcome}{before}; the champion was then {decision.champion}"
        )
        parts += decision.reasons
    said = "; ".join(parts)
    logger.info("%s", said)
    return RetrainOutcome(
        release=planned.release,
        version=name,
        outcome="candidate" if judgement is None else judgement.decision.outcome,
        is_new=trained or (judgement is not None and judgement.is_new),
        champion=None if judgement is None else judgement.decision.champion,
        said=said,
    )
