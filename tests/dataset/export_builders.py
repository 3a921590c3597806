"""A small release with all that makes an export hard, and what its masks are."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.dataset.catalog import Workspace
from engine.dataset.exports.exporting import export_release
from engine.dataset.exports.protocol import ExportOptions
from engine.dataset.exports.report import ExportReport
from engine.dataset.ingest import ingest, load_images
from engine.dataset.inputs import expand_inputs
from engine.dataset.runs import Recipe, commit_run, pending_shards, plan_runs
from engine.dataset.shards import ImageMasks, write_shard
from engine.images import ImageLimits, encode_jpeg, encode_png
from engine.masks import decode_mask
from engine.records import MaskRecord, Release
from tests.dataset.dataset_builders import NOW
from tests.quality.release_builders import mask, photo

HEIGHT, WIDTH = 60, 80
LIMITS = ImageLimits()
FORMATS = ("sa1b", "coco", "webdataset", "huggingface", "yolo", "png")


@dataclass(frozen=True)
class Made:
    """A release, and its masks by the photos' names in the order of the export.

    `never_masked` is a photo that no run has looked at.
    """

    address: str
    release: Release
    ids: Mapping[str, int]
    masks: Mapping[str, Sequence[MaskRecord]]
    photos: Path

    def name_of(self, image_id: int) -> str:
        return next(name for name, known in self.ids.items() if known == image_id)


def shapes() -> list[MaskRecord]:
    """A ring, two parts, a dot, a line, two crossing bars, everything."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    away = np.hypot(y - 30, x - 40)
    two_parts = np.hypot(y - 15, x - 15) < 9
    two_parts |= np.hypot(y - 45, x - 60) < 12
    holes = (y > 5) & (y < 55) & (x > 5) & (x < 75)
    holes &= ~((y > 15) & (y < 25) & (x > 15) & (x < 30))
    holes &= ~((y > 35) & (y < 45) & (x > 45) & (x < 60))
    bars = (abs(y - 20) < 3) | (abs(x - 50) < 4)
    found = [(away < 25) & (away > 12), two_parts, (y == 7) & (x == 9), (y == 30) & (x > 20)]
    return [mask(shape) for shape in (*found, bars, holes, np.ones_like(holes))]


def blobs(seed: int, count: int) -> list[MaskRecord]:
    """Round masks at random places, with different scores; every second one has no point."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    found = []
    for index in range(count):
        cy, cx, radius = draw.uniform(5, 55), draw.uniform(5, 75), draw.uniform(2, 20)
        shape = np.hypot(y - cy, (x - cx) * draw.uniform(0.5, 2)) < radius
        made = mask(shape, *draw.uniform(0, 1, 2).tolist())
        found.append(made if index % 2 else replace(made, point_xy=None))
    return found


def make_release(root: Path) -> Made:
    """Publish two runs over photos of several kinds and splits."""
    photos = root / "photos"
    photos.mkdir()
    first = {
        "plain.jpg": blobs(6, 6),
        "shapes.png": shapes(),
        "turned.jpg": blobs(2, 4),
        "empty.png": [],
        "later.png": blobs(3, 3),
    }
    second = {"plain.jpg": blobs(4, 2), "extra.jpg": blobs(5, 5)}
    (photos / "plain.jpg").write_bytes(encode_jpeg(photo(1)))
    (photos / "extra.jpg").write_bytes(encode_jpeg(photo(2)))
    (photos / "turned.jpg").write_bytes(turned_jpeg(photo(3)))
    for seed, name in enumerate(("shapes.png", "empty.png", "later.png", "never_masked.png")):
        (photos / name).write_bytes(encode_png(photo(10 + seed)))
    splits = {"plain.jpg": "train", "turned.jpg": "val", "later.png": "val"}
    listed = root / "list.csv"
    with listed.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["uri", "license", "split"])
        for path in sorted(photos.iterdir()):
            license_ = "CC-BY-4.0" if path.suffix == ".jpg" else ""
            writer.writerow([str(path), license_, splits.get(path.name, "train")])
    address = str(root / "workspace")
    with Workspace.open(address) as workspace:
        found = ingest(workspace, expand_inputs([str(listed)]), LIMITS, NOW)
        ids = {
            Path(image.uri).name: image.image_id
            for image in load_images(workspace, found.image_ids)
        }
        publish(workspace, {ids[name]: masks for name, masks in first.items()}, "first")
        release = publish(workspace, {ids[name]: masks for name, masks in second.items()}, "second")
    runs = sorted(release.runs)  # shards are read by name, so runs come by id
    by_run = {release.runs[0]: first, release.runs[1]: second}
    masks = {
        name: [m for run in runs for m in by_run[run].get(name, [])] for name in first | second
    }
    return Made(address, release, ids, masks, photos)


def publish(
    workspace: Workspace, masks: Mapping[int, Sequence[MaskRecord]], model_id: str, shard: int = 2
) -> Release:
    """Publish a run with these masks by image id."""
    (run,) = plan_runs(workspace, list(masks), Recipe.of(model_id, {}), shard, NOW)
    for part in pending_shards(workspace.store, run):
        results = [ImageMasks(image_id, masks[image_id]) for image_id in part.image_ids]
        write_shard(workspace.store, part, results, run.provenance)
    return commit_run(workspace, run)


def export(made: Made, target: Path | str, **options: object) -> ExportReport:
    """Export a release with options of `ExportOptions`, or `threads` and `on_image`."""
    calls = {name: options.pop(name) for name in ("threads", "on_image") if name in options}
    with Workspace.open(made.address, create=False) as workspace:
        return export_release(
            workspace,
            made.release,
            ExportOptions(**options),  # type: ignore[arg-type]
            str(target),
            limits=LIMITS,
            now=NOW,
            **calls,  # type: ignore[arg-type]
        )


def turned_jpeg(image_HWC3: NDArray[np.uint8]) -> bytes:
    """A JPEG stored lying on its side, which EXIF orientation 6 puts upright."""
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(image_HWC3)))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    stored.save(buffer, "JPEG", quality=95, exif=exif.tobytes())
    return buffer.getvalue()


def pixels(record: MaskRecord) -> NDArray[np.bool_]:
    return decode_mask(record.rle)


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
