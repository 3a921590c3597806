"""The audit of a release: is it whole, are its automatic masks plausible, do people agree?

    integrity = verify_release(workspace, release)
    runs = check_automatic_runs(workspace, release, settings)
    agreement = compare_with_people(workspace, release, settings.agreement)
    record = conclude_audit(workspace, release, settings, integrity, runs, agreement, now=now)

The record is kept once per release and settings. A release that is whole and below a bar is still a
good release; what follows from it (people look, a model is retrained) is for others to decide.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from engine.annotation.opening import find_workspace_database
from engine.announcements import Announce, AuditCheckFailed, AuditFailed, tell
from engine.dataset.audit_reports import GateCheck, GateReport
from engine.dataset.catalog import Workspace
from engine.dataset.publishing import Staged, published_as
from engine.dataset.release_verify import VerifyReport
from engine.dataset.releases import list_releases
from engine.dataset.runs import load_run, publication_of, run_exists
from engine.evaluation.bootstrap import Estimate
from engine.quality.agreement import (
    AgreementConfig,
    AgreementReport,
    AgreementRow,
    compare_masks,
)
from engine.quality.agreement_sources import proposed_pairs, released_pairs
from engine.quality.audit_records import (
    AuditBars,
    AuditCheck,
    AuditOutcome,
    AuditRecord,
    AuditSettings,
    find_audit,
    keep_audit,
)
from engine.quality.gate import GateConfig
from engine.quality.gate import audit as check_staged
from engine.records import Release

__all__ = ["CheckedRun", "check_automatic_runs", "compare_with_people", "conclude_audit"]

log = logging.getLogger(__name__)

_FIGURES = ("mean_iou", "above_90", "above_75", "found")
_NAMES = {
    "mean_iou": "mean IoU with people's masks",
    "above_90": "pairs above IoU .90",
    "above_75": "pairs above IoU .75",
    "found": "people's masks that the model found",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRun:
    """An automatic run of a release, looked at again as the gate did before it was published.

    Attributes:
        run_id: the run.
        report: what the gate says today.
        accepted: why a person published it in spite of the gate; None: nobody had to.
    """

    run_id: str
    report: GateReport
    accepted: str | None


def check_automatic_runs(
    workspace: Workspace, release: Release, settings: AuditSettings
) -> tuple[CheckedRun, ...]:
    """Put the newest automatic runs of a release to the gate again; nothing changes by it.

    Raises:
        WorkspaceError: a file, a record or a release before it is missing or damaged.
    """
    releases = list_releases(workspace)
    by_name = {known.name: known for known in releases}
    found: list[CheckedRun] = []
    for run_id in reversed(release.runs):
        if len(found) == settings.runs:
            break
        became = published_as(releases, run_id)
        if became is None or not run_exists(workspace.store, run_id):
            continue
        manifest = load_run(workspace.store, run_id)
        if manifest.kind != "auto":
            continue
        staged = Staged(
            publication=publication_of(workspace.store, manifest),
            parent=by_name.get(became.parent or ""),
            release=became,
        )
        report = check_staged(workspace, staged, GateConfig(seed=settings.agreement.seed))
        found.append(CheckedRun(run_id=run_id, report=report, accepted=became.accepted))
    return tuple(found)


def compare_with_people(
    workspace: Workspace, release: Release, config: AgreementConfig
) -> AgreementReport:
    """Compare automatic masks, and proposals, with people's on images that have both.

    Raises:
        WorkspaceError: a file that is missing or damaged, or the annotation database.
        TransientError: the database is busy.
    """
    pairs = released_pairs(workspace, release, config)
    db = find_workspace_database(workspace)
    if db is None:
        return compare_masks(pairs, config)
    with db:
        return compare_masks(chain(pairs, proposed_pairs(workspace, db, release, config)), config)


def conclude_audit(
    workspace: Workspace,
    release: Release,
    settings: AuditSettings,
    integrity: VerifyReport,
    runs: Sequence[CheckedRun],
    agreement: AgreementReport,
    *,
    now: datetime,
    announce: Announce | None = None,
) -> AuditRecord:
    """Put an audit together, keep it, and tell when it is below a bar.

    Args:
        workspace: where it is kept.
        release: what was audited.
        settings: how.
        integrity: whether the files are whole.
        runs: the gate on its automatic runs.
        agreement: the comparison with people's masks.
        now: UTC.
        announce: told of a failed audit, by the one process that writes its record.

    Returns:
        The record that counts: an earlier one of the same release and settings, if there is one.
    """
    row = _judged_row(agreement, release)
    judged = () if row is None else tuple(_bar_checks(row, settings.bars))
    checks = (_whole(integrity), *chain.from_iterable(map(_run_checks, runs)), *judged)
    outcome = _outcome(integrity, checks, judged)
    first = next(iter(judged), None)
    record = AuditRecord(
        release=release.name,
        settings=settings,
        outcome=outcome,
        figure=first.figure if first else None,
        bar=first.bar if first else None,
        reason=_reason(outcome, checks, row, agreement, settings.bars),
        model=row.model_id if row else None,
        checks=checks,
        agreement=agreement,
        audited_at=now,
    )
    if not keep_audit(workspace.store, record):
        return find_audit(workspace.store, release.name, settings) or record
    log.info("audit of %s: %s; %s", release.name, outcome, record.reason)
    if outcome in ("failed", "damaged"):
        tell(announce, _news(workspace, record))
    return record


def _judged_row(agreement: AgreementReport, release: Release) -> AgreementRow | None:
    """Return the row that the bars apply to: the newest model's; proposals where nothing else is.

    A release may hold the masks of many models; the others are history.
    """
    age = {model: number for number, model in enumerate(release.models)}
    overall = [row for row in agreement.rows if row.stage == "all"]
    automatic = [row for row in overall if row.source == "automatic"]
    return max(automatic or overall, key=lambda row: age.get(row.model_id, -1), default=None)


def _bar_checks(row: AgreementRow, bars: AuditBars) -> Iterator[AuditCheck]:
    if row.pairs < bars.pairs:
        return
    for name in _FIGURES:
        bar: float | None = getattr(bars, name)
        figure: Estimate | None = getattr(row, name)
        if bar is None or figure is None:
            continue
        yield AuditCheck(
            name=_NAMES[name],
            passed=figure.mean >= bar,
            figure=figure.mean,
            bar=bar,
            detail=f"{figure.mean:.3f} ({figure.low:.3f} to {figure.high:.3f}) over {row.pairs:,} "
            f"pairs on {row.images:,} images; {bar:.3f} is asked",
        )


def _whole(integrity: VerifyReport) -> AuditCheck:
    first = f"; {integrity.problems[0].message}" if integrity.problems else ""
    return AuditCheck(
        name="files",
        passed=integrity.passed,
        figure=float(integrity.problem_count),
        bar=0.0,
        detail=f"{integrity.files:,} files with {integrity.masks:,} masks read, "
        f"{integrity.problem_count:,} problems{first}",
    )


def _run_checks(run: CheckedRun) -> Iterator[AuditCheck]:
    for check in run.report.checks:
        yield AuditCheck(
            name=f"{run.run_id}: {check.name}",
            passed=check.passed or run.accepted is not None,
            figure=check.figure,
            bar=check.limit,
            detail=_run_detail(run, check),
        )


def _run_detail(run: CheckedRun, check: GateCheck) -> str:
    if check.passed or run.accepted is None:
        return check.detail
    return f"{check.detail}; a person accepted it: {run.accepted}"


def _outcome(
    integrity: VerifyReport, checks: Sequence[AuditCheck], judged: Sequence[AuditCheck]
) -> AuditOutcome:
    if not integrity.passed:
        return "damaged"
    if not all(check.passed for check in checks):
        return "failed"
    return "passed" if judged else "nothing to compare"


def _reason(
    outcome: AuditOutcome,
    checks: Sequence[AuditCheck],
    row: AgreementRow | None,
    agreement: AgreementReport,
    bars: AuditBars,
) -> str:
    failed = [f"{check.name}: {check.detail}" for check in checks if not check.passed]
    if failed:
        return "; ".join(failed)
    if outcome == "passed":
        return "; ".join(f"{check.name}: {check.detail}" for check in checks[-1:])
    if row is None:
        return "no image has masks of a model and of people, so nothing says how good they are"
    if row.pairs < bars.pairs:
        return (
            f"people's masks and the model's agree on {row.pairs} objects of {agreement.images} "
            f"images; fewer than {bars.pairs} say nothing"
        )
    return "no bar is set"


def _news(workspace: Workspace, record: AuditRecord) -> AuditFailed:
    return AuditFailed(
        workspace=workspace.address,
        release=record.release,
        model=record.model,
        reason=record.reason,
        figure=record.figure,
        bar=record.bar,
        checks=tuple(
            AuditCheckFailed(
                name=check.name,
                figure=check.figure or 0.0,
                limit=check.bar or 0.0,
                detail=check.detail,
            )
            for check in record.checks
            if not check.passed
        ),
    )
