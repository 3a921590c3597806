"""Labelled sets made in memory, and models that know the right answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from engine.dataset.labelled_sets import LabelledMask
from engine.evaluation.robustness import SceneImage, SceneSet
from engine.masks import encode_mask
from model import Frame, ImageEmbedding, MaskPrediction, Prompts
from model.types import ImageFeatures

HEIGHT, WIDTH = 60, 80


def disc(
    x: int, y: int, radius: int, height: int = HEIGHT, width: int = WIDTH
) -> NDArray[np.bool_]:
    rows, columns = np.ogrid[:height, :width]
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)


def labelled(mask_HW: NDArray[np.bool_], votes: int = 1) -> LabelledMask:
    ys, xs = np.nonzero(mask_HW) if mask_HW.any() else (np.zeros(1), np.zeros(1))
    box = (float(xs.min()), float(ys.min()), float(np.ptp(xs) + 1), float(np.ptp(ys) + 1))
    return LabelledMask(encode_mask(mask_HW), box, float(mask_HW.sum()), votes)


def image_of(
    masks: Sequence[NDArray[np.bool_]], name: str = "0.jpg", votes: Sequence[int] = ()
) -> SceneImage:
    """Paint masks in colours of their own on black, the later ones on top."""
    height, width = masks[0].shape
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    colours = np.random.default_rng(0).integers(60, 255, (len(masks), 3))
    for mask, colour in zip(masks, colours, strict=True):
        pixels[mask] = colour
    kept = tuple(labelled(mask, votes[i] if votes else 1) for i, mask in enumerate(masks))
    return SceneImage(name, height, width, kept, image_HWC3=pixels)


def disc_set(images: int = 3, per_image: int = 4, name: str = "discs", seed: int = 0) -> SceneSet:
    random = np.random.default_rng(seed)
    found = []
    for number in range(images):
        masks = [
            disc(int(random.integers(8, WIDTH - 8)), int(random.integers(8, HEIGHT - 8)), radius)
            for radius in random.integers(3, 16, per_image)
        ]
        votes = [1 + i % 2 for i in range(per_image)]
        found.append(image_of(masks, f"{number}.jpg", votes))
    return SceneSet(name, tuple(found))


@dataclass
class KnowingSegmenter:
    """Knows the masks; answers a click or box with the best of them, and claims an IoU of `claim`.

    Its three answers are an empty mask, the right one, and all pixels; `trusts` says which of them
    gets the highest score.
    """

    masks: Sequence[NDArray[np.bool_]]
    trusts: int = 1
    claim: float = 1.0
    encoded: int = 0
    prompts: list[int] = field(default_factory=list)

    def encode(self, image_HWC3: NDArray[np.uint8]) -> ImageEmbedding:
        self.encoded += 1
        height, width = image_HWC3.shape[:2]
        size = (height, width)
        return ImageEmbedding(ImageFeatures(torch.empty(0)), Frame(size, size, size))

    def predict(
        self, embedding: ImageEmbedding, prompts: Prompts, *, multimask: bool = True
    ) -> MaskPrediction:
        self.prompts.append(len(prompts))
        right = np.stack([self._meant(prompts, i) for i in range(len(prompts))])
        three = np.stack([right & False, right, right | True], axis=1)
        masks = torch.from_numpy(three if multimask else right[:, None])
        scores = torch.full(masks.shape[:2], 0.1 * self.claim)
        scores[:, self.trusts if multimask else 0] = self.claim
        return MaskPrediction(masks, scores, torch.zeros(*masks.shape[:2], 4, 4))

    def _meant(self, prompts: Prompts, i: int) -> NDArray[np.bool_]:
        if prompts.boxes_xyxy is not None:
            x0, y0, x1, y1 = prompts.boxes_xyxy[i].astype(int)
            boxed = np.zeros_like(self.masks[0])
            boxed[y0 : y1 + 1, x0 : x1 + 1] = True
            tight = [m for m in self.masks if m.any() and (m & ~boxed).sum() == 0]
            return max(tight, key=lambda m: int(m.sum()))
        assert prompts.points_xy is not None
        x, y = prompts.points_xy[i, 0].astype(int)
        hit = [m for m in self.masks if m[y, x]]
        # Of several masks the one whose centre was clicked.
        return min(hit, key=lambda m: np.hypot(*(np.argwhere(m).mean(0) - (y, x))))
