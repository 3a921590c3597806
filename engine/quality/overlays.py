"""Masks drawn over their photos.

    overlay_HWC3 = draw_overlay(image_HWC3, masks)
    write_overlays(workspace, release, Path("overlays"), max_images=20)

Larger masks are drawn first, so that small ones stay visible. One decoded mask at a time.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from engine.dataset.catalog import Workspace
from engine.dataset.runs import RunManifest
from engine.errors import BadInputError
from engine.files import write_atomically
from engine.images import encode_jpeg, encode_png, resize_to_fit
from engine.masks import decode_mask
from engine.quality.pictures import Picture, iter_pictures, sample_image_ids
from engine.records import ImageRecord, MaskRecord, Release

__all__ = [
    "PALETTE",
    "draw_overlay",
    "file_name",
    "mask_colours",
    "write_contact_sheet",
    "write_overlays",
]

log = logging.getLogger(__name__)

# Sixteen hues of OKLCH, evenly spaced, of four lightnesses; all readable on dark and on light.
PALETTE: tuple[tuple[int, int, int], ...] = (
    *((253, 126, 130), (230, 89, 4), (254, 178, 99), (187, 146, 19)),
    *((178, 178, 9), (96, 161, 14), (20, 232, 136), (5, 177, 152)),
    *((8, 194, 202), (21, 155, 190), (143, 203, 254), (108, 145, 253)),
    *((170, 154, 252), (183, 91, 229), (253, 159, 233), (246, 81, 153)),
)
# From a colour that is taken to the next to try: far away, and through all sixteen.
_NEXT_COLOUR = 7
_PX_PER_OUTLINE_PX = 900
_JPEG_QUALITY = 90
_GAP_PX = 6
_WHITE = 255


def mask_colours(masks: Sequence[MaskRecord]) -> list[int]:
    """Choose a colour of `PALETTE` for each mask: stable, and different from its neighbours'.

    A mask has a colour of its own, from its content, which does not depend on the other masks. It
    gives way only where a mask before it, whose box meets its own, has the same.

    Args:
        masks: masks of one image.

    Returns:
        Indices into `PALETTE`, one per mask.
    """
    boxes_xywh = np.array([mask.bbox_xywh for mask in masks], dtype=np.int64).reshape(-1, 4)
    x0, y0 = boxes_xywh[:, 0], boxes_xywh[:, 1]
    x1, y1 = x0 + boxes_xywh[:, 2] + 1, y0 + boxes_xywh[:, 3] + 1
    colours: NDArray[np.int64] = np.empty(len(masks), dtype=np.int64)
    for i, mask in enumerate(masks):
        own = zlib.crc32(f"{mask.bbox_xywh}{mask.area}".encode()) % len(PALETTE)
        order = (own + _NEXT_COLOUR * np.arange(len(PALETTE))) % len(PALETTE)
        meets = (x0[:i] <= x1[i]) & (x0[i] <= x1[:i]) & (y0[:i] <= y1[i]) & (y0[i] <= y1[:i])
        taken = np.bincount(colours[:i][meets], minlength=len(PALETTE))
        colours[i] = order[np.argmin(taken[order])]
    found: list[int] = colours.tolist()
    return found


def draw_overlay(
    image_HWC3: NDArray[np.uint8], masks: Sequence[MaskRecord], opacity: float = 0.45
) -> NDArray[np.uint8]:
    """Draw masks over their photo: translucent, with crisp outlines, larger masks first.

    Where masks lie on each other the last one shows, so the photo shines through all alike.

    Args:
        image_HWC3: uint8 RGB; the photo, at its own size or shrunk without changing its shape.
        masks: masks of the photo, in any order, at its original size.
        opacity: of the fill, 0 (outlines only) to 1.

    Returns:
        uint8 (H, W, 3), a new array.

    Raises:
        BadInputError: another shape or dtype, an opacity out of range, or masks of an image of
            another shape.
        InvalidMaskError: an RLE that cannot be decoded.
    """
    if image_HWC3.ndim != 3 or image_HWC3.shape[2] != 3 or image_HWC3.dtype != np.uint8:
        raise BadInputError(f"expected uint8 (H, W, 3), got {image_HWC3.dtype} {image_HWC3.shape}")
    if not 0 <= opacity <= 1:
        raise BadInputError(f"expected an opacity of 0 to 1, got {opacity}")
    drawn_HWC3 = image_HWC3.copy()
    ordered = sorted(masks, key=lambda mask: -mask.area)
    for mask, colour in zip(ordered, mask_colours(ordered), strict=True):
        _draw(drawn_HWC3, image_HWC3, mask, PALETTE[colour], round(opacity * 256))
    return drawn_HWC3


def write_overlays(
    workspace: Workspace,
    source: Release | RunManifest,
    folder: Path,
    image_ids: Sequence[int] | None = None,
    max_images: int | None = None,
    on_image: Callable[[ImageRecord], None] | None = None,
    max_side: int = 2048,
) -> int:
    """Write one JPEG per image, ``<stem>-<image_id>.jpg``, with its masks drawn over it.

    Images whose file is gone or has changed are logged and left out. Existing pictures of the same
    name are replaced.

    Args:
        workspace: where the source is.
        source: the release, or the run (also one that is not complete), whose masks are drawn.
        folder: created where it is missing.
        image_ids: which images; None: those that have masks.
        max_images: at most so many, evenly spread; None: all.
        on_image: called after each image, for progress.
        max_side: of the pictures, in pixels.

    Returns:
        How many were written.

    Raises:
        BadInputError: a folder that cannot be written, or a limit below 1.
        WorkspaceError: an id that the data set does not have, or objects that are gone.
        TransientError: the catalog stayed busy.
    """
    if max_side < 1 or (max_images is not None and max_images < 1):
        raise BadInputError(
            f"got max_side={max_side} and max_images={max_images}; expected at least 1"
        )
    if image_ids is None:
        image_ids = sample_image_ids(workspace, source, max_images or 2**62)
    elif max_images is not None and max_images < len(image_ids):
        image_ids = [image_ids[i * len(image_ids) // max_images] for i in range(max_images)]
    written = 0
    for picture in iter_pictures(workspace, source, image_ids, max_side):
        if picture.image_HWC3 is None:
            log.warning("no overlay of image %d: %s", picture.image.image_id, picture.problem)
        else:
            name = f"{Path(file_name(picture.image.uri)).stem}-{picture.image.image_id}.jpg"
            overlay_HWC3 = draw_overlay(picture.image_HWC3, picture.masks)
            write_atomically(folder / name, encode_jpeg(overlay_HWC3, _JPEG_QUALITY))
            written += 1
        if on_image is not None:
            on_image(picture.image)
    return written


def write_contact_sheet(
    workspace: Workspace,
    source: Release | RunManifest,
    path: Path,
    max_images: int = 6,
    columns: int = 2,
    width_px: int = 1600,
) -> Path:
    """Write a grid of photos, each beside itself with its masks: one picture for a README.

    The rows fill the width; the heights follow from the photos' shapes, which are not cropped, and
    photos are not enlarged.

    Args:
        workspace: where the source is.
        source: the release or run whose masks are drawn.
        path: a ``.jpg``, ``.jpeg`` or ``.png`` file.
        max_images: at most so many images, of those with masks; images whose file is gone or has
            changed are logged and left out.
        columns: images (pairs of pictures) per row.
        width_px: of the sheet.

    Returns:
        `path`.

    Raises:
        BadInputError: another suffix, a number below 1, no image to show, or a path that cannot
            be written.
        WorkspaceError: objects that are gone.
        TransientError: the catalog stayed busy.
    """
    suffix = path.suffix.lower()
    if suffix not in (".jpg", ".jpeg", ".png"):
        raise BadInputError(f"got {path}; expected a name that ends in .jpg or .png")
    if min(max_images, columns) < 1 or width_px < 2 * columns * (_GAP_PX + 1):
        raise BadInputError(
            f"got {max_images} images in {columns} columns on {width_px} px; expected at least 1 "
            "image, 1 column and some pixels for each"
        )
    rows: list[NDArray[np.uint8]] = []
    waiting: list[Picture] = []
    image_ids = sample_image_ids(workspace, source, max_images)
    for picture in iter_pictures(workspace, source, image_ids, width_px // 2):
        if picture.image_HWC3 is None:
            log.warning("image %d is not shown: %s", picture.image.image_id, picture.problem)
            continue
        waiting.append(picture)
        if len(waiting) == columns:
            rows.append(_contact_row(waiting, columns, width_px))
            waiting.clear()
    if waiting:
        rows.append(_contact_row(waiting, columns, width_px))
    if not rows:
        raise BadInputError("there is no image with masks whose file can be read; nothing to show")
    sheet_HWC3 = _stack(rows, width_px)
    is_png = suffix == ".png"
    write_atomically(path, encode_png(sheet_HWC3) if is_png else encode_jpeg(sheet_HWC3))
    return path


def file_name(uri: str) -> str:
    """Return the last part of a path or URL, without a query; ``"image"`` where it has none."""
    path = urlsplit(uri).path if "://" in uri else uri
    return path.rstrip("/").rpartition("/")[2] or "image"


def _draw(
    drawn_HWC3: NDArray[np.uint8],
    photo_HWC3: NDArray[np.uint8],
    mask: MaskRecord,
    colour: tuple[int, int, int],
    alpha: int,
) -> None:
    """Draw one mask, blended with the photo, in place; `alpha` of 256 is opaque."""
    region_hw, top, left = _region(mask, *photo_HWC3.shape[:2])
    if region_hw.size == 0:
        return
    h, w = region_hw.shape
    window = np.s_[top : top + h, left : left + w]
    thickness = max(1, round(max(photo_HWC3.shape[:2]) / _PX_PER_OUTLINE_PX))
    inside_hw = _eroded(region_hw, thickness)
    levels = np.arange(256)
    # A table per channel, then the fill over the outline: 4 times as fast as blending a selection.
    for channel, value in enumerate(colour):
        blended = ((levels * (256 - alpha) + value * alpha) >> 8).astype(np.uint8)
        plane_hw = drawn_HWC3[window][:, :, channel]
        filled_hw = blended[photo_HWC3[window][:, :, channel]]
        np.copyto(plane_hw, np.uint8(value), where=region_hw)
        np.copyto(plane_hw, filled_hw, where=inside_hw)


def _region(mask: MaskRecord, height: int, width: int) -> tuple[NDArray[np.bool_], int, int]:
    """Sample a mask at the pixels of an image of its shape: (region, its row, its column).

    A mask between the pixels of a smaller image shows as the pixel nearest to its middle.
    """
    scale = max(height, width) / max(mask.rle.height, mask.rle.width)
    off = max(abs(mask.rle.height * scale - height), abs(mask.rle.width * scale - width))
    if scale > 1 or off >= 1:
        raise BadInputError(
            f"a mask of {mask.rle.height} x {mask.rle.width} pixels does not belong to an image of "
            f"{height} x {width}; pass the photo that it was made on, or that photo shrunk"
        )
    x, y, w, h = mask.bbox_xywh
    rows = _samples(height, mask.rle.height)
    columns = _samples(width, mask.rle.width)
    top, bottom = np.searchsorted(rows, (y, y + h + 1))
    left, right = np.searchsorted(columns, (x, x + w + 1))
    whole_HW = decode_mask(mask.rle)
    if scale == 1:
        region_hw = np.ascontiguousarray(whole_HW[top:bottom, left:right])
    else:
        region_hw = np.ascontiguousarray(whole_HW[np.ix_(rows[top:bottom], columns[left:right])])
    if mask.area == 0 or region_hw.any():
        return region_hw, int(top), int(left)
    row = min((2 * y + h + 1) * height // (2 * mask.rle.height), height - 1)
    column = min((2 * x + w + 1) * width // (2 * mask.rle.width), width - 1)
    return np.ones((1, 1), dtype=np.bool_), row, column


def _samples(count: int, length: int) -> NDArray[np.int64]:
    """Positions of `count` pixels' middles in `length` pixels of the same side."""
    return (2 * np.arange(count, dtype=np.int64) + 1) * length // (2 * count)


def _eroded(region_hw: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    """Take off the border, in steps of one pixel; beyond the array there is no mask."""
    inside_hw = region_hw
    for _ in range(steps):
        before, inside_hw = inside_hw, inside_hw.copy()
        inside_hw[[0, -1], :] = False
        inside_hw[:, [0, -1]] = False
        inside_hw[1:] &= before[:-1]
        inside_hw[:-1] &= before[1:]
        inside_hw[:, 1:] &= before[:, :-1]
        inside_hw[:, :-1] &= before[:, 1:]
    return inside_hw


def _contact_row(pictures: Sequence[Picture], columns: int, width_px: int) -> NDArray[np.uint8]:
    """Photos and overlays side by side at one height: uint8 (h, width_px, 3) or narrower."""
    photos = [picture.image_HWC3 for picture in pictures if picture.image_HWC3 is not None]
    shapes = [photo.shape[1] / photo.shape[0] for photo in photos]
    space = width_px - _GAP_PX * (2 * columns - 1)
    # A last row that is not full keeps the height that its photos would have in a full one.
    height = space * len(photos) / columns / (2 * sum(shapes))
    height = max(1, int(min(height, *(photo.shape[0] for photo in photos))))
    cells: list[NDArray[np.uint8]] = []
    for picture, photo, shape in zip(pictures, photos, shapes, strict=True):
        small = resize_to_fit(photo, max(1, round(height * max(shape, 1.0))))
        cells += [_framed(small, height), _framed(draw_overlay(small, picture.masks), height)]
    gap = np.full((height, _GAP_PX, 3), _WHITE, dtype=np.uint8)
    parts = [part for cell in cells for part in (gap, cell)][1:]
    return np.concatenate(parts, axis=1)[:, :width_px]


def _framed(picture_HWC3: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
    """Cut or fill, by the rounding pixel, to a height."""
    missing = max(0, height - picture_HWC3.shape[0])
    filled = np.pad(picture_HWC3, ((0, missing), (0, 0), (0, 0)), mode="edge")
    return filled[:height]


def _stack(rows: Sequence[NDArray[np.uint8]], width_px: int) -> NDArray[np.uint8]:
    """Rows below each other on white, cut off right where no row reaches."""
    height = sum(row.shape[0] for row in rows) + _GAP_PX * (len(rows) - 1)
    width = min(width_px, max(row.shape[1] for row in rows))
    sheet_HWC3 = np.full((height, width, 3), _WHITE, dtype=np.uint8)
    top = 0
    for row in rows:
        sheet_HWC3[top : top + row.shape[0], : row.shape[1]] = row
        top += row.shape[0] + _GAP_PX
    return sheet_HWC3
