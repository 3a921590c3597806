"""What two releases have differently: images and masks added, removed, changed.

    difference = diff(workspace, before, after)
    difference.masks.added, difference.groups[0].stage, difference.sample

Data files that both releases have are not read. Where only one side has files of its own, as
between a release and its parent, a few columns of these are counted. Else rows meet by id in
buckets on disk (`IdBuckets`), as digests: memory does not grow with the releases, but for 8 bytes
per image with a difference.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.dataset.catalog import Workspace
from engine.dataset.file_reading import read_rows
from engine.dataset.id_buckets import IdBuckets
from engine.dataset.release_files import DataFile, table_files
from engine.dataset.row_digests import digest_rows
from engine.dataset.schemas import TableName, arrow_schema
from engine.errors import BadInputError
from engine.objects import ObjectStore
from engine.records import Release

__all__ = ["Changes", "GroupChanges", "ReleaseDiff", "diff"]

_BEFORE, _AFTER = 0, 1
_ROWS = np.dtype(
    [("id", "<i8"), ("digest", "<u8"), ("image_id", "<i8"), ("group", "<i4"), ("side", "<i4")]
)
_LOOSE_IDS = 1_000_000
_GROUP_COLUMNS = ("stage", "model_id", "annotator_id")

_Ids = NDArray[np.int64]
_Group = tuple[str, str, str | None]
_NO_GROUP: _Group = ("", "", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Numbers of things that differ.

    Attributes:
        added: only the later release has them.
        removed: only the earlier one has them.
        changed: both have the id, with other values.
    """

    added: int = 0
    removed: int = 0
    changed: int = 0

    def __add__(self, other: Changes) -> Changes:
        return Changes(
            added=self.added + other.added,
            removed=self.removed + other.removed,
            changed=self.changed + other.changed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupChanges:
    """The masks of one origin that differ; a changed mask counts where it has come to.

    Attributes:
        stage: ``"auto"``, ``"semi"`` or ``"manual"``.
        model_id: the model that made them.
        annotator_id: the person who confirmed them, if any.
        masks: how many.
    """

    stage: str
    model_id: str
    annotator_id: str | None
    masks: Changes


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseDiff:
    """What differs from one release to another.

    Attributes:
        before: name of the one.
        after: name of the other.
        images: rows of table ``images``.
        masks: rows of table ``masks``.
        groups: the masks by stage, model and annotator.
        images_with_other_masks: images of which a mask differs.
        runs_added: runs that only the later release has.
        runs_removed: runs that only the earlier one has.
        files_read: data files that were looked into; the others are the same in both.
        sample: some of the images with other masks, by a seed, ascending.
    """

    before: str
    after: str
    images: Changes
    masks: Changes
    groups: tuple[GroupChanges, ...]
    images_with_other_masks: int
    runs_added: tuple[str, ...]
    runs_removed: tuple[str, ...]
    files_read: int
    sample: tuple[int, ...]


def diff(
    workspace: Workspace,
    before: Release,
    after: Release,
    *,
    sample: int = 12,
    seed: int = 0,
    threads: int = 4,
    on_file: Callable[[int, int], None] | None = None,
) -> ReleaseDiff:
    """Compare two releases of a workspace; neither need be older than the other.

    Args:
        workspace: where they are.
        before: the one that is compared with.
        after: the one whose additions count as added.
        sample: at most so many images are chosen of those whose masks differ.
        seed: of that choice.
        threads: files read at the same time.
        on_file: called with (files read, files to read) after each.

    Raises:
        BadInputError: fewer than 1 thread, or `sample` below 0.
        WorkspaceError: a snapshot or a file of the releases is gone or damaged.
        TransientError: the store or the catalog failed for now.
    """
    if threads < 1 or sample < 0:
        raise BadInputError(f"got {threads} threads and {sample} images; expected 1 and 0 or more")
    images = _own_files(workspace, "images", before, after)
    masks = _own_files(workspace, "masks", before, after)
    total = len(images.files) + len(masks.files)
    done = 0

    def count_file() -> None:
        nonlocal done
        done += 1
        if on_file is not None:
            on_file(done, total)

    with ThreadPoolExecutor(threads, "diff") as pool:
        image_changes = _Tally()
        _compare(workspace.store, images, image_changes, pool, count_file)
        mask_changes = _Tally()
        _compare(workspace.store, masks, mask_changes, pool, count_file)
    touched = mask_changes.touched()
    return ReleaseDiff(
        before=before.name,
        after=after.name,
        images=image_changes.sum(),
        masks=mask_changes.sum(),
        groups=mask_changes.groups(),
        images_with_other_masks=len(touched),
        runs_added=tuple(run for run in after.runs if run not in set(before.runs)),
        runs_removed=tuple(run for run in before.runs if run not in set(after.runs)),
        files_read=total,
        sample=_chosen(touched, sample, seed),
    )


@dataclass(frozen=True, slots=True)
class _OwnFiles:
    """The data files of a table that only one of two releases has."""

    table: TableName
    before: Sequence[DataFile]
    after: Sequence[DataFile]

    @property
    def files(self) -> list[tuple[DataFile, int]]:
        """All of them, each with its side."""
        return [*((f, _BEFORE) for f in self.before), *((f, _AFTER) for f in self.after)]


class _Tally:
    """Counts changes by group, and keeps which images they are on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[_Group, int] = {}
        self._changes: dict[_Group, Changes] = defaultdict(Changes)
        self._image_ids: list[_Ids] = [np.empty(0, np.int64)]

    def number(self, group: _Group) -> int:
        """Return a number for a group, the same for the same one."""
        with self._lock:
            return self._numbers.setdefault(group, len(self._numbers))

    def add(self, kind: Literal["added", "removed", "changed"], groups: _Ids, images: _Ids) -> None:
        """Count rows by the numbers of their groups."""
        with self._lock:
            names = list(self._numbers)
            for number, count in enumerate(np.bincount(groups, minlength=len(names)).tolist()):
                if count:
                    self._changes[names[number]] += replace(Changes(), **{kind: count})
            self._image_ids.append(images)
            # Merged now and then: each time would be quadratic, never would keep repeated ids.
            if sum(map(len, self._image_ids[1:])) > _LOOSE_IDS + len(self._image_ids[0]):
                self.touched()

    def sum(self) -> Changes:
        """Return the changes of all groups together."""
        return sum(self._changes.values(), start=Changes())

    def groups(self) -> tuple[GroupChanges, ...]:
        """Return the changes of each group, in order."""
        ordered = sorted(self._changes, key=lambda group: (group[0], group[1], group[2] or ""))
        return tuple(
            GroupChanges(
                stage=group[0], model_id=group[1], annotator_id=group[2], masks=self._changes[group]
            )
            for group in ordered
        )

    def touched(self) -> _Ids:
        """Return the images of all rows that were counted, ascending."""
        self._image_ids = [np.unique(np.concatenate(self._image_ids))]
        return self._image_ids[0]


def _own_files(
    workspace: Workspace, table: TableName, before: Release, after: Release
) -> _OwnFiles:
    files_before = table_files(workspace, table, before.snapshots.get(table))
    files_after = table_files(workspace, table, after.snapshots.get(table))
    common = {file.key for file in files_before} & {file.key for file in files_after}
    return _OwnFiles(
        table,
        [file for file in files_before if file.key not in common],
        [file for file in files_after if file.key not in common],
    )


def _compare(
    store: ObjectStore,
    files: _OwnFiles,
    tally: _Tally,
    pool: ThreadPoolExecutor,
    on_file: Callable[[], None],
) -> None:
    """Count what differs between the files of the two sides."""
    if files.before and files.after:
        rows = sum(file.rows for file, _ in files.files)
        with IdBuckets(_ROWS, rows) as buckets:
            for _ in pool.map(lambda own: _deal(store, own, tally, buckets), files.files):
                on_file()
            for records in buckets:
                _join(records, tally)
        return
    for _ in pool.map(lambda own: _count(store, own, tally), files.files):
        on_file()


def _count(store: ObjectStore, own: tuple[DataFile, int], tally: _Tally) -> None:
    """Count a file's rows, all of which only its side has."""
    file, side = own
    kind: Literal["added", "removed"] = "added" if side == _AFTER else "removed"
    columns = ["image_id", *(_GROUP_COLUMNS if file.table == "masks" else ())]
    for rows in read_rows(store, file, columns):
        tally.add(kind, _groups(rows, tally), np.unique(rows["image_id"].to_numpy()))


def _deal(store: ObjectStore, own: tuple[DataFile, int], tally: _Tally, buckets: IdBuckets) -> None:
    """Reduce a file's rows to what decides whether they are equal, and deal them by id."""
    file, side = own
    columns = arrow_schema(file.table).names
    for rows in read_rows(store, file, columns):
        records = np.empty(rows.num_rows, _ROWS)
        records["id"] = rows["mask_id" if file.table == "masks" else "image_id"].to_numpy()
        records["digest"] = digest_rows(rows)
        records["image_id"] = rows["image_id"].to_numpy()
        records["group"] = _groups(rows, tally)
        records["side"] = side
        buckets.add(records)


def _join(records: NDArray[np.void], tally: _Tally) -> None:
    """Compare the rows of a bucket: a row before and a row after with the same id are a pair."""
    ordered = records[np.lexsort((records["side"], records["id"]))]
    first, second = ordered[:-1], ordered[1:]
    is_pair = (first["id"] == second["id"]) & (first["side"] < second["side"])
    single = np.ones(len(ordered), np.bool_)
    single[:-1] &= ~is_pair
    single[1:] &= ~is_pair
    changed = second[is_pair & (first["digest"] != second["digest"])]
    removed = ordered[single & (ordered["side"] == _BEFORE)]
    added = ordered[single & (ordered["side"] == _AFTER)]
    tally.add("changed", changed["group"], changed["image_id"])
    tally.add("removed", removed["group"], removed["image_id"])
    tally.add("added", added["group"], added["image_id"])


def _groups(rows: pa.Table, tally: _Tally) -> _Ids:
    """Return the number of each row's group; rows of table images have one group."""
    if "stage" not in rows.column_names:
        return np.full(rows.num_rows, tally.number(_NO_GROUP), np.int64)
    codes = np.zeros(rows.num_rows, np.int64)
    values: list[list[str | None]] = []
    for name in _GROUP_COLUMNS:
        encoded = rows[name].combine_chunks().dictionary_encode(null_encoding="encode")
        values.append(encoded.dictionary.to_pylist())
        codes = codes * len(values[-1]) + encoded.indices.to_numpy()
    found, places = np.unique(codes, return_inverse=True)
    numbers = []
    for code in found.tolist():
        rest, annotator = divmod(code, len(values[2]))
        stage, model = divmod(rest, len(values[1]))
        group = (values[0][stage] or "", values[1][model] or "", values[2][annotator])
        numbers.append(tally.number(group))
    return np.array(numbers, np.int64)[places]


def _chosen(image_ids: _Ids, count: int, seed: int) -> tuple[int, ...]:
    """Choose images at random, all where there are few."""
    if len(image_ids) > count:
        image_ids = np.sort(np.random.default_rng(seed).choice(image_ids, count, replace=False))
    return tuple(image_ids.tolist())
