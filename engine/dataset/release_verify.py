"""Verifying: every byte and every row of a release, read again.

    report = verify_release(workspace, release, on_rows=lambda done, total: ...)
    report.passed, report.problem_count, report.problems[0].message

A file is read once: hashed, then parsed and checked in batches, several files at a time. Memory
does not grow with the release, but for 16 bytes per image; ids wait on disk (`IdBuckets`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.dataset.catalog import Workspace
from engine.dataset.file_reading import read_checked
from engine.dataset.id_buckets import IdBuckets
from engine.dataset.problems import Problem, ProblemCount, Problems
from engine.dataset.release_checksums import Checksum, recorded_checksums
from engine.dataset.release_files import DataFile, release_files
from engine.dataset.row_checks import (
    KnownImages,
    image_faults,
    image_run_faults,
    mask_faults,
)
from engine.dataset.schemas import TABLES, arrow_schema
from engine.errors import BadInputError, WorkspaceError
from engine.objects import ObjectStore
from engine.records import Release

__all__ = ["Problem", "ProblemCount", "VerifyReport", "verify_release"]

_PLACES = np.dtype([("id", "<i8"), ("place", "<i8")])
_TALLIES = np.dtype([("id", "<i8"), ("run", "<i4"), ("masks", "<i4"), ("place", "<i8")])
_ROW_BITS = 32
_COUNTED = -1
_SIZE_COLUMNS = ("image_id", "height", "width")

_Longs = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What a verification found.

    Attributes:
        release: the release's name.
        files: data files read.
        size_bytes: of all of them.
        images: rows of table ``images``.
        masks: rows of table ``masks``.
        without_checksum: files of releases older than recorded checksums; only their content is
            checked.
        problem_count: all problems.
        counts: by kind, the most frequent first.
        problems: the first ones, by file and row.
    """

    release: str
    files: int
    size_bytes: int
    images: int
    masks: int
    without_checksum: int
    problem_count: int
    counts: tuple[ProblemCount, ...]
    problems: tuple[Problem, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problem_count


def verify_release(
    workspace: Workspace,
    release: Release,
    *,
    threads: int = 4,
    on_rows: Callable[[int, int], None] | None = None,
    shown: int = 100,
) -> VerifyReport:
    """Read all data files of a release and say what is wrong with them.

    Checked are: checksums, sizes and numbers of rows against what was recorded; columns; run
    lengths, and area and box against them; sizes against the images'; that ids are unique; that
    images, runs and models are part of the release; crops, points, scores, stages and annotators;
    and that each run has as many masks of an image as it says.

    Args:
        workspace: where the release is.
        release: what to verify.
        threads: files read at the same time.
        on_rows: called with (rows checked, rows in all) after each file.
        shown: at most so many problems are described; all are counted.

    Raises:
        BadInputError: fewer than 1 thread, or `shown` below 0.
        WorkspaceError: the release's snapshot is gone.
        TransientError: the store or the catalog failed for now.
    """
    if threads < 1 or shown < 0:
        raise BadInputError(f"got {threads} threads and {shown} problems; expected 1 and 0 or more")
    files = release_files(workspace, release.snapshots)
    found = Problems(shown)
    with ExitStack() as stack:
        audit = _Audit(
            store=workspace.store,
            release=release,
            files=files,
            checksums=_read_checksums(workspace, release, found),
            runs={run_id: number for number, run_id in enumerate(release.runs)},
            shown=shown,
            image_ids=stack.enter_context(IdBuckets(_PLACES, release.images)),
            mask_ids=stack.enter_context(IdBuckets(_PLACES, release.masks)),
            tallies=stack.enter_context(IdBuckets(_TALLIES, _expected_tallies(files))),
        )
        _check_record(release, files, found)
        pool = stack.enter_context(ThreadPoolExecutor(threads, "verify"))
        _check_files(audit, pool, found, on_rows)
        _check_unique("image", audit.image_ids, files, found)
        _check_unique("mask", audit.mask_ids, files, found)
        _check_tallies(audit, found)
    return VerifyReport(
        release=release.name,
        files=len(files),
        size_bytes=sum(file.size_bytes for file in files),
        images=sum(file.rows for file in files if file.table == "images"),
        masks=sum(file.rows for file in files if file.table == "masks"),
        without_checksum=sum(file.key not in audit.checksums for file in files),
        problem_count=found.total,
        counts=found.most_frequent(),
        problems=tuple(found.kept),
    )


def _check_files(
    audit: _Audit,
    pool: ThreadPoolExecutor,
    found: Problems,
    on_rows: Callable[[int, int], None] | None,
) -> None:
    """Check every file on its own: the images first, as the others are checked against them."""
    numbers = {
        table: [i for i, f in enumerate(audit.files) if f.table == table] for table in TABLES
    }
    total, done = sum(file.rows for file in audit.files), 0

    def finish(number: int, problems: Problems) -> None:
        nonlocal done
        found.join(problems)
        done += audit.files[number].rows
        if on_rows is not None:
            on_rows(done, total)

    sizes = [_no_sizes()]
    checked = pool.map(audit.check_images, numbers["images"])
    for number, (problems, part) in zip(numbers["images"], checked, strict=True):
        sizes.append(part)
        finish(number, problems)
    known = KnownImages.of(pa.concat_tables(sizes))
    others = [*numbers["masks"], *numbers["image_runs"]]
    for number, problems in zip(others, pool.map(audit.check, others, repeat(known)), strict=True):
        finish(number, problems)


def _expected_tallies(files: Sequence[DataFile]) -> int:
    return 2 * sum(file.rows for file in files if file.table == "image_runs")


@dataclass(frozen=True, slots=True, eq=False)
class _Audit:
    """What the checks of single files share.

    Attributes:
        store: where the files are.
        release: whose they are.
        files: all of them; a file's number is its position here.
        checksums: as recorded.
        runs: a number for each run.
        shown: problems that are described.
        image_ids: where each image id stands.
        mask_ids: where each mask id stands.
        tallies: masks per image and run, counted (place -1) and stated.
    """

    store: ObjectStore
    release: Release
    files: Sequence[DataFile]
    checksums: Mapping[str, Checksum]
    runs: Mapping[str, int]
    shown: int
    image_ids: IdBuckets
    mask_ids: IdBuckets
    tallies: IdBuckets

    def batches(self, number: int, found: Problems) -> Iterator[tuple[_Longs, pa.Table]]:
        """Read a file; its own problems go to `found`."""
        file = self.files[number]
        checksum = self.checksums.get(file.key)
        if checksum is None and self.release.checksums is not None:
            found.add("checksum", file.key, None, "no checksum was recorded of it")
        for rows_N, rows in read_checked(
            self.store,
            file,
            checksum,
            lambda kind, row, message: found.add(kind, file.key, row, message),
        ):
            if len(rows_N):
                yield rows_N, rows

    def check_images(self, number: int) -> tuple[Problems, pa.Table]:
        """Check a file of table images; also return its ids and sizes."""
        found = Problems(self.shown)
        sizes = [_no_sizes()]
        for rows_N, rows in self.batches(number, found):
            found.add_all(image_faults(rows), self.files[number].key, rows_N)
            self.image_ids.add(_placed(rows["image_id"], number, rows_N))
            sizes.append(rows.select(_SIZE_COLUMNS))
        return found, pa.concat_tables(sizes)

    def check(self, number: int, known: KnownImages) -> Problems:
        """Check a file of one of the other tables."""
        is_mask_file = self.files[number].table == "masks"
        return (self.check_masks if is_mask_file else self.check_image_runs)(number, known)

    def check_masks(self, number: int, known: KnownImages) -> Problems:
        """Check a file of table masks."""
        found = Problems(self.shown)
        runs, models = self.release.runs, self.release.models
        for rows_N, rows in self.batches(number, found):
            found.add_all(mask_faults(rows, known, runs, models), self.files[number].key, rows_N)
            self.mask_ids.add(_placed(rows["mask_id"], number, rows_N))
            pairs = rows.group_by(["image_id", "run_id"]).aggregate([("mask_id", "count")])
            self.tallies.add(self._tallied(pairs, "mask_id_count", None))
        return found

    def check_image_runs(self, number: int, known: KnownImages) -> Problems:
        """Check a file of table image_runs."""
        found = Problems(self.shown)
        for rows_N, rows in self.batches(number, found):
            faults = image_run_faults(rows, known, self.release.runs)
            found.add_all(faults, self.files[number].key, rows_N)
            self.tallies.add(self._tallied(rows, "masks", (number << _ROW_BITS) + rows_N))
        return found

    def _tallied(self, rows: pa.Table, column: str, places_N: _Longs | None) -> NDArray[np.void]:
        records = np.empty(rows.num_rows, _TALLIES)
        records["id"] = rows["image_id"].to_numpy()
        records["run"] = [self.runs.get(run_id, -1) for run_id in rows["run_id"].to_pylist()]
        records["masks"] = rows[column].to_numpy()
        records["place"] = _COUNTED if places_N is None else places_N
        return records


def _check_record(release: Release, files: Sequence[DataFile], found: Problems) -> None:
    for table, stated in (("images", release.images), ("masks", release.masks)):
        rows = sum(file.rows for file in files if file.table == table)
        if rows != stated:
            message = f"the release says {stated:,} {table}, its table has {rows:,} rows"
            found.add("record", _record_key(release), None, message)


def _check_unique(what: str, ids: IdBuckets, files: Sequence[DataFile], found: Problems) -> None:
    """Find ids that are there more than once."""
    for records in ids:
        ordered = records[np.lexsort((records["place"], records["id"]))]
        for again in np.flatnonzero(ordered["id"][1:] == ordered["id"][:-1]).tolist():
            first, second = ordered[again], ordered[again + 1]
            file, row = _place(files, second["place"])
            other, other_row = _place(files, first["place"])
            message = f"{what} {second['id']} is also in row {other_row} of {other}"
            found.add("duplicate", file, row, message)


def _check_tallies(audit: _Audit, found: Problems) -> None:
    """Compare the masks of each image and run with what table image_runs says."""
    names = list(audit.runs)
    stated_runs = _stated_runs(audit.tallies)
    for records in audit.tallies:
        # In each group the statement, if there is one, comes last.
        ordered = records[np.lexsort((records["place"], records["run"], records["id"]))]
        is_new = np.ones(len(ordered), np.bool_)
        is_new[1:] = (np.diff(ordered["id"]) != 0) | (np.diff(ordered["run"]) != 0)
        starts = np.flatnonzero(is_new)
        is_stated = ordered["place"] != _COUNTED
        statements = np.add.reduceat(is_stated.astype(np.int64), starts)
        counted = np.add.reduceat(np.where(is_stated, 0, ordered["masks"]), starts)
        last = ordered[np.append(starts[1:], len(ordered)) - 1]
        right = (statements == 1) & (counted == last["masks"])
        right |= (statements == 0) & ~np.isin(last["run"], stated_runs)
        for group in np.flatnonzero(~right & (last["run"] >= 0)).tolist():
            run, image_id = names[last["run"][group]], last["id"][group]
            about = f"image {image_id} in run {run}"
            if not statements[group]:
                message = f"{about} has {counted[group]} masks and no row in table image_runs"
                found.add("tally", _record_key(audit.release), None, message)
                continue
            file, row = _place(audit.files, last["place"][group])
            if statements[group] > 1:
                found.add("duplicate", file, row, f"{about} has {statements[group]} rows")
            else:
                message = f"{about}: {last['masks'][group]} masks, table masks has {counted[group]}"
                found.add("tally", file, row, message)


def _stated_runs(tallies: IdBuckets) -> _Longs:
    """Return the numbers of the runs that table image_runs speaks of."""
    stated = [np.unique(r["run"][r["place"] != _COUNTED]) for r in tallies]
    return np.unique(np.concatenate([*stated, np.empty(0, np.int64)]))


def _no_sizes() -> pa.Table:
    schema = arrow_schema("images")
    return pa.schema([schema.field(name) for name in _SIZE_COLUMNS]).empty_table()


def _placed(ids: pa.ChunkedArray, number: int, rows_N: _Longs) -> NDArray[np.void]:
    records = np.empty(len(rows_N), _PLACES)
    records["id"] = ids.to_numpy()
    records["place"] = (number << _ROW_BITS) + rows_N
    return records


def _place(files: Sequence[DataFile], place: int) -> tuple[str, int]:
    return files[int(place) >> _ROW_BITS].key, int(place) & ((1 << _ROW_BITS) - 1)


def _record_key(release: Release) -> str:
    return f"releases/{release.name}.json"


def _read_checksums(workspace: Workspace, release: Release, found: Problems) -> dict[str, Checksum]:
    try:
        return recorded_checksums(workspace, release)
    except (WorkspaceError, BadInputError) as error:
        found.add("checksum", _record_key(release), None, str(error))
        return {}
