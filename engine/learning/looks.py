"""Looks that photos of a training set rarely have: to vary training, and to ask what a model keeps.

    noisy_HWC3 = LOOKS["noisy"](image_HWC3, np.random.default_rng(0))
    cells = microscopy_scenes(count=40)

A look changes colours and sharpness, never geometry: the masks of the photo stay true. Images are
uint8 RGB (H, W, 3); the input is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from engine.dataset.scenes.drawing import SyntheticScene, draw_scene
from engine.errors import BadInputError
from engine.images import decode_image, encode_jpeg

__all__ = ["LOOKS", "Look", "apply_look", "microscopy_scenes"]

Look = Callable[[NDArray[np.uint8], np.random.Generator], NDArray[np.uint8]]

# Rec. 601, as JPEG and most tools convert.
_GREY_WEIGHTS = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_NOISE_SIGMA = 20.0
_BLUR_SIGMA_PX = 1.5
_CONTRAST = 0.35
_EXPOSURE = 0.3
_JPEG_QUALITY = 12
# Microscopy scenes for evaluation come from seeds that no training uses by accident.
_MICROSCOPY_SEED = 20_230_405


def _to_uint8(image_HWC3: NDArray[np.float32]) -> NDArray[np.uint8]:
    picture: NDArray[np.uint8] = np.clip(np.rint(image_HWC3), 0, 255).astype(np.uint8)
    return picture


def _grey(image_HWC3: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Without colour."""
    return np.repeat(_to_uint8(image_HWC3 @ _GREY_WEIGHTS)[..., None], 3, axis=2)


def _inverted(image_HWC3: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """A negative."""
    return 255 - image_HWC3


def _noisy(image_HWC3: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """With Gaussian noise of sigma 20, each channel its own."""
    noise = random.standard_normal(image_HWC3.shape, dtype=np.float32)
    return _to_uint8(image_HWC3 + np.float32(_NOISE_SIGMA) * noise)


def _blurred(image_HWC3: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Out of focus: Gaussian of sigma 1.5 pixels."""
    sigma = (_BLUR_SIGMA_PX, _BLUR_SIGMA_PX, 0)
    return _to_uint8(gaussian_filter(image_HWC3.astype(np.float32), sigma))


def _low_contrast(image_HWC3: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """As through fog: differences shrink to a third."""
    image = image_HWC3.astype(np.float32)
    return _to_uint8(128 + np.float32(_CONTRAST) * (image - image.mean()))


def _dark(image_HWC3: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Underexposed: a third of the light, and the noise that comes with it."""
    light = np.float32(_EXPOSURE) * image_HWC3.astype(np.float32)
    noise = random.standard_normal(image_HWC3.shape, dtype=np.float32)
    return _to_uint8(light + noise * np.sqrt(1 + 0.1 * light))


def _jpeg(image_HWC3: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """With the blocks of strong JPEG compression."""
    return decode_image(encode_jpeg(image_HWC3, quality=_JPEG_QUALITY))


LOOKS: dict[str, Look] = {
    "grey": _grey,
    "inverted": _inverted,
    "noisy": _noisy,
    "blurred": _blurred,
    "low_contrast": _low_contrast,
    "dark": _dark,
    "jpeg": _jpeg,
}


def apply_look(
    image_HWC3: NDArray[np.uint8], look: str, random: np.random.Generator
) -> NDArray[np.uint8]:
    """Give an image a look by its name.

    Args:
        image_HWC3: uint8 RGB.
        look: one of `LOOKS`.
        random: of the noise; looks without noise draw nothing from it.

    Raises:
        BadInputError: an unknown look, or not such an image.
    """
    if look not in LOOKS:
        raise BadInputError(f"no look {look!r}; expected one of {', '.join(LOOKS)}")
    if image_HWC3.dtype != np.uint8 or image_HWC3.ndim != 3 or image_HWC3.shape[2] != 3:
        raise BadInputError(
            f"expected a uint8 RGB image (H, W, 3), got {image_HWC3.dtype} of shape "
            f"{image_HWC3.shape}"
        )
    return LOOKS[look](image_HWC3, random)


def microscopy_scenes(
    count: int = 40, seed: int = 0, height: int = 256, width: int = 256
) -> tuple[SyntheticScene, ...]:
    """Draw a fixed set of microscopy-like scenes for evaluation.

    Scene i depends on `seed`, the size and i alone: a larger set starts with the smaller one.

    Args:
        count: of scenes.
        seed: another seed, another set.
        height: rows of each.
        width: columns of each.

    Raises:
        BadInputError: no scene asked for, or scenes too small.
    """
    if count < 1:
        raise BadInputError(f"expected at least 1 scene, got {count}")
    return tuple(
        draw_scene(
            np.random.default_rng([_MICROSCOPY_SEED, seed, number]), height, width, "microscopy"
        )
        for number in range(count)
    )
