"""The masks of several files, image by image, in memory that does not grow with them.

    for image_id, masks in masks_by_image(files, MASK_COLUMNS, decode): ...

Shards are sorted by image and those of one run follow each other: merging them keeps one row group
per run in memory.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.dataset.parquet_files import ParquetFiles
from engine.dataset.release_files import ANY_ID
from engine.errors import WorkspaceError

__all__ = ["masks_by_image"]

T = TypeVar("T")


def masks_by_image(
    files: ParquetFiles,
    columns: Sequence[str],
    decode: Callable[[pa.Table], Sequence[T]],
    image_ids: tuple[int, int] = ANY_ID,
    where: pc.Expression | None = None,
) -> Iterator[tuple[int, list[T]]]:
    """Yield (image id, its masks in all files), ascending; images without masks are absent.

    Args:
        files: of table ``masks``.
        columns: what to read; ``image_id`` among them.
        decode: makes one value of each row of a row group.
        image_ids: only ids from the first to the second, inclusive.
        where: only rows that meet this condition.

    Raises:
        WorkspaceError: a file that is missing, damaged or not sorted by image.
    """
    heads: list[tuple[int, int, list[T], Iterator[tuple[int, list[T]]]]] = []

    def push(place: int, rest: Iterator[tuple[int, list[T]]]) -> None:
        if (head := next(rest, None)) is not None:
            # Places differ, so masks are never compared; they follow the order of the files.
            heapq.heappush(heads, (head[0], place, head[1], rest))

    def smallest(place: int) -> int:
        return files.files[place].image_ids[0]

    due = deque(sorted(files.between(*image_ids), key=smallest))
    while due or heads:
        # A file is opened when the smallest id that it may hold is due.
        while due and (not heads or smallest(due[0]) <= heads[0][0]):
            place = due.popleft()
            push(place, _masks_in(files, place, columns, decode, image_ids, where))
        if not heads:
            return
        image_id = heads[0][0]
        masks: list[T] = []
        while heads and heads[0][0] == image_id:
            _, place, found, rest = heapq.heappop(heads)
            masks += found
            push(place, rest)
        yield image_id, masks


def _masks_in(
    files: ParquetFiles,
    place: int,
    columns: Sequence[str],
    decode: Callable[[pa.Table], Sequence[T]],
    image_ids: tuple[int, int],
    where: pc.Expression | None,
) -> Iterator[tuple[int, list[T]]]:
    """Yield what one file has. The masks of an image may lie in several row groups."""
    current, waiting = image_ids[0], list[T]()
    for group in files.row_groups(place).between(*image_ids):
        rows = files.read(place, group, columns)
        if where is not None:
            rows = rows.filter(where)
        ids_R, masks = rows["image_id"].to_numpy(), decode(rows)
        cuts = [0, *(np.flatnonzero(np.diff(ids_R)) + 1).tolist(), len(ids_R)]
        for start, end in pairwise(cuts if len(ids_R) else ()):
            image_id = int(ids_R[start])
            if not image_ids[0] <= image_id <= image_ids[1]:
                continue
            if image_id < current:
                raise WorkspaceError(
                    f"{files.files[place].key} is not sorted by image; "
                    "`maskwheel releases verify` looks for more damage"
                )
            if image_id > current and waiting:
                yield current, waiting
                waiting = []
            current = image_id
            waiting += masks[start:end]
    if waiting:
        yield current, waiting
    files.release(place)
