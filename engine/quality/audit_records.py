"""What an audit of a release found, kept for good: once per release and settings.

    for record in load_audits(store):                  # the oldest first
        print(record.release, record.outcome, record.figure, record.bar, record.reason)

No torch is needed to read them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from engine.errors import BadInputError, WorkspaceError
from engine.objects import ObjectStore
from engine.quality.agreement import AgreementConfig, AgreementReport

__all__ = [
    "AuditBars",
    "AuditCheck",
    "AuditOutcome",
    "AuditRecord",
    "AuditSettings",
    "find_audit",
    "keep_audit",
    "load_audits",
]

AuditOutcome = Literal["passed", "failed", "nothing to compare", "damaged"]

_PREFIX = "audits/"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditBars:
    """What is asked of a model's masks; shares and IoU from 0 to 1, None: nothing is asked.

    Attributes:
        mean_iou: of pairs of its masks and people's. Two people reach .85 to .91 (the paper).
        above_90: share of the pairs above an IoU of .90; the paper reached .94.
        above_75: likewise .75; the paper reached .97.
        found: share of people's masks that one of its masks fits.
        pairs: with fewer, no figure says anything.
    """

    mean_iou: float | None = 0.85
    above_90: float | None = None
    above_75: float | None = None
    found: float | None = None
    pairs: int = 20

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            BadInputError: a value out of range.
        """
        for name in ("mean_iou", "above_90", "above_75", "found"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise BadInputError(f"the bar {name} must be from 0 to 1; got {value}")
        if self.pairs < 1:
            raise BadInputError(f"expected at least 1 pair to judge by; got {self.pairs}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """How a release is audited.

    Attributes:
        bars: what is asked.
        agreement: what is compared with people's masks.
        runs: the newest automatic runs that are checked again as the gate checks them.
    """

    bars: AuditBars = field(default_factory=AuditBars)
    agreement: AgreementConfig = field(default_factory=AgreementConfig)
    runs: int = 8

    @property
    def key(self) -> str:
        """Eight hex digits; equal settings have equal ones."""
        text = TypeAdapter(AuditSettings).dump_json(self)
        return hashlib.sha256(text).hexdigest()[:8]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditCheck:
    """One question that an audit asked.

    Attributes:
        name: what was looked at.
        passed: whether the answer was good enough.
        figure: what was measured.
        bar: what was asked.
        detail: one sentence for a person.
    """

    name: str
    passed: bool
    figure: float | None = None
    bar: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """An audit; never changes.

    Attributes:
        release: what was audited.
        settings: how.
        outcome: ``"nothing to compare"``: no figure could be had, and nothing else was wrong.
        figure: the first figure with a bar; None: there was none.
        bar: what was asked of it.
        reason: one sentence for a person.
        model: id of the model whose masks were compared with people's; None: none were.
        checks: all questions, in order.
        agreement: the comparison with people's masks.
        audited_at: UTC.
    """

    release: str
    settings: AuditSettings
    outcome: AuditOutcome
    figure: float | None
    bar: float | None
    reason: str
    model: str | None
    checks: tuple[AuditCheck, ...]
    agreement: AgreementReport
    audited_at: datetime

    @property
    def passed(self) -> bool:
        """Whether the release met every bar."""
        return self.outcome == "passed"


_RECORD = TypeAdapter(AuditRecord)


def find_audit(store: ObjectStore, release: str, settings: AuditSettings) -> AuditRecord | None:
    """Return the audit of a release with these settings; None: there was none yet.

    One that found damaged files does not count: they may have been restored since.

    Raises:
        WorkspaceError: its record is damaged.
    """
    key = f"{_stem(release, settings)}.json"
    return _read(store, key) if store.exists(key) else None


def keep_audit(store: ObjectStore, record: AuditRecord) -> bool:
    """Write a record unless there is one; return whether this call did."""
    stem = _stem(record.release, record.settings)
    when = f"-damaged-{record.audited_at:%Y%m%dT%H%M%S}" if record.outcome == "damaged" else ""
    return store.put_if_absent(f"{stem}{when}.json", _RECORD.dump_json(record, indent=1))


def load_audits(store: ObjectStore) -> tuple[AuditRecord, ...]:
    """Return all audits, oldest first.

    Raises:
        WorkspaceError: a record is damaged.
    """
    found = [_read(store, key) for key in store.list(_PREFIX)]
    return tuple(sorted(found, key=lambda record: (record.audited_at, record.release)))


def _stem(release: str, settings: AuditSettings) -> str:
    return f"{_PREFIX}{release}-{settings.key}"


def _read(store: ObjectStore, key: str) -> AuditRecord:
    try:
        return _RECORD.validate_json(store.get(key))
    except ValidationError as error:
        raise WorkspaceError(
            f"{store.uri(key)} is damaged: {error}; restore it from a backup"
        ) from error
