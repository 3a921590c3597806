"""Audits of releases in the Prefect UI: what was asked, what was found, the worst pictures.

show_release_audit(record, workspace=workspace)
"""

from __future__ import annotations

from engine.evaluation.bootstrap import Estimate
from engine.quality.audit_records import AuditRecord
from engine.quality.worst_pairs import worst_pairs_sheet
from flows.artifacts.next_steps import next_steps
from flows.artifacts.pages import show_page
from flows.artifacts.pictures import picture
from flows.artifacts.texts import Cell, escaped, markdown_table
from flows.naming import counted

__all__ = ["show_release_audit"]


def show_release_audit(record: AuditRecord, *, workspace: str = "") -> None:
    """Leave an audit as a page ``release-audit``.

    Args:
        record: what was found.
        workspace: address, for the commands; none without.
    """
    parts = [
        f"# Release {escaped(record.release)}: {record.outcome}",
        escaped(record.reason, None),
        f"## What was asked\n\n{markdown_table(_checks(record))}" if record.checks else "",
        _agreement(record),
        _worst(record),
        _next(record, workspace),
    ]
    show_page(
        "release-audit",
        "\n\n".join(part for part in parts if part) + "\n",
        f"{escaped(record.release)}: **{record.outcome}**; {escaped(record.reason)}",
    )


def _checks(record: AuditRecord) -> list[dict[str, Cell]]:
    return [
        {
            "check": check.name,
            "passed": "yes" if check.passed else "NO",
            "figure": check.figure,
            "bar": check.bar,
            "detail": check.detail,
        }
        for check in record.checks
    ]


def _agreement(record: AuditRecord) -> str:
    report = record.agreement
    if not report.rows:
        return ""
    rows: list[dict[str, Cell]] = [
        {
            "masks": row.source,
            "model": row.model_id[:16],
            "people's stage": row.stage,
            "photos": row.images,
            "pairs": row.pairs,
            "mean IoU": _interval(row.mean_iou),
            "above .90": _interval(row.above_90),
            "above .75": _interval(row.above_75),
            "found": _interval(row.found),
        }
        for row in report.rows
    ]
    return (
        f"## The model and people, on {counted(report.images, 'photo')}\n\n{markdown_table(rows)}"
        "\n\nWith 95 % intervals over the photos. Two people agree with a mean IoU of .85 to .91; "
        "the paper's audit had 94 % of pairs above .90."
    )


def _interval(estimate: Estimate | None) -> str | None:
    if estimate is None:
        return None
    return f"{estimate.mean:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def _worst(record: AuditRecord) -> str:
    sheet = worst_pairs_sheet(record.agreement.worst)
    if sheet is None:
        return ""
    return (
        "## Where they disagree most\n\nOrange: only the model. Blue: only the person. Green: "
        f"both.\n\n{picture(sheet)}\n\n*{escaped(sheet.caption, None)}*"
    )


def _next(record: AuditRecord, workspace: str) -> str:
    steps = {f"report --release {record.release}": "a page with a gallery"}
    if not record.passed:
        retrain = f"run retrain -p release={record.release} -p reason=audit"
        steps[retrain] = "a better model, if there are masks to learn from"
    return next_steps(workspace, steps)
