"""Synthetic pictures of cells and tissue, as microscopes of several kinds show them.

    canvas = draw_microscopy(np.random.default_rng(0), 256, 256)

Shapes: H, W rows and columns of the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.dataset.scenes.canvas import NOBODY, Canvas
from engine.dataset.scenes.shapes import (
    PlacedShape,
    blob,
    ellipse,
    pebble,
    place_shape,
    rod,
    strip,
    tessellate,
)
from engine.dataset.scenes.textures import log_uniform, smooth_noise

__all__ = ["draw_microscopy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellLook:
    """How the cells of one preparation look.

    Attributes:
        background: RGB.
        cell: RGB of a cell's middle.
        nucleus: RGB that a nucleus adds to its cell; None where nuclei do not show.
        dome: how much darker a cell is at its border than in its middle, 0 to 1.
        rim: added at the border.
        halo: added around the cell.
        variation: spread of the cells' strengths.
    """

    background: NDArray[np.float32]
    cell: NDArray[np.float32]
    nucleus: NDArray[np.float32] | None
    dome: float = 0.0
    rim: float = 0.0
    halo: float = 0.0
    variation: float = 0.25


def _rgb(*values: float) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def _fluorescent(random: np.random.Generator) -> CellLook:
    """Bright on dark, grey or in the colour of one dye."""
    dyes = [(1, 1, 1)] * 6 + [(0.15, 1, 0.2), (0.15, 0.3, 1), (1, 0.2, 0.15), (0.2, 1, 1)]
    dye = _rgb(*dyes[int(random.integers(len(dyes)))])
    dark, bright = random.uniform(2, 45), random.uniform(60, 210)
    nucleus = None
    if random.random() < 0.4:  # of another dye, or spared by this one
        other = _rgb(*dyes[int(random.integers(len(dyes)))]) * random.uniform(60, 130)
        nucleus = other - random.uniform(0.4, 0.7) * bright * dye
        if float(np.abs(nucleus).max()) < 0.3 * bright:
            nucleus = -0.5 * bright * dye
    return CellLook(
        background=dark * dye,
        cell=dark * dye + bright * dye,
        nucleus=nucleus,
        dome=random.choice([0.0, 0.3, 0.8]),
        rim=random.choice([0, 0, 0.5]) * bright,
        variation=random.uniform(0.1, 0.45),
    )


def _transmitted(random: np.random.Generator) -> CellLook:
    """Little darker or brighter than a light ground, with rims and halos of refracted light."""
    ground = _rgb(*(random.uniform(110, 225) + random.uniform(-12, 12, 3)))
    contrast = random.uniform(8, 45) * random.choice([-1, -1, 1])
    nucleus = contrast * np.ones(3, dtype=np.float32) if random.random() < 0.4 else None
    return CellLook(
        background=ground,
        cell=ground + contrast,
        nucleus=nucleus,
        dome=random.uniform(-0.5, 0.5),
        rim=random.uniform(-80, -20),
        halo=random.choice([0, 15, 40]),
    )


def _stained(random: np.random.Generator) -> CellLook:
    """Purple nuclei in pink cells, or alone."""
    ground = _rgb(*random.uniform((215, 190, 205), (250, 235, 245)))
    nucleus = _rgb(*random.uniform((70, 30, 100), (140, 100, 175)))
    if random.random() < 0.4:
        return CellLook(background=ground, cell=nucleus, nucleus=None, variation=0.15)
    pink = _rgb(*random.uniform((200, 115, 150), (235, 175, 205)))
    return CellLook(background=ground, cell=pink, nucleus=nucleus - pink, variation=0.15)


def _cells(random: np.random.Generator, height: int, width: int) -> Canvas:
    """Cells that lie apart, touch or crowd, with nuclei in them."""
    look = (_fluorescent, _fluorescent, _transmitted, _stained)[int(random.integers(4))](random)
    side = min(height, width)
    radius = max(6.0, log_uniform(random, 0.03, 0.16) * side)
    contrast = float(np.abs(look.cell - look.background).max()) + abs(look.rim) / 2
    grain = smooth_noise(random, height, width, log_uniform(random, 1.5, max(2, radius / 2)))
    ground = smooth_noise(random, height, width, log_uniform(random, 2, side / 3))
    image = look.background + (0.08 * contrast * ground)[..., None]
    canvas = Canvas.of(image.astype(np.float32))
    canvas.noise = random.uniform(0.02, 0.3) * min(contrast, 90)
    canvas.blur_px = min(1.5, radius / 6)
    preparations = (
        (pebble,),
        (ellipse,),
        (pebble, ellipse),
        (blob, pebble),
        (rod,),
        (strip, rod, blob),
    )
    kinds = preparations[int(random.integers(len(preparations)))]
    nearest_HW = np.full((height, width), np.inf, dtype=np.float32)
    cells = []
    for centre_yx in _cell_centres(random, height, width, radius):
        size_px = radius * float(np.clip(np.exp(random.normal(0, 0.2)), 0.6, 1.5))
        shape = place_shape(random, centre_yx, size_px, (height, width), kinds, size_px * 0.3 + 2)
        cells.append((_paint_cell(random, canvas, look, shape, nearest_HW, grain), shape))
    if look.nucleus is not None and radius >= 7:
        for cell, shape in cells:
            _paint_nucleus(random, canvas, look.nucleus, cell, shape, grain)
    return canvas


def _cell_centres(
    random: np.random.Generator, height: int, width: int, radius: float
) -> list[tuple[float, float]]:
    """Where cells lie: scattered or in clusters, (y, x) in pixels."""
    fill = random.uniform(0.15, 1.3)
    wanted = int(np.clip(fill * height * width / (np.pi * radius**2), 4, 40))
    candidates = random.random((4 * wanted, 2)) * (height - 1, width - 1)
    if random.random() < 0.4:
        clusters = candidates[: int(random.integers(1, 5))]
        spread = radius * np.sqrt(wanted) * random.uniform(0.6, 1.2)
        chosen = clusters[random.integers(len(clusters), size=len(candidates))]
        candidates = chosen + random.normal(0, spread, candidates.shape)
        candidates = np.clip(candidates, 0, (height - 1, width - 1))
    closest = (radius * random.choice([1.0, 1.5, 1.8, 2.2])) ** 2
    kept = np.empty((0, 2))
    for candidate in candidates:
        if len(kept) == wanted:
            break
        if np.all(((kept - candidate) ** 2).sum(1) >= closest):
            kept = np.concatenate([kept, candidate[None]])
    return [(float(y), float(x)) for y, x in kept]


def _paint_cell(
    random: np.random.Generator,
    canvas: Canvas,
    look: CellLook,
    shape: PlacedShape,
    nearest_HW: NDArray[np.float32],
    grain_HW: NDArray[np.float32],
) -> int:
    """Paint one cell; where two meet, each pixel goes to the one that it lies deeper in."""
    depth = -shape.distance_hw / np.float32(shape.radius_px)
    nearest = nearest_HW[shape.window]
    wins = -depth < nearest
    np.copyto(nearest, -depth, where=wins)
    strength = np.float32(np.clip(1 + look.variation * random.normal(), 0.5, 1.4))
    inner = np.clip(depth / 0.5, 0, 1)
    profile = 1 - look.dome * (1 - np.sqrt(inner * (2 - inner)))
    profile *= 1 + np.float32(random.uniform(0, 0.25)) * grain_HW[shape.window]
    colour = look.background + (strength * profile)[..., None] * (look.cell - look.background)
    width = max(0.06, 1.2 / shape.radius_px)
    if look.rim:
        tint = (look.cell - look.background) / max(1.0, float(np.abs(look.cell).max()))
        tint = tint if look.rim > 0 else np.ones(3, dtype=np.float32)
        ring = np.exp(-(((depth - width) / width) ** 2))
        colour = colour + (look.rim * ring)[..., None] * tint
    if look.halo:
        halo = look.halo * np.exp(-(((depth + 1.5 * width) / width) ** 2)) * (depth < 0) * wins
        canvas.image_HW3[shape.window] += halo[..., None].astype(np.float32)
    return canvas.paint(shape.window, shape.coverage(1.5) * wins, colour.astype(np.float32))


def _paint_nucleus(
    random: np.random.Generator,
    canvas: Canvas,
    shift: NDArray[np.float32],
    cell: int,
    shape: PlacedShape,
    grain_HW: NDArray[np.float32],
) -> None:
    """Paint a nucleus near the middle of its cell."""
    deepest = np.unravel_index(int(shape.distance_hw.argmin()), shape.distance_hw.shape)
    depth_px = -float(shape.distance_hw[deepest])
    offset = depth_px * random.uniform(-0.25, 0.25, 2)
    corner = np.array([part.start for part in shape.window])
    y, x = np.clip(np.array(deepest) + corner + offset, 0, np.array(canvas.size) - 1)
    radius_px = max(2.5, depth_px * random.uniform(0.4, 0.75))
    nucleus = place_shape(random, (float(y), float(x)), radius_px, canvas.size, (pebble, ellipse))
    grain = 1 + 0.15 * np.clip(grain_HW[nucleus.window], -2, 2)
    colour = canvas.image_HW3[nucleus.window] + (grain[..., None] * shift).astype(np.float32)
    canvas.paint(nucleus.window, nucleus.coverage(1.5), colour, parent=cell)


def _tissue(random: np.random.Generator, height: int, width: int) -> Canvas:
    """Cells wall to wall: dark membranes as an electron microscope shows them, or bright ones."""
    pieces = tessellate(random, height, width, int(random.integers(6, 41)))
    dark = random.random() < 0.7
    inside = random.uniform(120, 200) if dark else random.uniform(10, 80)
    wall = random.uniform(20, 80) if dark else random.uniform(130, 240)
    spacing = np.sqrt(height * width / len(pieces.sites_N2))
    half_width = min(random.uniform(0.7, 2.5), spacing / 10)
    shades = inside + random.normal(0, random.uniform(0, 18), len(pieces.sites_N2))
    grain = random.uniform(3, 18) * smooth_noise(random, height, width, log_uniform(random, 1.5, 6))
    grey = shades.astype(np.float32)[pieces.region_HW] + grain.astype(np.float32)
    is_wall = np.clip(half_width + 0.5 - pieces.to_border_HW, 0, 1)
    grey += is_wall * (np.float32(wall) - grey)
    tint = _rgb(1, 1, 1) if random.random() < 0.7 else _rgb(*random.uniform(0.4, 1.0, 3))
    canvas = Canvas.of(grey[..., None] * tint)
    canvas.noise = random.uniform(2, 0.25 * abs(inside - wall))
    canvas.parents = [NOBODY] * len(shades)
    np.copyto(canvas.owner_HW, pieces.region_HW, casting="unsafe", where=is_wall < 0.5)
    if random.random() < 0.5:
        _add_organelles(random, canvas, (inside, wall), tint, spacing)
    return canvas


def _add_organelles(
    random: np.random.Generator,
    canvas: Canvas,
    shades: tuple[float, float],
    tint: NDArray[np.float32],
    spacing: float,
) -> None:
    """Paint round things into some of the cells, of shades between those of cell and membrane."""
    height, width = canvas.size
    inside, wall = shades
    for _ in range(int(random.integers(3, 12))):
        y, x = int(random.integers(height)), int(random.integers(width))
        radius_px = max(3.5, spacing * random.uniform(0.12, 0.3))
        shape = place_shape(random, (y, x), radius_px, (height, width), (pebble, ellipse))
        cell = int(canvas.owner_HW[y, x])
        if cell != NOBODY and canvas.parents[cell] == NOBODY:
            shade = inside + random.uniform(0.4, 0.8) * (wall - inside)
            canvas.paint(shape.window, shape.coverage(1.5), np.float32(shade) * tint, parent=cell)


def draw_microscopy(random: np.random.Generator, height: int, width: int) -> Canvas:
    """Draw cells, or one time in four tissue."""
    return (_tissue if random.random() < 0.25 else _cells)(random, height, width)
