"""Embeddings that nobody will ask for again: those of models that are neither champion nor in use.

    remove_unused_embeddings(workspace, db, now=now, grace=timedelta(days=7))

An embedding can be made again from its image, so a wrong guess costs seconds, never data.
"""

from __future__ import annotations

import logging
from collections import Counter
from datetime import datetime, timedelta

from engine.annotation.campaigns import list_campaigns
from engine.annotation.database import Database
from engine.dataset.catalog import Workspace
from engine.errors import BadInputError
from engine.learning.decisions import current_champion
from engine.upkeep import Freed

__all__ = ["remove_unused_embeddings"]

log = logging.getLogger(__name__)

_PREFIX = "embeddings/"


def remove_unused_embeddings(
    workspace: Workspace,
    db: Database | None,
    *,
    now: datetime,
    grace: timedelta,
    dry_run: bool = False,
) -> tuple[Freed, ...]:
    """Remove the embeddings of models that neither the champion nor an open campaign is.

    Args:
        workspace: whose.
        db: its annotation database; None: it has none, so no campaigns.
        now: UTC.
        grace: younger embeddings stay.
        dry_run: remove nothing, only say what would go.

    Returns:
        One value per model; what was removed before a crash is gone, the next call does the rest.

    Raises:
        BadInputError: a negative grace period.
        WorkspaceError: the record of the champion is damaged: then nothing is removed.
        TransientError: the store or the database is busy.
    """
    if grace < timedelta(0):
        raise BadInputError(f"got a grace period of {grace}; expected 0 or more")
    before = now - grace
    numbers, sizes = Counter[str](), Counter[str]()
    for stored in workspace.store.objects(_PREFIX):
        if stored.modified_at < before:
            model_id = stored.key.removeprefix(_PREFIX).partition("/")[0]
            numbers[model_id] += 1
            sizes[model_id] += stored.size_bytes
    # Asked after listing: a campaign that is opened meanwhile is seen.
    needed = {current_champion(workspace.store).model_id}
    if db is not None:
        needed |= {one.model_id for one in list_campaigns(db) if one.closed_at is None}
    found: list[Freed] = []
    for model_id in sorted(numbers.keys() - needed):
        if not dry_run:
            _remove(workspace, model_id, before)
        found.append(
            Freed(
                what=f"embeddings of {model_id}",
                objects=numbers[model_id],
                size_bytes=sizes[model_id],
                note="can be made again",
            )
        )
    return tuple(found)


def _remove(workspace: Workspace, model_id: str, before: datetime) -> None:
    for stored in workspace.store.objects(f"{_PREFIX}{model_id}/"):
        if stored.modified_at < before:
            workspace.store.delete(stored.key)
    log.info("removed the embeddings of %s", model_id)
