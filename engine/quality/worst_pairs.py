"""Where a model and people disagree, as a sheet of pictures.

    sheet = worst_pairs_sheet(report.worst)

Each picture is cut out around one object: what only the model took is orange, what only the person
took is blue, what both took is green.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadInputError, ImageError
from engine.images import decode_image, read_image_bytes, resize_to_fit
from engine.masks import decode_mask
from engine.quality.agreement import WorstPair
from engine.quality.overlays import file_name
from engine.quality.small_pictures import SmallPicture, in_rows, small_jpeg

__all__ = ["draw_disagreement", "worst_pairs_sheet"]

log = logging.getLogger(__name__)

_ONLY_MODEL, _ONLY_PERSON, _BOTH = (240, 120, 20), (40, 110, 250), (50, 190, 90)
_OPACITY = 0.55
_MARGIN = 0.35  # of the object's longer side, so that one sees where it is
_MIN_SIDE_PX = 240
_MAX_SIDE_PX = 640


def worst_pairs_sheet(
    pairs: Sequence[WorstPair], width_px: int = 1040, max_bytes: int = 110_000
) -> SmallPicture | None:
    """Draw pairs of masks that agree badly, in their order, on one sheet.

    Args:
        pairs: a few. Photos that cannot be read, or have another size now, are logged and left out.
        width_px: of the sheet.
        max_bytes: of the JPEG.

    Returns:
        The sheet; its caption names the photos with the IoUs. None without a picture.
    """
    pictures: list[NDArray[np.uint8]] = []
    captions: list[str] = []
    for pair in pairs:
        try:
            photo_HWC3 = decode_image(read_image_bytes(pair.uri))
            pictures.append(draw_disagreement(photo_HWC3, pair))
        except (ImageError, BadInputError) as error:
            log.warning("no picture of image %d: %s", pair.image_id, error)
            continue
        captions.append(f"{file_name(pair.uri)} (IoU {pair.iou:.2f})")
    if not pictures:
        return None
    sheet_HWC3 = in_rows(pictures, width_px)
    return SmallPicture(data=small_jpeg(sheet_HWC3, max_bytes), caption=", ".join(captions))


def draw_disagreement(photo_HWC3: NDArray[np.uint8], pair: WorstPair) -> NDArray[np.uint8]:
    """Cut a photo out around a pair of masks, and colour what each took.

    Args:
        photo_HWC3: uint8 RGB, as large as the masks.
        pair: the masks.

    Raises:
        BadInputError: masks of another size than the photo.
        InvalidMaskError: an RLE that cannot be decoded.
    """
    sizes = {(rle.height, rle.width) for rle in (pair.made, pair.human)}
    if sizes != {photo_HWC3.shape[:2]}:
        raise BadInputError(f"{pair.uri} has {photo_HWC3.shape[:2]} pixels, its masks {sizes}")
    made_HW, human_HW = decode_mask(pair.made), decode_mask(pair.human)
    rows, columns = _window(made_HW | human_HW)
    cut_HWC3 = resize_to_fit(photo_HWC3[rows, columns], _MAX_SIDE_PX)
    drawn_HWC3 = cut_HWC3.astype(np.float32)
    made, human = (_shrunk(mask[rows, columns], cut_HWC3) for mask in (made_HW, human_HW))
    for part, colour in (
        (made & ~human, _ONLY_MODEL),
        (human & ~made, _ONLY_PERSON),
        (made & human, _BOTH),
    ):
        drawn_HWC3[part] += _OPACITY * (np.array(colour, dtype=np.float32) - drawn_HWC3[part])
    return drawn_HWC3.astype(np.uint8)


def _window(mask_HW: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return rows and columns around a mask, `_MIN_SIDE_PX` or more where the photo has them."""
    ends = [np.flatnonzero(mask_HW.any(axis=axis)) for axis in (1, 0)]
    if not ends[0].size:
        return slice(None), slice(None)
    longer = max(int(end[-1] - end[0] + 1) for end in ends)
    slices: list[slice] = []
    for end, size in zip(ends, mask_HW.shape, strict=True):
        length = int(end[-1] - end[0] + 1)
        wanted = min(size, max(length + round(2 * _MARGIN * longer), _MIN_SIDE_PX))
        first = min(max(0, int(end[0]) - (wanted - length) // 2), size - wanted)
        slices.append(slice(first, first + wanted))
    return slices[0], slices[1]


def _shrunk(mask_hw: NDArray[np.bool_], like_HWC3: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Sample a mask at the pixels of a smaller picture."""
    rows, columns = (
        (2 * np.arange(small) + 1) * large // (2 * small)
        for small, large in zip(like_HWC3.shape[:2], mask_hw.shape, strict=True)
    )
    return mask_hw[np.ix_(rows, columns)]
