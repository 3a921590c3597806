"""From a finished training to a version in the registry, with what it was measured to reach.

>>> version = register_training(workspace.store, result, job.data, now=current_time())
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from engine.learning.measurement import measure, metrics_of
from engine.learning.registry import register
from engine.learning.training import TrainingResult
from engine.learning.training_data import DataSource
from engine.learning.unlabelled_training import UnlabelledJob, UnlabelledResult
from engine.objects import ObjectStore
from engine.records import ModelOrigin, ModelVersion

__all__ = ["register_distilled", "register_training"]


def register_training(
    store: ObjectStore, result: TrainingResult, data: Sequence[DataSource], *, now: datetime
) -> ModelVersion:
    """Keep a trained model as a new version: a candidate for promotion.

    The same result again gives the same version.

    Args:
        store: of the workspace.
        result: of the training.
        data: what it was trained on.
        now: UTC.

    Raises:
        WorkspaceError: the store cannot be written.
    """
    origin = ModelOrigin(
        kind="trained",
        parent=result.parent,
        source=result.source,
        trained_on=tuple(s.images.name if s.is_release else s.identity for s in data),
        recipe=result.recipe.name,
        recipe_json=result.recipe.to_json(),
    )
    metrics = metrics_of(measure(result.sam, result.course.held_out))
    return register(store, result.sam, origin, metrics=metrics, now=now)


def register_distilled(
    store: ObjectStore, job: UnlabelledJob, result: UnlabelledResult, *, now: datetime
) -> ModelVersion:
    """Keep a distilled model as a new version; arguments and errors as `register_training`."""
    origin = ModelOrigin(
        kind="trained",
        parent=job.start.parent,
        source=job.start.source,
        trained_on=(f"photos@{job.photos_fingerprint}",),
        recipe=job.recipe.name,
        recipe_json=job.recipe.to_json(),
    )
    return register(store, result.sam, origin, now=now)
