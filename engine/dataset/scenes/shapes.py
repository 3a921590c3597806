"""Random outlines and tessellations for synthetic scenes.

    shape = place_shape(random, (128.0, 100.0), radius_px=40.0, size=(256, 256))
    inside_hw = shape.distance_hw < 0        # the pixels of shape.window that the outline holds

Shapes: H, W rows and columns of the image; h, w of the window in which an outline lies. Distances
are in pixels, negative inside, and near the outline only: accurate enough for soft borders.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.dataset.scenes.textures import log_uniform, smooth_noise

_ANGLES = 360
_DIRECTIONS = 2 * np.pi * np.arange(_ANGLES) / _ANGLES
# More would not leave room for the squared distance in 32 bits, up to 2,048 pixels a side.
_MAX_SITES = 64
_FAR = np.iinfo(np.int32).max // _MAX_SITES * _MAX_SITES
Outline = Callable[
    [np.random.Generator, NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]
]


@dataclass(frozen=True, slots=True)
class PlacedShape:
    """An outline at its place.

    Attributes:
        window: rows and columns of the image; may be cut by the image's border.
        distance_hw: float32, pixels from the outline, negative inside.
        radius_px: no point of the outline is farther from the centre, but for its waviness.
    """

    window: tuple[slice, slice]
    distance_hw: NDArray[np.float32]
    radius_px: float

    def coverage(self, softness_px: float) -> NDArray[np.float32]:
        """How much of each pixel the shape covers, 0 to 1, with a border so wide: (h, w)."""
        coverage = np.clip(0.5 - self.distance_hw / np.float32(softness_px), 0, 1)
        return np.asarray(coverage, dtype=np.float32)


def place_shape(
    random: np.random.Generator,
    centre_yx: tuple[float, float],
    radius_px: float,
    size: tuple[int, int],
    outlines: tuple[Outline, ...] | None = None,
    margin_px: float = 2.0,
) -> PlacedShape:
    """Draw a random outline around a point.

    Args:
        random: kind, direction, proportions and waviness come from it.
        centre_yx: of the shape in pixels, inside the image.
        radius_px: of the circle that holds the shape.
        size: rows and columns of the image.
        outlines: kinds to choose from; all by default.
        margin_px: the window reaches so far beyond the circle.
    """
    outlines = outlines or OUTLINES
    outline = outlines[int(random.integers(len(outlines)))]
    wavy = random.random() < 0.3
    reach = radius_px * (1.15 if wavy else 1.0) + margin_px
    window = _window(centre_yx, reach, size)
    y = np.arange(window[0].start, window[0].stop, dtype=np.float32)[:, None] - centre_yx[0]
    x = np.arange(window[1].start, window[1].stop, dtype=np.float32)[None, :] - centre_yx[1]
    angle = random.uniform(0, 2 * np.pi)
    sine, cosine = np.float32(np.sin(angle) / radius_px), np.float32(np.cos(angle) / radius_px)
    u, v = x * cosine + y * sine, y * cosine - x * sine
    if wavy:
        amount = np.float32(random.uniform(0.02, 0.1))
        scale_px = max(2.0, radius_px * random.uniform(0.15, 0.6))
        height, width = u.shape
        u = u + amount * np.clip(smooth_noise(random, height, width, scale_px), -1.5, 1.5)
        v = v + amount * np.clip(smooth_noise(random, height, width, scale_px), -1.5, 1.5)
    distance = outline(random, u.astype(np.float32), v.astype(np.float32))
    return PlacedShape(window, (distance * np.float32(radius_px)).astype(np.float32), radius_px)


def _window(
    centre_yx: tuple[float, float], reach: float, size: tuple[int, int]
) -> tuple[slice, slice]:
    """The pixels within `reach` of a point, at least one in each direction."""

    def span(centre: float, length: int) -> slice:
        start = int(np.clip(np.floor(centre - reach), 0, length - 1))
        return slice(start, int(np.clip(np.ceil(centre + reach) + 1, start + 1, length)))

    return span(centre_yx[0], size[0]), span(centre_yx[1], size[1])


def blob(
    random: np.random.Generator, u: NDArray[np.float32], v: NDArray[np.float32]
) -> NDArray[np.float32]:
    """A smooth closed curve, from an ellipse to an amoeba; u, v in radii."""
    return _closed_curve(random, u, v, random.uniform(0, 0.5))


def pebble(
    random: np.random.Generator, u: NDArray[np.float32], v: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Almost an ellipse, as most cells are."""
    return _closed_curve(random, u, v, random.uniform(0.05, 0.2))


def _closed_curve(
    random: np.random.Generator,
    u: NDArray[np.float32],
    v: NDArray[np.float32],
    waviness: float,
) -> NDArray[np.float32]:
    waves = np.arange(2, 8)
    strengths = waviness * random.standard_normal(6) / waves
    phases = random.uniform(0, 2 * np.pi, 6)
    radii = np.exp(strengths @ np.cos(waves[:, None] * _DIRECTIONS + phases[:, None]))
    return _polar(radii / radii.max(), u, v * np.float32(log_uniform(random, 1, 2.5)))


def ellipse(
    random: np.random.Generator, u: NDArray[np.float32], v: NDArray[np.float32]
) -> NDArray[np.float32]:
    """An ellipse, round to long."""
    aspect = np.float32(log_uniform(random, 1, 3))
    radius = np.hypot(u, aspect * v)
    # Divided by its slope, the field is a distance near the outline on the flat sides too.
    slope = np.hypot(u, aspect**2 * v) / np.maximum(radius, np.float32(1e-6))
    return np.asarray((radius - 1) / np.maximum(slope, 1e-3), dtype=np.float32)


def polygon(
    random: np.random.Generator, u: NDArray[np.float32], v: NDArray[np.float32]
) -> NDArray[np.float32]:
    """A star-shaped polygon of 3 to 9 corners."""
    corners = int(random.integers(3, 10))
    jitter = random.uniform(-0.3, 0.3, corners)
    at = 2 * np.pi * (np.arange(corners) + jitter) / corners
    reach = random.uniform(random.uniform(0.3, 0.9), 1.0, corners)
    after = np.searchsorted(at, _DIRECTIONS) % corners
    before = after - 1
    a, b = reach[before], reach[after]
    to_before, to_after = (
        (_DIRECTIONS - at[before]) % (2 * np.pi),
        (at[after] - _DIRECTIONS) % (2 * np.pi),
    )
    chord = a * b * np.sin(to_before + to_after)
    radii = chord / np.maximum(a * np.sin(to_before) + b * np.sin(to_after), 1e-3)
    return _polar(np.clip(radii, 0.05, 1), u, v)


def box(
    random: np.random.Generator, u: NDArray[np.float32], v: NDArray[np.float32]
) -> NDArray[np.float32]:
    """A rectangle, its corners sharp or round."""
    tilt = random.uniform(0.15, np.pi / 4)
    a, b = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
    corner = b * np.float32(random.choice([0, 0.3, 0.9]))
    du, dv = np.abs(u) - (a - corner), np.abs(v) - (b - corner)
    outside = np.hypot(np.maximum(du, 0), np.maximum(dv, 0))
    return outside + np.minimum(np.maximum(du, dv), 0) - corner


def rod(
    random: np.random.Generator, u: NDArray[np.float32], v: NDArray[np.float32]
) -> NDArray[np.float32]:
    """A straight bar with round ends."""
    half_width = np.float32(random.uniform(0.2, 0.5))
    beyond = np.maximum(np.abs(u) - (1 - half_width), 0)
    return np.hypot(beyond, v) - half_width


def strip(
    random: np.random.Generator, u: NDArray[np.float32], v: NDArray[np.float32]
) -> NDArray[np.float32]:
    """A thin curved band: a stem, a cable, a road."""
    bends = random.uniform(0.5, 2, 2)
    heights = random.uniform(0, 0.3, 2) / bends
    phases = random.uniform(0, 2 * np.pi, 2)
    middle = np.zeros_like(u)
    slope = np.zeros_like(u)
    for bend, height, phase in zip(bends * np.pi, heights, phases, strict=True):
        turn = u * np.float32(bend) + np.float32(phase)
        middle += np.float32(height) * np.sin(turn)
        slope += np.float32(height * bend) * np.cos(turn)
    across = np.abs(v - middle) / np.sqrt(1 + slope**2)
    half_width = np.float32(random.uniform(0.05, 0.2)) * (
        1 + np.float32(random.uniform(0, 0.6)) * u
    )
    return np.asarray(np.maximum(across - half_width, np.abs(u) - 0.85), dtype=np.float32)


def arc(
    random: np.random.Generator, u: NDArray[np.float32], v: NDArray[np.float32]
) -> NDArray[np.float32]:
    """A ring, or a part of one."""
    half_width = np.float32(random.uniform(0.08, 0.25))
    radius = np.hypot(u, v)
    ring = np.abs(radius - (1 - half_width)) - half_width
    if random.random() < 0.3:
        return ring
    opening = np.float32(random.uniform(0.3, 1.6))
    return np.maximum(ring, (np.abs(np.arctan2(v, u)) - (np.float32(np.pi) - opening)) * radius)


OUTLINES: tuple[Outline, ...] = (blob, blob, ellipse, polygon, box, rod, strip, arc)


def _polar(
    radii: NDArray[np.float64], u: NDArray[np.float32], v: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Distance from a curve that is given by its radius at `_ANGLES` directions."""
    turns = np.arctan2(v, u) * np.float32(_ANGLES / (2 * np.pi))
    direction = turns.astype(np.int32) % _ANGLES
    return np.hypot(u, v) - radii.astype(np.float32)[direction]


@dataclass(frozen=True, slots=True)
class Tessellation:
    """A plane cut into regions.

    Attributes:
        region_HW: intp, the region of each pixel, 0 to N-1.
        to_border_HW: float32, pixels to the nearest border between regions, about.
        sites_N2: float32, (y, x) of the regions' centres in pixels.
    """

    region_HW: NDArray[np.intp]
    to_border_HW: NDArray[np.float32]
    sites_N2: NDArray[np.float32]


def tessellate(random: np.random.Generator, height: int, width: int, regions: int) -> Tessellation:
    """Cut the image into the Voronoi regions of random sites, stretched and with wavy borders."""
    sites = _sites(random, height, width, regions)
    stretch = log_uniform(random, 1 / 2.5, 2.5) if random.random() < 0.4 else 1.0
    first, second = _two_nearest(sites, height, width, stretch)
    flat = sites * np.array([1, stretch], dtype=np.float32)
    apart = np.hypot(*(flat[:, None] - flat).transpose(2, 0, 1))
    region, other = first % _MAX_SITES, second % _MAX_SITES
    # A point's distance from the bisector of two sites, from its squared distances to both.
    to_border = (second // _MAX_SITES - first // _MAX_SITES) / (2 * apart + 1e-3)[region, other]
    at_y, at_x = _warped_grid(random, height, width, np.sqrt(height * width / regions))
    return Tessellation(
        region[at_y, at_x].astype(np.intp), to_border[at_y, at_x].astype(np.float32), sites
    )


def _two_nearest(
    sites_N2: NDArray[np.float32], height: int, width: int, stretch: float
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """For each pixel the nearest site and the next: int32 (H, W), square * `_MAX_SITES` + site.

    With the site's number in the low digits, the minimum of distances carries it along.
    """
    y, x = np.arange(height), np.arange(width)
    first = np.full((height, width), _FAR, dtype=np.int32)
    second = first.copy()
    for index, (site_y, site_x) in enumerate(sites_N2):
        from_y = np.rint((y - site_y) ** 2).astype(np.int32) * _MAX_SITES
        from_x = np.rint(((x - site_x) * stretch) ** 2).astype(np.int32) * _MAX_SITES + index
        key = from_y[:, None] + from_x
        second = np.minimum(second, np.maximum(first, key))
        first = np.minimum(first, key)
    return first, second


def _sites(
    random: np.random.Generator, height: int, width: int, regions: int
) -> NDArray[np.float32]:
    """Sites on a shaken lattice or anywhere: float32 (N, 2)."""
    if random.random() < 0.5:
        return (random.random((regions, 2)) * (height, width)).astype(np.float32)
    columns = max(1, round(np.sqrt(regions * width / height)))
    rows = -(-regions // columns)
    cell = np.array([height / rows, width / columns])
    lattice = np.argwhere(np.ones((rows, columns), dtype=bool))[:regions]
    shaken = lattice + 0.5 + random.uniform(-0.45, 0.45, lattice.shape)
    return np.asarray(shaken * cell, dtype=np.float32)


def _warped_grid(
    random: np.random.Generator, height: int, width: int, spacing: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where each pixel looks its region up: rows and columns, (H, W) each."""
    strength = random.choice([0, 0.04, 0.1]) * spacing
    scale_px = max(4.0, spacing * random.uniform(0.2, 0.7))
    shifts = []
    for axis, length in enumerate((height, width)):
        place = np.arange(length, dtype=np.float32)
        place = place[:, None] if axis == 0 else place[None, :]
        moved = place + np.float32(strength) * smooth_noise(random, height, width, scale_px)
        shifts.append(np.clip(np.rint(moved), 0, length - 1).astype(np.intp))
    return shifts[0], shifts[1]
