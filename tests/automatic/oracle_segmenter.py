"""A segmenter without a network: smooth, varied logits computed from the pixels of a crop.

Generators are compared on it, so it is a pure function of the crop's content and of the point: it
does not know where the crop lies in the image, nor how points are batched. Everything is continuous
in the point (scores too, unless rounded), so a difference in the last bit of a coordinate stays a
difference in the last bits of the answer.

    scene = OracleScene(seed=3, height=97, width=143)
    logits_N3hw, iou_N3 = scene.decode(scene.encode(scene.image_HWC3), points_N2)

A point selects what looks like the pixel below it, three times with a growing colour tolerance and
a fading preference for its surroundings. Specks in the image become islands and holes of the masks.

Shape suffixes: H, W image or crop size; hw the 256 x 256 low-resolution map; C3 RGB; N points.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

INPUT_SIDE_PX = 1024
LOW_RES_SIDE_PX = 256
PX_PER_CELL = INPUT_SIDE_PX // LOW_RES_SIDE_PX

TOLERANCES = (40.0, 55.0, 75.0)
"""Colour distance (0 to 441) at which the logit of each of the three masks crosses zero."""
REACHES = (110.0, 180.0, 450.0)
"""Low-resolution pixels from the point that cost as much as a colour distance of 100."""
GAINS = (1.2, 0.6, 0.3)
"""Logits per unit of colour distance: the steeper, the more stable the mask."""
NOISE_AMPLITUDE = 5.0
"""Strength of the slow waves that are added to the colour distance."""
PADDING_LOGIT = -12.0


@dataclass(frozen=True, eq=False)
class OracleFeatures:
    """What `OracleScene.encode` makes of a crop.

    Attributes:
        colours_hwC3: (256, 256, 3) float32, 0..255; the crop in the padded input frame, padding 0.
        height_cells: rows of `colours_hwC3` that are not padding.
        width_cells: columns of `colours_hwC3` that are not padding.
        phase: mean colour of the crop, 0..255: gives each crop its own waves and scores.
    """

    colours_hwC3: Float32Array
    height_cells: int
    width_cells: int
    phase: float


@dataclass(frozen=True, eq=False)
class OracleScene:
    """A random image and a segmenter for it, both fixed by the seed.

    Attributes:
        seed: of the image.
        height: of the image, px.
        width: of the image, px.
        n_shapes: ellipses, rectangles and rings; specks come on top.
        iou_steps: when positive, predicted IoUs are rounded to that many steps per 1.0, which makes
            equal scores common.
        image_HWC3: uint8 RGB, made from the above.
    """

    seed: int = 0
    height: int = 97
    width: int = 143
    n_shapes: int = 15
    iou_steps: int = 0
    image_HWC3: UInt8Array = field(init=False)

    def __post_init__(self) -> None:
        image_HWC3 = paint_scene(self.seed, self.height, self.width, self.n_shapes)
        object.__setattr__(self, "image_HWC3", image_HWC3)

    def encode(self, crop_HWC3: UInt8Array) -> OracleFeatures:
        """Resize a uint8 RGB crop into the low-resolution frame, long side 256."""
        height, width = crop_HWC3.shape[:2]
        scale = LOW_RES_SIDE_PX / max(height, width)
        size = max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
        crop_1C3HW = torch.from_numpy(crop_HWC3.astype(np.float32)).permute(2, 0, 1)[None]
        resized = F.interpolate(
            crop_1C3HW, size, mode="bilinear", align_corners=False, antialias=True
        )
        colours_hwC3 = np.zeros((LOW_RES_SIDE_PX, LOW_RES_SIDE_PX, 3), dtype=np.float32)
        colours_hwC3[: size[0], : size[1]] = resized[0].permute(1, 2, 0).numpy()
        return OracleFeatures(colours_hwC3, size[0], size[1], float(resized.mean()))

    def decode(
        self, features: OracleFeatures, points_N2: Float64Array
    ) -> tuple[Float32Array, Float32Array]:
        """Logits and scores of three masks per point.

        Args:
            features: of one crop.
            points_N2: xy in the frame of the crop resized to a long side of 1024; the shift by 0.5
                to pixel centres is applied here.

        Returns:
            Logits (N, 3, 256, 256) and predicted IoUs (N, 3) in [0.5, 1.0], both float32.
        """
        n_points = len(points_N2)
        logits = np.empty((n_points, 3, LOW_RES_SIDE_PX, LOW_RES_SIDE_PX), dtype=np.float32)
        iou = np.empty((n_points, 3), dtype=np.float32)
        for i in range(n_points):
            # One point at a time: the result cannot depend on how points were batched.
            x, y = float(points_N2[i, 0]) + 0.5, float(points_N2[i, 1]) + 0.5
            logits[i] = logits_of_point(features, x / PX_PER_CELL, y / PX_PER_CELL)
            iou[i] = [self._score(features, x, y, k) for k in range(3)]
        return logits, iou

    def _score(self, features: OracleFeatures, x_px: float, y_px: float, k: int) -> float:
        """A predicted IoU in [0.5, 1.0] that varies with the point, the mask and the crop."""
        wave = np.sin(0.113 * x_px + 0.0791 * y_px + 2.1 * k + 0.37 * features.phase)
        score = 0.75 + 0.25 * float(wave)
        return round(score * self.iou_steps) / self.iou_steps if self.iou_steps else score


def logits_of_point(features: OracleFeatures, x_cells: float, y_cells: float) -> Float32Array:
    """The three logit maps, (3, 256, 256) float32, of a point in low-resolution coordinates."""
    colour_C3 = colour_at(features, x_cells, y_cells)
    difference = features.colours_hwC3 - colour_C3
    colour_distance_hw = np.sqrt(np.square(difference).sum(axis=2))
    centres = np.arange(LOW_RES_SIDE_PX, dtype=np.float32) + np.float32(0.5)
    dx_w = centres[None, :] - np.float32(x_cells)
    dy_h = centres[:, None] - np.float32(y_cells)
    distance_hw = np.sqrt(np.square(dx_w) + np.square(dy_h))
    logits = np.empty((3, LOW_RES_SIDE_PX, LOW_RES_SIDE_PX), dtype=np.float32)
    for k in range(3):
        cost_hw = colour_distance_hw + distance_hw * np.float32(100 / REACHES[k])
        cost_hw += waves(features.phase + 1.7 * k, x_cells, y_cells)
        logits[k] = (np.float32(TOLERANCES[k]) - cost_hw) * np.float32(GAINS[k])
    logits = np.clip(logits, PADDING_LOGIT, -PADDING_LOGIT)
    logits[:, features.height_cells :, :] = PADDING_LOGIT
    logits[:, :, features.width_cells :] = PADDING_LOGIT
    return logits


def colour_at(features: OracleFeatures, x_cells: float, y_cells: float) -> Float32Array:
    """Colour (3,) float32 below a point, blended from the four nearest cells."""
    x = min(max(x_cells - 0.5, 0.0), features.width_cells - 1.0)
    y = min(max(y_cells - 0.5, 0.0), features.height_cells - 1.0)
    left, top = int(x), int(y)
    right, bottom = min(left + 1, features.width_cells - 1), min(top + 1, features.height_cells - 1)
    share_x, share_y = np.float32(x - left), np.float32(y - top)
    colours = features.colours_hwC3
    above = colours[top, left] * (1 - share_x) + colours[top, right] * share_x
    below = colours[bottom, left] * (1 - share_x) + colours[bottom, right] * share_x
    return np.asarray(above * (1 - share_y) + below * share_y, dtype=np.float32)


def waves(phase: float, x_cells: float, y_cells: float) -> Float32Array:
    """A slowly varying disturbance (256, 256) float32 that depends on the crop and on the point."""
    cells = np.arange(LOW_RES_SIDE_PX)
    along_w = np.sin(cells * 0.061 + 0.29 * phase + 0.017 * x_cells)
    along_h = np.sin(cells * 0.047 + 0.53 * phase + 0.023 * y_cells)
    return np.asarray(NOISE_AMPLITUDE * along_h[:, None] * along_w[None, :], dtype=np.float32)


def paint_scene(seed: int, height: int, width: int, n_shapes: int) -> UInt8Array:
    """Paint overlapping ellipses, rectangles and rings, then specks, on a shaded ground.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    rng = np.random.default_rng(seed)
    y_HW, x_HW = np.mgrid[0:height, 0:width].astype(np.float64)
    palette = rng.uniform(20, 235, size=(max(3, n_shapes // 2 + 1), 3))
    image = np.empty((height, width, 3), dtype=np.float64)
    image[:] = palette[0]
    image += ((x_HW / width - 0.5) * 16 + (y_HW / height - 0.5) * 10)[:, :, None]
    for index in range(n_shapes):
        inside_HW = random_shape(rng, index % 3, x_HW, y_HW)
        image[inside_HW] = palette[1 + index % (len(palette) - 1)] + rng.uniform(-8, 8, size=3)
    for _ in range(n_shapes * 2):
        inside_HW = random_speck(rng, x_HW, y_HW)
        image[inside_HW] = palette[rng.integers(len(palette))]
    image += rng.normal(0, 1.5, size=image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def random_shape(
    rng: np.random.Generator,
    kind: int,
    x_HW: npt.NDArray[np.float64],
    y_HW: npt.NDArray[np.float64],
) -> BoolArray:
    """The pixels of an ellipse (kind 0), a rectangle (1) or a ring with a hole (2)."""
    height, width = x_HW.shape
    dx = np.abs(x_HW - rng.uniform(0, width)) / (rng.uniform(0.05, 0.2) * width)
    dy = np.abs(y_HW - rng.uniform(0, height)) / (rng.uniform(0.05, 0.2) * height)
    radius = np.sqrt(dx**2 + dy**2)
    if kind == 0:
        return np.asarray(radius < 1)
    if kind == 1:
        return np.asarray((dx < 1) & (dy < 1))
    return np.asarray((radius < 1) & (radius > rng.uniform(0.2, 0.6)))


def random_speck(
    rng: np.random.Generator, x_HW: npt.NDArray[np.float64], y_HW: npt.NDArray[np.float64]
) -> BoolArray:
    """The pixels of a dot with a radius of 1 to 3 px."""
    height, width = x_HW.shape
    centre_x, centre_y = rng.uniform(0, width), rng.uniform(0, height)
    radius = rng.uniform(1, 3)
    return np.asarray((x_HW - centre_x) ** 2 + (y_HW - centre_y) ** 2 < radius**2)
