"""Synthetic objects before landscapes, and mosaics of regions.

    canvas = draw_objects(np.random.default_rng(0), 256, 256)

Shapes: H, W rows and columns of the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.dataset.scenes.canvas import NOBODY, Canvas
from engine.dataset.scenes.shapes import (
    PlacedShape,
    arc,
    blob,
    box,
    ellipse,
    place_shape,
    polygon,
    strip,
    tessellate,
)
from engine.dataset.scenes.textures import log_uniform, random_texture

__all__ = ["draw_mosaic", "draw_objects"]


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of one scene.

    Attributes:
        middle: RGB around which they lie.
        spread: how far.
        saturation: 0 for greys, 1 for vivid colours.
        contrast: by how much neighbours differ, at least, where such colours are found.
    """

    middle: NDArray[np.float32]
    spread: float
    saturation: float
    contrast: float

    @classmethod
    def draw(cls, random: np.random.Generator) -> Palette:
        """Draw a palette; one in three is of low contrast."""
        contrast = random.uniform(14, 28) if random.random() < 0.35 else random.uniform(28, 80)
        saturation = float(random.choice([0.0, 0.25, 0.5, 1.0], p=[0.15, 0.4, 0.33, 0.12]))
        middle = random.uniform(70, 185, 3).astype(np.float32)
        middle += (1 - min(1, 2 * saturation)) * (middle.mean() - middle)
        return cls(middle, 1.3 * contrast + 12, saturation, float(contrast))

    def colour(
        self, random: np.random.Generator, beside: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Draw a colour, RGB, that differs from each of those `beside` it, float32 (M, 3)."""
        colours = self.spread * random.standard_normal((8, 3), dtype=np.float32)
        grey = colours.mean(1, keepdims=True) * np.float32(1.6)
        colours = self.middle + grey + np.float32(self.saturation) * (colours - grey)
        colours = np.clip(colours, 8, 247)
        if beside is None or not len(beside):
            return np.asarray(colours[0])
        distance = np.abs(colours[:, None] - beside).max(2).min(1)
        far = np.flatnonzero(distance >= self.contrast)
        return np.asarray(colours[far[0] if len(far) else int(distance.argmax())])

    def tint(self, random: np.random.Generator) -> NDArray[np.float32]:
        """In which direction of colour a texture varies: mostly light and dark."""
        shift = random.standard_normal(3, dtype=np.float32)
        return np.asarray(1 + np.float32(0.4 * self.saturation) * shift, dtype=np.float32)


def draw_objects(random: np.random.Generator, height: int, width: int) -> Canvas:
    """Draw a few large things or many small ones before one to four kinds of ground."""
    canvas = _landscape(random, height, width, int(random.integers(1, 5)))
    low, high = (14, 28) if random.random() < 0.3 else (3, 14)
    _add_objects(random, canvas, int(random.integers(low, high)))
    return canvas


def draw_mosaic(random: np.random.Generator, height: int, width: int) -> Canvas:
    """Draw 5 to 32 regions, sometimes with a few things on them."""
    canvas = _landscape(random, height, width, int(random.integers(5, 33)))
    if random.random() < 0.3:
        _add_objects(random, canvas, int(random.integers(1, 5)))
    return canvas


def _landscape(random: np.random.Generator, height: int, width: int, regions: int) -> Canvas:
    """Regions of different colours and textures that fill the image, near ones in groups."""
    palette = Palette.draw(random)
    pieces = tessellate(random, height, width, regions)
    sites = pieces.sites_N2
    heads = sites[: max(1, regions // int(random.integers(3, 8)))]
    group_N = ((sites[:, None] - heads) ** 2).sum(2).argmin(1)
    colours = _neighbouring_colours(random, palette, sites)
    grouped = len(heads) > 1 and random.random() < 0.6
    if grouped:
        shift = palette.contrast * random.standard_normal((len(heads), 3), dtype=np.float32)
        colours = palette.middle + 0.5 * (colours - palette.middle) + shift[group_N]
        colours = np.clip(colours, 5, 250)
    image = colours[pieces.region_HW]
    image += _textures(random, pieces.region_HW, regions, palette)
    canvas = Canvas.of(image)
    canvas.parents = [NOBODY] * (len(heads) if grouped else 0)
    first_region = len(canvas.parents)
    canvas.parents += [int(group) if grouped else NOBODY for group in group_N]
    np.copyto(canvas.owner_HW, pieces.region_HW + first_region, casting="unsafe")
    if regions > 4 and random.random() < 0.4:  # roads between fields, lead between panes
        line = np.clip(np.float32(random.uniform(1, 2.5)) - pieces.to_border_HW, 0, 1)
        canvas.image_HW3 += line[..., None] * (palette.colour(random, colours) - canvas.image_HW3)
        canvas.owner_HW[line > 0.5] = NOBODY
    canvas.noise = random.uniform(0.5, 0.3 * palette.contrast)
    return canvas


def _neighbouring_colours(
    random: np.random.Generator, palette: Palette, sites_N2: NDArray[np.float32]
) -> NDArray[np.float32]:
    """A colour for each site that differs from those of the sites near it: float32 (N, 3)."""
    colours = np.empty((len(sites_N2), 3), dtype=np.float32)
    for index, site in enumerate(sites_N2):
        near = ((sites_N2[:index] - site) ** 2).sum(1).argsort()[:4]
        colours[index] = palette.colour(random, colours[near])
    return colours


def _textures(
    random: np.random.Generator, region_HW: NDArray[np.intp], regions: int, palette: Palette
) -> NDArray[np.float32]:
    """What is added to the regions' colours: one of a few textures each, of its own strength."""
    kinds = [random_texture(random, *region_HW.shape) for _ in range(min(4, regions))]
    kind_N = random.integers(len(kinds), size=regions)
    strength_N = palette.contrast * random.uniform(0.05, 0.6, regions)
    # weights[kind, region] is 0 but for the region's own kind
    weights = np.where(kind_N == np.arange(len(kinds))[:, None], strength_N, 0).astype(np.float32)
    texture = np.zeros(region_HW.shape, dtype=np.float32)
    for kind, weight_N in zip(kinds, weights, strict=True):
        texture += kind * weight_N[region_HW]
    return texture[..., None] * palette.tint(random)


def _add_objects(random: np.random.Generator, canvas: Canvas, count: int) -> None:
    """Paint shapes over the canvas, the large ones first, some with parts."""
    height, width = canvas.size
    palette = Palette.draw(random)
    side = min(height, width)
    smallest = 5 / side if count > 12 else 0.04
    radii = np.sort([log_uniform(random, smallest, 0.33) * side for _ in range(count)])[::-1]
    radii = np.maximum(5, radii * np.exp(random.normal(0, 0.2, count)))
    shadow = float(random.uniform(0.15, 0.5)) if random.random() < 0.4 else 0.0
    light_yx = random.uniform(-1, 1, 2) * random.choice([0, 0.1, 0.25])
    for radius in radii:
        centre = (float(random.uniform(0, height - 1)), float(random.uniform(0, width - 1)))
        shape = place_shape(random, centre, float(radius), (height, width))
        if shadow:
            _cast_shadow(canvas, shape, shadow, light_yx)
        thing = _paint_object(random, canvas, palette, shape, light_yx)
        if radius > 14 and random.random() < 0.4:
            _add_parts(random, canvas, palette, shape, thing)
    canvas.noise = min(canvas.noise, random.uniform(0.5, 0.3 * palette.contrast))
    canvas.blur_px = 0.8


def _paint_object(
    random: np.random.Generator,
    canvas: Canvas,
    palette: Palette,
    shape: PlacedShape,
    light_yx: NDArray[np.float64],
    parent: int = NOBODY,
) -> int:
    """Paint a shape with a texture and shading, in a colour that differs from what it hides."""
    coverage = shape.coverage(log_uniform(random, 1, 2.5))
    below = canvas.image_HW3[shape.window][coverage > 0.5]
    colour = palette.colour(random, below.mean(0, keepdims=True) if len(below) else None)
    texture = random_texture(random, *coverage.shape)
    texture *= np.float32(palette.contrast * random.uniform(0.05, 0.6))
    slope_y, slope_x = light_yx / shape.radius_px
    rows, columns = (np.arange(n, dtype=np.float32) - n / 2 for n in coverage.shape)
    shading = 1 - (rows * slope_y)[:, None] - columns * slope_x
    fill = (colour + texture[..., None] * palette.tint(random)) * shading[..., None]
    return canvas.paint(shape.window, coverage, fill.astype(np.float32), parent)


def _cast_shadow(
    canvas: Canvas, shape: PlacedShape, strength: float, light_yx: NDArray[np.float64]
) -> None:
    """Darken what lies beside the shape, away from the light."""
    shade = 1 - np.float32(strength) * shape.coverage(max(3.0, 0.15 * shape.radius_px))
    away_px = np.sign(light_yx) * (1 + 0.12 * shape.radius_px)
    at: list[slice] = []
    of: list[slice] = []
    for part, length, away in zip(shape.window, canvas.size, away_px, strict=True):
        shifted = part.start + round(float(away)), part.stop + round(float(away))
        start, stop = np.clip(shifted, 0, length)
        at.append(slice(int(start), int(stop)))
        of.append(slice(int(start) - shifted[0], int(stop) - shifted[0]))
    canvas.image_HW3[at[0], at[1]] *= shade[of[0], of[1], None]


def _add_parts(
    random: np.random.Generator, canvas: Canvas, palette: Palette, shape: PlacedShape, thing: int
) -> None:
    """Paint one to three parts onto a thing: spots, and bands across it."""
    inside = np.argwhere(shape.distance_hw < 0)
    if not len(inside):
        return
    for _ in range(int(random.integers(1, 4))):
        y, x = inside[int(random.integers(len(inside)))]
        centre = (float(y + shape.window[0].start), float(x + shape.window[1].start))
        band = random.random() < 0.35
        share = random.uniform(0.7, 1.2) if band else random.uniform(0.15, 0.45)
        kinds = (strip,) if band else (blob, ellipse, polygon, box, arc)
        radius_px = max(4.0, share * shape.radius_px)
        part = place_shape(random, centre, radius_px, canvas.size, kinds)
        _paint_object(random, canvas, palette, part, np.zeros(2), parent=thing)
