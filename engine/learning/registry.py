"""The models of a workspace: every training and every import becomes a version that never changes.

    version = register(store, sam, ModelOrigin(kind="trained", trained_on=("r3",)), now=now)
    sam = load_model(store, find_version(store, "m1"))

A version is two objects, written once: ``models/m1/weights.safetensors``, then
``models/m1/version.json``. The second makes the version visible, so a crash between them leaves
nothing but weights that no version names; the same call again takes them up.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from engine.errors import BadInputError, WorkspaceError
from engine.learning.model_records import BUILT_IN, MODEL_FILES
from engine.learning.version_files import file_digest
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
    return [built_in_version(), *MODEL_FILES.versions(store)]


def find_version(store: ObjectStore, name: str) -> ModelVersion:
    """Return a version by its name (``m3``) or its model id (``bundled-0123456789ab``).

    Raises:
        BadInputError: there is none.
        WorkspaceError: a record is damaged.
    """
    versions = MODEL_FILES.versions(store)
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

    def check_parent(versions: Sequence[ModelVersion]) -> None:
        known = [BUILT_IN, *(version.name for version in versions)]
        if origin.parent is not None and origin.parent not in known:
            raise BadInputError(
                f"got the parent {origin.parent!r}; expected one of {', '.join(known)}"
            )

    def same(version: ModelVersion) -> bool:
        return (version.sha256, version.origin) == (draft.sha256, origin)

    version = MODEL_FILES.keep(store, weights, draft, same=same, check=check_parent)
    logger.info("model %s: %s, %s", version.name, version.model_id, origin.kind)
    return version


def _describe(
    weights: Path,
    name: str,
    origin: ModelOrigin,
    metrics: Sequence[ModelMetric],
    now: datetime | None,
) -> ModelVersion:
    sam = load_sam(weights, device="cpu")
    return ModelVersion(
        name=name,
        model_id=sam.model_id(),
        sha256=file_digest(weights),
        size_bytes=weights.stat().st_size,
        config_json=_config_json(sam.config),
        origin=origin,
        metrics=tuple(metrics),
        created_at=now,
    )


def _config_json(config: SamConfig) -> str:
    return json.dumps(dataclasses.asdict(config), sort_keys=True, separators=(",", ":"))


@contextmanager
def _weights_file(store: ObjectStore, version: ModelVersion) -> Iterator[Path]:
    """Lend the weights as a local file."""
    built_in = version.name == BUILT_IN
    with _built_in_file() if built_in else MODEL_FILES.weights(store, version) as path:
        yield path


@contextmanager
def _built_in_file() -> Iterator[Path]:
    with resources.as_file(resources.files("model") / "weights" / BUNDLED_WEIGHTS) as path:
        yield path
