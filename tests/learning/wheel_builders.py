"""A small workspace that the wheel can turn on: painted photos, people's masks, a model's masks.

    with Workspace.open(tmp_path / "birds") as workspace:
        add_photos(workspace, folder, 14)
        publish_masks(workspace, discs_of, stage="manual")

The photos show discs, and the true masks are known; a model in it is tiny and knows nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.dataset.catalog import Workspace
from engine.dataset.ingest import expand_inputs, ingest, load_images
from engine.dataset.publishing import Gate
from engine.dataset.runs import (
    Recipe,
    RunKind,
    Stage,
    commit_run,
    pending_shards,
    plan_runs,
)
from engine.dataset.shards import ImageMasks, write_shard
from engine.images import ImageLimits, encode_png
from engine.learning.promotion import roll_back
from engine.learning.registry import import_checkpoint
from engine.records import MaskRecord, ModelVersion, Release
from model import save_sam
from tests.model.small_models import SMALL_COMPACT, small_sam
from tests.quality.release_builders import mask

NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
HEIGHT, WIDTH = 72, 96

Discs = Callable[[str], Sequence[MaskRecord]]
"""The masks of the photo of a file name."""


def disc_masks(number: int, shrink_px: int = 0) -> list[NDArray[np.bool_]]:
    """The two discs of a photo, bool (H, W); smaller than they are where asked for."""
    random = np.random.default_rng(number)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    found = []
    for half in (0, 1):
        centre_y = int(random.integers(24, HEIGHT - 24))
        centre_x = 24 + 48 * half
        radius = int(random.integers(14, 20)) - shrink_px
        found.append(np.hypot(y - centre_y, x - centre_x) < radius)
    return found


def add_photos(workspace: Workspace, folder: Path, count: int, *, first: int = 0) -> None:
    """Write photos of discs on noise, ``000.png`` and on, and ingest them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        random = np.random.default_rng(1000 + number)
        photo = random.integers(60, 120, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        for disc_HW in disc_masks(number):
            photo[disc_HW] = random.integers(120, 255, 3)
        (folder / f"{number:03d}.png").write_bytes(encode_png(photo))
    ingest(workspace, expand_inputs([str(folder)]), ImageLimits(), NOW)


def true_discs(name: str) -> list[MaskRecord]:
    """What a careful person draws."""
    return [mask(disc_HW) for disc_HW in disc_masks(int(Path(name).stem))]


def small_discs(name: str) -> list[MaskRecord]:
    """What a model that is a little off draws."""
    return [mask(disc_HW) for disc_HW in disc_masks(int(Path(name).stem), shrink_px=3)]


def publish_masks(
    workspace: Workspace,
    masks_of: Discs,
    *,
    stage: Stage,
    maker: str = "human",
    names: Sequence[str] | None = None,
    gate: Gate | None = None,
) -> Release:
    """Publish a run with the masks of the photos of these names; None: of all."""
    rows = workspace.table("images").scan(selected_fields=("image_id", "uri")).to_arrow()
    ids = [
        int(row["image_id"])
        for row in rows.to_pylist()
        if names is None or Path(row["uri"]).name in names
    ]
    recipe = Recipe.of(maker, {"stage": stage, "images": sorted(ids)})
    kind: RunKind = "auto" if stage == "auto" else "import"
    (run,) = plan_runs(workspace, ids, recipe, 6, NOW, kind=kind, stage=stage)
    for shard in pending_shards(workspace.store, run):
        found = [
            ImageMasks(image.image_id, masks_of(Path(image.uri).name))
            for image in load_images(workspace, shard.image_ids)
        ]
        write_shard(workspace.store, shard, found, run.provenance)
    return commit_run(workspace, run, gate)


def with_tiny_champion(workspace: Workspace, folder: Path, seed: int = 0) -> ModelVersion:
    """Make a model that answers in milliseconds, and knows nothing, the champion."""
    path = folder / f"tiny-{seed}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    save_sam(small_sam(SMALL_COMPACT, seed), path)
    version = import_checkpoint(workspace.store, path, now=NOW)
    roll_back(workspace.store, version.name, by="the test", now=NOW)
    return version
