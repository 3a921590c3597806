"""The log that says which model is the champion: one object per decision, written once.

    current_champion(store).name                 # what `--model champion` means
    for decision in read_log(store).decisions: ...

Decisions are numbered without gaps and each holds the hash of the one before. Whoever writes the
next number decides; of two at once one wins, and the other reads the log again and thinks anew.
Going back to an earlier model is a decision like any other: nothing is ever removed.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from engine.errors import WorkspaceError
from engine.learning.registry import BUILT_IN, built_in_version, find_version
from engine.objects import ObjectStore
from engine.records import ModelVersion, PromotionDecision

__all__ = ["CHAMPION", "DecisionLog", "current_champion", "read_log", "record", "resolve"]

logger = logging.getLogger(__name__)

CHAMPION = "champion"
_PREFIX = "models/decisions/"
_SUFFIX = ".json"
_DECISION = TypeAdapter(PromotionDecision)


@dataclass(frozen=True, slots=True)
class DecisionLog:
    """The log as it was when it was read.

    Attributes:
        decisions: oldest first.
        head_sha256: of the last one's bytes; None for an empty log.
    """

    decisions: tuple[PromotionDecision, ...] = ()
    head_sha256: str | None = None

    @property
    def next_number(self) -> int:
        """The number that the next decision has to take."""
        return len(self.decisions) + 1

    @property
    def champion(self) -> str:
        """The name of the champion: what the last decision says, at first the built-in model."""
        return self.decisions[-1].champion if self.decisions else BUILT_IN

    def succession(self) -> list[str]:
        """Return the champions that led to the present one, oldest first.

        A model that was rolled back is not among them, so going back twice goes back two steps.
        """
        names = [BUILT_IN]
        for decision in self.decisions:
            if decision.outcome == "rolled back" and decision.champion in names:
                del names[names.index(decision.champion) + 1 :]
            elif decision.champion != names[-1]:
                names.append(decision.champion)
        return names


def read_log(store: ObjectStore) -> DecisionLog:
    """Read all decisions.

    Raises:
        WorkspaceError: a decision is missing, damaged, or was changed after the next one was made.
    """
    decisions: list[PromotionDecision] = []
    head: str | None = None
    for key in store.list(_PREFIX):
        data = store.get(key)
        try:
            decision = _DECISION.validate_json(data)
        except ValidationError as error:
            raise WorkspaceError(f"{key} is damaged: {error}; restore it from a backup") from error
        number = len(decisions) + 1
        if key != _key(number) or decision.number != number:
            raise WorkspaceError(f"{key}: expected decision {number} of the log here; restore it")
        if decision.previous_sha256 != head:
            raise WorkspaceError(
                f"{_key(number - 1)} is not the decision that {key} followed: one of them was "
                "changed; restore them from a backup"
            )
        decisions.append(decision)
        head = hashlib.sha256(data).hexdigest()
    return DecisionLog(tuple(decisions), head)


def record(store: ObjectStore, decision: PromotionDecision) -> bool:
    """Write a decision unless its number is taken; return whether this call did."""
    return store.put_if_absent(_key(decision.number), _DECISION.dump_json(decision, indent=2))


def current_champion(store: ObjectStore, log: DecisionLog | None = None) -> ModelVersion:
    """Return the version that the last decision made champion, at first the built-in model.

    Args:
        store: of the workspace.
        log: where the caller has read it already.

    Raises:
        WorkspaceError: the log or the version's record is damaged, or the record names other
            weights than those that were chosen.
    """
    log = log or read_log(store)
    if not log.decisions:
        return built_in_version()
    last = log.decisions[-1]
    version = find_version(store, last.champion)
    if version.sha256 == last.champion_sha256:
        return version
    if version.name != BUILT_IN:
        raise WorkspaceError(
            f"the record of model {version.name} names other weights than decision {last.number} "
            "made champion: it was changed; restore it, or `maskwheel models rollback` to another"
        )
    logger.warning(
        "the champion is the built-in model, which is another one since Maskwheel was updated: "
        "%s instead of the one that decision %d chose",
        version.model_id,
        last.number,
    )
    return version


def resolve(store: ObjectStore, name: str) -> ModelVersion:
    """Return the version that a name means: ``champion``, ``m3``, or a model id.

    Raises:
        BadInputError: there is none.
        WorkspaceError: as for `current_champion`.
    """
    return current_champion(store) if name == CHAMPION else find_version(store, name)


def _key(number: int) -> str:
    return f"{_PREFIX}{number:06d}{_SUFFIX}"
