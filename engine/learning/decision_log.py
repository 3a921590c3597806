"""The log of decisions about the champion, as objects; it needs no torch.

    read_log(store).champion

See `engine.learning.decisions` for what the log is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from engine.errors import WorkspaceError
from engine.learning.model_records import BUILT_IN
from engine.objects import ObjectStore
from engine.records import PromotionDecision

__all__ = ["DecisionLog", "read_log", "record"]

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


def _key(number: int) -> str:
    return f"{_PREFIX}{number:06d}{_SUFFIX}"
