"""One shard of the automatic stage: read images, mask them, write one Parquet file.

The next images are read and decoded while the model works on the current one: few ahead from a
folder, many over a network, and never more than fit in half a gigabyte. An image that cannot be
used is recorded with its reason; it never stops the shard. The file appears whole or not at all,
so a killed worker leaves nothing that would have to be repaired.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from engine.automatic.config import AutomaticConfig
from engine.automatic.generator import Segmenter, generate_masks
from engine.dataset.catalog import Workspace
from engine.dataset.ingest import load_images
from engine.dataset.runs import RunManifest
from engine.dataset.shards import ImageMasks, write_shard
from engine.errors import BadInputError, ImageError
from engine.images import (
    ImageLimits,
    content_id,
    decode_image,
    read_ahead,
    read_image_bytes,
    reading_depth,
)
from engine.learning.decisions import CHAMPION, current_champion
from engine.learning.registry import find_version, load_model
from engine.objects import ObjectStore, open_store
from engine.records import ImageRecord, Shard, SkippedImage
from model import SIZES, CheckpointError, Sam, build_sam, load_sam

logger = logging.getLogger(__name__)

_READ_AHEAD_BYTES = 512 * 1024 * 1024

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
    """

    model: str = "bundled"
    device: str | None = None
    precision: str = "float32"
    workspace: str | None = None


def pinned(spec: ModelSpec) -> ModelSpec:
    """Replace ``champion`` by the name of the model that it means now.

    Done once, before a run: all its tasks use one model, whatever is promoted meanwhile.

    Raises:
        WorkspaceError: the workspace's record of its champions is damaged.
    """
    store = _models(spec)
    if store is None or spec.model != CHAMPION:
        return spec
    version = current_champion(store)
    logger.info("the champion is %s (%s)", version.name, version.model_id)
    return replace(spec, model=version.name)


def cached_model(spec: ModelSpec) -> Sam:
    """Load a model once per process.

    Raises:
        BadInputError: an unknown name or precision, or a checkpoint that cannot be used.
        WorkspaceError: a registered model whose weights are not those that were registered.
    """
    return _loaded(pinned(spec))


@lru_cache(maxsize=1)
def _loaded(spec: ModelSpec) -> Sam:
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
) -> bool:
    """Mask the images of one shard and write it.

    Args:
        workspace: where the images are known and the shard goes.
        shard: what to mask.
        manifest: the run that planned the shard; its settings are used.
        sam: the model that the run was planned with.
        limits: what is too large to be decoded.
        on_image: for progress.

    Returns:
        Whether this call wrote the shard; False when another worker was first.
    """
    images = load_images(workspace, shard.image_ids)
    results = _mask_images(images, sam, config_of(manifest), limits, on_image)
    return write_shard(workspace.store, shard, results, manifest.provenance)


def _mask_images(
    images: Sequence[ImageRecord],
    sam: Segmenter,
    config: AutomaticConfig,
    limits: ImageLimits,
    on_image: Listener | None,
) -> Iterator[ImageMasks]:
    ahead = read_ahead(
        images,
        partial(_read, limits=limits),
        depth=reading_depth(image.uri for image in images),
        size_bytes=_held_bytes,
        budget_bytes=_READ_AHEAD_BYTES,
    )
    for image, pixels in ahead:
        if isinstance(pixels, SkippedImage):
            logger.warning("skipped %s (%s): %s", image.uri, pixels.reason, pixels.message)
            result = ImageMasks(image.image_id, skipped=pixels)
        else:
            result = ImageMasks(image.image_id, generate_masks(sam, pixels, config))
        if on_image is not None:
            on_image(image.uri, len(result.masks))
        yield result


def _held_bytes(image: ImageRecord) -> int:
    """Bytes of the pixels, twice: while they are decoded the file is there too."""
    return 2 * 3 * image.width * image.height


def _read(image: ImageRecord, limits: ImageLimits) -> NDArray[np.uint8] | SkippedImage:
    try:
        data = read_image_bytes(image.uri, limits)
        if content_id(data)[0] != image.image_id:
            raise ImageError("changed", "the file is not the one that was ingested; ingest it anew")
        return decode_image(data, limits)
    except ImageError as error:
        return SkippedImage(image.uri, error.reason, str(error))
