"""Hugging Face: Parquet files that `datasets` opens with images decoded, and a data set card.

    datasets.load_dataset("exports/r3")["train"][0]["image"]      # a PIL image

A row is an image: its file, its ids and size, and ``objects``, the list of its masks as compressed
COCO RLE with SA-1B's fields. Images without a split are the split "train".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from engine.dataset.exports.protocol import (
    ExportContext,
    ExportImage,
    ExportMask,
    ExportOptions,
    FinalFile,
    ImageMode,
    Packer,
    Part,
    PartLimits,
    Photo,
    Rendered,
)
from engine.dataset.exports.splits import split_names
from engine.errors import BadInputError

__all__ = ["HuggingFaceFormat"]

# Viewers and shuffling readers take a whole row group for one row: keep them small.
_ROW_GROUP_ROWS, _ROW_GROUP_BYTES = 100, 64 * 1024 * 1024

_OBJECT_FIELDS = {
    "mask_id": pa.int64(),
    "counts": pa.string(),
    "bbox": pa.list_(pa.int32()),
    "area": pa.int64(),
    "predicted_iou": pa.float64(),
    "stability_score": pa.float64(),
    "crop_box": pa.list_(pa.int32()),
    "point_coords": pa.list_(pa.list_(pa.float64())),
    "stage": pa.string(),
    "model_id": pa.string(),
    "run_id": pa.string(),
    "annotator_id": pa.string(),
}
_FIELDS = {
    "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    "image_id": pa.int64(),
    "width": pa.int32(),
    "height": pa.int32(),
    "uri": pa.string(),
    "sha256": pa.string(),
    "license": pa.string(),
    "objects": pa.list_(pa.struct(_OBJECT_FIELDS)),
}


class HuggingFaceFormat:
    """See the module; an `ExportFormat`."""

    images: ImageMode = "copy"
    limits = PartLimits(images=5000, size_bytes=500_000_000)
    masks_in_parts = True

    def __init__(self, options: ExportOptions, splits: Sequence[str | None]) -> None:
        # `datasets` knows splits of letters, digits, "_" and "." only.
        given = split_names(splits, alone="train")
        self._names = {split: name.replace("-", "_") for split, name in given.items()}
        if len(set(self._names.values())) < len(given):
            raise BadInputError(
                f"got the splits {sorted(given.values())}, which `datasets` cannot tell apart "
                "without '-'; export them one by one"
            )
        self.packer: Packer | None = _ParquetFiles(self._names)

    def render(self, image: ExportImage, photo: Photo | None, part: Part) -> Rendered:
        """Return the image's row."""
        path = f"{image.image_id}.{photo.suffix}" if photo else None
        row = {
            # Without bytes the reader opens the path.
            "image": {"bytes": photo.data if photo else None, "path": path or image.uri},
            "image_id": image.image_id,
            "width": image.width,
            "height": image.height,
            "uri": image.uri,
            "sha256": image.sha256,
            "license": image.license,
            "objects": [_object(mask) for mask in image.masks],
        }
        rows = pa.RecordBatch.from_pylist([row], schema=_schema())
        return Rendered(rows=rows, photo=path, masks=len(image.masks))

    def finish(self, context: ExportContext) -> Iterator[FinalFile]:
        """Yield the data set card."""
        yield FinalFile("README.md", _card(context, self._names).encode())


class _ParquetFiles:
    def __init__(self, names: dict[str | None, str]) -> None:
        self._names = names

    def path(self, part: Part) -> str:
        return f"data/{self._names[part.split]}-{part.number:05d}.parquet"

    def open(self, local_path: Path) -> _Parquet:
        return _Parquet(local_path)


class _Parquet:
    def __init__(self, path: Path) -> None:
        # Photos do not shrink, and statistics of them would double the footer.
        statistics = ["image_id", "width", "height"]
        self._writer = pq.ParquetWriter(
            path,
            _schema(),
            compression="zstd",
            compression_level=3,
            use_dictionary=["license"],
            write_statistics=statistics,
        )
        self._pending: list[pa.RecordBatch] = []
        self._pending_bytes = 0

    def add(self, rendered: Rendered) -> None:
        if rendered.rows is None:
            return
        self._pending.append(rendered.rows)
        self._pending_bytes += rendered.size_bytes
        if len(self._pending) >= _ROW_GROUP_ROWS or self._pending_bytes >= _ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        rows = pa.Table.from_batches(self._pending, schema=_schema())
        self._pending, self._pending_bytes = [], 0
        self._writer.write_table(rows, row_group_size=_ROW_GROUP_ROWS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pending and error is None:
            self._flush()
        self._writer.close()


def _object(mask: ExportMask) -> dict[str, object]:
    record = mask.record
    return {
        "mask_id": mask.mask_id,
        "counts": record.rle.counts,
        "bbox": record.bbox_xywh,
        "area": record.area,
        "predicted_iou": record.predicted_iou,
        "stability_score": record.stability_score,
        "crop_box": record.crop_box_xywh,
        "point_coords": [] if record.point_xy is None else [record.point_xy],
        "stage": mask.origin.stage,
        "model_id": mask.origin.model_id,
        "run_id": mask.origin.run_id,
        "annotator_id": mask.origin.annotator_id,
    }


def _schema() -> pa.Schema:
    """Return the columns with the metadata by which `datasets` makes images of structs."""
    features = {
        name: {"_type": "Image"} if name == "image" else _feature(kind)
        for name, kind in _FIELDS.items()
    }
    about = json.dumps({"info": {"features": features}})
    return pa.schema(_FIELDS, metadata={"huggingface": about})


def _feature(kind: pa.DataType) -> object:
    """Return a type as `datasets` writes it; lists in the spelling that all its versions read."""
    if pa.types.is_list(kind):
        return [_feature(kind.value_type)]
    if pa.types.is_struct(kind):
        return {kind.field(i).name: _feature(kind.field(i).type) for i in range(kind.num_fields)}
    name = "float64" if pa.types.is_float64(kind) else str(kind)
    return {"dtype": name, "_type": "Value"}


def _card(context: ExportContext, names: dict[str | None, str]) -> str:
    release = context.release
    counts = {names[split]: count for split, count in context.images_per_split.items()}
    files = "\n".join(f"  - split: {name}\n    path: data/{name}-*.parquet" for name in counts)
    splits = "\n".join(f"| {name} | {count:,} |" for name, count in counts.items())
    licenses = ", ".join(context.licenses) or "not recorded"
    models = ", ".join(release.models) or "not recorded"
    return f"""---
pretty_name: Maskwheel release {release.name}
license: {"unknown" if not context.licenses else "other"}
task_categories:
- image-segmentation
- mask-generation
size_categories:
- {_size_category(sum(counts.values()))}
configs:
- config_name: default
  data_files:
{files}
---

# Maskwheel release {release.name}

Images with masks of single objects, made {release.created_at:%Y-%m-%d} by Maskwheel.

| split | images |
|---|---|
{splits}

- Models: {models}
- Licences of the images: {licenses}

## Rows

`image` is the image, upright. `objects` is the list of its masks: `counts` is a compressed COCO RLE
of `height` x `width` pixels, `bbox` is XYWH with max - min as in SA-1B; `predicted_iou` and
`stability_score` are the model's own scores; `stage` says whether a person (`manual`, `semi`) or
the model alone (`auto`) made the mask.

```python
from datasets import load_dataset
from pycocotools import mask

row = load_dataset("path/of/this/folder", split="{next(iter(counts))}")[0]
masks = [
    mask.decode({{"size": [row["height"], row["width"]], "counts": o["counts"]}})
    for o in row["objects"]
]
```
"""


def _size_category(images: int) -> str:
    bounds = [("n<1K", 1e3), ("1K<n<10K", 1e4), ("10K<n<100K", 1e5), ("100K<n<1M", 1e6)]
    bounds += [("1M<n<10M", 1e7), ("10M<n<100M", 1e8)]
    return next((name for name, bound in bounds if images < bound), "100M<n<1B")
