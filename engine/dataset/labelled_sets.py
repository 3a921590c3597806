"""Images with masks to learn from and to be measured on, as values: from COCO files here.

>>> data = CocoMasks.load(Path("annotations.json"))
>>> image = data[0]
>>> image.masks[0].rle, image.read()

`engine.dataset.release_masks` gives the same view of a release. Masks are decoded by whoever needs
their pixels; see `engine.masks.decode_mask` and `decode_region`.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadInputError, ImageError, InvalidMaskError
from engine.images import decode_image, read_image_bytes
from engine.masks import encode_polygons, encode_runs, mask_area, mask_box_xyxy
from engine.records import Rle, SkippedImage

__all__ = [
    "CocoMasks",
    "LabelledImage",
    "LabelledMask",
    "LabelledSet",
    "Subset",
    "folder_of_photos",
    "hold_out",
    "readable",
]

log = logging.getLogger(__name__)

_NOT_COCO = (OSError, ValueError, KeyError, TypeError, AttributeError, InvalidMaskError)


@dataclass(frozen=True, slots=True)
class LabelledMask:
    """One mask that a person drew or confirmed, or that a model made.

    Attributes:
        rle: at the photo's size.
        bbox_xywh: in pixels; the right and lower pixels count.
        area: in pixels.
        votes: how many people drew it.
        category_id: what it shows, in the set's own numbering; None where nobody said.
        voters: who drew it, numbered within the image; empty where nobody said.
    """

    rle: Rle
    bbox_xywh: tuple[float, float, float, float]
    area: float
    votes: int = 1
    category_id: int | None = None
    voters: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One photo with its masks; the pixels stay in the file until asked for.

    Attributes:
        uri: where the photo is; a path or an address.
        height: rows in pixels.
        width: columns in pixels.
        masks: at least one.
        image_id: the COCO file's id of it, which detections refer to; None in other sets.
    """

    uri: str
    height: int
    width: int
    masks: tuple[LabelledMask, ...]
    image_id: int | None = None

    @property
    def path(self) -> Path:
        """The photo as a local file."""
        return Path(self.uri.removeprefix("file://"))

    def read(self) -> NDArray[np.uint8]:
        """Decode the photo: (H, W, 3) RGB.

        Raises:
            ImageError: it is missing, damaged, or not of the size that its masks were drawn at.
        """
        pixels = decode_image(read_image_bytes(self.uri))
        if pixels.shape[:2] != (self.height, self.width):
            raise ImageError(
                "changed",
                f"{self.uri} has {pixels.shape[1]} x {pixels.shape[0]} pixels, its masks were "
                f"drawn on {self.width} x {self.height}",
            )
        return pixels


class LabelledSet(Protocol):
    """A sequence of labelled images; index i is always the same image.

    `LabelledImage` objects may be made when they are asked for: a set can be larger than memory.
    """

    @property
    def name(self) -> str:
        """What tables and logs call the set."""
        ...

    def __len__(self) -> int:
        """Return the number of images that have masks."""
        ...

    def __getitem__(self, index: int) -> LabelledImage:
        """Return an image with its masks; IndexError past the end."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Subset:
    """Some images of another set, in the order of `places_I`."""

    whole: LabelledSet
    places_I: NDArray[np.int64]

    @property
    def name(self) -> str:
        """The whole set's name."""
        return self.whole.name

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.places_I)

    def __getitem__(self, index: int) -> LabelledImage:
        """Return an image with its masks; IndexError past the end."""
        return self.whole[int(self.places_I[index])]


def hold_out(data: LabelledSet, count: int) -> tuple[Subset, Subset]:
    """Split off `count` images, evenly spaced: (the rest, held out)."""
    total = len(data)
    if not 0 <= count <= total:
        raise BadInputError(f"cannot hold out {count} images of the {total} of {data.name}")
    chosen_I = np.arange(count) * total // max(count, 1)
    return Subset(data, np.delete(np.arange(total), chosen_I)), Subset(data, chosen_I)


def readable(data: LabelledSet) -> tuple[Subset, tuple[SkippedImage, ...]]:
    """Leave photos out that cannot be read, and name them: a measurement must not stop for them."""
    kept: list[int] = []
    skipped: list[SkippedImage] = []
    for index in range(len(data)):
        image = data[index]
        try:
            image.read()
        except ImageError as error:
            log.warning("%s is left out of measurements: %s", image.uri, error)
            skipped.append(SkippedImage(image.uri, error.reason, str(error)))
        else:
            kept.append(index)
    return Subset(data, np.array(kept, dtype=np.int64)), tuple(skipped)


@dataclass(frozen=True, slots=True)
class CocoMasks:
    """The images of one COCO file that have masks, ordered by file name."""

    name: str
    images: tuple[LabelledImage, ...]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> LabelledImage:
        """Return an image with its masks."""
        return self.images[index]

    @classmethod
    def load(
        cls, annotations: Path, split: str | None = None, photos: Path | None = None
    ) -> CocoMasks:
        """Read a COCO instances file: compressed or uncompressed RLE, or polygons.

        Crowd regions and empty masks are left out.

        Args:
            annotations: the JSON file.
            split: keep the images whose field ``split`` says so.
            photos: folder that file names count from; by default ``images`` beside the JSON file
                if there is one, else the JSON file's own folder.

        Raises:
            BadInputError: not such a file.
        """
        folder = photos or folder_of_photos(annotations)
        try:
            coco = json.loads(annotations.read_bytes())
            rows = sorted(coco["images"], key=lambda row: str(row["file_name"]))
            sizes = {row["id"]: (int(row["height"]), int(row["width"])) for row in rows}
            by_image: dict[object, list[LabelledMask]] = defaultdict(list)
            for annotation in coco["annotations"]:
                mask = _labelled_mask(annotation, sizes[annotation["image_id"]])
                if mask is not None:
                    by_image[annotation["image_id"]].append(mask)
            images = tuple(
                LabelledImage(
                    str(folder / row["file_name"]),
                    *sizes[row["id"]],
                    tuple(by_image[row["id"]]),
                    row["id"],
                )
                for row in rows
                if by_image[row["id"]] and split in (None, row.get("split"))
            )
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            InvalidMaskError,
        ) as error:
            raise BadInputError(
                f"{annotations} is not a COCO file with masks (RLE or polygons): {error!r}"
            ) from error
        return cls(_name_of(annotations), images)

    def hold_out(self, count: int) -> tuple[CocoMasks, CocoMasks]:
        """Split off `count` images, evenly spaced by file name: (the rest, held out)."""
        rest, held = hold_out(self, count)
        return (
            replace(self, images=tuple(self.images[i] for i in rest.places_I)),
            replace(self, images=tuple(self.images[i] for i in held.places_I)),
        )


def folder_of_photos(annotations: Path) -> Path:
    """Return where the file names in a COCO file count from, unless somebody says otherwise."""
    beside = annotations.parent / "images"
    return beside if beside.is_dir() else annotations.parent


def _name_of(annotations: Path) -> str:
    """Return the folder's name for ``annotations.json``, as every set has one, else the file's."""
    folder = annotations.absolute().parent.name
    return folder if annotations.stem == "annotations" and folder else annotations.stem


def _labelled_mask(annotation: Mapping[str, Any], size: tuple[int, int]) -> LabelledMask | None:
    """Check one annotation; None for a crowd or an empty mask.

    KeyError, TypeError, ValueError or InvalidMaskError where it is not as expected.
    """
    if annotation.get("iscrowd"):
        return None
    rle = _rle(annotation["segmentation"], size, annotation["id"])
    area = float(annotation["area"]) if "area" in annotation else float(mask_area(rle))
    if not area > 0:
        return None
    if "bbox" in annotation:
        x, y, w, h = (float(side) for side in annotation["bbox"])
    else:
        x0, y0, x1, y1 = mask_box_xyxy(rle) or (0, 0, -1, -1)
        x, y, w, h = float(x0), float(y0), float(x1 - x0 + 1), float(y1 - y0 + 1)
    return LabelledMask(
        rle,
        (x, y, w, h),
        area,
        votes=int(annotation.get("votes", 1)),
        category_id=annotation.get("category_id"),
        voters=tuple(int(voter) for voter in annotation.get("voters", ())),
    )


def _rle(segmentation: object, size: tuple[int, int], annotation_id: object) -> Rle:
    if isinstance(segmentation, list):
        return encode_polygons(segmentation, *size)
    if not isinstance(segmentation, dict):
        raise TypeError(f"annotation {annotation_id}: expected an RLE or polygons")
    height, width = segmentation["size"]
    if (height, width) != size:
        raise ValueError(
            f"annotation {annotation_id}: its RLE is {height} x {width}, its image {size[0]} x "
            f"{size[1]}"
        )
    counts = segmentation["counts"]
    return Rle(*size, counts) if isinstance(counts, str) else encode_runs(counts, *size)
