"""Checkpoints of trainings that are over: large files, with the optimiser's state, of no more use.

    remove_finished_checkpoints(workspace, now=now, grace=timedelta(days=30))

What is removed is ``training.pt`` in folders whose weights are a registered model or proposer; the
weights, the log and the curve stay. A training that was stopped keeps its checkpoint for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from engine.dataset.catalog import Workspace
from engine.errors import BadInputError
from engine.learning.model_records import registered_versions
from engine.learning.proposer_registry import list_proposers
from engine.learning.proposer_training import PROPOSER_WEIGHTS
from engine.learning.training_folder import CHECKPOINT, TRAININGS, WEIGHTS, FolderBusyError, held
from engine.learning.version_files import file_digest
from engine.upkeep import Freed

__all__ = ["remove_finished_checkpoints"]

log = logging.getLogger(__name__)


def remove_finished_checkpoints(
    workspace: Workspace, *, now: datetime, grace: timedelta, dry_run: bool = False
) -> Freed:
    """Remove the checkpoints on this machine that no training will go on from.

    Args:
        workspace: whose trainings.
        now: UTC.
        grace: a training that ended later keeps its checkpoint: somebody may want more steps.
        dry_run: remove nothing, only say what would go.

    Raises:
        BadInputError: a negative grace period.
        WorkspaceError: a record of a model is damaged, or a folder cannot be written.
    """
    if grace < timedelta(0):
        raise BadInputError(f"got a grace period of {grace}; expected 0 or more")
    number = size_bytes = 0
    for checkpoint in list(_finished(workspace, now - grace)):
        length = checkpoint.stat().st_size
        if not dry_run:
            try:
                with held(checkpoint.parent):
                    checkpoint.unlink(missing_ok=True)
            except FolderBusyError:
                log.info("%s stays: somebody trains there", checkpoint)
                continue
            log.info("removed %s (%d bytes)", checkpoint, length)
        number, size_bytes = number + 1, size_bytes + length
    return Freed(what="checkpoints of finished trainings", objects=number, size_bytes=size_bytes)


def _finished(workspace: Workspace, before: datetime) -> Iterator[Path]:
    registered = {version.sha256 for version in registered_versions(workspace.store)}
    registered |= {version.sha256 for version in list_proposers(workspace.store)}
    for checkpoint in sorted((workspace.local_folder / TRAININGS).glob(f"*/{CHECKPOINT}")):
        for name in (WEIGHTS, PROPOSER_WEIGHTS):
            weights = checkpoint.with_name(name)
            if not weights.is_file():
                continue
            # The weights are written after the last checkpoint.
            ended = datetime.fromtimestamp(weights.stat().st_mtime, UTC)
            if ended < before and file_digest(weights) in registered:
                yield checkpoint
