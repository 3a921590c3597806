"""Retraining: the masks that people made since, into a candidate, and the candidate to the gate.

    planned = plan_retraining(workspace, RetrainingRequest(release="r7"), now=now)
    candidate = train_candidate(workspace, planned, device=None, now=now)
    judgement = judge_candidate(workspace, planned, GateConfig(), by="ann", now=now)

Each of the three may be called again, after a kill or by mistake: the first finds the plan, the
second goes on at this machine's last checkpoint or finds the version, the third finds the decision.
What is compared on was never trained on, see `engine.learning.held_out`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from engine.announcements import Announce
from engine.dataset.catalog import Workspace
from engine.dataset.labelled_sets import readable
from engine.dataset.release_masks import HUMAN_STAGES
from engine.dataset.releases import LATEST, load_release
from engine.errors import BadInputError, MissingObjectError
from engine.evaluation.sets import evaluation_sets
from engine.learning.decisions import CHAMPION, read_log, resolve
from engine.learning.measurement import measure
from engine.learning.process_group import process_group
from engine.learning.promotion import GateConfig, promote
from engine.learning.recipes import Recipe, RecipeChanges, find_recipe
from engine.learning.registry import find_version
from engine.learning.retraining_data import (
    ReleaseContent,
    choose_bound,
    learning_data,
    unseen_data,
)
from engine.learning.retrainings import (
    Retraining,
    content_key,
    find_retraining,
    finish_retraining,
    keep_retraining,
    log_key,
)
from engine.learning.training import TrainingJob, TrainingResult, train_model
from engine.learning.training_data import DataSource
from engine.learning.training_folder import TRAININGS
from engine.learning.training_log import LOG, LogEntry, parse_log
from engine.learning.training_registration import register_training
from engine.learning.training_session import TrainingListener
from engine.learning.training_start import is_version_name
from engine.learning.version_files import file_digest
from engine.objects import ObjectStore
from engine.records import ModelVersion, PromotionDecision, SkippedImage

__all__ = [
    "Candidate",
    "Judgement",
    "RetrainingRequest",
    "judge_candidate",
    "plan_retraining",
    "train_candidate",
    "training_entries",
]

logger = logging.getLogger(__name__)

_GPU_WORKERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainingRequest:
    """What somebody asks for.

    Attributes:
        release: whose masks to learn from: a name, a tag, or ``"latest"``.
        recipe: its name.
        changes: what of the recipe is wanted otherwise.
        init: where to start: ``champion``, a version, a checkpoint's path, ``scratch``; see
            `engine.learning.training_start.start_from`.
        stages: whose masks count; by default those that people made.
        hold_out: images to compare on; None: 5 %, at least 10 and at most 200.
        reason: for the record.
    """

    release: str = LATEST
    recipe: str = "finetune"
    changes: RecipeChanges = field(default_factory=RecipeChanges)
    init: str = CHAMPION
    stages: tuple[str, ...] = HUMAN_STAGES
    hold_out: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A trained model that is registered.

    Attributes:
        version: the model.
        steps: that this call did; 0: it was trained before.
        resumed_at: the step that this call began at.
        samples_per_second: of these steps.
        skipped: photos that could not be used.
    """

    version: ModelVersion
    steps: int = 0
    resumed_at: int = 0
    samples_per_second: float = 0.0
    skipped: tuple[SkippedImage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What the promotion gate said of a candidate.

    Attributes:
        decision: of the log.
        is_new: whether this call made it.
    """

    decision: PromotionDecision
    is_new: bool


def plan_retraining(
    workspace: Workspace, request: RetrainingRequest, *, now: datetime
) -> Retraining:
    """Settle what is trained on, what is held out, and where training starts; once per content.

    Raises:
        BadInputError: an unknown release, recipe or model, or too few masks.
        WorkspaceError: the release or a record is damaged.
    """
    release = load_release(workspace, request.release)
    recipe = find_recipe(request.recipe).adapted(request.changes)
    content = ReleaseContent.open(workspace, release, request.stages)
    init = _settled_name(workspace.store, request.init)
    key = content_key(
        {
            "format": 1,
            "data": content.key,
            "recipe": recipe.to_json(),
            "init": init,
            "hold_out": request.hold_out,
        }
    )
    if (known := find_retraining(workspace.store, key)) is not None:
        return known
    image_ids = content.image_ids()
    below = choose_bound(workspace.store, image_ids, request.hold_out, release.name)
    planned = Retraining(
        key=key,
        release=release.name,
        data_key=content.key,
        stages=tuple(sorted(request.stages)),
        images=len(image_ids),
        human_masks=content.number,
        held_out=int(content.is_held_out(below).sum()),
        held_out_below=below,
        init=resolve(workspace.store, CHAMPION).name if init == CHAMPION else request.init,
        init_asked=request.init,
        recipe=recipe.name,
        recipe_json=recipe.to_json(),
        steps=recipe.train.steps,
        reason=request.reason,
        planned_at=now,
    )
    return keep_retraining(workspace.store, planned)


def train_candidate(
    workspace: Workspace,
    planned: Retraining,
    *,
    device: str | None = None,
    now: datetime,
    listener: TrainingListener | None = None,
) -> Candidate:
    """Train what was planned, or go on with it, and register the model; or find it registered.

    Args:
        workspace: where the release and the models are.
        planned: from `plan_retraining`.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; None: the best there is.
        now: UTC.
        listener: hears about progress.

    Raises:
        BadInputError: a plan of another version of Maskwheel, or a device that there is not.
        FolderBusyError: another process of this machine is training it.
        WorkspaceError: the release, the folder or a record is damaged.
    """
    store = workspace.store
    found = find_retraining(store, planned.key)
    if found is not None and found.version is not None:
        return Candidate(version=find_version(store, found.version))
    source = learning_data(workspace, planned)
    folder = workspace.local_folder / TRAININGS / f"retrain-{planned.key}"
    with process_group(device) as group:
        job = TrainingJob(
            recipe=Recipe.from_json(planned.recipe_json),
            data=(source,),
            init=planned.init,
            data_workers=0 if group.device.type == "cpu" else _GPU_WORKERS,
        )
        result = train_model(job, folder, device=group.device, store=store, listener=listener)
    course = result.course
    return Candidate(
        version=_registered(store, planned, result, source, folder, now),
        steps=course.steps - course.resumed_at,
        resumed_at=course.resumed_at,
        samples_per_second=course.samples_per_second,
        skipped=course.skipped,
    )


def judge_candidate(
    workspace: Workspace,
    planned: Retraining,
    config: GateConfig,
    *,
    by: str,
    now: datetime,
    compare_on: Sequence[str] = (),
    device: str | None = None,
    announce: Announce | None = None,
    on_image: Callable[[str, int], None] | None = None,
) -> Judgement:
    """Let the promotion gate compare a trained candidate with the champion, unless it has.

    Args:
        workspace: where the models are.
        planned: whose candidate.
        config: what is asked of it; fewer images than ten only where fewer were held out on
            purpose.
        by: who decides, for the record.
        now: UTC.
        compare_on: COCO files and releases on which it may not be worse either.
        device: to measure on.
        announce: told when the champion changes.
        on_image: called after each image that is measured.

    Raises:
        BadInputError: it is not trained yet, or too few held-out images can be read.
        WorkspaceError: a model or a record is damaged.
    """
    store = workspace.store
    found = find_retraining(store, planned.key)
    if found is None or found.version is None:
        raise BadInputError(f"retraining {planned.key} has no model yet; train it first")
    for decision in reversed(read_log(store).decisions):
        if decision.candidate == found.version:
            return Judgement(decision=decision, is_new=False)
    unseen, _ = readable(unseen_data(workspace, planned.release, planned.stages).images)
    sets = (unseen, *evaluation_sets(compare_on, workspace))
    decision = promote(
        store,
        found.version,
        lambda sam: measure(sam, sets, on_image=on_image),
        replace(config, min_images=min(config.min_images, max(2, planned.held_out))),
        by=by,
        now=now,
        note=planned.reason,
        device=device,
        announce=announce,
    )
    return Judgement(decision=decision, is_new=True)


def training_entries(store: ObjectStore, retraining: Retraining) -> list[LogEntry]:
    """Return the log of a finished training, wherever it was done; nothing where there is none.

    Raises:
        BadInputError: it is damaged.
    """
    key = log_key(retraining, LOG)
    try:
        return parse_log(store.get(key).decode(), store.uri(key))
    except MissingObjectError:
        return []


def _settled_name(store: ObjectStore, init: str) -> str:
    """Name a start so that equal names are equal starts, but for ``champion``, which is a wish."""
    if init != CHAMPION and is_version_name(init):
        return resolve(store, init).name
    path = Path(init.removeprefix("mae:"))
    if path.is_file():
        return f"{init} {file_digest(path)}"
    return init


def _registered(
    store: ObjectStore,
    planned: Retraining,
    result: TrainingResult,
    source: DataSource,
    folder: Path,
    now: datetime,
) -> ModelVersion:
    # Another machine may have trained the same meanwhile: then its model is the one.
    found = find_retraining(store, planned.key)
    if found is None or found.version is None:
        version = register_training(store, result, (source,), now=now)
        if (folder / LOG).is_file():
            store.put_file_if_absent(log_key(planned, LOG), folder / LOG)
        found = finish_retraining(store, planned, version.name)
    return find_version(store, found.version or "")
