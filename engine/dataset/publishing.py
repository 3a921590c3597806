"""Publishing: the one way in which anything becomes a release.

    publication = Publication(commit_id=run_id, kind="run", created_at=now, files=uris,
                              image_runs=rows, runs=(run_id,), models=(model_id,))
    release = publish(workspace, publication, gate)    # again, or elsewhere: the same release

Stage on branches, audit, write ``releases/<name>.json`` if nobody has, settle the tables. The
record is the truth and its creation the one instant that counts: what comes before may be done
any number of times, what comes after follows from it. See infra/decisions/0007.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import pyarrow as pa

from engine.announcements import Announce, ReleasePublished, tell
from engine.dataset.audit_reports import GateReport, keep_report
from engine.dataset.catalog import Workspace
from engine.dataset.release_checksums import record_checksums
from engine.dataset.releases import (
    code_version,
    latest_release,
    list_releases,
    next_release_name,
    tag_releases,
    write_release,
)
from engine.dataset.schemas import TableName
from engine.errors import BadInputError, RefusedError, WorkspaceError
from engine.records import Release, ReleaseKind

__all__ = ["Gate", "Publication", "Staged", "publish", "published_as", "settle"]

log = logging.getLogger(__name__)

# What a release decides. Table images only grows: a release pins its head and never moves it.
_DECIDED: tuple[TableName, ...] = ("masks", "image_runs")
_COMMIT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ON = "-on-"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Publication:
    """What is to become a release: something added to the latest one, or an old one again.

    Attributes:
        commit_id: what it is, e.g. the run's id: published at most once. Letters, digits, ``._-``.
        kind: what made it.
        created_at: UTC; the release's time, the same however often it is tried.
        files: addresses of the Parquet files with its rows of table ``masks``; may be none.
        image_runs: its rows of table ``image_runs``, at least one unless it restores a release.
        runs: ids of its runs.
        models: ids of the models that made its masks.
        configs: settings of its new runs as canonical JSON, by run id.
        note: a person's words about it.
        restores: the release whose masks are to be the data set's again; then it adds nothing.
    """

    commit_id: str
    kind: ReleaseKind
    created_at: datetime
    files: Sequence[str] = ()
    image_runs: pa.Table | None = None
    runs: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    configs: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    restores: Release | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Staged:
    """A publication whose rows are in the tables, on branches: what a gate looks at.

    Attributes:
        publication: what is to be published.
        parent: the release that it was staged on; None: it is the first.
        release: the record that will be written; its snapshots are the staged ones.
    """

    publication: Publication
    parent: Release | None
    release: Release


Gate = Callable[[Workspace, Staged], GateReport]
"""Looks at staged data and says whether it may be published; must not change anything."""


def publish(
    workspace: Workspace,
    publication: Publication,
    gate: Gate | None = None,
    *,
    accepted: str | None = None,
    announce: Announce | None = None,
) -> Release:
    """Make a publication a release. Replayable, also concurrently and after a kill anywhere.

    Args:
        workspace: the data set.
        publication: what to publish.
        gate: audits what was staged; None: nothing is asked, as for a rollback.
        accepted: why it is to be published even if the gate refuses; the release records it.
        announce: told of a release that this call wrote, once it is the data set's latest.

    Returns:
        The publication's release; the same one however often and from wherever it is published.

    Raises:
        RefusedError: the gate refused and nobody accepted it. The data set is unchanged; the
            staged branches and the report stay.
        BadInputError: a publication that adds nothing, or a commit id that names nothing.
        WorkspaceError: no image was ever ingested, or the workspace cannot be written.
        TransientError: the catalog or the store stayed busy.
    """
    _check(publication)
    while True:
        releases = list_releases(workspace)
        if (done := published_as(releases, publication.commit_id)) is not None:
            settle(workspace)
            return done
        release = _stage(workspace, publication, releases)
        parent = releases[-1] if releases else None
        if gate is not None:
            staged = Staged(publication=publication, parent=parent, release=release)
            release = _audit(workspace, staged, gate, accepted)
        known = [old for old in (parent, publication.restores) if old is not None]
        checksums = record_checksums(workspace, release.snapshots, known)
        release = replace(release, checksums=checksums)
        if write_release(workspace, release):
            settle(workspace)
            tell(announce, ReleasePublished(workspace=workspace.address, release=release))
            return release
        log.info("%s was taken meanwhile: %s is staged again", release.name, publication.commit_id)


def published_as(releases: Sequence[Release], commit_id: str) -> Release | None:
    """Return the release that a publication or a run became, None if it is not published."""
    for release in releases:
        # Releases of older versions have no commit id. A later release names its parent's runs too.
        if commit_id == release.commit_id or commit_id in release.runs:
            return release
    return None


def settle(workspace: Workspace) -> Release | None:
    """Make tables follow the release records: tags, main, and no branch of what is published.

    Idempotent, and right from any state that a killed publisher can leave.

    Returns:
        The latest release; None before the first, when there is nothing to follow.

    Raises:
        WorkspaceError: something outside Maskwheel moved a tag or removed a snapshot.
        TransientError: the catalog stayed busy.
    """
    while True:
        releases = list_releases(workspace)
        if not releases:
            return None
        latest = releases[-1]
        tag_releases(workspace, releases)
        for table in _DECIDED:
            workspace.set_main(table, latest.snapshots[table])
        _drop_published_branches(workspace, releases)
        # Others may have published since, and set main before this process did.
        newest = latest_release(workspace)
        if newest is None or newest.name == latest.name:
            return latest


def _check(publication: Publication) -> None:
    if not _COMMIT_ID.fullmatch(publication.commit_id) or _ON in publication.commit_id:
        raise BadInputError(
            f"got the commit id {publication.commit_id!r}; expected letters, digits and '._-', "
            f"without {_ON!r}"
        )
    rows = publication.image_runs
    if publication.restores is None and (rows is None or rows.num_rows == 0):
        raise BadInputError(
            f"publication {publication.commit_id} is about no image; expected a row of image_runs "
            "for each of its images"
        )


def _stage(workspace: Workspace, publication: Publication, releases: Sequence[Release]) -> Release:
    """Bring the publication's rows into the tables, on branches; return its unwritten release.

    A branch's name says what is on it and from where it grows, and the branch never changes:
    processes that stage the same at once help each other.
    """
    parent = releases[-1] if releases else None
    restored = publication.restores
    if restored is not None:
        masks, image_runs = (restored.snapshots[table] for table in _DECIDED)
    else:
        commit_id = publication.commit_id
        branch = f"{commit_id}{_ON}{parent.name if parent else 'nothing'}"
        base = parent.snapshots if parent else {}
        masks = workspace.stage("masks", branch, base.get("masks"), publication.files, commit_id)
        image_runs = workspace.stage(
            "image_runs", branch, base.get("image_runs"), publication.image_runs, commit_id
        )
    images = workspace.table("images").current_snapshot()
    if images is None:
        raise WorkspaceError(
            f"{publication.commit_id} is about images that were never ingested; `maskwheel ingest` "
            "adds them"
        )
    origin = restored or parent
    return Release(
        name=next_release_name(releases),
        snapshots={"images": images.snapshot_id, "masks": masks, "image_runs": image_runs},
        runs=_joined(origin.runs if origin else (), publication.runs),
        models=_joined(origin.models if origin else (), publication.models),
        parent=parent.name if parent else None,
        images=_rows(workspace, "images", images.snapshot_id),
        masks=_rows(workspace, "masks", masks),
        created_at=publication.created_at,
        kind=publication.kind,
        commit_id=publication.commit_id,
        configs=dict(publication.configs),
        code_version=code_version(),
        note=publication.note,
        restores=restored.name if restored else None,
    )


def _audit(workspace: Workspace, staged: Staged, gate: Gate, accepted: str | None) -> Release:
    """Ask the gate; return the release to write."""
    report = gate(workspace, staged)
    kept = keep_report(workspace.store, report)
    if report.passed:
        return staged.release
    commit_id = staged.publication.commit_id
    why = "; ".join(report.reasons)
    if not accepted:
        raise RefusedError(
            f"the audit refused {commit_id}: {why}. The data set is unchanged, nothing is lost: "
            f"look at {workspace.store.uri(kept)}, then publish it with `maskwheel releases "
            f'publish {commit_id} --accept "why"`, or leave it',
            (commit_id,),
        )
    log.warning("%s is published although %s; accepted: %s", commit_id, why, accepted)
    return replace(staged.release, accepted=accepted)


def _drop_published_branches(workspace: Workspace, releases: Sequence[Release]) -> None:
    published = {release.commit_id for release in releases}
    published |= {run_id for release in releases for run_id in release.runs}
    for table in _DECIDED:
        for branch in workspace.branches(table):
            if branch.rpartition(_ON)[0] in published:
                workspace.drop_branch(table, branch)


def _joined(first: Sequence[str], second: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))


def _rows(workspace: Workspace, table: TableName, snapshot_id: int) -> int:
    snapshot = workspace.table(table).snapshot_by_id(snapshot_id)
    if snapshot is None or snapshot.summary is None:
        raise WorkspaceError(f"table {table}: snapshot {snapshot_id} is gone")
    return int(snapshot.summary.get("total-records") or 0)
