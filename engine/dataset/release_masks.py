"""The masks of a release, streamed: an index of numbers in memory, the rest in its shards.

>>> with Workspace.open(root, create=False) as workspace:
...     data = ReleaseMasks.open(workspace, load_release(workspace, "r3"))
>>> data[0].masks, data[0].read()

The index says for every image in which rows of which shards its masks are (24 bytes and its
address), so a release may be far larger than memory. Reading an image costs one row group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.dataset.catalog import Workspace
from engine.dataset.labelled_sets import LabelledImage, LabelledMask
from engine.dataset.releases import data_files, scan
from engine.errors import BadInputError, InvalidMaskError, WorkspaceError
from engine.objects import ObjectStore
from engine.records import Release, Rle

__all__ = ["ReleaseMasks"]

_MASK_COLUMNS = ("size_h", "size_w", "counts", "bbox_x", "bbox_y", "bbox_w", "bbox_h", "area")


@dataclass(frozen=True, slots=True, eq=False)
class _Extents:
    """Runs of rows with one image each, ordered by image.

    Attributes:
        image_ids_E: int64.
        places_E4: int32 columns: shard, row group, first row in the group, rows.
    """

    image_ids_E: NDArray[np.int64]
    places_E4: NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class ReleaseMasks:
    """The images of a release that have masks, ordered by address; a `LabelledSet`.

    Attributes:
        name: the release's name.
        store: where the shards are.
        shards: their keys.
        images: Arrow table of ``uri``, ``height``, ``width``.
        places_E4: see `_Extents`, ordered as `images`.
        starts_I1: image i has the extents ``starts[i]:starts[i + 1]``.
    """

    name: str
    store: ObjectStore
    shards: tuple[str, ...]
    images: pa.Table
    places_E4: NDArray[np.int32]
    starts_I1: NDArray[np.int64]

    @classmethod
    def open(cls, workspace: Workspace, release: Release, split: str | None = None) -> ReleaseMasks:
        """Index a release.

        Args:
            workspace: where the release is; may be closed afterwards.
            release: the state to read.
            split: keep the images that were ingested with this split.

        Raises:
            BadInputError: no image of it has a mask.
            WorkspaceError: a shard that is missing or damaged.
        """
        shards = tuple(data_files(workspace, release, "masks"))
        extents = _read_extents(workspace.store, shards)
        rows = scan(
            workspace,
            release,
            "images",
            ("image_id", "uri", "height", "width", "split"),
        )
        keep = pc.is_in(rows["image_id"], value_set=pa.array(np.unique(extents.image_ids_E)))
        if split is not None:
            keep = pc.and_(keep, pc.fill_null(pc.equal(rows["split"], split), False))
        rows = rows.filter(keep).sort_by([("uri", "ascending"), ("image_id", "ascending")])
        if not rows.num_rows:
            raise BadInputError(
                f"release {release.name} has no masks{f' in split {split!r}' if split else ''}; "
                "make some with `maskwheel auto`, or name another release"
            )
        wanted = rows["image_id"].to_numpy()
        first = np.searchsorted(extents.image_ids_E, wanted, "left")
        counts = np.searchsorted(extents.image_ids_E, wanted, "right") - first
        starts = np.concatenate([[0], np.cumsum(counts)])
        order = np.repeat(first - starts[:-1], counts) + np.arange(starts[-1])
        return cls(
            release.name,
            workspace.store,
            shards,
            rows.select(["uri", "height", "width"]).combine_chunks(),
            extents.places_E4[order],
            starts,
        )

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
        masks: list[LabelledMask] = []
        for shard, group, start, rows in self.places_E4[
            self.starts_I1[index] : self.starts_I1[index + 1]
        ].tolist():
            masks += _read_masks(self.store, self.shards[shard], group, start, rows)
        uri, height, width = (self.images[name][index].as_py() for name in self.images.column_names)
        if wrong := {(m.rle.height, m.rle.width) for m in masks} - {(height, width)}:
            raise InvalidMaskError(
                f"release {self.name} has masks of {sorted(wrong)[0]} pixels for {uri}, which has "
                f"{(height, width)} (rows, columns)"
            )
        return LabelledImage(uri, height, width, tuple(masks))


def _read_extents(store: ObjectStore, shards: Sequence[str]) -> _Extents:
    ids: list[NDArray[np.int64]] = []
    places: list[NDArray[np.int32]] = []
    for number, key in enumerate(shards):
        for group, image_ids in enumerate(_image_ids(store, key)):
            changes = np.flatnonzero(np.diff(image_ids)) + 1
            starts = np.concatenate([[0], changes]).astype(np.int32)
            rows = np.diff(starts, append=len(image_ids)).astype(np.int32)
            place = np.stack([np.full_like(starts, number), np.full_like(starts, group)])
            ids.append(image_ids[starts])
            places.append(np.concatenate([place, starts[None], rows[None]]).T)
    if not ids:
        return _Extents(np.empty(0, np.int64), np.empty((0, 4), np.int32))
    all_ids = np.concatenate(ids)
    # Stable: the masks of an image that several runs have masked stay in the order of the runs.
    order = np.argsort(all_ids, kind="stable")
    return _Extents(all_ids[order], np.concatenate(places)[order])


def _image_ids(store: ObjectStore, key: str) -> Iterator[NDArray[np.int64]]:
    """Yield the column ``image_id`` of each row group that has rows."""
    with store.open(key) as stream:
        try:
            parquet = pq.ParquetFile(stream)
            for group in range(parquet.num_row_groups):
                column = parquet.read_row_group(group, columns=["image_id"], use_threads=False)
                yield column["image_id"].to_numpy()
        except (pa.ArrowException, KeyError, OSError) as error:
            raise WorkspaceError(f"{store.uri(key)} is not a shard: {error!r}") from error


def _read_masks(
    store: ObjectStore, key: str, group: int, start: int, rows: int
) -> list[LabelledMask]:
    # The file is opened anew each time: worker processes must not share a position in it.
    with store.open(key) as stream:
        try:
            parquet = pq.ParquetFile(stream)
            table = parquet.read_row_group(group, columns=list(_MASK_COLUMNS), use_threads=False)
        except (pa.ArrowException, KeyError, OSError) as error:
            raise WorkspaceError(f"{store.uri(key)} is not a shard: {error!r}") from error
    return [
        LabelledMask(
            Rle(row["size_h"], row["size_w"], row["counts"]),
            # SA-1B's boxes are max - min.
            (row["bbox_x"], row["bbox_y"], row["bbox_w"] + 1, row["bbox_h"] + 1),
            row["area"],
        )
        for row in table.slice(start, rows).to_pylist()
        if row["area"] > 0
    ]
