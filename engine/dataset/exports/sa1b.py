"""SA-1B: a JSON file per image, beside the image, in folders as its tars are called.

    sa_000000/sa_7251.jpg   sa_000000/sa_7251.json

A file holds ``{"image": {...}, "annotations": [...]}`` with SA-1B's fields and conventions: boxes
are XYWH with ``max - min``, RLEs are compressed, ids are the data set's own (63 bits).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from engine.dataset.exports.protocol import (
    ExportContext,
    ExportImage,
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

__all__ = ["Sa1bFormat", "sa1b_json"]


class Sa1bFormat:
    """See the module; an `ExportFormat`."""

    images: ImageMode = "jpeg"
    limits = PartLimits(images=10_000)
    packer: Packer | None = None
    masks_in_parts = True

    def __init__(self, options: ExportOptions, splits: Sequence[str | None]) -> None:
        """Need nothing."""

    def render(self, image: ExportImage, photo: Photo | None, part: Part) -> Rendered:
        """Return the image's file and its JSON."""
        stem = f"{part.folder}sa_{part.number:06d}/sa_{image.image_id}"
        suffix = photo.suffix if photo else "jpg"
        files = [OutputFile(f"{stem}.{suffix}", photo.data)] if photo else []
        files.append(OutputFile(f"{stem}.json", sa1b_json(image, suffix)))
        return Rendered(
            files=tuple(files),
            photo=f"{stem}.{suffix}" if photo else None,
            masks=len(image.masks),
        )

    def finish(self, context: ExportContext) -> Iterator[FinalFile]:
        """Yield nothing: the files speak for themselves."""
        yield from ()


def sa1b_json(image: ExportImage, suffix: str) -> bytes:
    """Return an image with its masks as SA-1B writes it.

    Args:
        image: the image.
        suffix: of its file, without the dot.
    """
    about = {
        "image_id": image.image_id,
        "width": image.width,
        "height": image.height,
        "file_name": f"sa_{image.image_id}.{suffix}",
    }
    annotations = [mask.record.to_sa1b(mask.mask_id) for mask in image.masks]
    return json.dumps(
        {"image": about, "annotations": annotations}, separators=(",", ":"), ensure_ascii=False
    ).encode()
