"""Training in the Prefect UI: how the model learned, and how it compares with the champion.

show_training(version, read_log(folder), workspace=workspace, reason="new human masks")
show_promotion(decision, workspace=workspace)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from engine.learning.training_log import CURVE, LogEntry, draw_learning_curve
from engine.quality.small_pictures import SmallPicture
from engine.records import ModelVersion, PromotionDecision
from flows.artifacts.next_steps import next_steps
from flows.artifacts.pages import show_page
from flows.artifacts.pictures import gallery
from flows.artifacts.texts import Cell, escaped, markdown_table, readable

__all__ = ["learning_curve", "show_promotion", "show_training"]

_OUTCOMES = {
    "promoted": "is the champion now",
    "forced": "is the champion now, by force",
    "refused": "was refused",
    "rolled back": "is the champion again",
}


def show_training(
    version: ModelVersion, entries: Sequence[LogEntry], *, workspace: str = "", reason: str = ""
) -> None:
    """Leave a trained model as a page ``training``: its curve, its figures, where it comes from.

    Args:
        version: the model.
        entries: of the training's log.
        workspace: address, for the commands; none without.
        reason: why it was trained.
    """
    origin = version.origin
    facts: dict[str, Cell] = {
        "why": reason,
        "began as": origin.parent or origin.source,
        "trained on": ", ".join(origin.trained_on),
        "recipe": origin.recipe,
        "steps": max((entry.step for entry in entries), default=None),
        "model id": version.model_id,
        "size": f"{version.size_bytes / 1e6:.1f} MB",
    }
    curve = learning_curve(entries)
    parts = [
        f"# Model {escaped(version.name)}",
        markdown_table(
            [{"what": what, "value": readable(value)} for what, value in facts.items() if value]
        ),
        f"## How it learned\n\n{gallery([curve])}" if curve else "",
        _metrics(version),
        next_steps(
            workspace,
            {
                f"models show {version.name}": "what was decided about it",
                f"models promote {version.name}": "champion, if it is better",
            },
        ),
    ]
    show_page("training", _joined(parts), f"Model {escaped(version.name)}: {escaped(reason)}")


def learning_curve(entries: Sequence[LogEntry]) -> SmallPicture | None:
    """Draw losses and mIoU over the steps; None where nothing was logged."""
    if not entries:
        return None
    with TemporaryDirectory() as folder:
        path = Path(folder) / CURVE
        draw_learning_curve(entries, path)
        return SmallPicture(
            data=path.read_bytes(),
            caption="loss and mIoU over the training steps",
            media_type="image/png",
        )


def show_promotion(decision: PromotionDecision, *, workspace: str = "") -> None:
    """Leave a decision about the champion as a page ``promotion``: what was compared, and why.

    Args:
        decision: as it was recorded.
        workspace: address, for the commands; none without.
    """
    said = f"{escaped(decision.candidate)} {_OUTCOMES[decision.outcome]}"
    before = decision.previous_champion
    steps = {"models list": "all models"}
    if decision.champion != before:
        steps["models rollback"] = f"make {escaped(before)} the champion again"
    parts = [
        f"# {said}",
        f"Decision {decision.number}, by {escaped(decision.decided_by)}"
        + (f": {escaped(decision.note)}" if decision.note else "")
        + f". Champion before: **{escaped(before)}**; from now on: "
        f"**{escaped(decision.champion)}**.",
        "\n".join(f"- {escaped(reason)}" for reason in decision.reasons),
        _comparison(decision),
        next_steps(workspace, steps),
    ]
    show_page("promotion", _joined(parts), said)


def _comparison(decision: PromotionDecision) -> str:
    """Write candidate against champion in points, as people speak of mIoU."""
    if not decision.rows:
        return ""
    rows: list[dict[str, Cell]] = [
        {
            "compared on": row.row,
            "photos": row.images,
            "masks": row.masks,
            decision.candidate: f"{100 * row.candidate:.1f}",
            decision.previous_champion: f"{100 * row.champion:.1f}",
            "difference": f"{100 * row.difference:+.1f}",
            "95 % of it": f"{100 * row.low:+.1f} to {100 * row.high:+.1f}",
        }
        for row in decision.rows
    ]
    return (
        "## Mean IoU, in points\n\n"
        f"{markdown_table(rows)}\n\nThe first row decides: it must be better by more than "
        f"{100 * (decision.margin or 0):.1f} points, with its 95 % above zero; no row may be worse "
        f"by more than {100 * (decision.tolerance or 0):.1f}."
    )


def _metrics(version: ModelVersion) -> str:
    rows: list[dict[str, Cell]] = [
        {"measured on": metric.row, "mean IoU": f"{100 * metric.mean_iou:.1f}"}
        for metric in version.metrics
    ]
    return f"## Measured\n\n{markdown_table(rows)}" if rows else ""


def _joined(parts: Sequence[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"
