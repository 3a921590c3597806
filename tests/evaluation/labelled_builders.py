"""Labelled sets in memory: blank photos in a folder, masks as drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.dataset.labelled_sets import CocoMasks, LabelledImage, LabelledMask
from engine.images import encode_jpeg
from engine.masks import encode_mask


def labelled_mask(
    mask: NDArray[np.bool_], votes: int = 1, category_id: int | None = None
) -> LabelledMask:
    ys, xs = np.nonzero(mask)
    box = (float(xs.min()), float(ys.min()), float(np.ptp(xs) + 1), float(np.ptp(ys) + 1))
    return LabelledMask(encode_mask(mask), box, float(mask.sum()), votes, category_id)


def labelled_set(folder: Path, images: Sequence[Sequence[LabelledMask]]) -> CocoMasks:
    """Write a grey photo for each list of masks; image ids count from 100."""
    labelled = []
    for number, masks in enumerate(images):
        rle = masks[0].rle
        path = folder / f"{number:03d}.jpg"
        path.write_bytes(encode_jpeg(np.full((rle.height, rle.width, 3), 128, dtype=np.uint8)))
        labelled.append(LabelledImage(str(path), rle.height, rle.width, tuple(masks), 100 + number))
    return CocoMasks("drawn", tuple(labelled))


def rectangle(
    x: int, y: int, width: int, height: int, size: tuple[int, int] = (160, 240)
) -> NDArray[np.bool_]:
    mask = np.zeros(size, dtype=bool)
    mask[y : y + height, x : x + width] = True
    return mask
