"""WebDataset: tars of pairs ``sa_N.jpg`` and ``sa_N.json``, about a gigabyte each.

    dataset = webdataset.WebDataset("sa_{000000..000011}.tar").decode("pil")

The JSON is SA-1B's. Members have no owner and no time: equal releases give equal tars. Images
are all JPEG unless that is changed, as pipelines ask for the key ``jpg``.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.closing import Closing
from engine.dataset.exports.protocol import (
    ExportContext,
    ExportImage,
    ExportOptions,
    FinalFile,
    ImageMode,
    OutputFile,
    Packer,
    Part,
    PartLimits,
    Photo,
    Rendered,
)
from engine.dataset.exports.sa1b import sa1b_json

__all__ = ["WebDatasetFormat"]


class WebDatasetFormat:
    """See the module; an `ExportFormat`."""

    images: ImageMode = "jpeg"
    limits = PartLimits(images=10_000, size_bytes=1_000_000_000)
    masks_in_parts = True

    def __init__(self, options: ExportOptions, splits: Sequence[str | None]) -> None:
        self.packer: Packer | None = _Tars()

    def render(self, image: ExportImage, photo: Photo | None, part: Part) -> Rendered:
        """Return the members of one image: they share the name up to the first dot."""
        suffix = photo.suffix if photo else "jpg"
        name = f"sa_{image.image_id}"
        members = [OutputFile(f"{name}.{suffix}", photo.data)] if photo else []
        members.append(OutputFile(f"{name}.json", sa1b_json(image, suffix)))
        return Rendered(
            files=tuple(members),
            photo=f"{name}.{suffix}" if photo else None,
            masks=len(image.masks),
        )

    def finish(self, context: ExportContext) -> Iterator[FinalFile]:
        """Yield nothing: the tars speak for themselves."""
        yield from ()


class _Tars:
    def path(self, part: Part) -> str:
        return f"{part.folder}sa_{part.number:06d}.tar"

    def open(self, local_path: Path) -> _Tar:
        return _Tar(local_path)


class _Tar(Closing):
    def __init__(self, path: Path) -> None:
        # USTAR, the plainest: every reader takes it, and it holds no times but the members'.
        self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def add(self, rendered: Rendered) -> None:
        for member in rendered.files:
            info = tarfile.TarInfo(member.path)
            info.size = len(member.data)
            self._tar.addfile(info, io.BytesIO(member.data))

    def close(self) -> None:
        """Let go of what it reads or writes."""
        self._tar.close()
