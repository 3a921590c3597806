"""The gate between staged masks and a release: is this what the data set should grow by?

    release = commit_run(workspace, run, audit)        # RefusedError when it is not
    report = audit(workspace, staged, GateConfig(seed=1))

Exact where that is cheap (columns, numbers of rows), a seeded sample where it is not (run lengths
against area and box, known images, unique ids), and the scores against those of the release that it
builds on, see `score_shift`. `maskwheel releases verify` reads everything.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.dataset.audit_reports import GateCheck, GateReport
from engine.dataset.catalog import Workspace
from engine.dataset.publishing import Staged
from engine.dataset.releases import scan
from engine.dataset.row_checks import Fault, KnownImages, image_run_faults, mask_faults
from engine.dataset.schemas import arrow_schema
from engine.errors import BadInputError
from engine.objects import ObjectStore
from engine.quality.mask_sample import Footer, MaskSample, read_footers, read_sample
from engine.quality.score_shift import ShiftLimits, compare_scores

__all__ = ["GateConfig", "audit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateConfig:
    """What the gate looks at.

    Attributes:
        seed: of the samples; with the commit id it decides what is read.
        files: staged Parquet files that are read.
        row_groups: of each such file, about 2,000 masks each.
        shift: how far scores may lie from those of the parent release.
    """

    seed: int = 0
    files: int = 16
    row_groups: int = 2
    shift: ShiftLimits = field(default_factory=ShiftLimits)

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            BadInputError: a number below 1.
        """
        for name in ("files", "row_groups"):
            if getattr(self, name) < 1:
                raise BadInputError(f"{name} must be at least 1; got {getattr(self, name)}")


_DEFAULTS = GateConfig()


def audit(workspace: Workspace, staged: Staged, config: GateConfig = _DEFAULTS) -> GateReport:
    """Look at what was staged; a `Gate` for `publish`. Equal data give an equal report.

    Raises:
        WorkspaceError: the parent release is damaged, or a file is missing.
        TransientError: the store or the catalog failed for now.
    """
    publication, parent = staged.publication, staged.parent
    rng = random.Random(f"{config.seed} {publication.commit_id}")  # noqa: S311  (no secret)
    footers = read_footers(workspace.store, _keys(workspace.store, publication.files))
    checks = [_check_columns(footers), _check_counts(footers, staged)]
    sample = MaskSample(arrow_schema("masks").empty_table(), ())
    if checks[0].passed:  # else the rows cannot be read as masks
        sample = read_sample(
            workspace.store, footers, files=config.files, row_groups=config.row_groups, rng=rng
        )
        checks += _check_rows(workspace, staged, sample)
    if all(check.passed for check in checks):  # else the scores may mean nothing
        checks += compare_scores(workspace, staged, sample.rows, config.shift, rng)
    return GateReport(
        commit_id=publication.commit_id,
        parent=parent.name if parent else None,
        release=staged.release.name,
        seed=config.seed,
        files=len(footers),
        sampled_files=len(sample.files),
        sampled_masks=sample.rows.num_rows,
        checks=tuple(checks),
    )


def _keys(store: ObjectStore, uris: Sequence[str]) -> list[str]:
    root = store.uri("x").removesuffix("x")
    if outside := [uri for uri in uris if not uri.startswith(root)]:
        raise BadInputError(
            f"got the file {outside[0]}; a release is made of files in its workspace, {root}"
        )
    return [uri.removeprefix(root) for uri in uris]


def _check_columns(footers: Sequence[Footer]) -> GateCheck:
    found = [f"{f.key} {problem}" for f in footers if (problem := _column_problem(f.schema))]
    return _counted("columns", found, f"{len(footers)} files have those of table masks")


def _column_problem(schema: pa.Schema) -> str | None:
    expected = arrow_schema("masks")
    if unknown := sorted(set(schema.names) - set(expected.names)):
        return f"has columns that table masks has not: {', '.join(unknown)}"
    for column in expected:
        if column.name not in schema.names:
            # Columns that were added later may be empty, so older files lack them.
            if not column.nullable:
                return f"lacks column {column.name}"
        elif (got := schema.field(column.name).type) != column.type:
            return f"has column {column.name} as {got}; expected {column.type}"
    return None


def _check_counts(footers: Sequence[Footer], staged: Staged) -> GateCheck:
    """Files, what the run says of its images, and the table have to agree."""
    held = sum(footer.rows for footer in footers)
    rows = staged.publication.image_runs
    stated = held if rows is None else int(pc.sum(rows["masks"]).as_py() or 0)
    grown = staged.release.masks - (staged.parent.masks if staged.parent else 0)
    found = []
    if held != stated:
        found.append(f"the files hold {held} masks, the run counted {stated} on its images")
    if held != grown:
        found.append(f"the files hold {held} masks, table masks grew by {grown}")
    return _counted("numbers of masks", found, f"{held} in files, on images and in the table")


def _check_rows(workspace: Workspace, staged: Staged, sample: MaskSample) -> list[GateCheck]:
    """Check the sampled masks, and all rows of table image_runs."""
    release, of_images = staged.release, staged.publication.image_runs
    columns = ("image_id", "height", "width")
    images = KnownImages.of(scan(workspace, release, "images", columns))
    masks = [*sample.damaged]
    masks += _described(mask_faults(sample.rows, images, release.runs, release.models))
    about: list[str] = []
    if of_images is not None:
        about = _described(image_run_faults(of_images, images, release.runs))
    ids, counts = np.unique(sample.rows["mask_id"].to_numpy(), return_counts=True)
    doubled = [f"mask {mask_id} is there more than once" for mask_id in ids[counts > 1].tolist()]
    return [
        _counted("masks", masks, f"{sample.rows.num_rows} fit their run lengths and images"),
        _counted("images", about, "known, each with what became of it"),
        _counted("ids", doubled, "unique in the sample"),
    ]


def _described(faults: Iterable[Fault]) -> list[str]:
    return [fault.describe(row) for fault in faults for row in fault.rows.tolist()]


def _counted(name: str, found: Sequence[str], fine: str) -> GateCheck:
    """Make a check that passes when nothing was found."""
    detail = fine
    if found:
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        detail = f"{found[0]}{more}"
    return GateCheck(
        name=name, passed=not found, figure=float(len(found)), limit=0.0, detail=detail
    )
