"""What a synthetic scene is painted on: a picture, and whose each of its pixels is.

    canvas = Canvas.of(image_HW3)
    cell = canvas.paint(shape.window, shape.coverage(1.5), colour)
    nucleus = canvas.paint(smaller.window, smaller.coverage(1.5), other_colour, parent=cell)
    picture, masks = canvas.expose(random), canvas.masks()

Shapes: H, W rows and columns of the image; h, w of a window; N number of masks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from engine.dataset.scenes.textures import smooth_noise

__all__ = ["MIN_MASK_PX", "NOBODY", "Canvas", "Window"]

MIN_MASK_PX = 30
NOBODY = -1
_GREY_WEIGHTS = np.array([0.299, 0.587, 0.114], dtype=np.float32)

Window = tuple[slice, slice]


@dataclass(slots=True)
class Canvas:
    """What is painted so far, and whose each pixel is.

    Attributes:
        image_HW3: float32, 0 to 255 where nothing is overexposed.
        owner_HW: int16, the number of the thing that each pixel shows, -1 for none.
        parents: for each thing the number of the thing that it is a part of, or -1.
        noise: standard deviation of the noise that the picture bears without hiding its things.
        blur_px: the same for blur.
    """

    image_HW3: NDArray[np.float32]
    owner_HW: NDArray[np.int16]
    parents: list[int] = field(default_factory=list)
    noise: float = 4.0
    blur_px: float = 1.0

    @classmethod
    def of(cls, image_HW3: NDArray[np.float32]) -> Canvas:
        """A picture in which nothing is owned yet; it is painted over in place."""
        height, width = image_HW3.shape[:2]
        return cls(image_HW3, np.full((height, width), NOBODY, dtype=np.int16))

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        height, width = self.owner_HW.shape
        return height, width

    def add(self, parent: int = NOBODY) -> int:
        """Announce a thing; it owns no pixel yet."""
        self.parents.append(parent)
        return len(self.parents) - 1

    def paint(
        self,
        window: Window,
        coverage_hw: NDArray[np.float32],
        colour: NDArray[np.float32],
        parent: int = NOBODY,
    ) -> int:
        """Paint a thing over what is there; a part shows only where its parent does.

        Args:
            window: where.
            coverage_hw: 0 to 1; the thing owns the pixels of which it covers more than half.
            colour: (3,) or (h, w, 3).
            parent: of which it is a part; -1 for a thing of its own.

        Returns:
            The thing's number.
        """
        owner = self.owner_HW[window]
        if parent != NOBODY:
            family = [parent, *(i for i, p in enumerate(self.parents) if p == parent)]
            coverage_hw = coverage_hw * np.isin(owner, family)
        thing = self.add(parent)
        owner[coverage_hw > 0.5] = thing
        image = self.image_HW3[window]
        image += coverage_hw[..., None] * (colour - image)
        return thing

    def masks(self) -> NDArray[np.bool_]:
        """The visible masks, bool (N, H, W): parents with their parts, without small ones."""
        numbers = np.arange(len(self.parents), dtype=np.int16)
        masks = self.owner_HW[None] == numbers[:, None, None]
        areas = np.bincount(self.owner_HW.ravel() + 1, minlength=len(numbers) + 1)[1:]
        repeats = np.zeros(len(numbers), dtype=bool)
        for part in range(len(numbers) - 1, -1, -1):  # parts come after their parents
            if (parent := self.parents[part]) != NOBODY:
                masks[parent] |= masks[part]
                areas[parent] += areas[part]
        for part, parent in enumerate(self.parents):
            if parent != NOBODY and areas[part] >= 0.97 * areas[parent]:
                repeats[part] = True
        return np.asarray(masks[(areas >= MIN_MASK_PX) & ~repeats])

    def expose(self, random: np.random.Generator) -> NDArray[np.uint8]:
        """Take the picture: uneven light, blur, noise; uint8 (H, W, 3)."""
        image = self.image_HW3.copy()
        height, width = image.shape[:2]
        if random.random() < 0.5:
            light = smooth_noise(random, height, width, max(height, width) / 2)
            image *= 1 + np.float32(random.uniform(0.02, 0.15)) * np.clip(light, -2, 2)[..., None]
        if random.random() < 0.7:
            blur_px = self.blur_px * random.uniform(0.4, 1.4)
            image = gaussian_filter(image, (blur_px, blur_px, 0), truncate=2.5)
        if random.random() < 0.15:
            image = np.repeat((image @ _GREY_WEIGHTS)[..., None], 3, axis=2)
        if random.random() < 0.7:
            channels = 3 if random.random() < 0.4 else 1
            shape = (height, width, channels)
            image = image + np.float32(self.noise) * random.standard_normal(shape, dtype=np.float32)
        if random.random() < 0.06:
            image = 255 - image
        picture: NDArray[np.uint8] = np.clip(image + np.float32(0.5), 0, 255).astype(np.uint8)
        return picture
