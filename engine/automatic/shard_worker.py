"""One shard of the automatic stage: read images, mask them, write one Parquet file.

    outcome = run_shard(workspace, shard, manifest, cached_model(spec), limits)

An image that cannot be used is recorded with its reason; it never stops the shard. The file appears
whole or not at all, so a killed worker leaves nothing that would have to be repaired, and a shard
that two workers make is written once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from threading import Lock
from time import monotonic

import torch

from engine.automatic.config import AutomaticConfig
from engine.automatic.generator import Segmenter
from engine.automatic.pipeline import mask_images
from engine.automatic.worker_process import worker_name
from engine.config import Compile, default_environment
from engine.dataset.catalog import Workspace
from engine.dataset.ingest import load_images
from engine.dataset.runs import RunManifest
from engine.dataset.shards import ImageMasks, read_shard_statuses, write_shard
from engine.errors import BadInputError
from engine.images import ImageLimits
from engine.learning.decisions import CHAMPION, current_champion
from engine.learning.registry import find_version, load_model
from engine.objects import ObjectStore, open_store
from engine.records import ImageRecord, Shard, ShardOutcome
from model import SIZES, CheckpointError, Sam, build_sam, load_sam

logger = logging.getLogger(__name__)

COMPILED = Path("~/.cache/maskwheel/compiled")
"""Where compiled kernels are kept for the next process, unless TORCHINDUCTOR_CACHE_DIR says."""

_loading = Lock()

Listener = Callable[[str, int], None]
"""Called with an image's URI and its number of masks when it is done."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Which model to run and how; small and picklable, so tasks can carry it.

    Attributes:
        model: a name (``bundled``, ``vit_b``, ...), the path of a checkpoint, or a model registered
            in the workspace: ``m2``, its model id, or ``champion``.
        device: ``cpu``, ``cuda``, ``mps`` or None for the best there is.
        precision: ``float32``, ``bfloat16`` or ``float16``.
        workspace: the address whose models are meant; None: registered models are not known.
        compile: ``auto`` compiles a model where that pays, see `model.compiling`; ``off`` does not.
    """

    model: str = "bundled"
    device: str | None = None
    precision: str = "float32"
    workspace: str | None = None
    compile: Compile = "off"


def pinned(spec: ModelSpec) -> ModelSpec:
    """Replace ``champion`` by the name of the model that it means now, and a file by its full path.

    Done once, before a run: all its tasks use one model, whatever is promoted meanwhile, and in
    whatever folder they work.

    Raises:
        WorkspaceError: the workspace's record of its champions is damaged.
    """
    if Path(spec.model).suffix:
        return replace(spec, model=str(Path(spec.model).absolute()))
    store = _models(spec) if spec.model == CHAMPION else None
    if store is None:
        return spec
    version = current_champion(store)
    logger.info("the champion is %s (%s)", version.name, version.model_id)
    return replace(spec, model=version.name)


def cached_model(spec: ModelSpec) -> Sam:
    """Load a model once per process, in whatever threads it is asked for.

    Raises:
        BadInputError: an unknown name or precision, or a checkpoint that cannot be used.
        WorkspaceError: a registered model whose weights are not those that were registered.
    """
    wanted = pinned(spec)
    with _loading:  # several tasks may begin at once in the threads of one process
        return _loaded(wanted)


@lru_cache(maxsize=1)
def _loaded(spec: ModelSpec) -> Sam:
    sam = _load(spec)
    if spec.compile == "auto" and sam.device.type == "cuda":
        from model.compiling import compile_parts

        default_environment({"TORCHINDUCTOR_CACHE_DIR": str(COMPILED.expanduser())})
        compile_parts(sam)
    return sam


def _load(spec: ModelSpec) -> Sam:
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if spec.precision not in dtypes:
        raise BadInputError(f"precision must be one of {', '.join(dtypes)}; got {spec.precision!r}")
    dtype = dtypes[spec.precision]
    try:
        if spec.model in SIZES:
            return build_sam(spec.model, device=spec.device, dtype=dtype)
        if Path(spec.model).suffix:
            return load_sam(spec.model, device=spec.device, dtype=dtype)
        if (store := _models(spec)) is not None:
            return load_model(store, find_version(store, spec.model), spec.device, dtype)
    except (CheckpointError, RuntimeError, AssertionError) as error:
        raise BadInputError(f"model {spec.model!r} cannot be used: {error}") from error
    raise BadInputError(
        f"unknown model {spec.model!r}; expected {', '.join(sorted(SIZES))} or a checkpoint file"
    )


def _models(spec: ModelSpec) -> ObjectStore | None:
    """Return where registered models are, without opening the workspace's tables."""
    if spec.workspace is None:
        return None
    return open_store(spec.workspace)


def config_of(manifest: RunManifest) -> AutomaticConfig:
    """Read back the settings that a run was planned with."""
    return AutomaticConfig(**json.loads(manifest.recipe.config_json))


def run_shard(
    workspace: Workspace,
    shard: Shard,
    manifest: RunManifest,
    sam: Segmenter,
    limits: ImageLimits,
    on_image: Listener | None = None,
    *,
    images_at_once: int = 1,
) -> ShardOutcome:
    """Mask the images of one shard and write it, unless it is there.

    Args:
        workspace: where the images are known and the shard goes.
        shard: what to mask.
        manifest: the run that planned the shard; its settings are used.
        sam: the model that the run was planned with.
        limits: what is too large to be decoded.
        on_image: for progress; not called when the shard is there.
        images_at_once: see `mask_images`; it changes the speed, not the shard.
    """
    began = monotonic()
    if workspace.store.exists(shard.key):  # as when a worker was lost right after it wrote
        statuses = read_shard_statuses(workspace.store, shard)
        counts = [s.masks if s.status == "masked" else None for s in statuses]
        return _outcome(shard, counts, monotonic() - began, wrote=False)
    counts = []
    images = load_images(workspace, shard.image_ids)
    results = mask_images(images, sam, config_of(manifest), limits, images_at_once=images_at_once)
    counted = _counted(images, results, counts, on_image)
    wrote = write_shard(workspace.store, shard, counted, manifest.provenance)
    return _outcome(shard, counts, monotonic() - began, wrote=wrote)


def _counted(
    images: Sequence[ImageRecord],
    results: Iterable[ImageMasks],
    counts: list[int | None],
    on_image: Listener | None,
) -> Iterator[ImageMasks]:
    """Pass the results on; keep each image's number of masks, None for one that was skipped."""
    for image, result in zip(images, results, strict=True):
        counts.append(None if result.skipped else len(result.masks))
        if on_image is not None:
            on_image(image.uri, len(result.masks))
        yield result


def _outcome(
    shard: Shard, counts: Sequence[int | None], seconds: float, *, wrote: bool
) -> ShardOutcome:
    return ShardOutcome(
        index=shard.index,
        images=len(counts),
        masks=sum(count for count in counts if count is not None),
        skipped=counts.count(None),
        seconds=seconds,
        worker=worker_name(),
        wrote=wrote,
    )
