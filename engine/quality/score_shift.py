"""Whether the masks of a run look like those of the release that it is to join.

    checks = compare_scores(workspace, staged, sample, rng, limits)

Compared is the Kolmogorov-Smirnov distance: the largest difference between the shares of values
below any one value; 0 for equal samples, 1 for samples that do not overlap. It needs neither bins
nor an idea of how scores are distributed. A distance passes up to a tolerated shift plus
1.95 * sqrt((a + b) / (a * b)), which equal sources exceed once in a thousand times, where a and b
are numbers of images: the masks of one image depend on each other. (Smirnov, "Table for
estimating the goodness of fit of empirical distributions", 1948.)

Only like is compared with like. Scores count above the higher of the two thresholds that the masks
were made with; sizes and numbers of masks, which any setting changes, count against runs with the
same settings.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyiceberg.expressions import And, EqualTo, In, Reference
from pyiceberg.expressions.literals import literal

from engine.dataset.audit_reports import GateCheck
from engine.dataset.catalog import Workspace
from engine.dataset.publishing import Staged
from engine.dataset.releases import data_files, list_releases, scan
from engine.dataset.runs import load_run, run_exists
from engine.errors import BadInputError
from engine.quality.mask_sample import read_footers, read_sample
from engine.records import Release

__all__ = ["ShiftLimits", "compare_scores", "ks_distance", "ks_noise"]

_COLUMNS = (
    *("image_id", "run_id", "stage", "size_h", "size_w", "area"),
    *("predicted_iou", "stability_score"),
)
# Column -> the setting below whose value the generator drops masks.
_FLOORS = {"predicted_iou": "pred_iou_thresh", "stability_score": "stability_score_thresh"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftLimits:
    """What is compared, and how far apart it may lie.

    The defaults refuse what a person would call another kind of masks, not the next hundred photos:
    random halves of eleven demo photos are at most 0.3 apart in any of these, usually 0.1.

    Attributes:
        files: Parquet files of the parent release that are read.
        row_groups: of each such file, about 2,000 masks each.
        min_images: nothing is compared unless both samples have masks of so many images ...
        min_masks: ... and so many masks.
        score: tolerated distance of predicted IoU and of stability score.
        area: tolerated distance of the masks' shares of their images.
        count: tolerated distance of the numbers of masks per image.
    """

    files: int = 16
    row_groups: int = 2
    min_images: int = 30
    min_masks: int = 500
    score: float = 0.3
    area: float = 0.4
    count: float = 0.4

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            BadInputError: a number below 1, or a distance outside 0 to 1.
        """
        for name in ("files", "row_groups", "min_images", "min_masks"):
            if getattr(self, name) < 1:
                raise BadInputError(f"{name} must be at least 1; got {getattr(self, name)}")
        for name in ("score", "area", "count"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadInputError(f"{name} must be from 0 to 1; got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, eq=False)
class _Values:
    """One quantity of one side: values of masks or of images, and of how many images."""

    values: NDArray[np.float64]
    images: int


def compare_scores(
    workspace: Workspace,
    staged: Staged,
    sample: pa.Table,
    limits: ShiftLimits,
    rng: random.Random,
) -> list[GateCheck]:
    """Compare a run with its parent release; no checks without one, and for what is imported.

    Args:
        workspace: where the release is.
        staged: the run.
        sample: masks of the run, rows of table ``masks``.
        limits: what to compare.
        rng: decides what is read of the parent.

    Raises:
        WorkspaceError: the parent release is damaged.
        TransientError: the store or the catalog failed for now.
    """
    parent = staged.parent
    # What is imported was chosen by a person, and its scores are another model's, or nobody's.
    if parent is None or staged.publication.kind != "run":
        return []
    store = workspace.store
    footers = read_footers(store, data_files(workspace, parent, "masks"))
    theirs = read_sample(
        store,
        footers,
        files=limits.files,
        row_groups=limits.row_groups,
        rng=rng,
        columns=_COLUMNS,
    ).rows
    theirs = theirs.filter(pc.is_in(theirs["stage"], value_set=pc.unique(sample["stage"])))
    releases = list_releases(workspace)
    imported = {run for release in releases if release.kind == "import" for run in release.configs}
    theirs = _of_runs(theirs, [run for run in parent.runs if run not in imported])
    settings = _settings(workspace, staged, releases)
    own = {settings[run] for run in staged.publication.runs if run in settings}
    alike = sorted(run for run in parent.runs if settings.get(run) in own)
    checks = []
    for column, name in (("predicted_iou", "predicted IoU"), ("stability_score", "stability")):
        floor = _floor(column, settings, staged.publication.runs, theirs)
        ours, others = (_above(table, column, floor) for table in (sample, theirs))
        checks.append(_check(f"{name} against {parent.name}", ours, others, limits, limits.score))
    ours, others = _area_shares(sample), _area_shares(_of_runs(theirs, alike))
    checks.append(_check(f"mask size against {parent.name}", ours, others, limits, limits.area))
    ours, others = _own_counts(staged), _parent_counts(workspace, parent, alike)
    name = f"masks per image against {parent.name}"
    checks.append(_check(name, ours, others, limits, limits.count, min_values=limits.min_images))
    return checks


def ks_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the Kolmogorov-Smirnov distance of two samples, 0 to 1; both have values."""
    a, b = np.sort(a), np.sort(b)
    values = np.concatenate([a, b])
    below_a = np.searchsorted(a, values, "right") / len(a)
    below_b = np.searchsorted(b, values, "right") / len(b)
    return float(np.abs(below_a - below_b).max())


def ks_noise(a: int, b: int) -> float:
    """Return the distance that samples of these sizes exceed by chance once in a thousand times."""
    return 1.95 * math.sqrt((a + b) / (a * b))


def _check(
    name: str,
    ours: _Values,
    theirs: _Values,
    limits: ShiftLimits,
    tolerated: float,
    min_values: int | None = None,
) -> GateCheck:
    least = limits.min_masks if min_values is None else min_values
    for side, what in ((ours, "the run"), (theirs, "comparable runs before it")):
        if side.images < limits.min_images or len(side.values) < least:
            return GateCheck(
                name=name,
                passed=True,
                detail=f"not compared: {len(side.values)} values of {side.images} images in "
                f"{what}; {least} of {limits.min_images} are needed",
            )
    distance = ks_distance(ours.values, theirs.values)
    limit = min(1.0, tolerated + ks_noise(ours.images, theirs.images))
    return GateCheck(
        name=name,
        passed=distance <= limit,
        figure=round(distance, 4),
        limit=round(limit, 4),
        detail=f"KS distance {distance:.2f}, at most {limit:.2f} expected; median "
        f"{np.median(ours.values):.4g}, before {np.median(theirs.values):.4g}",
    )


def _settings(workspace: Workspace, staged: Staged, releases: Sequence[Release]) -> dict[str, str]:
    """Return the settings of all runs on both sides as canonical JSON, by run id."""
    found = dict(staged.publication.configs)
    for release in releases:
        found |= release.configs
    for run in staged.parent.runs if staged.parent else ():
        # Releases of older versions do not have them.
        if run not in found and run_exists(workspace.store, run):
            found[run] = load_run(workspace.store, run).recipe.config_json
    return found


def _floor(
    column: str, settings: Mapping[str, str], own_runs: Sequence[str], theirs: pa.Table
) -> float:
    runs = {*own_runs, *pc.unique(theirs["run_id"]).to_pylist()}
    floors = []
    for run in runs & set(settings):
        threshold = json.loads(settings[run]).get(_FLOORS[column])
        if isinstance(threshold, int | float):
            floors.append(float(threshold))
    return max(floors, default=-math.inf)


def _above(rows: pa.Table, column: str, floor: float) -> _Values:
    rows = rows.filter(pc.greater_equal(rows[column], floor))
    return _Values(rows[column].to_numpy(), _images(rows))


def _area_shares(rows: pa.Table) -> _Values:
    area, height, width = (
        rows[name].to_numpy().astype(np.float64) for name in ("area", "size_h", "size_w")
    )
    return _Values(area / (height * width), _images(rows))


def _own_counts(staged: Staged) -> _Values:
    rows = staged.publication.image_runs
    if rows is None:
        return _NOTHING
    masked = rows.filter(pc.equal(rows["status"], "masked"))
    return _Values(masked["masks"].to_numpy().astype(np.float64), masked.num_rows)


def _parent_counts(workspace: Workspace, parent: Release, runs: Sequence[str]) -> _Values:
    if not runs:
        return _NOTHING
    masked = And(
        EqualTo(term=Reference("status"), value=literal("masked")),
        In(term=Reference("run_id"), values={literal(run) for run in runs}),
    )
    counts = scan(workspace, parent, "image_runs", ("masks",), masked)["masks"].to_numpy()
    return _Values(counts.astype(np.float64), len(counts))


def _of_runs(rows: pa.Table, runs: Sequence[str]) -> pa.Table:
    return rows.filter(pc.is_in(rows["run_id"], value_set=pa.array(runs, pa.string())))


def _images(rows: pa.Table) -> int:
    return len(pc.unique(rows["image_id"]))


_NOTHING = _Values(np.empty(0), 0)
