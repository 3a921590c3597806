"""The same masks under other looks (grey, inverted, noisy ...), and scenes that are no photos.

for name, changed in other_looks(labelled_set):
score_model(sam, changed, PromptConfig(max_clicks=1))
score_model(sam, scene_set(40), PromptConfig(max_clicks=1))
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.dataset.labelled_sets import LabelledImage, LabelledMask, LabelledSet
from engine.learning.looks import LOOKS, apply_look, microscopy_scenes
from engine.masks import encode_mask, mask_box_xyxy


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedImage(LabelledImage):
    """A labelled image that looks different.

    Attributes:
        original: as it is.
        look: one of `LOOKS`.
        seed: of its noise, which depends on the image's name too.
    """

    original: LabelledImage
    look: str
    seed: int

    def read(self) -> NDArray[np.uint8]:
        """Read the image and change it."""
        name = zlib.crc32(self.path.name.encode())
        random = np.random.default_rng([self.seed, name, zlib.crc32(self.look.encode())])
        return apply_look(self.original.read(), self.look, random)


@dataclass(frozen=True, slots=True)
class ChangedSet:
    """A labelled set whose images look different."""

    whole: LabelledSet
    look: str
    seed: int

    @property
    def name(self) -> str:
        """The set's own name."""
        return self.whole.name

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.whole)

    def __getitem__(self, index: int) -> ChangedImage:
        """Return an image, to be changed when it is read."""
        image = self.whole[index]
        return ChangedImage(
            uri=image.uri,
            height=image.height,
            width=image.width,
            masks=image.masks,
            original=image,
            look=self.look,
            seed=self.seed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneImage(LabelledImage):
    """A drawn scene, which no file holds.

    Attributes:
        image_HWC3: uint8 RGB.
    """

    image_HWC3: NDArray[np.uint8] = field(repr=False)

    def read(self) -> NDArray[np.uint8]:
        """Return the picture."""
        return self.image_HWC3


@dataclass(frozen=True, slots=True)
class SceneSet:
    """Drawn scenes as a labelled set."""

    name: str
    images: tuple[SceneImage, ...]

    def __len__(self) -> int:
        """Return the number of scenes."""
        return len(self.images)

    def __getitem__(self, index: int) -> SceneImage:
        """Return a scene."""
        return self.images[index]


def other_looks(labelled_set: LabelledSet, seed: int = 0) -> Iterator[tuple[str, LabelledSet]]:
    """Yield every look by name, with the set as it looks then; the masks stay the same."""
    for look in LOOKS:
        yield look, ChangedSet(labelled_set, look, seed)


def scene_set(count: int = 40, seed: int = 0) -> LabelledSet:
    """Draw microscopy-like scenes with exact masks."""
    images = []
    for number, scene in enumerate(microscopy_scenes(count, seed)):
        height, width = scene.image_HWC3.shape[:2]
        masks = tuple(_labelled(mask_HW) for mask_HW in scene.masks_NHW)
        uri = f"scene-{seed}-{number:04d}"
        images.append(SceneImage(uri, height, width, masks, image_HWC3=scene.image_HWC3))
    return SceneSet("synthetic microscopy", tuple(images))


def _labelled(mask_HW: NDArray[np.bool_]) -> LabelledMask:
    rle = encode_mask(mask_HW)
    x0, y0, x1, y1 = mask_box_xyxy(rle) or (0, 0, -1, -1)
    box_xywh = (float(x0), float(y0), float(x1 - x0 + 1), float(y1 - y0 + 1))
    return LabelledMask(rle, box_xywh, float(mask_HW.sum()))
