"""Two releases side by side: photos with the masks that are gone, and with those that are new.

pictures = write_difference_pictures(workspace, before, after, difference.sample, folder)
pictures.paths, pictures.left_out
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.dataset.catalog import Workspace
from engine.dataset.reader import ReleaseReader
from engine.files import write_atomically
from engine.images import encode_jpeg
from engine.quality.overlays import draw_overlay, file_name
from engine.quality.pictures import iter_pictures
from engine.records import MaskRecord, Release

__all__ = ["DifferencePictures", "write_difference_pictures"]

_JPEG_QUALITY = 90
_GAP_PX = 6
_WHITE = 255
# Masks stand out before a photo without colour, a little paler than it was.
_CONTRAST, _PALENESS = 0.75, 48


@dataclass(frozen=True, slots=True)
class DifferencePictures:
    """What was drawn.

    Attributes:
        paths: one picture per image.
        left_out: images that could not be drawn, a sentence each.
    """

    paths: tuple[Path, ...]
    left_out: tuple[str, ...]


def write_difference_pictures(
    workspace: Workspace,
    before: Release,
    after: Release,
    image_ids: Sequence[int],
    folder: Path,
    *,
    max_side: int = 1024,
    on_image: Callable[[int], None] | None = None,
) -> DifferencePictures:
    """Write one JPEG per image, ``<stem>-<image_id>.jpg``: left before, right after.

    Masks that both releases have are left out; a changed mask is drawn on both sides.

    Args:
        workspace: where the releases are.
        before: whose masks are drawn left, where the other lacks them.
        after: likewise, right.
        image_ids: which images, e.g. `ReleaseDiff.sample`.
        folder: created where it is missing.
        max_side: of each side, in pixels.
        on_image: called with its id after each image.

    Raises:
        BadInputError: a folder that cannot be written.
        WorkspaceError: an id that the data set does not have, or objects that are gone.
        TransientError: the store or the catalog failed for now.
    """
    paths: list[Path] = []
    left_out: list[str] = []
    with ReleaseReader.of(workspace, before) as old, ReleaseReader.of(workspace, after) as new:
        for picture in iter_pictures(workspace, after, image_ids, max_side):
            image = picture.image
            if picture.image_HWC3 is None:
                left_out.append(f"image {image.image_id}: {picture.problem}")
            else:
                pair_HWC3 = _pair(
                    picture.image_HWC3, _masks(old, image.image_id), _masks(new, image.image_id)
                )
                name = f"{Path(file_name(image.uri)).stem}-{image.image_id}.jpg"
                write_atomically(folder / name, encode_jpeg(pair_HWC3, _JPEG_QUALITY))
                paths.append(folder / name)
            if on_image is not None:
                on_image(image.image_id)
    return DifferencePictures(tuple(paths), tuple(left_out))


def _masks(reader: ReleaseReader, image_id: int) -> dict[int, MaskRecord]:
    """Return an image's masks by id; none where the release does not have the image."""
    if image_id not in reader:
        return {}
    image = reader[image_id]
    return dict(zip(image.mask_ids, image.masks, strict=True))


def _pair(
    photo_HWC3: NDArray[np.uint8], old: dict[int, MaskRecord], new: dict[int, MaskRecord]
) -> NDArray[np.uint8]:
    """Draw what differs, beside each other."""
    gone = [mask for mask_id, mask in old.items() if new.get(mask_id) != mask]
    come = [mask for mask_id, mask in new.items() if old.get(mask_id) != mask]
    grey_HW = photo_HWC3.mean(axis=2) * _CONTRAST + _PALENESS
    pale_HWC3 = np.repeat(grey_HW.astype(np.uint8)[:, :, None], 3, axis=2)
    gap = np.full((photo_HWC3.shape[0], _GAP_PX, 3), _WHITE, dtype=np.uint8)
    return np.concatenate(
        [draw_overlay(pale_HWC3, gone), gap, draw_overlay(pale_HWC3, come)], axis=1
    )
