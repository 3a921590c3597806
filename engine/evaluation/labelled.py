"""Which masks of which labelled images are asked for.

for asked in ask(labelled_set, Selection(masks_per_image=10)):
image_HWC3, wanted_NHW = asked.image.read(), decode_masks(asked.masks)
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.dataset.labelled_sets import LabelledImage, LabelledMask, LabelledSet
from engine.errors import BadInputError
from engine.masks import decode_mask, mask_area

__all__ = [
    "Asked",
    "LabelledSet",
    "Selection",
    "ask",
    "chosen_images",
    "decode_masks",
    "levels_of_agreement",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which masks are asked for.

    A mask is drawn or not whatever else is in the set: the draw depends on the seed and on the
    image's name.

    Attributes:
        masks_per_image: drawn from each image, at most; 0 for all.
        votes: levels of agreement that rows are made for: masks that at least so many people drew.
            Each level gets its `masks_per_image`.
        max_images: evenly spaced, at most; None for all.
        seed: of the draw.
    """

    masks_per_image: int = 10
    votes: tuple[int, ...] = (1,)
    max_images: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.masks_per_image < 0 or (self.max_images is not None and self.max_images < 1):
            raise BadInputError(
                "masks_per_image must be 0 (all) or more and max_images 1 or more; got "
                f"{self.masks_per_image} and {self.max_images}"
            )
        if not self.votes or min(self.votes) < 1:
            raise BadInputError(f"votes must be levels of at least 1; got {self.votes}")

    def random(self, image: LabelledImage, purpose: int = 0) -> np.random.Generator:
        """Return the generator for one image and one purpose."""
        return np.random.default_rng([self.seed, zlib.crc32(image.path.name.encode()), purpose])


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """One image and the masks that are asked for.

    Attributes:
        index: place of the image in the set.
        image: to be read.
        masks: none empty, in the order of the draw.
    """

    index: int
    image: LabelledImage
    masks: tuple[LabelledMask, ...]


def ask(labelled_set: LabelledSet, selection: Selection) -> Iterator[Asked]:
    """Draw masks from every image; images without a fitting mask are left out."""
    for index in chosen_images(labelled_set, selection.max_images):
        image = labelled_set[index]
        order = selection.random(image).permutation(len(image.masks))
        drawn = [image.masks[i] for i in order if mask_area(image.masks[i].rle)]
        limit = selection.masks_per_image or len(drawn)
        taken = [False] * len(drawn)
        for least in selection.votes:
            for place in [i for i, m in enumerate(drawn) if m.votes >= least][:limit]:
                taken[place] = True
        masks = tuple(mask for mask, take in zip(drawn, taken, strict=True) if take)
        if masks:
            yield Asked(index, image, masks)


def chosen_images(labelled_set: LabelledSet, max_images: int | None) -> list[int]:
    """Return the places of at most `max_images` images, evenly spaced."""
    count = len(labelled_set)
    wanted = count if max_images is None else min(count, max_images)
    return [i * count // wanted for i in range(wanted)]


def levels_of_agreement(labelled_set: LabelledSet, max_images: int | None) -> tuple[int, ...]:
    """Return (1, 2) where people agree on some masks and not on others, else (1,)."""
    agreed = {
        mask.votes >= 2
        for index in chosen_images(labelled_set, max_images)
        for mask in labelled_set[index].masks
    }
    return (1, 2) if len(agreed) == 2 else (1,)


def decode_masks(masks: Sequence[LabelledMask]) -> NDArray[np.bool_]:
    """Decode masks of one image: bool (N, H, W)."""
    return np.stack([decode_mask(mask.rle) for mask in masks])
