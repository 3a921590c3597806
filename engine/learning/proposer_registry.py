"""Box proposers as immutable versions: ``proposers/p3/weights.safetensors`` and ``version.json``.

>>> version = register_proposer(store, result, data, now=current_time())
>>> proposer = load_proposer(store, version, sam)

As with models (`engine.learning.registry`) the record is written last, names never move, and the
weights are checked against the record whenever they are loaded. A proposer reads the features of
one model: its record says of which.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import TypeAdapter

from engine.errors import BadInputError
from engine.learning.proposer import Proposer
from engine.learning.proposer_file import read_header, read_proposer
from engine.learning.proposer_training import ProposerResult
from engine.learning.training_data import DataSource
from engine.learning.version_files import VersionFiles, file_digest
from engine.objects import ObjectStore
from model import Sam

__all__ = [
    "ProposerVersion",
    "find_proposer",
    "list_proposers",
    "load_proposer",
    "newest_proposer",
    "register_proposer",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposerVersion:
    """A registered box proposer; never changes.

    Attributes:
        name: unique, never moves: ``"p1"``, ``"p2"``, ...
        model_id: of the model whose features it reads.
        sha256: hex digest of the weight file.
        size_bytes: of the weight file.
        config_json: its sizes as canonical JSON.
        trained_on: names of releases, or fingerprints of other data.
        recipe_json: how it was trained, as canonical JSON.
        metrics: what it was measured to reach on held-out images, by name.
        created_at: UTC.
    """

    name: str
    model_id: str
    sha256: str
    size_bytes: int
    config_json: str
    trained_on: tuple[str, ...]
    recipe_json: str
    metrics: dict[str, float]
    created_at: datetime


_FILES = VersionFiles("proposers", "p", TypeAdapter(ProposerVersion))


def register_proposer(
    store: ObjectStore, result: ProposerResult, data: Sequence[DataSource], *, now: datetime
) -> ProposerVersion:
    """Keep a trained proposer as a new version; the same result again gives the same version.

    Args:
        store: of the workspace.
        result: of the training.
        data: what it was trained on.
        now: UTC.

    Raises:
        WorkspaceError: the store cannot be written, or a record in it is damaged.
    """
    header = read_header(result.weights)
    draft = ProposerVersion(
        name="",
        model_id=header.model_id,
        sha256=file_digest(result.weights),
        size_bytes=result.weights.stat().st_size,
        config_json=header.config.to_json(),
        trained_on=tuple(s.images.name if s.is_release else s.identity for s in data),
        recipe_json=result.recipe.to_json(),
        metrics=result.metrics,
        created_at=now,
    )

    def same(version: ProposerVersion) -> bool:
        return (version.sha256, version.trained_on) == (draft.sha256, draft.trained_on)

    version = _FILES.keep(store, result.weights, draft, same=same)
    logger.info("proposer %s, for %s", version.name, header.model_id)
    return version


def list_proposers(store: ObjectStore) -> list[ProposerVersion]:
    """Return all versions, oldest first.

    Raises:
        WorkspaceError: a record is damaged.
    """
    return _FILES.versions(store)


def find_proposer(store: ObjectStore, name: str) -> ProposerVersion:
    """Return a version by its name.

    Raises:
        BadInputError: there is none.
        WorkspaceError: a record is damaged.
    """
    versions = list_proposers(store)
    for version in versions:
        if version.name == name:
            return version
    known = ", ".join(version.name for version in versions) or "none"
    raise BadInputError(
        f"unknown box proposer {name!r}; the workspace has {known}; "
        "`maskwheel train --recipe proposer` makes one"
    )


def newest_proposer(store: ObjectStore, model_id: str) -> ProposerVersion:
    """Return the newest version that reads the features of a model.

    Raises:
        BadInputError: there is none.
        WorkspaceError: a record is damaged.
    """
    versions = list_proposers(store)
    for version in reversed(versions):
        if version.model_id == model_id:
            return version
    others = ", ".join(f"{v.name} for {v.model_id}" for v in versions) or "none at all"
    raise BadInputError(
        f"there is no box proposer for {model_id}; the workspace has {others}; train one on the "
        "masks of the first stage: maskwheel train --recipe proposer --data RELEASE"
    )


def load_proposer(store: ObjectStore, version: ProposerVersion, sam: Sam) -> Proposer:
    """Load a version on the device of its model, after checking its weights.

    Raises:
        BadInputError: it reads another model's features, or transformers is not installed.
        WorkspaceError: the weights are missing, or not those that were registered.
    """
    with _FILES.weights(store, version) as path:
        return read_proposer(path, sam, version.name)
