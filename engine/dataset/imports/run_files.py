"""What an import writes of one run: its shards, and what lies beside them.

    totals = write_run(store, manifest, masks, present, rejected_images, folder)

Beside the shards lie ``notes.parquet``, per mask what the source called it and said about it, and
``rejected.jsonl``, what could not be used and why.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from engine.dataset.imports.protocol import ImportedMask, Rejected
from engine.dataset.runs import RunManifest, pending_shards
from engine.dataset.shards import ImageMasks, mask_id, write_shard
from engine.objects import ObjectStore
from engine.records import Shard, SkippedImage

__all__ = ["NOTES_FILE", "REJECTED_FILE", "RunTotals", "beside_run", "write_run"]

NOTES_FILE, REJECTED_FILE = "notes.parquet", "rejected.jsonl"
_NOTES = pa.schema(
    {
        "mask_id": pa.int64(),
        "image_id": pa.int64(),
        "image_key": pa.string(),
        "source_id": pa.string(),
        "category": pa.string(),
        "is_crowd": pa.bool_(),
        "stage": pa.string(),
        "model_id": pa.string(),
        "run_id": pa.string(),
    }
)
_NOTES_ROWS = 5000
_GONE = SkippedImage("", "not-found", "it was there when the import was begun and is not now")


@dataclass(slots=True)
class RunTotals:
    """What a run holds.

    Attributes:
        images: number of images.
        masks: number of masks.
        rejected: number of masks that could not be used, by reason.
    """

    images: int = 0
    masks: int = 0
    rejected: Counter[str] = field(default_factory=Counter)


def beside_run(run_id: str, name: str) -> str:
    """Return the object key of a file that lies beside a run's shards."""
    return f"runs/{run_id}/{name}"


def write_run(
    store: ObjectStore,
    manifest: RunManifest,
    masks: Iterator[tuple[int | None, ImportedMask | Rejected]],
    present: Collection[int],
    rejected_images: Sequence[Rejected],
    folder: Path,
    on_image: Callable[[str, int], None],
) -> RunTotals:
    """Write the shards of a run that are missing, and the files beside them.

    Args:
        store: where the run is.
        manifest: its images.
        masks: of the source, by their images' ids; those of other images are passed over.
        present: the images that can be read now; others of an interrupted run are skipped.
        rejected_images: those that cannot be used at all.
        folder: for temporary files.
        on_image: called with "" and its number of masks for each image.
    """
    totals = RunTotals()
    pending = {shard.index for shard in pending_shards(store, manifest)}
    rejected_path, notes_path = folder / REJECTED_FILE, folder / NOTES_FILE
    with (
        rejected_path.open("w", encoding="utf-8") as stream,
        pq.ParquetWriter(notes_path, _NOTES, compression="zstd") as writer,
    ):
        for image in rejected_images:
            _write_line(stream, image)
        notes = _Notes(writer, manifest.recipe.recipe_id)
        wanted = {image_id for shard in manifest.shards for image_id in shard.image_ids}
        of_run = (item for item in masks if item[0] is None or item[0] in wanted)
        images = _by_image(of_run, stream, totals)
        held = next(images, None)
        for shard in manifest.shards:
            results = []
            for image_id in shard.image_ids:
                found: list[ImportedMask] = []
                if held is not None and held[0] == image_id:
                    found = held[1]
                    held = next(images, None)
                results.append(_result(image_id, found, image_id in present))
                notes.add(image_id, found)
                totals.masks += len(found)
                on_image("", len(found))
            _write(store, manifest, shard, results if shard.index in pending else None)
            totals.images += len(shard.image_ids)
        notes.flush()
    store.put_file_if_absent(beside_run(manifest.run_id, NOTES_FILE), notes_path)
    if rejected_images or totals.rejected:
        store.put_file_if_absent(beside_run(manifest.run_id, REJECTED_FILE), rejected_path)
    return totals


def _write(
    store: ObjectStore, manifest: RunManifest, shard: Shard, results: list[ImageMasks] | None
) -> None:
    if results is not None:
        write_shard(store, shard, results, manifest.provenance)


def _result(image_id: int, masks: Sequence[ImportedMask], is_present: bool) -> ImageMasks:
    if is_present:
        return ImageMasks(image_id, [mask.record for mask in masks])
    return ImageMasks(image_id, (), _GONE)


def _by_image(
    masks: Iterator[tuple[int | None, ImportedMask | Rejected]],
    stream: TextIO,
    totals: RunTotals,
) -> Iterator[tuple[int, list[ImportedMask]]]:
    """Yield the usable masks of each image that has any; write down the others."""
    for image_id, group in groupby(masks, key=lambda item: item[0]):
        usable: list[ImportedMask] = []
        for _, mask in group:
            if isinstance(mask, Rejected):
                totals.rejected[mask.reason] += 1
                _write_line(stream, mask)
            else:
                usable.append(mask)
        if image_id is not None and usable:
            yield image_id, usable


def _write_line(stream: TextIO, rejected: Rejected) -> None:
    stream.write(json.dumps(asdict(rejected), ensure_ascii=False) + "\n")


class _Notes:
    def __init__(self, writer: pq.ParquetWriter, recipe_id: str) -> None:
        self._writer, self._recipe_id = writer, recipe_id
        self._rows: list[dict[str, object]] = []

    def add(self, image_id: int, masks: Sequence[ImportedMask]) -> None:
        self._rows += [
            {
                "mask_id": mask_id(self._recipe_id, image_id, index),
                "image_id": image_id,
                "image_key": mask.image_key,
                "source_id": mask.source_id,
                "category": mask.category,
                "is_crowd": mask.is_crowd,
                "stage": mask.stage,
                "model_id": mask.model_id,
                "run_id": mask.run_id,
            }
            for index, mask in enumerate(masks)
        ]
        if len(self._rows) >= _NOTES_ROWS:
            self.flush()

    def flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=_NOTES))
        self._rows.clear()
