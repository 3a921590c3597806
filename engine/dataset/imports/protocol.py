"""What an import reads: images that are listed, and the masks that belong to them.

for image in source.images(): ...               # first; then, with those that can be used,
for image_id, mask in source.masks(usable): ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engine.records import MaskRecord

__all__ = ["ImportSource", "ImportedMask", "Rejected", "SourceImage", "UsableImage"]


@dataclass(frozen=True, slots=True)
class SourceImage:
    """An image that the source lists.

    Attributes:
        key: the source's own name of it.
        uri: where its file is.
        height: rows that its masks were drawn on, in pixels; None: nobody says.
        width: columns likewise.
        license: as the source says.
        split: likewise.
    """

    key: str
    uri: str
    height: int | None
    width: int | None
    license: str | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class ImportedMask:
    """A mask that can be used, with what the table of masks has no column for.

    Attributes:
        record: the mask; box and area are computed from its pixels.
        image_key: the source's name of the image.
        source_id: the source's name of the mask.
        category: what it shows, in the source's numbering.
        is_crowd: whether it is a region of many objects.
        stage: what an exporting Maskwheel wrote there.
        model_id: likewise.
        run_id: likewise.
    """

    record: MaskRecord
    image_key: str
    source_id: str
    category: str | None = None
    is_crowd: bool = False
    stage: str | None = None
    model_id: str | None = None
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """Something that the source has and the import does not.

    Attributes:
        image_key: the source's name of the image; None where it names none.
        source_id: the source's name of the mask; None: the image itself.
        reason: short and for machines.
        message: for a person.
    """

    image_key: str | None
    source_id: str | None
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class UsableImage:
    """An image of the source that is in the data set.

    Attributes:
        image_id: there.
        key: the source's own name of it.
        height: rows in pixels.
        width: columns in pixels.
    """

    image_id: int
    key: str
    height: int
    width: int


class ImportSource(Protocol):
    """A data set of another format. `images` is exhausted first, then the others may be called."""

    @property
    def format(self) -> str:
        """Name of the format."""
        ...

    @property
    def address(self) -> str:
        """Where the data set is."""
        ...

    def images(self) -> Iterator[SourceImage | Rejected]:
        """Yield the images that it lists.

        Raises:
            BadInputError: it is not of the format at all.
        """
        ...

    def fingerprint(self) -> str:
        """Return a hash of all that it says; equal for equal data sets."""
        ...

    def notes(self) -> Mapping[str, object]:
        """Return what it says beside images and masks, JSON-ready: categories and the like."""
        ...

    def masks(
        self, images: Iterator[UsableImage], *, keep_crowd: bool, folder: Path
    ) -> Iterator[tuple[int | None, ImportedMask | Rejected]]:
        """Yield its masks with their image's id, in the images' order; equal each time.

        Args:
            images: those that can be used, ascending by id and then by key; several may be one.
            keep_crowd: whether regions of many objects count as masks.
            folder: for temporary files.

        Yields:
            (image id, mask); the id is None for what belongs to none of the images.
        """
        ...
