"""The values that travel between the engine's parts and between Prefect tasks: small and frozen.

Arrays never travel; masks travel as COCO RLE. Boxes are XYWH in pixels of the original image.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TypedDict


class SegmentationDict(TypedDict):
    """A COCO RLE as JSON holds it."""

    size: list[int]
    counts: str


class Sa1bAnnotation(TypedDict):
    """One annotation with the field names and conventions of SA-1B's JSON files."""

    id: int
    segmentation: SegmentationDict
    bbox: list[float]
    area: int
    predicted_iou: float
    stability_score: float
    crop_box: list[float]
    point_coords: list[list[float]]


@dataclass(frozen=True, slots=True)
class Rle:
    """A mask as compressed COCO run-length encoding.

    Attributes:
        height: rows of the image in pixels.
        width: columns of the image in pixels.
        counts: column-major run lengths, starting with background, in COCO's compressed ASCII form.
    """

    height: int
    width: int
    counts: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """One image of the data set: a row of the table ``images``.

    Attributes:
        image_id: first 63 bits of the sha256 of the file's bytes: the same content has the same id.
        uri: where the bytes are; an absolute path or a URL.
        sha256: hex digest of the file's bytes.
        width: columns in pixels after EXIF orientation.
        height: rows in pixels after EXIF orientation.
        format: container, lower case: ``"jpeg"``, ``"png"``, ``"webp"``, ``"tiff"``, ``"bmp"``, ...
        license: as given by the list that named the image, else None.
        split: as given by the list that named the image, else None.
        ingested_at: UTC.
    """

    image_id: int
    uri: str
    sha256: str
    width: int
    height: int
    format: str
    license: str | None = None
    split: str | None = None
    ingested_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskRecord:
    """One mask with its provenance: a row of the table ``masks``.

    Attributes:
        rle: the mask at the image's original size.
        bbox_xywh: tight box; width and height are ``max - min`` (SA-1B's convention), in pixels.
        area: number of mask pixels.
        predicted_iou: the model's own estimate of the mask's IoU.
        stability_score: IoU of the mask thresholded high and low.
        crop_box_xywh: the crop that the mask was found in, in pixels of the image.
        point_xy: the point that prompted the mask, in pixels of the image; None without one.
    """

    rle: Rle
    bbox_xywh: tuple[int, int, int, int]
    area: int
    predicted_iou: float
    stability_score: float
    crop_box_xywh: tuple[int, int, int, int]
    point_xy: tuple[float, float] | None = None

    def to_sa1b(self, mask_id: int = 0) -> Sa1bAnnotation:
        """Return the mask as an SA-1B annotation (a JSON-ready dict)."""
        return Sa1bAnnotation(
            id=mask_id,
            segmentation={"size": [self.rle.height, self.rle.width], "counts": self.rle.counts},
            bbox=[float(v) for v in self.bbox_xywh],
            area=self.area,
            predicted_iou=self.predicted_iou,
            stability_score=self.stability_score,
            crop_box=[float(v) for v in self.crop_box_xywh],
            point_coords=[] if self.point_xy is None else [[*map(float, self.point_xy)]],
        )


@dataclass(frozen=True, slots=True)
class SkippedImage:
    """An image that a run could not use, and why.

    Attributes:
        uri: where it was looked for.
        reason: short machine-readable cause, as in `ImageError.reason`.
        message: one sentence for a person.
    """

    uri: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Shard:
    """A unit of work: the images that one task masks into one Parquet file.

    Attributes:
        run_id: the run that the shard belongs to.
        index: position in the run, from 0; names the object.
        image_ids: in the order in which the rows are written (ascending).
    """

    run_id: str
    index: int
    image_ids: tuple[int, ...]

    @property
    def key(self) -> str:
        """Object key of the shard below the workspace's root."""
        return f"runs/{self.run_id}/masks-{self.index:05d}.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A named, immutable state of the data set.

    Attributes:
        name: unique, never moves: ``"r1"``, ``"r2"``, ...
        snapshots: Iceberg snapshot id of each table.
        runs: ids of the runs whose masks it holds, oldest first.
        models: ids of the models that made the masks.
        parent: the release before it, if any.
        images: number of images.
        masks: number of masks.
        created_at: UTC.
    """

    name: str
    snapshots: dict[str, int] = field(default_factory=dict)
    runs: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    parent: str | None = None
    images: int = 0
    masks: int = 0
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AutomaticOutcome:
    """What one call of the automatic stage did.

    Attributes:
        release: the newest release of the workspace afterwards.
        images_listed: usable images that were named.
        images_masked: of these, masked by this call; the others had been masked before.
        images_without_masks: masked images in which nothing passed the thresholds.
        duplicates: named images whose content another one has.
        masks: number of masks made.
        median_masks_per_image: over the images masked.
        skipped: images that could not be used.
        seconds: wall time.
    """

    release: str | None
    images_listed: int
    images_masked: int
    images_without_masks: int
    duplicates: int
    masks: int
    median_masks_per_image: float
    skipped: tuple[SkippedImage, ...]
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Masked images over the wall time."""
        return self.images_masked / self.seconds if self.seconds else 0.0
