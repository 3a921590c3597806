"""What an export's parts hand to each other, and what a format has to be.

    class Example:                                # an `ExportFormat`
        def render(self, image, photo, part): ...     # in threads: what one image becomes

An export is cut into parts of consecutive images. A format is *loose* when each image becomes
files of its own (SA-1B, YOLO, PNG), or *packed* when a part becomes one file (tar, Parquet).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

import pyarrow as pa

from engine.dataset.released_images import MaskOrigin
from engine.records import MaskRecord, Release

__all__ = [
    "ExportContext",
    "ExportFormat",
    "ExportImage",
    "ExportMask",
    "ExportOptions",
    "ExportedImage",
    "FinalFile",
    "ImageMode",
    "OutputFile",
    "Packer",
    "Part",
    "PartLimits",
    "PartWriter",
    "Photo",
    "Problem",
    "Rendered",
]

ImageMode = Literal["copy", "jpeg", "none"]
"""Images as they are stored, all of them as JPEG, or left where they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What to export, and how.

    Attributes:
        format: name of the format.
        images: what becomes of the image files; None: what the format's readers expect.
        splits: only images of these splits; empty: all images.
        where: only masks that meet this condition, as SQL (``"predicted_iou > 0.9"``).
        images_per_part: None: as the format does.
        part_bytes: a packed part is closed once it holds so much; None: as the format does.
        tolerance_px: how far a polygon may stay from the mask's outline; for formats of polygons.
    """

    format: str
    images: ImageMode | None = None
    splits: tuple[str, ...] = ()
    where: str | None = None
    images_per_part: int | None = None
    part_bytes: int | None = None
    tolerance_px: float = 0.0


@dataclass(frozen=True, slots=True)
class ExportMask:
    """A mask of a release.

    Attributes:
        record: the mask.
        mask_id: 63 bits.
        origin: who made it.
    """

    record: MaskRecord
    mask_id: int
    origin: MaskOrigin


@dataclass(frozen=True, slots=True)
class ExportImage:
    """An image of a release; fields as in `ImageRecord`.

    Attributes:
        masks: in the order of the runs, within a run as they were numbered; empty when nothing was
            found on the image, or when the format did not ask for them.
    """

    image_id: int
    uri: str
    sha256: str
    width: int
    height: int
    format: str
    license: str | None
    split: str | None
    masks: tuple[ExportMask, ...] = ()


@dataclass(frozen=True, slots=True)
class Photo:
    """An image's file as it goes into the export: upright, as its masks were drawn.

    Attributes:
        data: the file's bytes.
        suffix: ``"jpg"``, ``"png"``, ... without the dot.
    """

    data: bytes
    suffix: str


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive images of one split.

    Attributes:
        split: None: images without a split.
        number: from 0, within the split.
    """

    split: str | None
    number: int

    @property
    def folder(self) -> str:
        """Prefix of the split's files: ``"train/"``; nothing without a split."""
        return f"{self.split}/" if self.split else ""


@dataclass(frozen=True, slots=True)
class PartLimits:
    """When a part is full.

    Attributes:
        images: number of images.
        size_bytes: of what was rendered; None for loose formats, whose parts are counted ahead.
    """

    images: int
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file to write.

    Attributes:
        path: below the export's folder, or in the tar.
        data: its bytes.
    """

    path: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something of the release that is not in the export, and why.

    Attributes:
        image_id: the image.
        uri: where it was looked for.
        mask_id: the mask that is left out; None: the whole image is.
        reason: short and for machines.
        message: for a person.
    """

    image_id: int
    uri: str
    mask_id: int | None = None
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """What one image becomes.

    Attributes:
        files: of a loose format's image, or the members of a tar, in order.
        rows: of a Parquet file.
        photo: path of the image's file in the export, if it is one.
        masks: number of masks in it.
        problems: masks that the format cannot hold.
    """

    files: tuple[OutputFile, ...] = ()
    rows: pa.RecordBatch | None = None
    photo: str | None = None
    masks: int = 0
    problems: tuple[Problem, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Bytes of the files and rows."""
        rows = self.rows.nbytes if self.rows is not None else 0
        return sum(len(file.data) for file in self.files) + rows


@dataclass(frozen=True, slots=True)
class ExportedImage:
    """What an export remembers of an image that is in it.

    Attributes:
        image_id: the image.
        photo: path of its file in the export; None when it is not one.
        masks: number of masks.
    """

    image_id: int
    photo: str | None
    masks: int


@dataclass(frozen=True, slots=True)
class FinalFile:
    """A file that is written when all parts are.

    Attributes:
        path: below the export's folder.
        data: its bytes, or the local file that holds them.
        masks: number of masks in it, where the parts have none.
    """

    path: str
    data: bytes | Path
    masks: int = 0


class ExportContext(Protocol):
    """What a format may look at when all parts are written."""

    @property
    def release(self) -> Release:
        """What is exported."""
        ...

    @property
    def images_per_split(self) -> Mapping[str | None, int]:
        """How many images are in the export, by split, in the order of the export."""
        ...

    @property
    def licenses(self) -> tuple[str, ...]:
        """What the images' licences are, each once."""
        ...

    @property
    def folder(self) -> Path:
        """For large files on their way."""
        ...

    def exported(
        self, split: str | None, *, masks: bool = False
    ) -> Iterator[tuple[ExportImage, ExportedImage]]:
        """Yield the images of a split that are in the export, with their masks if asked for."""
        ...


class PartWriter(Protocol):
    """Fills the local file of one part."""

    def add(self, rendered: Rendered) -> None:
        """Append an image."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Packer(Protocol):
    """Makes one file of the images of a part."""

    def path(self, part: Part) -> str:
        """Return where the file goes, below the export's folder."""
        ...

    def open(self, local_path: Path) -> PartWriter:
        """Begin the file."""
        ...


class ExportFormat(Protocol):
    """A format that a release can be exported to. Equal input gives equal bytes."""

    @property
    def images(self) -> ImageMode:
        """What becomes of the images when nobody says."""
        ...

    @property
    def limits(self) -> PartLimits:
        """When a part is full when nobody says."""
        ...

    @property
    def packer(self) -> Packer | None:
        """Makes one file of a part; None: each image has files of its own."""
        ...

    @property
    def masks_in_parts(self) -> bool:
        """Whether `render` looks at the masks."""
        ...

    def render(self, image: ExportImage, photo: Photo | None, part: Part) -> Rendered:
        """Say what an image becomes; called in threads. `part` counts for loose formats only."""
        ...

    def finish(self, context: ExportContext) -> Iterator[FinalFile]:
        """Yield the files about the whole export."""
        ...
