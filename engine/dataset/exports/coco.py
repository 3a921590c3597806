"""COCO: one instances file per split, and the images.

    instances_all.json   images/7251.jpg                    without splits
    instances_train.json images/train/7251.jpg              with splits

``file_name`` counts from ``images/``; without copies it is the image's address. All masks are of
the one category "object". COCO's tools keep ids in 64-bit floats, which cannot hold 63 bits: ids
here are 1 to n, and ``maskwheel_id`` has the data set's own, as text, as JSON readers round numbers
too. Boxes are COCO's (the right and lower pixels count); the other fields of a mask follow as
extra ones, so that an import restores all of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from engine.dataset.exports.protocol import (
    ExportContext,
    ExportedImage,
    ExportImage,
    ExportMask,
    ExportOptions,
    FinalFile,
    ImageMode,
    OutputFile,
    Packer,
    Part,
    PartLimits,
    Photo,
    Rendered,
)
from engine.dataset.exports.splits import split_names

__all__ = ["CocoFormat", "coco_annotation"]

_CATEGORIES = [{"id": 1, "name": "object", "supercategory": "object"}]


class CocoFormat:
    """See the module; an `ExportFormat`."""

    images: ImageMode = "copy"
    limits = PartLimits(images=1000)
    packer: Packer | None = None
    masks_in_parts = False

    def __init__(self, options: ExportOptions, splits: Sequence[str | None]) -> None:
        self._names = split_names(splits, alone="all")

    def render(self, image: ExportImage, photo: Photo | None, part: Part) -> Rendered:
        """Return the image's file; its masks are written at the end."""
        if photo is None:
            return Rendered()
        path = f"images/{part.folder}{image.image_id}.{photo.suffix}"
        return Rendered(files=(OutputFile(path, photo.data),), photo=path)

    def finish(self, context: ExportContext) -> Iterator[FinalFile]:
        """Yield the instances file of each split."""
        for split, name in self._names.items():
            path = context.folder / f"{name}.json"
            with path.open("wb") as stream:
                masks = _write_instances(stream, context, split, name)
            yield FinalFile(f"instances_{name}.json", path, masks)
            path.unlink()


def _write_instances(stream: BinaryIO, context: ExportContext, split: str | None, name: str) -> int:
    """Write one file as a stream, an image or an annotation per line; return its masks."""
    release = context.release
    about = {
        "description": f"release {release.name}, split {name}",
        "version": release.name,
        "date_created": release.created_at.isoformat(),
        "year": release.created_at.year,
    }
    licenses = {text: number for number, text in enumerate(context.licenses, start=1)}
    stream.write(b'{"info":' + _json(about))
    listed = [{"id": number, "name": text, "url": ""} for text, number in licenses.items()]
    stream.write(b',\n"licenses":' + _json(listed))
    stream.write(b',\n"categories":' + _json(_CATEGORIES))
    stream.write(b',\n"images":')
    _write_array(
        stream,
        (
            _image(number, image, exported, licenses)
            for number, (image, exported) in enumerate(context.exported(split), start=1)
        ),
    )
    stream.write(b',\n"annotations":')
    masks = _write_array(
        stream,
        (
            coco_annotation(number, mask)
            for number, (image, _) in enumerate(context.exported(split, masks=True), start=1)
            for mask in image.masks
        ),
        numbered=True,
    )
    stream.write(b"}\n")
    return masks


def _write_array(
    stream: BinaryIO, rows: Iterable[dict[str, object]], *, numbered: bool = False
) -> int:
    count = 0
    stream.write(b"[")
    for count, row in enumerate(rows, start=1):
        stream.write(b"\n" if count == 1 else b",\n")
        stream.write(_json({"id": count, **row} if numbered else row))
    stream.write(b"]")
    return count


def _image(
    number: int, image: ExportImage, exported: ExportedImage, licenses: dict[str, int]
) -> dict[str, object]:
    row: dict[str, object] = {
        "id": number,
        "width": image.width,
        "height": image.height,
        "file_name": exported.photo.removeprefix("images/") if exported.photo else image.uri,
        "maskwheel_id": str(image.image_id),
    }
    if image.license is not None:
        row["license"] = licenses[image.license]
    if image.split is not None:
        row["split"] = image.split
    if "://" in image.uri:
        row["coco_url"] = image.uri
    return row


def coco_annotation(image_number: int, mask: ExportMask) -> dict[str, object]:
    """Return a mask as COCO's annotation, but for its number.

    Args:
        image_number: the image's id in the file.
        mask: the mask.
    """
    record = mask.record
    x, y, w, h = record.bbox_xywh
    # An empty mask has no box; all others end one pixel further than max - min says.
    box = [float(x), float(y), w + 1.0, h + 1.0] if record.area else [0.0] * 4
    row: dict[str, object] = {
        "image_id": image_number,
        "category_id": 1,
        "segmentation": {
            "size": [record.rle.height, record.rle.width],
            "counts": record.rle.counts,
        },
        "area": record.area,
        "bbox": box,
        "iscrowd": 0,
        "predicted_iou": record.predicted_iou,
        "stability_score": record.stability_score,
        "crop_box": list(record.crop_box_xywh),
        "point_coords": [] if record.point_xy is None else [list(record.point_xy)],
        "stage": mask.origin.stage,
        "model_id": mask.origin.model_id,
        "run_id": mask.origin.run_id,
        "maskwheel_id": str(mask.mask_id),
    }
    if mask.origin.annotator_id is not None:
        row["annotator_id"] = mask.origin.annotator_id
    return row


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
