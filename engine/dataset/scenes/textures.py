"""Random grey textures for synthetic scenes, made fast enough to draw them during training.

    texture_HW = random_texture(np.random.default_rng(0), 256, 256)

Textures are float32 with mean about 0 and spread about 1. Shapes: H, W rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# The mean square of a cubic B-spline; in two dimensions its inverse restores a spread of 1.
_SPLINE_SPREAD = 151 / 315


def log_uniform(random: np.random.Generator, low: float, high: float) -> float:
    """Draw a number whose logarithm is uniform between those of `low` and `high`."""
    return float(low * (high / low) ** random.random())


def smooth_noise(
    random: np.random.Generator, height: int, width: int, scale_px: float
) -> NDArray[np.float32]:
    """Draw noise whose hills are about `scale_px` wide: white noise on a grid, spline between.

    Args:
        random: where the noise comes from.
        height: rows.
        width: columns.
        scale_px: distance of the grid's points, rounded to a power of sqrt(2); below 1.5 px the
            noise is white.

    Returns:
        float32 (H, W), mean 0, spread 1.
    """
    if scale_px < 1.5:
        return random.standard_normal((height, width), dtype=np.float32)
    step = round(2 * np.log2(scale_px))
    rows, columns = _spline(height, step), _spline(width, step)
    grid = random.standard_normal((rows.points, columns.points), dtype=np.float32)
    grid *= np.float32(1 / _SPLINE_SPREAD)
    return _interpolate(_interpolate(grid, rows).T, columns).T


@dataclass(frozen=True, slots=True)
class _Spline:
    """Which four points of a grid a pixel lies between, and how much each counts."""

    points: int
    first_L: NDArray[np.intp]
    weights_4L: NDArray[np.float32]


@lru_cache(maxsize=4096)
def _spline(length: int, step: int) -> _Spline:
    """The cubic B-spline of points 2**(step / 2) px apart on `length` pixels."""
    position = np.arange(length) / 2 ** (step / 2)
    first = np.floor(position).astype(np.intp)
    distance = np.abs(position - first - np.arange(-1, 3)[:, None])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    weights = np.where(distance < 1, near, far).astype(np.float32)
    return _Spline(int(first[-1]) + 4, first, weights)


def _interpolate(grid_PM: NDArray[np.float32], spline: _Spline) -> NDArray[np.float32]:
    """Interpolate along the first axis: float32 (L, M).

    No matrix product: its last bits would differ from one processor to the next.
    """
    result = spline.weights_4L[0, :, None] * grid_PM[spline.first_L]
    for tap in (1, 2, 3):
        result += spline.weights_4L[tap, :, None] * grid_PM[spline.first_L + tap]
    return np.asarray(result, dtype=np.float32)


def random_texture(random: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Draw a texture of a random kind and frequency: float32 (H, W), mean 0, spread about 1."""
    draw = _KINDS[int(random.choice(len(_KINDS), p=_CHANCES))]
    return draw(random, height, width)


def _hills(random: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    return smooth_noise(random, height, width, log_uniform(random, 2, 48))


def _grain(random: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    return smooth_noise(random, height, width, log_uniform(random, 1, 4))


def _fractal(random: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Noise of several frequencies, the slower the stronger, as in natural surfaces."""
    texture = smooth_noise(random, height, width, 32)
    for scale_px, weight in ((16, 0.7), (6, 0.5), (2, 0.35)):
        texture += np.float32(weight) * smooth_noise(random, height, width, scale_px)
    return texture / np.float32(1.37)


def _patches(random: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Two tones in patches, as fur, bark or camouflage."""
    noise = smooth_noise(random, height, width, log_uniform(random, 3, 16))
    return np.asarray(np.tanh(noise * np.float32(random.uniform(2, 6))), dtype=np.float32)


def _waves(random: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Stripes of a random direction, straight or wavy, soft or hard."""
    phase = _phase(random, height, width, random.uniform(0, 2 * np.pi))
    phase += np.float32(random.choice([0, 0, 0.6, 1.5])) * smooth_noise(random, height, width, 24)
    sharpness = np.float32(random.choice([0.5, 4]))
    return np.tanh(sharpness * np.sin(phase)) * np.float32(1.2 if sharpness > 1 else 2.6)


def _checks(random: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Checks, or dots on a lattice."""
    angle = random.uniform(0, np.pi)
    period_px = log_uniform(random, 6, 40)
    across = np.sin(_phase(random, height, width, angle, period_px))
    along = np.sin(_phase(random, height, width, angle + np.pi / 2, period_px))
    threshold = np.float32(random.choice([0, 0.4]))
    return np.tanh(6 * (across * along - threshold)).astype(np.float32)


def _gradient(random: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """A slope across the whole area."""
    angle = random.uniform(0, 2 * np.pi)
    side_px = 2.5 * max(height, width)
    return np.asarray(2.5 * np.sin(_phase(random, height, width, angle, side_px, 0)), np.float32)


def _flat(random: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    return np.zeros((height, width), dtype=np.float32)


def _phase(
    random: np.random.Generator,
    height: int,
    width: int,
    angle: float,
    period_px: float | None = None,
    offset: float | None = None,
) -> NDArray[np.float32]:
    """The phase of a plane wave that runs along `angle`: float32 (H, W), radians."""
    period_px = log_uniform(random, 4, 40) if period_px is None else period_px
    offset = random.uniform(0, 2 * np.pi) if offset is None else offset
    y = np.arange(height, dtype=np.float32)[:, None] - height / 2
    x = np.arange(width, dtype=np.float32) - width / 2
    step = 2 * np.pi / period_px
    return np.asarray(y * (step * np.sin(angle)) + x * (step * np.cos(angle)) + offset, np.float32)


_Draw = Callable[[np.random.Generator, int, int], NDArray[np.float32]]
_KINDS: tuple[_Draw, ...] = (
    _flat, _gradient, _hills, _grain, _fractal, _patches, _waves, _checks
)  # fmt: skip
_CHANCES = (0.08, 0.12, 0.2, 0.15, 0.2, 0.1, 0.1, 0.05)
