"""What an export is, in numbers.

report = read_summary(target.summary(), address)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.dataset.exports.target import PartRecord, WrittenFile
from engine.errors import WorkspaceError

__all__ = ["PROBLEMS_FILE", "ExportReport", "ExportTotals", "read_summary"]

PROBLEMS_FILE = "problems.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What an export is.

    Attributes:
        release: its name.
        format: name of the format.
        address: where it is.
        images: number of images in it.
        masks: number of masks in it.
        images_left_out: images that could not be read.
        masks_left_out: masks that the format cannot hold.
        files: number of files, but for ``export.json``.
        size_bytes: of these files.
        problems: address of the list of what was left out; None when nothing was.
        found_complete: whether an earlier call had completed it.
    """

    release: str
    format: str
    address: str
    images: int
    masks: int
    images_left_out: int
    masks_left_out: int
    files: int
    size_bytes: int
    problems: str | None
    found_complete: bool = False


@dataclass(slots=True)
class ExportTotals:
    """Counts of what is written, as in `ExportReport`."""

    images: int = 0
    masks: int = 0
    images_left_out: int = 0
    masks_left_out: int = 0
    files: int = 0
    size_bytes: int = 0
    per_split: dict[str | None, int] = field(default_factory=dict)

    def add(self, record: PartRecord) -> None:
        """Count a part."""
        self.images += len(record.images)
        self.masks += sum(image.masks for image in record.images)
        without_mask = sum(problem.mask_id is None for problem in record.problems)
        self.images_left_out += without_mask
        self.masks_left_out += len(record.problems) - without_mask
        split = record.part.split
        self.per_split[split] = self.per_split.get(split, 0) + len(record.images)
        for file in record.files:
            self.add_file(file)

    def add_file(self, file: WrittenFile) -> None:
        """Count a file."""
        self.files += 1
        self.size_bytes += file.size_bytes


def read_summary(summary: Mapping[str, object], address: str) -> ExportReport:
    """Return what ``export.json`` says.

    Raises:
        WorkspaceError: it is damaged.
    """
    try:
        numbers = ("images", "masks", "images_left_out", "masks_left_out", "files", "size_bytes")
        return ExportReport(
            release=str(summary["release"]),
            format=str(summary["export"]),
            address=address,
            problems=f"{address}/{PROBLEMS_FILE}" if summary["problems"] else None,
            **{name: int(str(summary[name])) for name in numbers},  # type: ignore[arg-type]
        )
    except (KeyError, ValueError) as error:
        raise WorkspaceError(f"{address}/export.json is damaged: {error!r}") from error
