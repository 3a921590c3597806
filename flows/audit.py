"""The audit of a release as a flow: is it whole, is it plausible, and do people agree with it?

>>> audit("birds", min_mean_iou=0.9).outcome
'failed'

An audit that finds a release below a bar has worked: the run is Completed, its outcome "failed",
and ``maskwheel.audit.failed`` is announced. Only damaged files fail the run. The record is kept in
the workspace once per release and settings, so the same call again shows what was found.
"""

from __future__ import annotations

import logging

from prefect import flow, task

from engine.config import current_time
from engine.dataset.catalog import Workspace
from engine.dataset.release_verify import VerifyReport
from engine.dataset.releases import LATEST, load_release
from engine.errors import WorkspaceError
from engine.quality.agreement import AgreementConfig, AgreementReport
from engine.quality.audit import (
    CheckedRun,
    check_automatic_runs,
    compare_with_people,
    conclude_audit,
)
from engine.quality.audit_records import (
    AuditBars,
    AuditOutcome,
    AuditRecord,
    AuditSettings,
    find_audit,
)
from engine.records import Release
from flows.artifacts.audits import show_release_audit
from flows.events import announce
from flows.naming import describe_run
from flows.progress import listener
from flows.retrying import RETRIED
from flows.verifying import verify

__all__ = ["audit"]

logger = logging.getLogger(__name__)


@flow(name="audit", flow_run_name="audit")
def audit(
    workspace: str,
    release: str | None = None,
    min_mean_iou: float | None = 0.85,
    min_above_90: float | None = None,
    min_above_75: float | None = None,
    min_found: float | None = None,
    min_pairs: int = 20,
    images: int = 500,
    seed: int = 0,
) -> AuditRecord:
    """Read a release again, check its automatic runs, and compare its masks with people's.

    Args:
        workspace: folder of the data set, or ``s3://bucket/prefix``.
        release: a name or a tag; by default the newest.
        min_mean_iou: bar for the mean IoU of pairs of a model's mask and a person's; two people
            reach 0.85 to 0.91 among themselves.
        min_above_90: bar for the share of pairs above an IoU of 0.90; the paper reached 0.94.
        min_above_75: likewise 0.75; the paper reached 0.97.
        min_found: bar for the share of people's masks that the model found.
        min_pairs: with fewer pairs nothing is said.
        images: sampled at most, of those that have masks of both.
        seed: of the sample.

    Raises:
        WorkspaceError: the release is damaged: what is wrong is in the table, and `maskwheel
            releases verify` lists all of it.
    """
    settings = AuditSettings(
        bars=AuditBars(
            mean_iou=min_mean_iou,
            above_90=min_above_90,
            above_75=min_above_75,
            found=min_found,
            pairs=min_pairs,
        ),
        agreement=AgreementConfig(images=images, seed=seed),
    )
    chosen, known = find(workspace, release or LATEST, settings)
    if known is None:
        integrity = verify(chosen, workspace)
        runs = check_runs(chosen, settings, workspace) if integrity.passed else ()
        agreement = compare(chosen, settings, integrity, workspace)
        known = conclude(chosen, settings, integrity, runs, agreement, workspace)
    show(known, workspace)
    if known.outcome == "damaged":
        raise WorkspaceError(f"release {chosen.name} is damaged: {known.reason}")
    return known


@task(task_run_name="find {release}", **RETRIED)
def find(
    workspace: str, release: str, settings: AuditSettings
) -> tuple[Release, AuditRecord | None]:
    """Find the release, and the audit with these settings if there was one."""
    with Workspace.open(workspace, create=False) as opened:
        chosen = load_release(opened, release)
        known = find_audit(opened.store, chosen.name, settings)
    describe_run(f"audit {chosen.name}", workspace=workspace, stage="audit", release=chosen.name)
    if known is not None:
        logger.info("%s was audited with these settings at %s", chosen.name, known.audited_at)
    return chosen, known


@task(task_run_name="check the automatic runs of {release.name}", **RETRIED)
def check_runs(release: Release, settings: AuditSettings, workspace: str) -> tuple[CheckedRun, ...]:
    """Put the newest automatic runs to the gate again."""
    with Workspace.open(workspace, create=False) as opened:
        return check_automatic_runs(opened, release, settings)


@task(task_run_name="compare {release.name} with people's masks", **RETRIED)
def compare(
    release: Release, settings: AuditSettings, integrity: VerifyReport, workspace: str
) -> AgreementReport:
    """Compare automatic masks and proposals with people's; nothing of a damaged release."""
    if not integrity.passed:
        return AgreementReport(images=0, rows=(), worst=())
    listener().stage("comparing with people's masks", None)
    with Workspace.open(workspace, create=False) as opened:
        return compare_with_people(opened, release, settings.agreement)


@task(task_run_name="conclude", **RETRIED)
def conclude(
    release: Release,
    settings: AuditSettings,
    integrity: VerifyReport,
    runs: tuple[CheckedRun, ...],
    agreement: AgreementReport,
    workspace: str,
) -> AuditRecord:
    """Keep the audit's record; a failed one is announced."""
    with Workspace.open(workspace, create=False) as opened:
        return conclude_audit(
            opened,
            release,
            settings,
            integrity,
            runs,
            agreement,
            now=current_time(),
            announce=announce,
        )


_LEVELS: dict[AuditOutcome, int] = {
    "passed": logging.INFO,
    "nothing to compare": logging.WARNING,
    "failed": logging.WARNING,
    "damaged": logging.ERROR,
}


def show(record: AuditRecord, workspace: str) -> None:
    """Say what was found, in the log and as a page in the Prefect UI."""
    logger.log(
        _LEVELS[record.outcome],
        "audit of %s: %s; %s",
        record.release,
        record.outcome,
        record.reason,
    )
    show_release_audit(record, workspace=workspace)
