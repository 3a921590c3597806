"""The models of a workspace: every training and every import becomes a version that never changes.

    version = register(store, sam, ModelOrigin(kind="trained", trained_on=("r3",)), now=now)
    sam = load_model(store, find_version(store, "m1"))

A version is two objects, written once: ``models/m1/weights.safetensors``, then
``models/m1/version.json``. The second makes the version visible, so a crash between them leaves
nothing but weights that no version names; the same call again takes them up.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import torch
from pydantic import TypeAdapter, ValidationError

from engine.errors import BadInputError, WorkspaceError
from engine.objects import ObjectStore
from engine.records import ModelMetric, ModelOrigin, ModelVersion
from model import CheckpointError, Sam, SamConfig, load_sam, save_sam
from model.checkpoint import BUNDLED_WEIGHTS, read_checkpoint

__all__ = [
    "BUILT_IN",
    "built_in_version",
    "find_version",
    "import_checkpoint",
    "list_versions",
    "load_model",
    "register",
]

logger = logging.getLogger(__name__)

BUILT_IN = "bundled"
_PREFIX = "models/"
_RECORD_KEY = re.compile(r"models/(m[1-9]\d*)/version\.json")
_VERSION = TypeAdapter(ModelVersion)
_CHUNK_BYTES = 4 * 1024 * 1024


def register(
    store: ObjectStore,
    sam: Sam,
    origin: ModelOrigin,
    *,
    metrics: Sequence[ModelMetric] = (),
    now: datetime,
) -> ModelVersion:
    """Keep a model as a new version.

    Replayable: weights that are registered already with the same origin give that version again,
    so a training that is killed after its last step and resumed does not appear twice.

    Args:
        store: of the workspace.
        sam: the model; its weights are kept in the precision that it has.
        origin: where it comes from.
        metrics: what it was measured to reach, if it was.
        now: UTC.

    Raises:
        BadInputError: a parent that is no version.
        WorkspaceError: the store cannot be written, or a record in it is damaged.
    """
    with TemporaryDirectory(prefix="maskwheel-") as folder:
        weights = Path(folder) / "weights.safetensors"
        save_sam(sam, weights)
        return _register_file(store, weights, origin, metrics, now)


def import_checkpoint(store: ObjectStore, checkpoint: Path, *, now: datetime) -> ModelVersion:
    """Make a version of a checkpoint file: an official SAM ``.pth``, or .safetensors.

    A .safetensors file that carries its configuration is kept byte for byte.

    Raises:
        BadInputError: not a checkpoint that can be loaded.
        WorkspaceError: the store cannot be written, or a record in it is damaged.
    """
    origin = ModelOrigin(kind="imported", source=checkpoint.name)
    try:
        if checkpoint.suffix == ".safetensors" and read_checkpoint(checkpoint)[1] is not None:
            return _register_file(store, checkpoint, origin, (), now)
        sam = load_sam(checkpoint, device="cpu")
    except CheckpointError as error:
        raise BadInputError(f"{checkpoint} cannot be imported: {error}") from error
    return register(store, sam, origin, now=now)


def list_versions(store: ObjectStore) -> list[ModelVersion]:
    """Return all versions, oldest first; the built-in model is the first.

    Raises:
        WorkspaceError: a record is damaged.
    """
    return [built_in_version(), *_registered(store)]


def find_version(store: ObjectStore, name: str) -> ModelVersion:
    """Return a version by its name (``m3``) or its model id (``bundled-0123456789ab``).

    Raises:
        BadInputError: there is none.
        WorkspaceError: a record is damaged.
    """
    versions = _registered(store)
    for version in versions:
        if name in (version.name, version.model_id):
            return version
    if name == BUILT_IN or name == built_in_version().model_id:
        return built_in_version()
    known = ", ".join([BUILT_IN, *(version.name for version in versions)])
    raise BadInputError(
        f"unknown model {name!r}; the workspace has {known} "
        "(`maskwheel models list`), and a checkpoint file becomes one by `maskwheel models import`"
    )


def load_model(
    store: ObjectStore,
    version: ModelVersion,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Sam:
    """Load a version's weights after checking that they are the ones that were registered.

    Args:
        store: of the workspace.
        version: which.
        device: by default the best there is.
        dtype: to compute in.

    Raises:
        WorkspaceError: the weights are missing, or not those that were registered.
    """
    with _weights_file(store, version) as path:
        try:
            return load_sam(path, device=device, dtype=dtype)
        except CheckpointError as error:
            raise WorkspaceError(f"model {version.name} cannot be loaded: {error}") from error


@lru_cache(maxsize=1)
def built_in_version() -> ModelVersion:
    """Return the model that ships with Maskwheel as a version; it changes with Maskwheel only."""
    with _built_in_file() as path:
        return _describe(path, BUILT_IN, ModelOrigin(kind="built-in"), (), None)


def _register_file(
    store: ObjectStore,
    weights: Path,
    origin: ModelOrigin,
    metrics: Sequence[ModelMetric],
    now: datetime,
) -> ModelVersion:
    draft = _describe(weights, "", origin, metrics, now)
    while True:
        versions = _registered(store)
        known = [BUILT_IN, *(version.name for version in versions)]
        if origin.parent is not None and origin.parent not in known:
            raise BadInputError(
                f"got the parent {origin.parent!r}; expected one of {', '.join(known)}"
            )
        for version in versions:
            if (version.sha256, version.origin) == (draft.sha256, origin):
                return version
        name = _free_name(store, versions, draft.sha256)
        if not _put_weights(store, name, weights, draft.sha256):
            continue
        version = dataclasses.replace(draft, name=name)
        if store.put_if_absent(_record_key(name), _VERSION.dump_json(version, indent=2)):
            logger.info("model %s: %s, %s", name, version.model_id, origin.kind)
            return version


def _free_name(store: ObjectStore, versions: Sequence[ModelVersion], sha256: str) -> str:
    """Return the first number after the versions that no other weights have taken.

    Weights without a version are those of a writer that was killed, or that is about to write it.
    """
    number = 1 + max((_number(version.name) for version in versions), default=0)
    while (
        store.exists(key := _weights_key(f"m{number}")) and _digest_of_object(store, key) != sha256
    ):
        number += 1
    return f"m{number}"


def _put_weights(store: ObjectStore, name: str, weights: Path, sha256: str) -> bool:
    """Write the weights; return whether they are now under this name, whoever wrote them."""
    key = _weights_key(name)
    return store.put_file_if_absent(key, weights) or _digest_of_object(store, key) == sha256


def _describe(
    weights: Path,
    name: str,
    origin: ModelOrigin,
    metrics: Sequence[ModelMetric],
    now: datetime | None,
) -> ModelVersion:
    sam = load_sam(weights, device="cpu")
    with weights.open("rb") as stream:
        digest = _digest(stream)
    return ModelVersion(
        name=name,
        model_id=sam.model_id(),
        sha256=digest,
        size_bytes=weights.stat().st_size,
        config_json=_config_json(sam.config),
        origin=origin,
        metrics=tuple(metrics),
        created_at=now,
    )


def _config_json(config: SamConfig) -> str:
    return json.dumps(dataclasses.asdict(config), sort_keys=True, separators=(",", ":"))


def _registered(store: ObjectStore) -> list[ModelVersion]:
    names = [
        found[1] for key in store.list(_PREFIX) if (found := _RECORD_KEY.fullmatch(key)) is not None
    ]
    return [_read_record(store, name) for name in sorted(names, key=_number)]


def _read_record(store: ObjectStore, name: str) -> ModelVersion:
    key = _record_key(name)
    try:
        version = _VERSION.validate_json(store.get(key))
    except ValidationError as error:
        raise WorkspaceError(f"{key} is damaged: {error}; restore it from a backup") from error
    if version.name != name:
        raise WorkspaceError(f"{key} is damaged: it is the record of {version.name!r}")
    return version


@contextmanager
def _weights_file(store: ObjectStore, version: ModelVersion) -> Iterator[Path]:
    """Lend the weights as a local file, checked while they are copied."""
    if version.name == BUILT_IN:
        with _built_in_file() as path:
            yield path
        return
    key = _weights_key(version.name)
    with TemporaryDirectory(prefix="maskwheel-") as folder:
        path = Path(folder) / "weights.safetensors"
        with store.open(key) as source, path.open("xb") as copy:
            digest = _digest(source, copy)
        if digest != version.sha256:
            raise WorkspaceError(
                f"{key} is not what was registered (sha256 {digest[:12]}, expected "
                f"{version.sha256[:12]}): tampered with or damaged; restore it from a backup, or "
                "roll back to another version"
            )
        yield path


@contextmanager
def _built_in_file() -> Iterator[Path]:
    with resources.as_file(resources.files("model") / "weights" / BUNDLED_WEIGHTS) as path:
        yield path


def _digest_of_object(store: ObjectStore, key: str) -> str:
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
    return int(name.removeprefix("m"))


def _record_key(name: str) -> str:
    return f"{_PREFIX}{name}/version.json"


def _weights_key(name: str) -> str:
    return f"{_PREFIX}{name}/weights.safetensors"
