"""Which box proposer pre-fills a campaign: one that there is, or one that is trained now, once.

    name = choose_proposer(workspace, "train", sam, now=now)     # "p2": trained, or there already

Trained on what people made or confirmed in the newest release, as in the paper, where the masks of
the first stage teach what an object is. A training that was killed goes on where it was.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime

from engine.dataset.catalog import Workspace
from engine.dataset.reader import ReleaseReader
from engine.dataset.release_masks import HUMAN_STAGES
from engine.dataset.releases import latest_release, list_releases
from engine.errors import BadInputError
from engine.learning.proposer_registry import (
    ProposerVersion,
    find_proposer,
    list_proposers,
    newest_proposer,
    register_proposer,
)
from engine.learning.proposer_training import ProposerJob, ProposerRecipe, train_proposer
from engine.learning.training_data import open_data
from engine.learning.training_folder import TRAININGS
from engine.learning.training_session import TrainingListener
from engine.records import Release
from model import Sam

__all__ = ["AUTOMATIC", "NEWEST", "TRAIN", "choose_proposer"]

logger = logging.getLogger(__name__)

AUTOMATIC, NEWEST, TRAIN = "auto", "newest", "train"


def choose_proposer(
    workspace: Workspace,
    name: str,
    sam: Sam,
    *,
    now: datetime,
    steps: int | None = None,
    listener: TrainingListener | None = None,
) -> str:
    """Return what proposes masks, by the name that `proposal_source` takes.

    Args:
        workspace: whose proposers and releases are used.
        name: ``auto``: the model's automatic masks, no proposer; ``newest``: the newest proposer
            for this model; ``p2``: that one; ``train``: the one for this model and the newest
            release's masks of people, which is trained if there is none yet.
        sam: the model that the campaign works with.
        now: UTC.
        steps: of a training; None: the recipe's.
        listener: told about a training.

    Raises:
        BadInputError: no such proposer or one for another model, nothing to train on, or
            transformers is not installed.
        WorkspaceError: a release, a proposer or the training's folder is damaged.
    """
    if name == AUTOMATIC:
        return AUTOMATIC
    if name == NEWEST:
        return newest_proposer(workspace.store, sam.model_id()).name
    if name == TRAIN:
        return _trained(workspace, sam, steps, now, listener).name
    version = find_proposer(workspace.store, name)
    if version.model_id != sam.model_id():
        raise BadInputError(
            f"box proposer {name} reads the features of {version.model_id}, and the campaign works "
            f"with {sam.model_id()}; take {TRAIN!r}, {NEWEST!r} or {AUTOMATIC!r}"
        )
    return version.name


def _trained(
    workspace: Workspace,
    sam: Sam,
    steps: int | None,
    now: datetime,
    listener: TrainingListener | None,
) -> ProposerVersion:
    release = latest_release(workspace)
    if release is None:
        raise BadInputError(
            f"{workspace.address} has no release, so nothing to train a box proposer on; publish "
            f"what people made in the first stage, or take the proposer {AUTOMATIC!r}"
        )
    recipe = ProposerRecipe() if steps is None else replace(ProposerRecipe(), steps=steps)
    for version in reversed(list_proposers(workspace.store)):
        is_alike = (version.model_id, version.recipe_json) == (sam.model_id(), recipe.to_json())
        if is_alike and _knows(workspace, version, release):
            logger.info("box proposer %s has learned from these masks before", version.name)
            return version
    sources = open_data([release.name], workspace, stages=HUMAN_STAGES)
    job = ProposerJob(sam=sam, data=sources, recipe=recipe)
    folder = workspace.local_folder / TRAININGS / job.name
    result = train_proposer(job, folder, listener=listener)
    for image in result.skipped:
        logger.warning("not trained on %s (%s): %s", image.uri, image.reason, image.message)
    return register_proposer(workspace.store, result, sources, now=now)


def _knows(workspace: Workspace, version: ProposerVersion, release: Release) -> bool:
    """Whether a proposer was trained on all that people made in a release.

    An automatic run between makes a release of another name with the same masks of people.
    """
    if version.trained_on == (release.name,):
        return True
    names = {one.name: one for one in list_releases(workspace)}
    trained_on = [names[name] for name in version.trained_on if name in names]
    if len(trained_on) != len(version.trained_on):
        return False
    learned = {key for one in trained_on for key in _files_of_people(workspace, one)}
    return learned == set(_files_of_people(workspace, release))


def _files_of_people(workspace: Workspace, release: Release) -> list[str]:
    with ReleaseReader.of(workspace, release, stages=HUMAN_STAGES) as reader:
        return [file.key for file in reader.mask_files.files]
