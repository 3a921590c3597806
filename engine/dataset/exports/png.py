"""Label maps: a 16-bit PNG per image, and a JSON that says which label is which mask.

    labels/7251.png   labels/7251.json   images/7251.jpg

A pixel has one label, masks may overlap: larger masks are drawn first, smaller ones on top of
them. Labels count in the order of drawing from 1, 0 is background. What is lost is in the JSON:
a mask whose ``visible_area`` is below its ``area`` is partly covered, one with 0 is hidden.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.dataset.exports.protocol import (
    ExportContext,
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
    Problem,
    Rendered,
)
from engine.errors import BadInputError, InvalidMaskError
from engine.images import encode_label_map
from engine.masks import decode_region

__all__ = ["PngFormat"]

_MAX_LABELS = 2**16 - 1


class PngFormat:
    """See the module; an `ExportFormat`."""

    images: ImageMode = "copy"
    limits = PartLimits(images=1000)
    packer: Packer | None = None
    masks_in_parts = True

    def __init__(self, options: ExportOptions, splits: Sequence[str | None]) -> None:
        """Need nothing."""

    def render(self, image: ExportImage, photo: Photo | None, part: Part) -> Rendered:
        """Return the image's file, its map and the map's key."""
        labels_HW = np.zeros((image.height, image.width), dtype=np.uint16)
        drawn: list[ExportMask] = []
        problems: list[Problem] = []
        for mask in sorted(image.masks, key=lambda m: (-m.record.area, m.mask_id)):
            try:
                _draw(labels_HW, mask, len(drawn) + 1)
            except (BadInputError, InvalidMaskError) as error:
                problems.append(
                    Problem(
                        image_id=image.image_id,
                        uri=image.uri,
                        mask_id=mask.mask_id,
                        reason="not-drawn",
                        message=str(error),
                    )
                )
            else:
                drawn.append(mask)
        stem = f"{part.folder}{image.image_id}"
        visible = np.bincount(labels_HW.ravel(), minlength=len(drawn) + 1).tolist()
        path = f"images/{stem}.{photo.suffix}" if photo else None
        files = [
            OutputFile(f"labels/{stem}.png", encode_label_map(labels_HW)),
            OutputFile(f"labels/{stem}.json", _key(image, path, drawn, visible)),
        ]
        if photo and path:
            files.append(OutputFile(path, photo.data))
        return Rendered(files=tuple(files), photo=path, masks=len(drawn), problems=tuple(problems))

    def finish(self, context: ExportContext) -> Iterator[FinalFile]:
        """Yield nothing: each map has its key beside it."""
        yield from ()


def _draw(labels_HW: NDArray[np.uint16], mask: ExportMask, label: int) -> None:
    record = mask.record
    if label > _MAX_LABELS:
        raise BadInputError(f"16 bits hold {_MAX_LABELS} labels; smaller masks are left out")
    if (record.rle.height, record.rle.width) != labels_HW.shape:
        raise InvalidMaskError(
            f"the mask has {record.rle.height} x {record.rle.width} pixels, its image "
            f"{labels_HW.shape[0]} x {labels_HW.shape[1]}"
        )
    if not record.area:
        return
    x, y, w, h = record.bbox_xywh
    region_hw = decode_region(record.rle, (x, y, x + w + 1, y + h + 1))
    labels_HW[y : y + h + 1, x : x + w + 1][region_hw] = label


def _key(
    image: ExportImage, path: str | None, drawn: Sequence[ExportMask], visible: Sequence[int]
) -> bytes:
    fields = {
        "image_id": image.image_id,
        "file_name": path or image.uri,
        "order": "larger masks first, smaller ones drawn over them; 0 is background",
        "labels": [
            {
                "label": label,
                "mask_id": mask.mask_id,
                "area": mask.record.area,
                "visible_area": visible[label],
                "bbox": list(mask.record.bbox_xywh),
                "predicted_iou": mask.record.predicted_iou,
                "stability_score": mask.record.stability_score,
                "stage": mask.origin.stage,
            }
            for label, mask in enumerate(drawn, start=1)
        ],
    }
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
