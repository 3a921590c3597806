"""The masks of a release as labelled images, to learn from and to be measured on.

>>> with Workspace.open(root, create=False) as workspace:
...     data = ReleaseMasks.open(workspace, load_release(workspace, "r3"))
>>> data[0].masks, data[0].read()

The addresses and sizes of the images are in memory, the masks stay in their shards: reading an
image costs one row group of each run that has masked it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from engine.dataset.catalog import Workspace
from engine.dataset.labelled_sets import LabelledImage, LabelledMask
from engine.dataset.reader import ReleaseReader
from engine.errors import BadInputError, InvalidMaskError
from engine.records import Release, Rle

__all__ = ["HUMAN_STAGES", "ReleaseMasks"]

HUMAN_STAGES = ("manual", "semi")
"""Stages whose masks people made, or confirmed."""

_IMAGE_COLUMNS = ("image_id", "uri", "height", "width", "split")
_MASK_COLUMNS = ("size_h", "size_w", "counts", "bbox_x", "bbox_y", "bbox_w", "bbox_h", "area")


@dataclass(frozen=True, slots=True, eq=False)
class ReleaseMasks:
    """The images of a release that have masks, ordered by address; a `LabelledSet`.

    Attributes:
        reader: of the release; its files are open while they are in use.
        images: Arrow table of ``image_id``, ``uri``, ``height``, ``width``.
    """

    reader: ReleaseReader
    images: pa.Table

    @classmethod
    def open(
        cls,
        workspace: Workspace,
        release: Release,
        split: str | None = None,
        stages: Collection[str] | None = None,
    ) -> ReleaseMasks:
        """List the images of a release.

        Args:
            workspace: where the release is; may be closed afterwards.
            release: the state to read.
            split: keep the images that were ingested with this split.
            stages: keep the masks that were made in these stages, see `HUMAN_STAGES`.

        Raises:
            BadInputError: no image of it has a mask.
            WorkspaceError: a shard that is missing or damaged.
        """
        reader = ReleaseReader.of(workspace, release, stages)
        images = reader.image_rows.table(_IMAGE_COLUMNS)
        keep = pc.is_in(images["image_id"], value_set=pa.array(reader.masked_ids()))
        if split is not None:
            keep = pc.and_(keep, pc.fill_null(pc.equal(images["split"], split), False))
        images = images.filter(keep).sort_by([("uri", "ascending"), ("image_id", "ascending")])
        if not images.num_rows:
            raise BadInputError(_none_to_learn_from(release, split, stages))
        return cls(reader, images.drop_columns("split").combine_chunks())

    @property
    def name(self) -> str:
        """The release's name."""
        return self.reader.release.name

    def __len__(self) -> int:
        """Return the number of images."""
        return int(self.images.num_rows)

    def __getitem__(self, index: int) -> LabelledImage:
        """Read an image's masks from its shards.

        Raises:
            IndexError: past the end.
            InvalidMaskError: a mask of another size than the image.
            WorkspaceError: a shard that is missing or damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        image_id, uri, height, width = (column[index].as_py() for column in self.images.columns)
        masks = _labelled(self.reader.masks_of(image_id, _MASK_COLUMNS))
        if wrong := {(m.rle.height, m.rle.width) for m in masks} - {(height, width)}:
            raise InvalidMaskError(
                f"release {self.name} has masks of {sorted(wrong)[0]} pixels for {uri}, which has "
                f"{(height, width)} (rows, columns)"
            )
        return LabelledImage(uri, height, width, tuple(masks))


def _none_to_learn_from(release: Release, split: str | None, stages: Collection[str] | None) -> str:
    which = f" in split {split!r}" if split else ""
    if stages is None:
        return (
            f"release {release.name} has no masks{which}; make some with `maskwheel auto`, or name "
            "another release"
        )
    return (
        f"release {release.name} has no masks of the stages {', '.join(sorted(stages))}{which}; "
        "people make them (`maskwheel annotate`), or name another release"
    )


def _labelled(rows: pa.Table) -> list[LabelledMask]:
    columns = (rows[name].to_pylist() for name in _MASK_COLUMNS)
    return [
        # SA-1B's boxes are max - min.
        LabelledMask(Rle(size_h, size_w, counts), (x, y, w + 1, h + 1), area)
        for size_h, size_w, counts, x, y, w, h, area in zip(*columns, strict=True)
        if area > 0
    ]
