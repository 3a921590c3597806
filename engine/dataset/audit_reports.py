"""What an audit of staged data found: a value, kept beside the run that it is about.

    report = keep_report(store, report)                # runs/<commit id>/gate-0001.json
    load_reports(store, commit_id)[-1].reasons         # why it was refused; () when it passed

Reports are numbered and never change. An audit that finds the same again, after a crash or in
another process, adds none.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from engine.errors import WorkspaceError
from engine.objects import ObjectStore

__all__ = ["GateCheck", "GateReport", "keep_report", "load_reports"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateCheck:
    """One question that an audit asked.

    Attributes:
        name: what was looked at, e.g. ``"predicted IoU against r4"``.
        passed: whether nothing speaks against publishing; also when it could not be asked.
        figure: what was measured, if it is a number.
        limit: the largest figure that passes, if there is one.
        detail: one sentence for a person: what was found, or why nothing was compared.
    """

    name: str
    passed: bool
    figure: float | None = None
    limit: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """The audit of one publication on one parent release.

    Attributes:
        commit_id: of the publication.
        parent: release that it was staged on, None for the first.
        release: name that it would get.
        seed: of the sample.
        files: number of Parquet files that are to be published.
        sampled_files: number of them that were read.
        sampled_masks: number of masks that were decoded and checked.
        checks: all that was asked, in order.
    """

    commit_id: str
    parent: str | None
    release: str
    seed: int
    files: int = 0
    sampled_files: int = 0
    sampled_masks: int = 0
    checks: tuple[GateCheck, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def reasons(self) -> tuple[str, ...]:
        """The checks that failed, a sentence each."""
        return tuple(f"{check.name}: {check.detail}" for check in self.checks if not check.passed)


def keep_report(store: ObjectStore, report: GateReport) -> str:
    """Store a report as the newest of its publication, unless it is; return its key.

    Raises:
        WorkspaceError: a report before it is damaged, or the store cannot be written.
    """
    text = json.dumps(asdict(report), indent=1, ensure_ascii=False).encode()
    number = len(_keys(store, report.commit_id))
    while True:
        newest = _key(report.commit_id, number)
        if number and store.get(newest) == text:
            return newest
        number += 1
        if store.put_if_absent(_key(report.commit_id, number), text):
            return _key(report.commit_id, number)


def load_reports(store: ObjectStore, commit_id: str) -> tuple[GateReport, ...]:
    """Return the reports of a publication, oldest first.

    Raises:
        WorkspaceError: one is damaged.
    """
    return tuple(_read(store, key) for key in _keys(store, commit_id))


def _read(store: ObjectStore, key: str) -> GateReport:
    try:
        fields = json.loads(store.get(key))
        checks = tuple(GateCheck(**check) for check in fields.pop("checks"))
        return GateReport(**fields, checks=checks)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WorkspaceError(f"{store.uri(key)} is damaged: {error!r}") from error


def _keys(store: ObjectStore, commit_id: str) -> list[str]:
    return list(store.list(f"runs/{commit_id}/gate-"))


def _key(commit_id: str, number: int) -> str:
    return f"runs/{commit_id}/gate-{number:04d}.json"
