"""Box proposers as immutable versions: ``proposers/p3/weights.safetensors`` and ``version.json``.

>>> version = register_proposer(store, result, data, now=current_time())
>>> proposer = load_proposer(store, version, sam)

As with models (`engine.learning.registry`) the record is written last, names never move, and the
weights are checked against the record whenever they are loaded. A proposer reads the features of
one model: its record says of which.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from pydantic import TypeAdapter, ValidationError

from engine.errors import BadInputError, WorkspaceError
from engine.learning.proposer import Proposer
from engine.learning.proposer_file import read_header, read_proposer
from engine.learning.proposer_training import ProposerResult
from engine.learning.training_data import DataSource
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

_PREFIX = "proposers/"
_RECORD_KEY = re.compile(r"proposers/(p[1-9]\d*)/version\.json")
_CHUNK_BYTES = 4 * 1024 * 1024


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


_VERSION = TypeAdapter(ProposerVersion)


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
    with result.weights.open("rb") as stream:
        digest = _digest(stream)
    draft = ProposerVersion(
        name="",
        model_id=header.model_id,
        sha256=digest,
        size_bytes=result.weights.stat().st_size,
        config_json=header.config.to_json(),
        trained_on=tuple(s.images.name if s.is_release else s.identity for s in data),
        recipe_json=result.recipe.to_json(),
        metrics=result.metrics,
        created_at=now,
    )
    while True:
        versions = list_proposers(store)
        for version in versions:
            if (version.sha256, version.trained_on) == (draft.sha256, draft.trained_on):
                return version
        name = _free_name(store, versions, digest)
        if not _put_weights(store, name, result.weights, digest):
            continue  # another writer was faster, with other weights
        version = replace(draft, name=name)
        if store.put_if_absent(_record_key(name), _VERSION.dump_json(version, indent=2)):
            logger.info("proposer %s, for %s", name, header.model_id)
            return version


def list_proposers(store: ObjectStore) -> list[ProposerVersion]:
    """Return all versions, oldest first.

    Raises:
        WorkspaceError: a record is damaged.
    """
    found = (_RECORD_KEY.fullmatch(key) for key in store.list(_PREFIX))
    names = sorted((match[1] for match in found if match is not None), key=_number)
    return [_read_record(store, name) for name in names]


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
    key = _weights_key(version.name)
    with TemporaryDirectory(prefix="maskwheel-") as folder:
        path = Path(folder) / "weights.safetensors"
        with store.open(key) as source, path.open("xb") as copy:
            digest = _digest(source, copy)
        if digest != version.sha256:
            raise WorkspaceError(
                f"{key} is not what was registered (sha256 {digest[:12]}, expected "
                f"{version.sha256[:12]}): tampered with or damaged; restore it from a backup"
            )
        return read_proposer(path, sam, version.name)


def _free_name(store: ObjectStore, versions: Sequence[ProposerVersion], sha256: str) -> str:
    """Return the first number after the versions that no other weights have taken."""
    number = 1 + max((_number(version.name) for version in versions), default=0)
    while store.exists(key := _weights_key(f"p{number}")) and _stored(store, key) != sha256:
        number += 1
    return f"p{number}"


def _put_weights(store: ObjectStore, name: str, weights: Path, sha256: str) -> bool:
    """Write the weights; return whether they are now under this name, whoever wrote them."""
    key = _weights_key(name)
    return store.put_file_if_absent(key, weights) or _stored(store, key) == sha256


def _read_record(store: ObjectStore, name: str) -> ProposerVersion:
    key = _record_key(name)
    try:
        version = _VERSION.validate_json(store.get(key))
    except ValidationError as error:
        raise WorkspaceError(f"{key} is damaged: {error}; restore it from a backup") from error
    if version.name != name:
        raise WorkspaceError(f"{key} is damaged: it is the record of {version.name!r}")
    return version


def _stored(store: ObjectStore, key: str) -> str:
    with store.open(key) as stream:
        return _digest(stream)


def _digest(source: BinaryIO, copy: BinaryIO | None = None) -> str:
    """Return the sha256 of a stream, copying it on the way."""
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK_BYTES):
        digest.update(chunk)
        if copy is not None:
            copy.write(chunk)
    return digest.hexdigest()


def _number(name: str) -> int:
    return int(name.removeprefix("p"))


def _record_key(name: str) -> str:
    return f"{_PREFIX}{name}/version.json"


def _weights_key(name: str) -> str:
    return f"{_PREFIX}{name}/weights.safetensors"
