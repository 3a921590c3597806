"""Small real releases for the tests of engine.quality: photos on disk, masks in shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.dataset.catalog import Workspace
from engine.dataset.ingest import expand_inputs, ingest, load_images
from engine.dataset.runs import Recipe, RunManifest, commit_run, pending_shards, plan_runs
from engine.dataset.shards import ImageMasks, write_shard
from engine.images import ImageLimits, encode_png
from engine.masks import encode_mask, mask_box_xyxy
from engine.records import MaskRecord, Release, SkippedImage
from tests.dataset.dataset_builders import NOW

Results = Mapping[str, Sequence[MaskRecord] | SkippedImage]

RECIPE = Recipe.of("bundled-1", {"points_per_side": 8, "note": "<b>bold</b> & more"})


def photo(seed: int, height: int = 60, width: int = 80) -> NDArray[np.uint8]:
    """A smooth picture, different for each seed."""
    y, x = np.mgrid[:height, :width]
    channels = [(x * (seed + 1) + y * (c + 2)) // 2 % 256 for c in range(3)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def mask(
    mask_HW: NDArray[np.bool_], predicted_iou: float = 0.9, stability_score: float = 0.95
) -> MaskRecord:
    """A record of a mask, with its true box and area."""
    rle = encode_mask(mask_HW)
    x0, y0, x1, y1 = mask_box_xyxy(rle) or (0, 0, 0, 0)
    return MaskRecord(
        rle=rle,
        bbox_xywh=(x0, y0, x1 - x0, y1 - y0),
        area=int(mask_HW.sum()),
        predicted_iou=predicted_iou,
        stability_score=stability_score,
        crop_box_xywh=(0, 0, rle.width, rle.height),
        point_xy=(x0 + 0.5, y0 + 0.5),
    )


def rectangle(
    x: int, y: int, w: int, h: int, height: int = 60, width: int = 80, iou: float = 0.9
) -> MaskRecord:
    """A mask of w x h pixels at (x, y)."""
    mask_HW = np.zeros((height, width), dtype=np.bool_)
    mask_HW[y : y + h, x : x + w] = True
    return mask(mask_HW, iou)


def random_rectangles(seed: int, count: int) -> list[MaskRecord]:
    """Masks of many sizes with different scores, on an 80 x 60 photo."""
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        w, h = draw.integers(1, 60), draw.integers(1, 50)
        x, y = draw.integers(0, 80 - w + 1), draw.integers(0, 60 - h + 1)
        found.append(rectangle(int(x), int(y), int(w), int(h), iou=float(draw.uniform(0.5, 1.1))))
    return found


def write_photos(folder: Path, names: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        (folder / name).write_bytes(encode_png(photo(seed)))


def plan(workspace: Workspace, photos: Path, recipe: Recipe = RECIPE) -> RunManifest:
    found = ingest(workspace, expand_inputs([str(photos)]), ImageLimits(), NOW)
    return plan_runs(workspace, found.image_ids, recipe, images_per_shard=2, now=NOW)[-1]


def release_of(
    workspace: Workspace,
    photos: Path,
    results: Results,
    recipe: Recipe = RECIPE,
) -> Release:
    """Ingest a folder and publish a run in which the named photos have those results."""
    run = plan(workspace, photos, recipe)
    write_shards(workspace, run, results)
    return commit_run(workspace, run)


def write_shards(
    workspace: Workspace,
    run: RunManifest,
    results: Results,
) -> None:
    for shard in pending_shards(workspace.store, run):
        found = []
        for image in load_images(workspace, shard.image_ids):
            result = results.get(Path(image.uri).name, ())
            if isinstance(result, SkippedImage):
                found.append(ImageMasks(image.image_id, (), result))
            else:
                found.append(ImageMasks(image.image_id, result))
        write_shard(workspace.store, shard, found, run.provenance)


def id_of(workspace: Workspace, name: str) -> int:
    """The id of the photo of that file name."""
    rows = workspace.table("images").scan(selected_fields=("image_id", "uri")).to_arrow()
    return next(int(r["image_id"]) for r in rows.to_pylist() if Path(r["uri"]).name == name)
