"""The log that says which model is the champion: one object per decision, written once.

    current_champion(store).name                 # what `--model champion` means
    for decision in read_log(store).decisions: ...

Decisions are numbered without gaps and each holds the hash of the one before. Whoever writes the
next number decides; of two at once one wins, and the other reads the log again and thinks anew.
Going back to an earlier model is a decision like any other: nothing is ever removed.
"""

from __future__ import annotations

import logging

from engine.errors import WorkspaceError
from engine.learning.decision_log import DecisionLog, read_log, record
from engine.learning.model_records import BUILT_IN
from engine.learning.registry import built_in_version, find_version
from engine.objects import ObjectStore
from engine.records import ModelVersion

__all__ = ["CHAMPION", "DecisionLog", "current_champion", "read_log", "record", "resolve"]

logger = logging.getLogger(__name__)

CHAMPION = "champion"


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
