"""Read a release: one image, image after image, Arrow batches, or a torch data set.

    with open_release("maskwheel-data", "r3") as reader:     # or "s3://bucket/prefix"
        reader[image_id].masks                               # a few milliseconds
        for image in reader:                                 # ordered by image id
            print(image.record.uri, [mask.area for mask in image.masks])
        loader = DataLoader(reader.torch(), batch_size=8, collate_fn=list)

A release never changes, so a reader needs the catalog only to open. Its memory: 16 bytes for each
image, footers of the files in use, and a row group of each file that is being read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.closing import Closing
from engine.dataset.catalog import Workspace
from engine.dataset.image_rows import ImageRows
from engine.dataset.merged_masks import masks_by_image
from engine.dataset.parquet_files import ParquetFiles
from engine.dataset.release_files import ANY_ID, table_files
from engine.dataset.released_images import MASK_COLUMNS, ReleasedImage, originated_masks
from engine.dataset.releases import LATEST, load_release
from engine.dataset.schemas import arrow_schema
from engine.errors import BadInputError, WorkspaceError
from engine.records import Release

if TYPE_CHECKING:
    from engine.dataset.torch_reader import MaskDataset, StreamConfig

__all__ = ["ReleaseReader", "open_release"]

_IMAGES_AT_ONCE = 1024


def open_release(workspace: str | Path, name: str | None = None) -> ReleaseReader:
    """Open a release for reading.

    Args:
        workspace: a folder, or ``s3://bucket/prefix``.
        name: of the release; None: the newest.

    Raises:
        BadInputError: there is no such release, or none at all.
        WorkspaceError: there is no workspace, or it is damaged.
    """
    with Workspace.open(workspace, create=False) as opened:
        return ReleaseReader.of(opened, load_release(opened, name or LATEST))


class ReleaseReader(Closing):
    """A release, open for reading; close it, or use it as a context manager.

    May be pickled and forked, and shared by threads, which take turns.

    Attributes:
        release: what is read.
        image_rows: its images, ordered by id.
        mask_files: the files of its masks.
    """

    def __init__(self, release: Release, image_rows: ImageRows, mask_files: ParquetFiles) -> None:
        self.release = release
        self.image_rows = image_rows
        self.mask_files = mask_files

    @classmethod
    def of(
        cls, workspace: Workspace, release: Release, stages: Collection[str] | None = None
    ) -> ReleaseReader:
        """Open a release of an open workspace, which may be closed afterwards.

        Args:
            workspace: where the release is.
            release: the state to read.
            stages: leave out the masks of other stages, by whole files: they are never touched.

        Raises:
            WorkspaceError: the release's snapshots are gone.
        """
        images, masks = (
            ParquetFiles(
                workspace.store,
                table,
                table_files(workspace, table, release.snapshots.get(table)),
            )
            for table in ("images", "masks")
        )
        return cls(release, ImageRows(images), masks if stages is None else masks.of_stages(stages))

    def close(self) -> None:
        """Close the files; a later call opens them again."""
        self.image_rows.files.close()
        self.mask_files.close()

    def __len__(self) -> int:
        """Return the number of images, with masks or without."""
        return len(self.image_rows)

    def __contains__(self, image_id: int) -> bool:
        return self.image_rows.position(image_id) is not None

    def __iter__(self) -> Iterator[ReleasedImage]:
        return self.images()

    def __getitem__(self, image_id: int) -> ReleasedImage:
        """Return an image with its masks.

        Raises:
            BadInputError: the release has no such image.
            WorkspaceError: a file that is missing or damaged.
        """
        position = self.image_rows.position(image_id)
        if position is None:
            raise BadInputError(f"release {self.release.name} has no image {image_id}")
        record = self.image_rows.records(np.array([position]))[0]
        return ReleasedImage.of(record, originated_masks(self.masks_of(image_id)))

    def images(
        self, start: int = 0, stop: int | None = None, *, split: str | None = None
    ) -> Iterator[ReleasedImage]:
        """Yield images with their masks, maybe none, ordered by image id.

        An image that several runs have masked comes once, with the masks of all of them.

        Args:
            start: skip so many images.
            stop: end before the image of this number; None: with the last.
            split: only images that were ingested with this split.

        Raises:
            WorkspaceError: a file that is missing or damaged, or masks of an image that the
                release does not have.
        """
        positions = np.arange(len(self))[start:stop]
        if split is not None:
            positions = np.intersect1d(positions, self.image_rows.in_split(split))
        return self.images_at(positions)

    def images_at(self, positions_P: NDArray[np.int64]) -> Iterator[ReleasedImage]:
        """Yield the images at positions, ascending, in the order by image id; see `images`."""
        if not len(positions_P):
            return
        complete = len(positions_P) == len(self)
        first, last = self.image_rows.sorted_ids[positions_P[[0, -1]]].tolist()
        wanted = ANY_ID if complete else (first, last)
        masks = masks_by_image(self.mask_files, MASK_COLUMNS, originated_masks, wanted)
        found = next(masks, None)
        for start in range(0, len(positions_P), _IMAGES_AT_ONCE):
            for record in self.image_rows.records(positions_P[start : start + _IMAGES_AT_ONCE]):
                while found is not None and found[0] < record.image_id:
                    self._require(found[0])
                    found = next(masks, None)
                if found is not None and found[0] == record.image_id:
                    yield ReleasedImage.of(record, found[1])
                    found = next(masks, None)
                else:
                    yield ReleasedImage(record)
        if found is not None:
            self._require(found[0])

    def masks_of(self, image_id: int, columns: Sequence[str] = MASK_COLUMNS) -> pa.Table:
        """Return the rows of one image in table ``masks``; none if it has no masks.

        Raises:
            BadInputError: a column that the table does not have.
            WorkspaceError: a file that is missing or damaged.
        """
        schema = _schema_of(tuple(columns))
        needed = tuple(dict.fromkeys(("image_id", *columns)))
        found = [schema.empty_table()]
        for place, group in self.mask_files.holding(image_id):
            rows = _rows_of(self.mask_files.read(place, group, needed), image_id)
            found.append(_typed(rows.select(columns), schema))
        return pa.concat_tables(found)

    def masks(self, columns: Sequence[str] | None = None) -> pa.RecordBatchReader:
        """Return table ``masks`` as Arrow batches, one for each row group; each is read when due.

        Args:
            columns: names; None: all.

        Raises:
            BadInputError: a column that the table does not have.
            WorkspaceError: while reading: a file that is missing or damaged.
        """
        schema = _schema_of(None if columns is None else tuple(columns))
        tables = self.mask_files.tables(schema.names)
        batches = (batch for table in tables for batch in _typed(table, schema).to_batches())
        return pa.RecordBatchReader.from_batches(schema, batches)

    def masked_ids(self) -> NDArray[np.int64]:
        """Return the ids of the images that have masks, ascending.

        Raises:
            WorkspaceError: a file that is missing or damaged.
        """
        ids = [np.unique(t["image_id"].to_numpy()) for t in self.mask_files.tables(("image_id",))]
        return np.unique(np.concatenate([*ids, np.empty(0, dtype=np.int64)]))

    def torch(self, config: StreamConfig | None = None) -> MaskDataset:
        """Return the images as a torch ``IterableDataset``."""
        from engine.dataset.torch_reader import MaskDataset

        return MaskDataset(self, config)

    def _require(self, image_id: int) -> None:
        if image_id not in self:
            raise WorkspaceError(
                f"release {self.release.name} has masks of image {image_id}, but not the image; "
                "`maskwheel releases verify` tells how much is damaged"
            )


@lru_cache(maxsize=16)
def _schema_of(columns: tuple[str, ...] | None) -> pa.Schema:
    schema = arrow_schema("masks")
    if unknown := sorted(set(columns or ()) - set(schema.names)):
        raise BadInputError(f"got the columns {unknown}; table masks has {schema.names}")
    return schema if columns is None else pa.schema([schema.field(name) for name in columns])


def _typed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    # Shards of our own have these types already; what was imported may have wider ones.
    return rows.cast(schema) if rows.schema.types != schema.types else rows


def _rows_of(rows: pa.Table, image_id: int) -> pa.Table:
    places = np.flatnonzero(rows["image_id"].to_numpy() == image_id)
    if len(places) and places[-1] - places[0] + 1 == len(places):
        return rows.slice(places[0], len(places))
    return rows.take(pa.array(places))
