"""Synthetic scenes with exact masks: labels that cost nothing, of things that no photo shows.

    scene = draw_scene(np.random.default_rng(0), 256, 256)

A model that has seen photos only does not know a blob under a microscope for an object. Scenes are
drawn in milliseconds, so that training can make new ones all the time, of three families:

- ``microscopy``: cells with nuclei, fluorescent, stained or in transmitted light; tissue;
- ``objects``: textured and shaded shapes with parts, which hide each other, before a landscape;
- ``mosaic``: an area cut into regions that differ a little, and into groups of such regions.

Everything is random: colours, contrast (often low), textures, blur, light and noise. Shapes: H, W
rows and columns of the image; h, w of a window; N number of masks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.dataset.scenes.canvas import Canvas
from engine.dataset.scenes.microscopy import draw_microscopy
from engine.dataset.scenes.objects import draw_mosaic, draw_objects
from engine.errors import BadInputError

__all__ = ["FAMILIES", "MAX_SIDE_PX", "MIN_SIDE_PX", "SyntheticScene", "draw_scene"]

MIN_SIDE_PX, MAX_SIDE_PX = 48, 2048
MIN_MASKS = 3

FAMILIES: dict[str, Callable[[np.random.Generator, int, int], Canvas]] = {
    "microscopy": draw_microscopy,
    "objects": draw_objects,
    "mosaic": draw_mosaic,
}
_CHANCES = (0.4, 0.4, 0.2)


@dataclass(frozen=True, slots=True)
class SyntheticScene:
    """A picture and all that is in it.

    Attributes:
        image_HWC3: uint8 RGB.
        masks_NHW: bool, N >= 3; the visible pixels of each thing, at least 30. Any two masks are
            disjoint, or one is a part of the other.
    """

    image_HWC3: NDArray[np.uint8]
    masks_NHW: NDArray[np.bool_]


def draw_scene(
    random: np.random.Generator, height: int, width: int, family: str | None = None
) -> SyntheticScene:
    """Draw a scene; the same generator state gives the same scene.

    Args:
        random: everything is drawn from it.
        height: rows, 48 to 2,048.
        width: columns, 48 to 2,048.
        family: one of `FAMILIES`; at random by default.

    Raises:
        BadInputError: a size out of range, or an unknown family.
    """
    if min(height, width) < MIN_SIDE_PX or max(height, width) > MAX_SIDE_PX:
        raise BadInputError(
            f"cannot draw a scene of {height} x {width} pixels; "
            f"expected sides of {MIN_SIDE_PX} to {MAX_SIDE_PX}"
        )
    if family is not None and family not in FAMILIES:
        raise BadInputError(f"no family of scenes {family!r}; expected one of {sorted(FAMILIES)}")
    while True:  # now and then too little of what was placed is visible
        name = family or str(random.choice(list(FAMILIES), p=_CHANCES))
        canvas = FAMILIES[name](random, height, width)
        masks = canvas.masks()
        if len(masks) >= MIN_MASKS:
            return SyntheticScene(canvas.expose(random), masks)
