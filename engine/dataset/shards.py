"""Shards: the Parquet files that workers write, one per task; the file is the checkpoint.

    created = write_shard(store, shard, results, provenance)       # results: one per image
    statuses = read_shard_statuses(store, shard)

A shard holds the masks of its images as rows of table ``masks`` (zstd, sorted by image, row
groups cut at image boundaries) and, in its footer under ``maskwheel.images``, what became of
each image. Equal input gives equal bytes: there is no clock and no random number in it.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from engine.dataset.schemas import arrow_schema
from engine.errors import BadInputError, WorkspaceError
from engine.objects import ObjectStore
from engine.records import MaskRecord, Rle, Shard, SkippedImage

__all__ = [
    "RECORD_COLUMNS",
    "HandWork",
    "ImageMasks",
    "ImageStatus",
    "Provenance",
    "iter_image_masks",
    "mask_id",
    "masks_from_arrow",
    "read_shard_statuses",
    "write_shard",
]

ROW_GROUP_ROWS = 2000

# What a `MaskRecord` is made of.
RECORD_COLUMNS = (
    *("size_h", "size_w", "counts", "bbox_x", "bbox_y", "bbox_w", "bbox_h", "area"),
    *("predicted_iou", "stability_score", "crop_x", "crop_y", "crop_w", "crop_h", "point_coords"),
)

_STATUSES_KEY = b"maskwheel.images"
# Columns with few values; a dictionary of the others would be thrown away by the writer.
_DICTIONARY_COLUMNS = ["image_id", "size_h", "size_w", "stage", "model_id", "run_id", "created_at"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What all masks of a run have in common.

    Attributes:
        run_id: the run.
        recipe_id: its model and settings; part of every mask's id.
        model_id: the model that made the masks.
        stage: ``"auto"``, ``"semi"`` or ``"manual"``.
        created_at: start of the run, UTC; the same for all shards, however often they are retried.
    """

    run_id: str
    recipe_id: str
    model_id: str
    stage: Literal["manual", "semi", "auto"] = "auto"
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class HandWork:
    """What people did on one mask.

    Attributes:
        annotator_id: who made or confirmed it.
        active_seconds: their time on it.
        made: what became of the model's proposal; ``"new"``: there was none.
        prompts: what it was made with, as a JSON list.
        decoder: where the model answered; None: it was not asked.
        reviewer_id: who accepted or fixed it; None: nobody did.
    """

    annotator_id: str
    active_seconds: float
    made: Literal["kept", "corrected", "new"]
    prompts: str
    decoder: str | None = None
    reviewer_id: str | None = None


_NO_WORK: Mapping[str, None] = dict.fromkeys(work.name for work in fields(HandWork))


@dataclass(frozen=True, slots=True)
class ImageMasks:
    """What a worker found on one image.

    Attributes:
        image_id: the image.
        masks: in the order that numbers them; empty when there are none.
        skipped: why the image could not be used; then there are no masks.
        work: of each mask, if people made them.
        exhaustive: whether a person left nothing out, if one was asked.
    """

    image_id: int
    masks: Sequence[MaskRecord] = ()
    skipped: SkippedImage | None = None
    work: Sequence[HandWork] = ()
    exhaustive: bool | None = None


@dataclass(frozen=True, slots=True)
class ImageStatus:
    """What became of one image in a run.

    Attributes:
        image_id: the image.
        status: ``"masked"``, also with no mask at all, or ``"skipped"``.
        masks: number of masks.
        reason: why it was skipped, as in `ImageError.reason`.
        message: why it was skipped, for a person.
        exhaustive: whether a person left nothing out, if one was asked.
    """

    image_id: int
    status: Literal["masked", "skipped"]
    masks: int = 0
    reason: str | None = None
    message: str | None = None
    exhaustive: bool | None = None


def mask_id(recipe_id: str, image_id: int, index: int) -> int:
    """Return the id of an image's `index`-th mask under a recipe: 63 bits, always the same."""
    digest = hashlib.sha256(f"{recipe_id}/{image_id}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def write_shard(
    store: ObjectStore, shard: Shard, results: Iterable[ImageMasks], provenance: Provenance
) -> bool:
    """Write a shard unless it exists. Memory: one row group and one image's masks.

    Args:
        store: where the shard goes, under ``shard.key``.
        shard: its images, ascending.
        results: one per image of the shard, in the same order; consumed as the file grows.
        provenance: what all its masks have in common.

    Returns:
        Whether this call created the object; False when another worker was first.

    Raises:
        BadInputError: results that are not one per image in the shard's order, or with both
            masks and a reason to skip. Nothing is stored then.
        WorkspaceError: the store cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="maskwheel-") as folder:
        path = Path(folder) / "shard.parquet"
        _write_parquet(path, _in_order(shard, results), provenance)
        return store.put_file_if_absent(shard.key, path)


def read_shard_statuses(store: ObjectStore, shard: Shard) -> tuple[ImageStatus, ...]:
    """Return what became of each image of a written shard, from its footer.

    Raises:
        WorkspaceError: the shard does not exist, is damaged, or is about other images.
    """
    with store.open(shard.key) as stream:
        try:
            metadata = pq.read_metadata(stream).metadata or {}
            statuses = tuple(ImageStatus(**item) for item in json.loads(metadata[_STATUSES_KEY]))
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            raise WorkspaceError(f"{store.uri(shard.key)} is not a shard: {error!r}") from error
    if tuple(status.image_id for status in statuses) != shard.image_ids:
        raise WorkspaceError(
            f"{store.uri(shard.key)} is about other images than the run's plan; one of the two "
            "was replaced: delete the shard to have it made again"
        )
    return statuses


def iter_image_masks(
    store: ObjectStore, shard: Shard, image_ids: Collection[int] | None = None
) -> Iterator[tuple[int, list[MaskRecord]]]:
    """Yield ``(image_id, masks)`` of a written shard, ascending; images without masks are absent.

    Args:
        store: where the shard is.
        shard: the shard.
        image_ids: only these images; None: all. Row groups without them are not read.

    Raises:
        WorkspaceError: the shard does not exist.
    """
    with store.open(shard.key) as stream:
        parquet = pq.ParquetFile(stream)
        for group in range(parquet.num_row_groups):
            bounds = parquet.metadata.row_group(group).column(1).statistics
            if image_ids is not None and not any(
                bounds.min <= image_id <= bounds.max for image_id in image_ids
            ):
                continue
            rows = parquet.read_row_group(group)
            row_ids = rows["image_id"].to_pylist()
            start = 0
            while start < len(row_ids):
                end = start
                while end < len(row_ids) and row_ids[end] == row_ids[start]:
                    end += 1
                if image_ids is None or row_ids[start] in image_ids:
                    yield row_ids[start], masks_from_arrow(rows.slice(start, end - start))
                start = end


def masks_from_arrow(rows: pa.Table) -> list[MaskRecord]:
    """Return rows of table ``masks`` as records, in the rows' order."""
    # Column by column: a dict for each row would take three times as long.
    return [
        MaskRecord(
            rle=Rle(size_h, size_w, counts),
            bbox_xywh=(bbox_x, bbox_y, bbox_w, bbox_h),
            area=area,
            predicted_iou=predicted_iou,
            stability_score=stability_score,
            crop_box_xywh=(crop_x, crop_y, crop_w, crop_h),
            point_xy=(points[0][0], points[0][1]) if points else None,
        )
        for (
            size_h,
            size_w,
            counts,
            bbox_x,
            bbox_y,
            bbox_w,
            bbox_h,
            area,
            predicted_iou,
            stability_score,
            crop_x,
            crop_y,
            crop_w,
            crop_h,
            points,
        ) in zip(*(rows[name].to_pylist() for name in RECORD_COLUMNS), strict=True)
    ]


def _in_order(shard: Shard, results: Iterable[ImageMasks]) -> Iterator[ImageMasks]:
    expected = iter(shard.image_ids)
    for result in results:
        due = next(expected, None)
        if result.image_id != due:
            raise BadInputError(
                f"{shard.key}: got the result of image {result.image_id}, expected {due}"
            )
        if result.skipped is not None and result.masks:
            raise BadInputError(f"{shard.key}: image {due} is skipped and has masks")
        if result.work and len(result.work) != len(result.masks):
            raise BadInputError(
                f"{shard.key}: image {due} has {len(result.masks)} masks, and the work on "
                f"{len(result.work)}"
            )
        yield result
    if (due := next(expected, None)) is not None:
        raise BadInputError(f"{shard.key}: the results end before image {due}")


def _write_parquet(path: Path, results: Iterable[ImageMasks], provenance: Provenance) -> None:
    schema = arrow_schema("masks")
    statuses: list[ImageStatus] = []
    pending: list[dict[str, object]] = []
    with pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        compression_level=3,
        use_dictionary=_DICTIONARY_COLUMNS,
        write_statistics=_statistics_columns(schema),
        sorting_columns=[pq.SortingColumn(schema.get_field_index("image_id"))],
    ) as writer:
        for result in results:
            statuses.append(_status(result))
            pending += _rows(result, provenance)
            if len(pending) >= ROW_GROUP_ROWS:
                _write_row_group(writer, pending, schema)
        if pending:
            _write_row_group(writer, pending, schema)
        writer.add_key_value_metadata(
            {
                "maskwheel.format": "1",
                "maskwheel.run_id": provenance.run_id,
                "maskwheel.recipe_id": provenance.recipe_id,
                _STATUSES_KEY: json.dumps([_compact(s) for s in statuses], ensure_ascii=False),
            }
        )


def _write_row_group(
    writer: pq.ParquetWriter, pending: list[dict[str, object]], schema: pa.Schema
) -> None:
    writer.write_table(pa.Table.from_pylist(pending, schema=schema), row_group_size=len(pending))
    pending.clear()


def _statistics_columns(schema: pa.Schema) -> list[str]:
    """Every column that is searched by range: run lengths are not, and are long."""
    return [name for name in schema.names if name not in ("counts", "point_coords")]


def _status(result: ImageMasks) -> ImageStatus:
    if result.skipped is not None:
        return ImageStatus(
            result.image_id, "skipped", 0, result.skipped.reason, result.skipped.message
        )
    return ImageStatus(result.image_id, "masked", len(result.masks), exhaustive=result.exhaustive)


def _compact(status: ImageStatus) -> dict[str, object]:
    return {name: value for name, value in asdict(status).items() if value is not None}


def _rows(result: ImageMasks, provenance: Provenance) -> Iterator[dict[str, object]]:
    for index, mask in enumerate(result.masks):
        bbox, crop = mask.bbox_xywh, mask.crop_box_xywh
        work = asdict(result.work[index]) if result.work else _NO_WORK
        yield {
            "mask_id": mask_id(provenance.recipe_id, result.image_id, index),
            "image_id": result.image_id,
            "size_h": mask.rle.height,
            "size_w": mask.rle.width,
            "counts": mask.rle.counts,
            "bbox_x": bbox[0],
            "bbox_y": bbox[1],
            "bbox_w": bbox[2],
            "bbox_h": bbox[3],
            "area": mask.area,
            "predicted_iou": mask.predicted_iou,
            "stability_score": mask.stability_score,
            "crop_x": crop[0],
            "crop_y": crop[1],
            "crop_w": crop[2],
            "crop_h": crop[3],
            "point_coords": [] if mask.point_xy is None else [list(mask.point_xy)],
            "stage": provenance.stage,
            "model_id": provenance.model_id,
            "run_id": provenance.run_id,
            "created_at": provenance.created_at,
            **work,
        }
