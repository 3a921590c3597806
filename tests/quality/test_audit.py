"""The audit of a release: what it finds, keeps and announces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from engine.announcements import Announcement, AuditFailed
from engine.dataset.audit_reports import GateCheck, GateReport
from engine.dataset.catalog import Workspace
from engine.dataset.publishing import Staged
from engine.dataset.release_verify import verify_release
from engine.dataset.releases import data_files, load_release
from engine.errors import BadInputError, WorkspaceError
from engine.quality.agreement import AgreementReport
from engine.quality.audit import check_automatic_runs, compare_with_people, conclude_audit
from engine.quality.audit_records import (
    AuditBars,
    AuditRecord,
    AuditSettings,
    find_audit,
    load_audits,
)
from engine.quality.gate import audit as gate
from engine.records import Release
from tests.learning.wheel_builders import NOW, add_photos, publish_masks, small_discs, true_discs

SETTINGS = AuditSettings(bars=AuditBars(mean_iou=0.8, pairs=5))


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """Return six photos with people's masks, release r1."""
    with Workspace.open(tmp_path / "birds") as opened:
        add_photos(opened, tmp_path / "photos", 6)
        publish_masks(opened, true_discs, stage="manual")
        yield opened


def audited(
    workspace: Workspace,
    release: Release,
    settings: AuditSettings = SETTINGS,
    heard: list[Announcement] | None = None,
) -> AuditRecord:
    """Do what the flow does."""
    integrity = verify_release(workspace, release)
    whole = integrity.passed
    return conclude_audit(
        workspace,
        release,
        settings,
        integrity,
        check_automatic_runs(workspace, release, settings) if whole else (),
        compare_with_people(workspace, release, settings.agreement)
        if whole
        else AgreementReport(images=0, rows=(), worst=()),
        now=NOW,
        announce=None if heard is None else heard.append,
    )


def test_a_model_that_draws_what_people_draw_passes(workspace: Workspace) -> None:
    release = publish_masks(workspace, true_discs, stage="auto", maker="good", gate=gate)
    heard: list[Announcement] = []
    record = audited(workspace, release, heard=heard)
    assert (record.outcome, record.model, record.passed) == ("passed", "good", True)
    assert (record.figure, record.bar) == (1.0, 0.8)
    assert {check.name.split(": ")[-1] for check in record.checks} >= {
        "files",
        "columns",
        "numbers of masks",
        "mean IoU with people's masks",
    }
    assert not heard
    assert find_audit(workspace.store, "r2", SETTINGS) == record


def test_a_model_below_the_bar_fails_and_is_announced_once(workspace: Workspace) -> None:
    publish_masks(workspace, true_discs, stage="auto", maker="good")
    release = publish_masks(workspace, small_discs, stage="auto", maker="newer and worse")
    heard: list[Announcement] = []
    record = audited(workspace, release, heard=heard)
    assert record.outcome == "failed"
    assert record.model == "newer and worse"
    assert "0.800 is asked" in record.reason
    (news,) = heard
    assert isinstance(news, AuditFailed)
    assert (news.release, news.model, news.bar) == ("r3", "newer and worse", 0.8)
    assert news.figure == record.figure
    assert [check.name for check in news.checks] == ["mean IoU with people's masks"]

    assert audited(workspace, release, heard=heard) == record
    assert len(heard) == 1
    stricter = replace(SETTINGS, bars=AuditBars(mean_iou=None, above_75=0.99, pairs=5))
    other = audited(workspace, release, stricter, heard)
    assert (other.outcome, other.bar, len(heard)) == ("failed", 0.99, 2)
    assert {r.settings.key for r in load_audits(workspace.store)} == {SETTINGS.key, stricter.key}


@pytest.mark.parametrize("masks", ["none", "elsewhere", "few"])
def test_where_nothing_can_be_compared_it_says_so(
    workspace: Workspace, tmp_path: Path, masks: str
) -> None:
    release = load_release(workspace, "latest")
    if masks == "elsewhere":
        add_photos(workspace, tmp_path / "more", 2, first=50)
        names = ["050.png", "051.png"]
        release = publish_masks(workspace, true_discs, stage="auto", maker="m", names=names)
    elif masks == "few":
        release = publish_masks(workspace, true_discs, stage="auto", maker="m", names=["000.png"])
    heard: list[Announcement] = []
    record = audited(workspace, release, heard=heard)
    assert (record.outcome, record.figure, record.passed) == ("nothing to compare", None, False)
    assert ("fewer than 5 say nothing" if masks == "few" else "no image has masks of") in (
        record.reason
    )
    assert not heard


def test_a_damaged_release_is_told_apart_and_audited_again_when_it_was_restored(
    workspace: Workspace,
) -> None:
    release = publish_masks(workspace, true_discs, stage="auto", maker="good")
    path = Path(workspace.address) / data_files(workspace, release, "masks")[0]
    whole = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(whole[:-9] + b"?" + whole[-8:])
    heard: list[Announcement] = []
    record = audited(workspace, release, heard=heard)
    assert record.outcome == "damaged"
    assert record.reason.startswith("files: ")
    assert len(heard) == 1
    assert load_audits(workspace.store) == (record,)

    path.write_bytes(whole)
    assert find_audit(workspace.store, release.name, SETTINGS) is None
    assert audited(workspace, release).outcome == "passed"
    assert len(load_audits(workspace.store)) == 2


def test_what_a_person_accepted_is_no_failure_and_what_nobody_accepted_is(
    workspace: Workspace,
) -> None:
    release = publish_masks(workspace, true_discs, stage="auto", maker="good")
    checked = check_automatic_runs(workspace, release, SETTINGS)
    failing = GateCheck(name="scores", passed=False, figure=2.0, limit=1.0, detail="too high")
    runs = [replace(run, report=replace(run.report, checks=(failing,))) for run in checked]
    agreement = compare_with_people(workspace, release, SETTINGS.agreement)
    integrity = verify_release(workspace, release)

    def concluded(accepted: str | None, pairs: int) -> AuditRecord:
        return conclude_audit(
            workspace,
            release,
            AuditSettings(bars=AuditBars(pairs=pairs)),
            integrity,
            [replace(run, accepted=accepted) for run in runs],
            agreement,
            now=NOW + timedelta(hours=pairs),
        )

    assert concluded(None, 1).outcome == "failed"
    accepted = concluded("a new camera", 2)
    assert accepted.outcome == "passed"
    assert "a person accepted it: a new camera" in accepted.checks[1].detail
    assert [r.settings.bars.pairs for r in load_audits(workspace.store)] == [1, 2]


def test_only_the_newest_automatic_runs_are_checked_again(workspace: Workspace) -> None:
    for number in range(3):
        release = publish_masks(workspace, true_discs, stage="auto", maker=f"m{number}")
    (one,) = check_automatic_runs(workspace, release, replace(SETTINGS, runs=1))
    assert one.run_id == release.runs[-1]
    assert one.report.release == "r4"
    assert one.report.passed
    assert len(check_automatic_runs(workspace, release, SETTINGS)) == 3


def test_wrong_bars_and_damaged_records_are_told(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="mean_iou must be from 0 to 1; got 85"):
        AuditBars(mean_iou=85)
    with pytest.raises(BadInputError, match="at least 1 pair"):
        AuditBars(pairs=0)
    audited(workspace, load_release(workspace, "r1"))
    (path,) = (tmp_path / "birds" / "audits").iterdir()
    path.chmod(0o644)
    path.write_text("[]")
    with pytest.raises(WorkspaceError, match="is damaged"):
        load_audits(workspace.store)


def test_the_gate_report_of_a_release_is_what_it_was_when_it_was_published(
    workspace: Workspace,
) -> None:
    seen: list[GateReport] = []

    def remembering(opened: Workspace, staged: Staged) -> GateReport:
        seen.append(gate(opened, staged))
        return seen[-1]

    release = publish_masks(workspace, true_discs, stage="auto", maker="m", gate=remembering)
    (run,) = check_automatic_runs(workspace, release, SETTINGS)
    assert run.report.checks == seen[-1].checks
