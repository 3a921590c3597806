"""The promotion gate: a candidate becomes champion only if it is better, and nowhere worse.

    decision = promote(store, "m4", scorer, GateConfig(), by="ann", now=now)
    decision.outcome, decision.reasons         # "refused", ("birds, box: worse by 3.1 points ...",)

Both models answer the same prompts on the same photos, here and now: the gate trusts no figure that
somebody recorded. Whether a difference is more than luck is told by resampling the photos, since
the masks of a photo succeed or fail together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.announcements import Announce, ModelPromoted, tell
from engine.errors import BadInputError
from engine.evaluation.bootstrap import bootstrap_mean
from engine.learning.decisions import DecisionLog, current_champion, read_log, record, resolve
from engine.learning.measurement import Measured, keep_scores, metrics_of
from engine.learning.registry import load_model
from engine.objects import ObjectStore
from engine.records import ComparedRow, ModelVersion, PromotionDecision
from model import Sam

__all__ = ["Comparison", "GateConfig", "Scorer", "compare", "promote", "roll_back"]

logger = logging.getLogger(__name__)

Scorer = Callable[[Sam], tuple[Measured, ...]]
"""Measures a model on the evaluation sets; the first set's first row is the primary metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateConfig:
    """What a candidate has to reach; IoU is from 0 to 1, so .01 is one point of mIoU.

    Attributes:
        margin: the primary row's mean IoU must be higher by more than this, and the 95 % interval
            of the difference must lie above zero.
        tolerance: no row's mean IoU may be lower by more than this.
        resamples: draws of the photos for an interval.
        seed: of these draws.
        min_images: with fewer photos in the primary set an interval says nothing.
        metric_tolerance: recorded metrics may differ by this from recomputed ones; other machines
            round differently.

    Raises:
        BadInputError: a value out of range.
    """

    margin: float = 0.005
    tolerance: float = 0.01
    resamples: int = 2000
    seed: int = 0
    min_images: int = 10
    metric_tolerance: float = 0.002

    def __post_init__(self) -> None:
        for name, low, high in (
            ("margin", 0, 1),
            ("tolerance", 0, 1),
            ("resamples", 100, 1_000_000),
            ("min_images", 2, float("inf")),
            ("metric_tolerance", 0, 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise BadInputError(f"{name} must be from {low} to {high}; got {value}")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate against champion on all rows.

    Attributes:
        rows: the primary one first.
        reasons: the conditions that the candidate failed; empty when it is accepted.
    """

    rows: tuple[ComparedRow, ...]
    reasons: tuple[str, ...]


def compare(
    candidate: Sequence[Measured], champion: Sequence[Measured], config: GateConfig
) -> Comparison:
    """Decide by the numbers alone.

    Args:
        candidate: its scores on each evaluation set; the first set's first row is the primary one.
        champion: its scores on the same masks.
        config: what is asked of the candidate.

    Raises:
        BadInputError: scores of other sets or masks, or too few photos.
    """
    _check_same_masks(candidate, champion)
    if not candidate or candidate[0].scores.images < config.min_images:
        found = candidate[0].scores.images if candidate else 0
        raise BadInputError(
            f"the first evaluation set has {found} images with masks; the gate needs at least "
            f"{config.min_images} to tell a difference from luck"
        )
    rows = tuple(
        _compare_row(row, one, candidate_N, champion_N, config)
        for one, other in zip(candidate, champion, strict=True)
        for (row, candidate_N), (_, champion_N) in zip(one.rows(), other.rows(), strict=True)
    )
    return Comparison(rows, (*_not_better(rows[0], config), *_worse(rows, config)))


def promote(
    store: ObjectStore,
    name: str,
    scorer: Scorer,
    config: GateConfig,
    *,
    by: str,
    now: datetime,
    note: str = "",
    force: bool = False,
    device: str | None = None,
    announce: Announce | None = None,
) -> PromotionDecision:
    """Compare a version with the champion, decide, and record the decision.

    When another decision is recorded meanwhile, the candidate is compared with the champion that
    this left.

    Args:
        store: of the workspace.
        name: the candidate.
        scorer: measures a model on the evaluation sets.
        config: what is asked of the candidate.
        by: who wants it.
        now: UTC.
        note: why.
        force: promote a candidate that the numbers refuse. Metrics that are not true cannot be
            forced.
        device: to measure on; by default the best there is.
        announce: told when the champion changes.

    Raises:
        BadInputError: no such version, it is the champion, or too few photos.
        WorkspaceError: weights that are not those registered, or a damaged record.
    """
    candidate = resolve(store, name)
    measured_of = cache(lambda version: scorer(load_model(store, version, device)))
    while True:
        log = read_log(store)
        reigning = current_champion(store, log)
        if reigning.name == candidate.name:
            raise BadInputError(f"{candidate.name} is the champion already")
        ours, theirs = measured_of(candidate), measured_of(reigning)
        verdict = _judge(candidate, ours, reigning, theirs, config, force=force)
        decision = PromotionDecision(
            number=log.next_number,
            outcome=verdict.outcome,
            candidate=candidate.name,
            candidate_sha256=candidate.sha256,
            previous_champion=reigning.name,
            champion=verdict.winner.name,
            champion_sha256=verdict.winner.sha256,
            reasons=verdict.reasons,
            rows=verdict.rows,
            candidate_scores=keep_scores(store, ours),
            champion_scores=keep_scores(store, theirs),
            margin=config.margin,
            tolerance=config.tolerance,
            seed=config.seed,
            decided_by=by,
            note=note,
            decided_at=now,
            previous_sha256=log.head_sha256,
        )
        if _recorded(store, decision, announce):
            return decision


def roll_back(
    store: ObjectStore,
    name: str | None = None,
    *,
    by: str,
    now: datetime,
    note: str = "",
    announce: Announce | None = None,
) -> PromotionDecision:
    """Make an earlier version champion again, without a comparison.

    Args:
        store: of the workspace.
        name: which; by default the champion before the present one.
        by: who wants it.
        now: UTC.
        note: why.
        announce: told when it is done.

    Raises:
        BadInputError: no such version, it is the champion, or there was none before.
        WorkspaceError: its weights are not those registered, or a record is damaged.
    """
    target = resolve(store, name if name is not None else _predecessor(read_log(store)))
    load_model(store, target, device="cpu")
    while True:
        log = read_log(store)
        if log.champion == target.name:
            raise BadInputError(f"{target.name} is the champion already")
        decision = PromotionDecision(
            number=log.next_number,
            outcome="rolled back",
            candidate=target.name,
            candidate_sha256=target.sha256,
            previous_champion=log.champion,
            champion=target.name,
            champion_sha256=target.sha256,
            decided_by=by,
            note=note,
            decided_at=now,
            previous_sha256=log.head_sha256,
        )
        if _recorded(store, decision, announce):
            return decision


class _Verdict(NamedTuple):
    outcome: Literal["promoted", "forced", "refused"]
    winner: ModelVersion
    reasons: tuple[str, ...]
    rows: tuple[ComparedRow, ...]


def _judge(
    candidate: ModelVersion,
    ours: tuple[Measured, ...],
    reigning: ModelVersion,
    theirs: tuple[Measured, ...],
    config: GateConfig,
    *,
    force: bool,
) -> _Verdict:
    comparison = compare(ours, theirs, config)
    lies = (
        *_untrue_metrics(candidate, ours, config),
        *_untrue_metrics(reigning, theirs, config),
    )
    reasons = (*lies, *comparison.reasons)
    if lies or (reasons and not force):
        return _Verdict("refused", reigning, reasons, comparison.rows)
    return _Verdict("forced" if reasons else "promoted", candidate, reasons, comparison.rows)


def _recorded(store: ObjectStore, decision: PromotionDecision, announce: Announce | None) -> bool:
    if not record(store, decision):
        return False
    logger.info(
        "decision %d: %s %s; champion: %s",
        decision.number,
        decision.candidate,
        decision.outcome,
        decision.champion,
    )
    if decision.champion != decision.previous_champion:
        tell(announce, ModelPromoted(workspace=store.address, decision=decision))
    return True


def _predecessor(log: DecisionLog) -> str:
    names = log.succession()
    if len(names) < 2:
        raise BadInputError(f"{log.champion} is the first champion: there is none to go back to")
    return names[-2]


def _check_same_masks(candidate: Sequence[Measured], champion: Sequence[Measured]) -> None:
    same = len(candidate) == len(champion) and all(
        one.fingerprint == other.fingerprint
        and np.array_equal(one.scores.image_N, other.scores.image_N)
        and [row for row, _ in one.rows()] == [row for row, _ in other.rows()]
        for one, other in zip(candidate, champion, strict=True)
    )
    if not same:
        raise BadInputError(
            "the scores are of different masks or prompts; measure both models on the same sets"
        )


def _compare_row(
    row: str,
    one: Measured,
    candidate_N: NDArray[np.float64],
    champion_N: NDArray[np.float64],
    config: GateConfig,
) -> ComparedRow:
    difference = bootstrap_mean(
        candidate_N - champion_N, one.scores.image_N, seed=config.seed, resamples=config.resamples
    )
    return ComparedRow(
        row=row,
        fingerprint=one.fingerprint,
        images=one.scores.images,
        masks=len(one.scores),
        candidate=float(candidate_N.mean()),
        champion=float(champion_N.mean()),
        low=difference.low,
        high=difference.high,
    )


def _not_better(primary: ComparedRow, config: GateConfig) -> list[str]:
    reasons = []
    if not primary.difference > config.margin:
        reasons.append(
            f"{primary.row}: better by {100 * primary.difference:.2f} points; more than "
            f"{100 * config.margin:.2f} are needed"
        )
    if not primary.low > 0:
        reasons.append(
            f"{primary.row}: the difference may be luck: its 95 % interval is "
            f"{100 * primary.low:+.2f} to {100 * primary.high:+.2f} points"
        )
    return reasons


def _worse(rows: Sequence[ComparedRow], config: GateConfig) -> list[str]:
    return [
        f"{row.row}: worse by {-100 * row.difference:.2f} points; at most "
        f"{100 * config.tolerance:.2f} are tolerated"
        for row in rows
        if row.difference < -config.tolerance
    ]


def _untrue_metrics(
    version: ModelVersion, measured: Sequence[Measured], config: GateConfig
) -> list[str]:
    found = {(m.row, m.fingerprint): m.mean_iou for m in metrics_of(measured)}
    return [
        f"tampered metric: model {version.name} is recorded with {100 * claim.mean_iou:.2f} on "
        f"{claim.row}, but its weights reach {100 * found[claim.row, claim.fingerprint]:.2f}"
        for claim in version.metrics
        if (claim.row, claim.fingerprint) in found
        and not abs(claim.mean_iou - found[claim.row, claim.fingerprint]) <= config.metric_tolerance
    ]
