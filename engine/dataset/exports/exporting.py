"""Export a release: read, render in threads, write part by part, complete.

    report = export_release(workspace, release, ExportOptions(format="sa1b"), "s3://share/r3",
                            limits=ImageLimits(), now=now)

The same call after an interruption goes on with the first part that was not finished. Memory:
what is read ahead, and one row group of masks per run; see `engine.dataset.exports.source`.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from itertools import chain, islice
from pathlib import Path

from engine.dataset.catalog import Workspace
from engine.dataset.exports.formats import FORMATS, make_format
from engine.dataset.exports.photos import load_photo
from engine.dataset.exports.protocol import (
    ExportedImage,
    ExportFormat,
    ExportImage,
    ExportOptions,
    ImageMode,
    Part,
    PartLimits,
    Problem,
    Rendered,
)
from engine.dataset.exports.report import (
    PROBLEMS_FILE,
    ExportReport,
    ExportTotals,
    read_summary,
)
from engine.dataset.exports.source import ReleaseSource
from engine.dataset.exports.splits import split_names
from engine.dataset.exports.target import ExportTarget, PartRecord, WrittenFile
from engine.dataset.releases import code_version
from engine.errors import BadInputError, ImageError
from engine.images import ImageLimits, read_ahead
from engine.objects import open_store
from engine.records import Release

__all__ = ["CHECKSUMS_FILE", "ExportReport", "export_release"]

log = logging.getLogger(__name__)

CHECKSUMS_FILE = "SHA256SUMS"
_BUDGET_BYTES = 512 * 1024 * 1024


def export_release(
    workspace: Workspace,
    release: Release,
    options: ExportOptions,
    address: str,
    *,
    limits: ImageLimits,
    now: datetime,
    threads: int = 8,
    on_image: Callable[[str, int], None] | None = None,
    on_start: Callable[[int], None] | None = None,
) -> ExportReport:
    """Write a release in another format; resumable, and complete only with ``export.json``.

    Args:
        workspace: where the release is.
        release: what to export.
        options: the format and what goes into it.
        address: a folder or ``s3://bucket/prefix``: new, empty, or of this same export.
        limits: images beyond them are left out.
        now: UTC.
        threads: images that are read, rendered and written at the same time.
        on_image: called with the address and the number of masks of each image that is done.
        on_start: called with the number of images.

    Raises:
        BadInputError: a format, split or condition that cannot be used, nothing to export, or a
            place that holds something else.
        WorkspaceError: the release is damaged, or the place cannot be written.
        TransientError: the storage stayed unreachable; the same call goes on.
    """
    if options.format not in FORMATS:
        raise BadInputError(f"got the format {options.format!r}; expected one of {list(FORMATS)}")
    store = open_store(address)
    identity = _identity(workspace, release, options)
    target = ExportTarget.claim(store, identity, now)
    if (done := target.summary()) is not None:
        target.tidy()
        return replace(read_summary(done, store.address), found_complete=True)
    with (
        tempfile.TemporaryDirectory(prefix="maskwheel-export-") as name,
        ReleaseSource.open(
            workspace, release, Path(name), splits=options.splits, where=options.where
        ) as source,
    ):
        splits = tuple(source.counts)
        split_names(splits, alone="all")
        export = _Export(
            release=release,
            options=options,
            format=make_format(options, splits),
            source=source,
            target=target,
            limits=limits,
            threads=threads,
            folder=Path(name),
            on_image=on_image or (lambda uri, masks: None),
        )
        if on_start is not None:
            on_start(sum(source.counts.values()))
        for split in splits:
            export.write_split(split)
        summary = export.finish()
    target.complete(identity, summary)
    target.tidy()
    log.info("release %s is exported to %s", release.name, store.address)
    return read_summary(summary, store.address)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Export:
    """One export under way; the `ExportContext` of its format."""

    release: Release
    options: ExportOptions
    format: ExportFormat
    source: ReleaseSource
    target: ExportTarget
    limits: ImageLimits
    threads: int
    folder: Path
    on_image: Callable[[str, int], None]
    totals: ExportTotals = field(default_factory=ExportTotals)

    @property
    def images_per_split(self) -> dict[str | None, int]:
        return self.totals.per_split

    @property
    def licenses(self) -> tuple[str, ...]:
        return self.source.licenses

    @property
    def _image_mode(self) -> ImageMode:
        return self.options.images or self.format.images

    @property
    def _part_limits(self) -> PartLimits:
        usual = self.format.limits
        size_bytes = self.options.part_bytes or usual.size_bytes
        return PartLimits(
            self.options.images_per_part or usual.images,
            size_bytes if self.format.packer is not None else None,
        )

    def write_split(self, split: str | None) -> None:
        """Write the parts of a split that are not written yet."""
        number, after = 0, -1
        for record in self.target.records(split):
            number, after = number + 1, record.last_image_id
            self.totals.add(record)
            for image in record.images:
                self.on_image("", image.masks)
            for problem in record.problems:
                if problem.mask_id is None:
                    self.on_image(problem.uri, 0)
        images = self.source.images(split, masks=self.format.masks_in_parts, after=after)
        placed = self._placed(images, split, number)
        rendered = read_ahead(
            placed,
            self._render,
            depth=self.threads,
            size_bytes=_expected_bytes,
            budget_bytes=_BUDGET_BYTES,
        )
        for first in rendered:
            record = self._write_part(Part(split, number), chain([first], rendered))
            self.target.keep(record)
            self.totals.add(record)
            number += 1

    def _placed(
        self, images: Iterable[ExportImage], split: str | None, first: int
    ) -> Iterator[tuple[ExportImage, Part]]:
        """Say which part each image is in, as far as that can be known ahead."""
        for place, image in enumerate(images):
            yield image, Part(split, first + place // self._part_limits.images)

    def _render(self, placed: tuple[ExportImage, Part]) -> _Done:
        """Read and render an image, and write its files if they are its own; in a thread."""
        image, part = placed
        try:
            photo = load_photo(image, self._image_mode, self.limits)
        except ImageError as error:
            problem = Problem(
                image_id=image.image_id, uri=image.uri, reason=error.reason, message=str(error)
            )
            return _Done(None, (), (problem,))
        rendered = self.format.render(image, photo, part)
        if self.format.packer is not None:
            return _Done(rendered, (), rendered.problems)
        files = tuple(self.target.put(file.path, file.data) for file in rendered.files)
        return _Done(replace(rendered, files=()), files, rendered.problems)

    def _write_part(
        self, part: Part, items: Iterable[tuple[tuple[ExportImage, Part], _Done]]
    ) -> PartRecord:
        """Take items until the part is full."""
        packer = self.format.packer
        if packer is None:
            return self._gather(part, items, lambda rendered: None)
        path = self.folder / "part"
        with packer.open(path) as writer:
            record = self._gather(part, items, writer.add)
        if not record.images:
            path.unlink()
            return record
        file = self.target.put_file(packer.path(part), path)
        path.unlink()
        return replace(record, files=(file,))

    def _gather(
        self,
        part: Part,
        items: Iterable[tuple[tuple[ExportImage, Part], _Done]],
        add: Callable[[Rendered], None],
    ) -> PartRecord:
        limits = self._part_limits
        images: list[ExportedImage] = []
        files: list[WrittenFile] = []
        problems: list[Problem] = []
        last, size_bytes = -1, 0
        for (image, _), done in islice(items, limits.images):
            last = image.image_id
            problems += done.problems
            files += done.files
            if (rendered := done.rendered) is not None:
                images.append(ExportedImage(image.image_id, rendered.photo, rendered.masks))
                size_bytes += rendered.size_bytes
                add(rendered)
            self.on_image(image.uri, rendered.masks if rendered else 0)
            if limits.size_bytes is not None and size_bytes >= limits.size_bytes:
                break
        return PartRecord(
            part=part,
            last_image_id=last,
            images=tuple(images),
            files=tuple(files),
            problems=tuple(problems),
        )

    def exported(
        self, split: str | None, *, masks: bool = False
    ) -> Iterator[tuple[ExportImage, ExportedImage]]:
        """Yield the images of a split that are in the export; see `ExportContext`."""
        records = self.target.records(split)
        kept = (image for record in records for image in record.images)
        due = next(kept, None)
        for image in self.source.images(split, masks=masks):
            if due is None:
                return
            if image.image_id == due.image_id:
                yield image, due
                due = next(kept, None)

    def finish(self) -> dict[str, object]:
        """Write the files about the whole export; return the summary."""
        final: list[WrittenFile] = []
        for file in self.format.finish(self):
            written = (
                self.target.put(file.path, file.data)
                if isinstance(file.data, bytes)
                else self.target.put_file(file.path, file.data)
            )
            final.append(written)
            self.totals.masks += file.masks
        problems = self._write_problems()
        final += [problems] if problems else []
        checksums = self._write_lines(
            CHECKSUMS_FILE,
            (f"{file.sha256}  {file.path}\n" for file in chain(self._part_files(), final)),
        )
        for written in (*final, checksums):
            self.totals.add_file(written)
        totals = self.totals
        return {
            "release": self.release.name,
            "export": self.options.format,
            "images": totals.images,
            "masks": totals.masks,
            "images_left_out": totals.images_left_out,
            "masks_left_out": totals.masks_left_out,
            "images_per_split": {split or "": n for split, n in totals.per_split.items()},
            "files": totals.files,
            "size_bytes": totals.size_bytes,
            "checksums": asdict(checksums),
            "problems": asdict(problems) if problems else None,
        }

    def _part_records(self) -> Iterator[PartRecord]:
        for split in self.source.counts:
            yield from self.target.records(split)

    def _part_files(self) -> Iterator[WrittenFile]:
        for record in self._part_records():
            yield from record.files

    def _write_problems(self) -> WrittenFile | None:
        if not self.totals.images_left_out and not self.totals.masks_left_out:
            return None
        return self._write_lines(
            PROBLEMS_FILE,
            (
                json.dumps(asdict(problem), ensure_ascii=False) + "\n"
                for record in self._part_records()
                for problem in record.problems
            ),
        )

    def _write_lines(self, name: str, lines: Iterable[str]) -> WrittenFile:
        path = self.folder / name
        with path.open("w", encoding="utf-8") as stream:
            stream.writelines(lines)
        return self.target.put_file(name, path)


@dataclass(frozen=True, slots=True)
class _Done:
    """An image that is rendered, or a reason why not; files that are already written."""

    rendered: Rendered | None
    files: tuple[WrittenFile, ...]
    problems: tuple[Problem, ...]


def _expected_bytes(placed: tuple[ExportImage, Part]) -> int:
    # A file that has to be decoded occupies three bytes per pixel and the new file.
    image, _ = placed
    return 4 * image.width * image.height + 2000 * len(image.masks)


def _identity(workspace: Workspace, release: Release, options: ExportOptions) -> dict[str, object]:
    return {
        "workspace": workspace.store.uri("x").removesuffix("/x"),
        "release": release.name,
        "snapshots": dict(release.snapshots),
        "options": asdict(options),
        "maskwheel": code_version(),
    }
