"""YOLO segmentation: a text file of polygons per image, and ``data.yaml``.

    images/train/7251.jpg   labels/train/7251.txt   data.yaml

A line is ``0 x1 y1 x2 y2 ...``: class "object" and one polygon, relative to the image's size. The
format has one ring per mask. Parts and holes are joined to the largest outline by bridges without
width, walked there and back: filled by the even-odd rule, as YOLO's tools do, the ring gives the
mask, but for pixels on the bridges. Vertices are centres of pixels of the mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

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
    Problem,
    Rendered,
)
from engine.dataset.exports.splits import split_names
from engine.errors import BadInputError, InvalidMaskError
from engine.images import mask_contours
from engine.masks import decode_region
from engine.records import MaskRecord

__all__ = ["YoloFormat", "join_rings"]

_VALIDATION = ("val", "valid", "validation", "dev")


class YoloFormat:
    """See the module; an `ExportFormat`."""

    images: ImageMode = "copy"
    limits = PartLimits(images=1000)
    packer: Packer | None = None
    masks_in_parts = True

    def __init__(self, options: ExportOptions, splits: Sequence[str | None]) -> None:
        if options.tolerance_px < 0:
            raise BadInputError(
                f"got a tolerance of {options.tolerance_px} px; expected at least 0"
            )
        self._tolerance_px = options.tolerance_px
        self._names = split_names(splits, alone="train")

    def render(self, image: ExportImage, photo: Photo | None, part: Part) -> Rendered:
        """Return the image's file and its polygons."""
        name = f"{self._names[part.split]}/{image.image_id}"
        lines: list[str] = []
        problems: list[Problem] = []
        for mask in image.masks:
            try:
                lines.append(_line(mask.record, self._tolerance_px))
            except (BadInputError, InvalidMaskError) as error:
                problems.append(
                    Problem(
                        image_id=image.image_id,
                        uri=image.uri,
                        mask_id=mask.mask_id,
                        reason="no-polygon",
                        message=str(error),
                    )
                )
        files = [OutputFile(f"labels/{name}.txt", "".join(lines).encode())]
        path = f"images/{name}.{photo.suffix}" if photo else None
        if photo and path:
            files.append(OutputFile(path, photo.data))
        return Rendered(files=tuple(files), photo=path, masks=len(lines), problems=tuple(problems))

    def finish(self, context: ExportContext) -> Iterator[FinalFile]:
        """Yield ``data.yaml``."""
        names = list(self._names.values())
        val = [name for name in names if name in _VALIDATION]
        test = [name for name in names if name == "test"]
        train = [name for name in names if name not in (*val, *test)] or val or test
        lines = [f"# release {context.release.name}", f"train: {_folders(train)}"]
        note = "" if val else "  # no split for validation: these are the training images"
        lines.append(f"val: {_folders(val or train)}{note}")
        lines += [f"test: {_folders(test)}"] if test else []
        lines += ["names:", "  0: object", ""]
        yield FinalFile("data.yaml", "\n".join(lines).encode())


def _folders(names: Sequence[str]) -> str:
    folders = [f"images/{name}" for name in names]
    return folders[0] if len(folders) == 1 else f"[{', '.join(folders)}]"


def _line(record: MaskRecord, tolerance_px: float) -> str:
    if not record.area:
        raise InvalidMaskError("the mask is empty: there is nothing to outline")
    x, y, w, h = record.bbox_xywh
    region_hw = decode_region(record.rle, (x, y, x + w + 1, y + h + 1))
    ring_K2 = join_rings(_outlines(region_hw, tolerance_px)) + np.array([x, y])
    if len(ring_K2) < 3:
        # A dot or a line; readers take lines of fewer points for boxes.
        ring_K2 = ring_K2[np.arange(3) % len(ring_K2)]
    columns, rows = _centres(record.rle.width), _centres(record.rle.height)
    numbers = (text for x, y in ring_K2.tolist() for text in (columns[x], rows[y]))
    return f"0 {' '.join(numbers)}\n"


@lru_cache(maxsize=64)
def _centres(side_px: int) -> tuple[str, ...]:
    """Return the centre of each pixel of a side, relative to it, as it is written."""
    return tuple(f"{(pixel + 0.5) / side_px:.6f}" for pixel in range(side_px))


def _outlines(region_hw: NDArray[np.bool_], tolerance_px: float) -> list[NDArray[np.int32]]:
    exact = mask_contours(region_hw)
    if not tolerance_px:
        return exact
    # Small outlines would shrink to a line: they stay as they are.
    fewer = mask_contours(region_hw, tolerance_px)
    return [few if len(few) >= 4 else all_ for few, all_ in zip(fewer, exact, strict=True)]


def join_rings(rings: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Make one ring of several by bridges that are walked both ways.

    Args:
        rings: at least one, each (K, 2), implicitly closed.

    Returns:
        (K, 2): the longest ring, which leaves for each other one at the vertex nearest to it.
    """
    longest = max(range(len(rings)), key=lambda i: len(rings[i]))
    base_K2 = rings[longest]
    if len(rings) == 1:
        return base_K2
    nearest = cKDTree(base_K2)
    detours: dict[int, list[NDArray[np.int32]]] = {}
    for i, ring_K2 in enumerate(rings):
        if i == longest:
            continue
        distances, vertices = nearest.query(ring_K2)
        start = int(np.argmin(distances))
        leave = int(vertices[start])
        there_and_back = [np.roll(ring_K2, -start, axis=0), ring_K2[start : start + 1]]
        detours.setdefault(leave, []).extend([*there_and_back, base_K2[leave : leave + 1]])
    pieces: list[NDArray[np.int32]] = []
    walked = 0
    for leave in sorted(detours):
        pieces += [base_K2[walked : leave + 1], *detours[leave]]
        walked = leave + 1
    return np.concatenate([*pieces, base_K2[walked:]])
