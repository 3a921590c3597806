"""The values that travel between the engine's parts and between Prefect tasks: small and frozen.

Arrays never travel; masks travel as COCO RLE. Boxes are XYWH in pixels of the original image.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypedDict

ReleaseKind = Literal["run", "rollback", "import", "annotation"]


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
class ShardOutcome:
    """What one task did.

    Attributes:
        index: position of the shard in its run.
        images: in the shard, skipped ones among them.
        masks: on all of them.
        skipped: images that could not be used.
        seconds: wall time, without loading the model.
        worker: name of the process that did it, ``"host/pid"``.
        wrote: False where the shard was there before, or another worker was first.
    """

    index: int
    images: int
    masks: int
    skipped: int
    seconds: float
    worker: str
    wrote: bool


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
        kind: what made it: a run of the automatic stage, a rollback, an import, or people.
        configs: settings of the runs that are new in it, as canonical JSON by run id; those of
            the other runs stand in the releases before it.
        code_version: of the Maskwheel that published it; None in records older than the field.
        note: why, in the words of who published it.
        accepted: why it was published although checks had failed; None where none had.
        restores: of a rollback, the release whose masks are current again.
        checksums: sha256 of the object that lists the data files which are new in it, see
            `engine.dataset.release_checksums`; None in records older than the field.
        commit_id: of the publication that became it, e.g. the run's id: publishing that again
            gives this release; None in records older than the field.
    """

    name: str
    snapshots: dict[str, int] = field(default_factory=dict)
    runs: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    parent: str | None = None
    images: int = 0
    masks: int = 0
    created_at: datetime
    kind: ReleaseKind = "run"
    configs: dict[str, str] = field(default_factory=dict)
    code_version: str | None = None
    note: str = ""
    accepted: str | None = None
    restores: str | None = None
    checksums: str | None = None
    commit_id: str | None = None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOrigin:
    """Where the weights of a model version come from.

    Attributes:
        kind: ``"trained"`` here, ``"imported"`` from a file, or ``"built-in"``: part of Maskwheel.
        parent: the version that training started from, if it was one.
        source: the file that was imported, or that training started from; for the reader only.
        trained_on: names of releases, or fingerprints of other data.
        recipe: name of the training recipe.
        recipe_json: its settings as canonical JSON.
    """

    kind: Literal["trained", "imported", "built-in"]
    parent: str | None = None
    source: str | None = None
    trained_on: tuple[str, ...] = ()
    recipe: str | None = None
    recipe_json: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMetric:
    """What a model reached on one evaluation set; a claim that the promotion gate checks.

    Attributes:
        row: set and kind of prompt, e.g. ``"bsds500_trainval, 1 click"``.
        fingerprint: of the set's photos and masks and of how they were asked for.
        mean_iou: mean IoU over the set's masks, 0 to 1.
    """

    row: str
    fingerprint: str
    mean_iou: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """A registered model; never changes.

    Attributes:
        name: unique, never moves: ``"m1"``, ``"m2"``, ...; ``"bundled"`` is the built-in one.
        model_id: `Sam.model_id` of the weights in float32.
        sha256: hex digest of the weight file.
        size_bytes: of the weight file.
        config_json: the model's sizes and recommended thresholds as canonical JSON, for the reader;
            the weight file carries them too.
        origin: where the weights come from.
        metrics: as claimed by who registered it.
        created_at: UTC; None for the built-in model.
    """

    name: str
    model_id: str
    sha256: str
    size_bytes: int
    config_json: str
    origin: ModelOrigin
    metrics: tuple[ModelMetric, ...] = ()
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRow:
    """Candidate against champion on the same masks of one evaluation set.

    Attributes:
        row: set and kind of prompt; the first row of a comparison is the primary one.
        fingerprint: of the set's photos and masks and of how they were asked for.
        images: number of photos, the unit that the interval resamples.
        masks: number of masks.
        candidate: its mean IoU over the masks, 0 to 1.
        champion: likewise.
        low: lower end of the 95 % interval of the difference, candidate minus champion.
        high: upper end.
    """

    row: str
    fingerprint: str
    images: int
    masks: int
    candidate: float
    champion: float
    low: float
    high: float

    @property
    def difference(self) -> float:
        """Mean IoU of the candidate minus that of the champion."""
        return self.candidate - self.champion


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionDecision:
    """One entry of the log that says which model is the champion; never changes.

    Attributes:
        number: position in the log, from 1.
        outcome: what was decided; ``"refused"`` leaves the champion.
        candidate: the version that was to become champion.
        candidate_sha256: of its weights.
        previous_champion: who was champion before.
        champion: who is champion from now on.
        champion_sha256: of its weights.
        reasons: the conditions that the candidate failed; also when it was forced past them.
        rows: what was compared, the primary row first; empty for a rollback.
        candidate_scores: sha256 of the object with the candidate's IoU of every mask.
        champion_scores: likewise for the champion before.
        margin: the primary row had to be better by more than this.
        tolerance: no row could be worse by more than this.
        seed: of the intervals' resampling.
        decided_by: who asked for it.
        note: why, in their words.
        decided_at: UTC.
        previous_sha256: of the log's entry before, which so cannot be changed unnoticed.
    """

    number: int
    outcome: Literal["promoted", "forced", "refused", "rolled back"]
    candidate: str
    candidate_sha256: str
    previous_champion: str
    champion: str
    champion_sha256: str
    reasons: tuple[str, ...] = ()
    rows: tuple[ComparedRow, ...] = ()
    candidate_scores: str | None = None
    champion_scores: str | None = None
    margin: float | None = None
    tolerance: float | None = None
    seed: int | None = None
    decided_by: str
    note: str = ""
    decided_at: datetime
    previous_sha256: str | None = None
