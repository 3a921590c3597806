"""What simulated annotators see in the images: the masks that people drew.

    truth = Truth.load(Path("annotations.json"))
    truth.seen_by(viewer=3, image_id=1234)      # RLEs, most prominent first

An image is known by the content of its file, as everywhere in a workspace, so the photos of the
annotation file must be there. Where several people drew one image, different viewers see what
different people drew: simulated annotators then disagree as much as those people did.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from engine.dataset.labelled_sets import CocoMasks, LabelledImage, LabelledMask
from engine.errors import BadInputError, ImageError
from engine.images import content_id, read_image_bytes
from engine.masks import mask_iou
from engine.records import Rle

__all__ = ["Truth"]

logger = logging.getLogger(__name__)

_READERS = 8
# Two drawings of one object overlap more than this where nobody said who drew which.
_SAME_OBJECT_IOU = 0.7


@dataclass(frozen=True, slots=True)
class Truth:
    """The images that somebody has the masks of, by the image id of the workspace."""

    images: Mapping[int, LabelledImage]

    @classmethod
    def load(cls, annotations: Path, split: str | None = None, photos: Path | None = None) -> Truth:
        """Read a COCO file and name its photos by their content.

        Photos that are missing or unreadable are logged and left out.

        Args:
            annotations: see `CocoMasks.load`, as the others.
            split: only images of this split.
            photos: folder that file names count from.

        Raises:
            BadInputError: not a COCO file with masks, or none of its photos is there.
        """
        data = CocoMasks.load(annotations, split, photos)
        with ThreadPoolExecutor(_READERS) as readers:
            ids = list(readers.map(_image_id, data.images))
        images = {
            image_id: image
            for image_id, image in zip(ids, data.images, strict=True)
            if image_id is not None
        }
        if not images:
            raise BadInputError(
                f"none of the {len(data)} photos of {annotations} can be read; expected them in "
                "images/ beside it, or where its file names say"
            )
        return cls(images)

    def __contains__(self, image_id: object) -> bool:
        """Whether the image has known masks."""
        return image_id in self.images

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def seen_by(self, viewer: int, image_id: int) -> tuple[Rle, ...]:
        """Return the masks that a viewer sees in an image, the largest and so most prominent first.

        Args:
            viewer: any number; viewers see what the people who drew the image saw, in turn.
            image_id: of the workspace.

        Raises:
            KeyError: an image without known masks.
        """
        masks = self.images[image_id].masks
        voters = sorted({voter for mask in masks for voter in mask.voters})
        if voters:
            eyes = voters[viewer % len(voters)]
            masks = tuple(mask for mask in masks if eyes in mask.voters)
        return _without_repeats(sorted(masks, key=lambda mask: -mask.area))

    def drawn_by_anybody(self, image_id: int) -> tuple[Rle, ...]:
        """Return every mask of an image; KeyError as `seen_by`."""
        return tuple(mask.rle for mask in self.images[image_id].masks)


def _image_id(image: LabelledImage) -> int | None:
    try:
        return content_id(read_image_bytes(image.uri))[0]
    except ImageError as error:
        logger.warning("no truth for %s: %s", image.uri, error)
        return None


def _without_repeats(masks: list[LabelledMask]) -> tuple[Rle, ...]:
    """Keep one of several drawings of the same object: the first."""
    rles = [mask.rle for mask in masks]
    overlap_NN = mask_iou(rles, rles)
    kept: list[int] = []
    for place in range(len(rles)):
        if not kept or overlap_NN[place, kept].max() <= _SAME_OBJECT_IOU:
            kept.append(place)
    return tuple(rles[place] for place in kept)
