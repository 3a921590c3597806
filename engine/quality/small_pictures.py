"""Pictures small enough to stand inside a page: photos with their masks on a sheet, a chart.

    sheet = overlay_sheet(workspace, release, max_images=9)
    sheet.data, sheet.caption

Always the same photos of a release or a run, and at most so many bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from engine.dataset.catalog import Workspace
from engine.dataset.runs import RunManifest
from engine.errors import BadInputError
from engine.images import encode_jpeg, resize_to_fit
from engine.quality.charts import bar_chart
from engine.quality.overlays import draw_overlay, file_name
from engine.quality.pictures import iter_pictures, sample_image_ids
from engine.quality.statistics import integer_distribution
from engine.records import Release

__all__ = ["SmallPicture", "evenly", "histogram", "in_rows", "overlay_sheet", "small_jpeg"]

log = logging.getLogger(__name__)

_QUALITIES = (82, 70, 55, 40, 25)
_SHRINK = 0.75
_MIN_SIDE_PX = 32
_GAP_PX = 4
_GREY = 128  # a gap that shows on light pages and on dark ones
_PER_ROW = 3
# Masks within masks hide a photo, which so small must be recognised: it shows through all of them.
_SHARE_OF_MASKS = 0.5
_BARS = 30
# A picture cannot know whether its page is light or dark: greys and a blue that show on both.
_CHART_STYLE = (
    "text{font:11px sans-serif}.tick{fill:#858a93}.strong{fill:#858a93;font-weight:600}"
    ".bar{fill:#4a86e8}.grid{stroke:#858a93;stroke-opacity:.3;fill:none}"
    ".axis{stroke:#858a93;fill:none}.median{stroke:#858a93;fill:none;stroke-dasharray:2 3}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallPicture:
    """A picture for a page.

    Attributes:
        data: the file's bytes.
        caption: plain text.
        media_type: of the bytes.
    """

    data: bytes
    caption: str
    media_type: str = "image/jpeg"


def overlay_sheet(
    workspace: Workspace,
    source: Release | RunManifest,
    max_images: int = 9,
    width_px: int = 1040,
    max_bytes: int = 110_000,
    image_ids: Sequence[int] | None = None,
) -> SmallPicture | None:
    """Draw the masks of a few photos over them, on one sheet.

    Args:
        workspace: where the source is.
        source: the release, or the run (also one that is not complete), whose masks are drawn.
        max_images: at most so many, evenly spread. Photos whose file is gone or has changed are
            logged and left out.
        width_px: of the sheet.
        max_bytes: of the JPEG.
        image_ids: which images; None: those that have masks.

    Returns:
        The sheet; its caption names the photos from left to right. None without a photo to show.

    Raises:
        BadInputError: a number below 1.
        WorkspaceError: an id that the data set does not have, or objects that are gone.
        TransientError: the catalog stayed busy.
    """
    if min(max_images, width_px, max_bytes) < 1:
        raise BadInputError(
            f"got {max_images} images, {width_px} px, {max_bytes} bytes; expected at least 1"
        )
    if image_ids is None:
        image_ids = sample_image_ids(workspace, source, max_images)
    chosen = evenly(image_ids, max_images)
    overlays: list[NDArray[np.uint8]] = []
    captions: list[str] = []
    for picture in iter_pictures(workspace, source, chosen, max(64, width_px * 2 // _PER_ROW)):
        if picture.image_HWC3 is None:
            log.warning("no picture of image %d: %s", picture.image.image_id, picture.problem)
            continue
        drawn_HWC3 = draw_overlay(picture.image_HWC3, picture.masks).astype(np.float32)
        mixed_HWC3 = picture.image_HWC3 + _SHARE_OF_MASKS * (drawn_HWC3 - picture.image_HWC3)
        overlays.append(mixed_HWC3.round().astype(np.uint8))
        captions.append(f"{file_name(picture.image.uri)} ({len(picture.masks):,})")
    if not overlays:
        return None
    sheet_HWC3 = in_rows(overlays, width_px)
    return SmallPicture(data=small_jpeg(sheet_HWC3, max_bytes), caption=", ".join(captions))


def evenly(values: Sequence[int], at_most: int) -> list[int]:
    """Return values from all over a sequence, the same ones every time."""
    count = min(at_most, len(values))
    return [values[i * len(values) // count] for i in range(count)]


def in_rows(
    pictures: Sequence[NDArray[np.uint8]], width_px: int, per_row: int = _PER_ROW
) -> NDArray[np.uint8]:
    """Lay pictures out in rows that fill a width, without cropping them.

    Args:
        pictures: uint8 RGB (H, W, 3), at least one; they are shrunk, never enlarged.
        width_px: of the sheet; it is narrower where the pictures are too small to fill it.
        per_row: at most so many.

    Returns:
        uint8 (H, at most `width_px`, 3).
    """
    count = -(-len(pictures) // per_row)
    bounds = [i * len(pictures) // count for i in range(count + 1)]
    rows = [_row(pictures[start:stop], width_px, per_row) for start, stop in pairwise(bounds)]
    height = sum(row.shape[0] for row in rows) + _GAP_PX * (len(rows) - 1)
    sheet_HWC3 = np.full((height, max(row.shape[1] for row in rows), 3), _GREY, dtype=np.uint8)
    top = 0
    for row in rows:
        sheet_HWC3[top : top + row.shape[0], : row.shape[1]] = row
        top += row.shape[0] + _GAP_PX
    return sheet_HWC3


def _row(pictures: Sequence[NDArray[np.uint8]], width_px: int, per_row: int) -> NDArray[np.uint8]:
    shapes = [picture.shape[1] / picture.shape[0] for picture in pictures]
    space = width_px - _GAP_PX * (len(pictures) - 1)
    # A row of few, or of narrow ones, is not made higher than a sheet's width allows.
    height = min(space / sum(shapes), width_px / per_row * 1.5, *(p.shape[0] for p in pictures))
    height_px = max(1, int(height))
    parts: list[NDArray[np.uint8]] = []
    for picture, shape in zip(pictures, shapes, strict=True):
        small = resize_to_fit(picture, max(1, round(height_px * max(shape, 1.0))))
        missing = max(0, height_px - small.shape[0])
        cell = np.pad(small, ((0, missing), (0, 0), (0, 0)), mode="edge")[:height_px]
        parts += [np.full((height_px, _GAP_PX, 3), _GREY, dtype=np.uint8), cell]
    return np.concatenate(parts[1:], axis=1)[:, :width_px]


def small_jpeg(image_HWC3: NDArray[np.uint8], max_bytes: int) -> bytes:
    """Encode as the best JPEG of at most so many bytes: coarser first, then smaller.

    Raises:
        BadInputError: another shape or dtype, or fewer bytes than any picture takes.
    """
    while True:
        for quality in _QUALITIES:
            data = encode_jpeg(image_HWC3, quality)
            if len(data) <= max_bytes:
                return data
        longer = max(image_HWC3.shape[:2])
        if longer <= _MIN_SIDE_PX:
            raise BadInputError(f"no picture fits into {max_bytes} bytes; allow at least 2,000")
        image_HWC3 = resize_to_fit(image_HWC3, max(_MIN_SIDE_PX, int(longer * _SHRINK)))


def histogram(values: NDArray[np.int64], title: str, of_what: str) -> SmallPicture:
    """Draw how whole numbers from 0 on are distributed, as SVG for light and dark pages.

    Args:
        values: one per thing that is counted.
        title: what the values are, e.g. ``"masks per photo"``.
        of_what: the things, plural.
    """
    distribution = integer_distribution(values)
    svg = bar_chart(distribution.rebinned(_BARS, from_zero=True), title, of_what)
    start, rest = svg.split(">", 1)
    alone = f'{start} xmlns="http://www.w3.org/2000/svg" width="540" height="285">'
    return SmallPicture(
        data=f"{alone}<style>{_CHART_STYLE}</style>{rest}".encode(),
        caption=title,
        media_type="image/svg+xml",
    )
