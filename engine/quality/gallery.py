"""A photo with its masks as HTML: one JPEG, and the outlines as SVG paths over it.

    figure = picture_figure(picture, number=1)

The picture of a photo is bounded in bytes, whatever the photo and however many its masks: what does
not fit is coarser, then smaller, and in the end the smallest masks are left out, which the caption
says.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from engine.images import encode_jpeg, mask_contours, resize_to_fit
from engine.masks import decode_mask
from engine.quality.charts import number
from engine.quality.overlays import PALETTE, file_name, mask_colours
from engine.quality.pictures import Picture
from engine.records import MaskRecord

__all__ = ["MAX_SIDE_PX", "Figure", "palette_css", "picture_figure"]

MAX_SIDE_PX = 960
"""Longer side of the photos on the page."""

# (longer side in px, JPEG quality), tried in this order until the photo fits.
_JPEG_STEPS = ((960, 80), (960, 68), (800, 68), (640, 65), (480, 60), (320, 50))
_JPEG_BYTES = 125_000
_OUTLINE_BYTES = 64_000
# Distances from the true outline, in pixels of the page, tried until all outlines fit.
_TOLERANCES_PX = (0.5, 0.9, 1.5, 2.5, 4.0)
# Outlines are in half pixels of the page: whole numbers are short, and fine enough to zoom in.
_UNITS_PER_PX = 2
_MIN_ISLAND_PX2 = 3.0
_MAX_MASKS = 600
_MAX_CONTOURS = 300


@dataclass(frozen=True, slots=True)
class Figure:
    """A piece of the page.

    Attributes:
        html: a ``<figure>`` with the id ``photo-<number>``.
        css: the rule that tells the page's layout the photo's shape.
    """

    html: str
    css: str


def picture_figure(picture: Picture, number_on_page: int) -> Figure:
    """Make a photo with its masks, or a placeholder that says why there is none.

    Args:
        picture: the photo, at most `MAX_SIDE_PX` on its longer side, with all its masks.
        number_on_page: from 1.

    Raises:
        InvalidMaskError: an RLE that cannot be decoded.
    """
    image = picture.image
    name = f"photo-{number_on_page}"
    facts = ""
    if picture.image_HWC3 is None:
        body = f'<p class="missing">{escape(picture.problem or "The photo cannot be shown.")}</p>'
    else:
        jpeg, height, width = _photo(picture.image_HWC3)
        paths, shown = _outlines(picture.masks, height, width)
        left_out = len(picture.masks) - shown
        facts += f"{_count(len(picture.masks), 'mask')}"
        facts += f", the {shown} largest shown · " if left_out else " · "
        body = (
            f'<a href="#{name}"><img src="data:image/jpeg;base64,{jpeg}" width="{width}" '
            f'height="{height}" alt="{escape(file_name(image.uri))}">'
            f'<svg class="masks" viewBox="0 0 {width * _UNITS_PER_PX} {height * _UNITS_PER_PX}" '
            f'role="img" aria-label="{_count(shown, "mask")} drawn over the photo">'
            f"{paths}</svg></a>"
        )
    facts += f"{number(image.width)} \u00d7 {number(image.height)} px"
    caption = f"<figcaption><b>{escape(file_name(image.uri))}</b> <span>{facts}</span></figcaption>"
    return Figure(
        f'<figure id="{name}">{body}{caption}</figure>\n',
        f"#{name}{{--ratio:{image.width / image.height:.4f}}}",
    )


def palette_css() -> str:
    """The rules that colour the masks: ``.c0`` to ``.c15``."""
    return "".join(f".c{i}{{color:rgb{rgb}}}".replace(" ", "") for i, rgb in enumerate(PALETTE))


def _photo(image_HWC3: NDArray[np.uint8]) -> tuple[str, int, int]:
    """(base64 of a JPEG, its height, its width) within the bytes allowed, or the smallest step."""
    for side, quality in _JPEG_STEPS:
        image_HWC3 = resize_to_fit(image_HWC3, side)
        data = encode_jpeg(image_HWC3, quality)
        if len(data) <= _JPEG_BYTES:
            break
    return base64.b64encode(data).decode("ascii"), *image_HWC3.shape[:2]


def _outlines(masks: Sequence[MaskRecord], height: int, width: int) -> tuple[str, int]:
    """(``<path>`` elements, how many masks they show), largest mask first."""
    # Of all masks, so that a mask has the colour that it has in `draw_overlay`.
    coloured = list(zip(masks, mask_colours(masks), strict=True))[:_MAX_MASKS]
    for tolerance_px in _TOLERANCES_PX:
        paths: list[str] = []
        left = _OUTLINE_BYTES
        for mask, colour in coloured:
            path = _path(mask, colour, height, width, tolerance_px)
            left -= len(path)
            if left < 0:
                break
            paths.append(path)
        if left >= 0:
            break
    return "".join(paths), len(paths)


def _path(mask: MaskRecord, colour: int, height: int, width: int, tolerance_px: float) -> str:
    scale = max(height, width) / max(mask.rle.height, mask.rle.width)
    x, y, w, h = mask.bbox_xywh
    region_hw = decode_mask(mask.rle)[y : y + h + 1, x : x + w + 1]
    # Traced at the photo's resolution: nothing is lost before the outline is simplified.
    contours = mask_contours(region_hw, tolerance_px / scale)
    corner = np.array((x + 0.5, y + 0.5))
    d = "".join(
        _subpath((contours[i] + corner) * scale)
        for i in _visible(contours, _MIN_ISLAND_PX2 / scale**2)
    )
    return f'<path class="c{colour}" d="{d}"><title>{_facts(mask)}</title></path>'


def _visible(contours: Sequence[NDArray[np.int32]], min_area_px2: float) -> list[int]:
    """The contours to draw, largest first: not the specks, and not more than a few hundred."""
    if not contours:
        return []
    # All at once: a speckled mask has tens of thousands.
    points = np.concatenate(contours).astype(np.int64)
    lengths = np.array([len(contour) for contour in contours])
    starts = np.cumsum(lengths) - lengths
    following = np.arange(1, len(points) + 1)
    following[starts + lengths - 1] = starts
    x, y = points.T
    areas = np.abs(np.add.reduceat(x * y[following] - x[following] * y, starts)) / 2
    order = np.argsort(-areas, kind="stable")[:_MAX_CONTOURS]
    visible: list[int] = order[: max(1, int((areas[order] >= min_area_px2).sum()))].tolist()
    return visible


def _subpath(contour_K2: NDArray[np.float64]) -> str:
    """A closed outline in SVG's relative commands, in `_UNITS_PER_PX`-ths of a pixel."""
    points = np.rint(contour_K2 * _UNITS_PER_PX).astype(np.int64)
    steps = np.diff(points, axis=0)
    steps = steps[steps.any(axis=1)]
    moves = "".join(f"{dx}{dy:+d}" if dx < 0 else f" {dx}{dy:+d}" for dx, dy in steps.tolist())
    # "+" is a sign and a separator at once, but for SVG "-" alone is enough, and shorter.
    line = f"l{moves.replace('+', ' ').lstrip()}" if moves else "h0"
    return f"M{points[0, 0]} {points[0, 1]}{line}z"


def _facts(mask: MaskRecord) -> str:
    x, y, w, h = mask.bbox_xywh
    return (
        f"IoU {mask.predicted_iou:.3f} · stability {mask.stability_score:.3f} · "
        f"{mask.area:,} px · box {x}, {y}, {w} \u00d7 {h}"
    )


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
