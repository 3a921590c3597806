"""Evaluations that a workspace keeps: the same model on the same masks is measured once.

kept = evaluate_and_keep(workspace.store, sam, sources, EvaluationPlan(), progress,
                         name="m3", now=current_time())
kept.address                              # evaluations/m3-1f0c22d6a9b1/: JSON, Markdown, plots
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import PurePosixPath

from pydantic import TypeAdapter, ValidationError

from engine.errors import WorkspaceError
from engine.evaluation.plots import report_plots
from engine.evaluation.report import EvaluationReport
from engine.evaluation.run import EvaluationPlan, Progress, evaluate_model
from engine.evaluation.tables import report_json, report_markdown
from engine.learning.training_data import DataSource
from engine.objects import ObjectStore
from model import Sam

__all__ = ["KeptEvaluation", "evaluate_and_keep", "report_files"]

_PREFIX = "evaluations/"
_JSON = "evaluation.json"
_REPORT = TypeAdapter(EvaluationReport)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptEvaluation:
    """An evaluation in the workspace.

    Attributes:
        report: what was found.
        address: of the folder with its files.
        is_new: whether this call measured.
    """

    report: EvaluationReport
    address: str
    is_new: bool


def evaluate_and_keep(
    store: ObjectStore,
    sam: Sam,
    sources: Sequence[DataSource],
    plan: EvaluationPlan,
    progress: Progress,
    *,
    name: str,
    now: datetime,
) -> KeptEvaluation:
    """Evaluate a model and keep the report; or find that it was evaluated so before.

    Args:
        store: of the workspace.
        sam: the model.
        sources: what it is measured on.
        plan: how.
        progress: hears of every image.
        name: of the model in tables.
        now: UTC.

    Raises:
        BadInputError: as `evaluate_model`.
        WorkspaceError: an earlier report is damaged, or the store cannot be written.
    """
    identity = {
        "model": sam.model_id(),
        "data": [source.identity for source in sources],
        "plan": asdict(plan),
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    folder = f"{_PREFIX}{PurePosixPath(name).stem}-{digest}/"
    is_new = not store.exists(folder + _JSON)
    if is_new:
        report = evaluate_model(
            sam, [source.images for source in sources], plan, progress, now=now, name=name
        )
        # The JSON is the last: where it is, all is.
        for file, data in sorted(report_files(report), key=lambda item: item[0] == _JSON):
            store.put_if_absent(folder + file, data)
    key = folder + _JSON
    try:
        kept = _REPORT.validate_json(store.get(key))
    except ValidationError as error:
        raise WorkspaceError(f"{store.uri(key)} is damaged: {error}") from error
    return KeptEvaluation(
        report=kept, address=store.uri(key).removesuffix(f"/{_JSON}"), is_new=is_new
    )


def report_files(report: EvaluationReport) -> Iterator[tuple[str, bytes]]:
    """Write a report as files: (name, content) of its JSON, its tables and its plots."""
    yield _JSON, (report_json(report) + "\n").encode()
    yield "evaluation.md", report_markdown(report).encode()
    yield from report_plots(report)
