"""Files that hold the state of a running training: written whole or not at all.

>>> write_state(path, {"model": sam.state_dict(), "step": 100, "config": asdict(config)})
>>> state = read_state(path, device)
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from model.checkpoint import CheckpointError

logger = logging.getLogger(__name__)

_UNREADABLE = (pickle.UnpicklingError, EOFError, LookupError, RuntimeError, TypeError, ValueError)


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state; a process killed at any moment leaves this one or the one before it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())  # before the name points to it, so that a power cut is safe too
    partial.replace(path)


def read_state(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a state; it cannot run code.

    Raises:
        CheckpointError: a file that is no such state, or only a part of one.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        return dict(state)
    except _UNREADABLE as error:
        raise not_of_this_run(path, error) from error


def not_of_this_run(path: Path, error: Exception) -> CheckpointError:
    """Say that a file holds no state of this run, and what to do."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CheckpointError(
        f"{path} is no checkpoint of this run ({reason}); remove it to start anew, or name "
        "another file"
    )


def log_changes(
    before: Mapping[str, Any], now: Mapping[str, Any], free: set[str], step: int
) -> None:
    """Say which settings differ from those that a state was made with.

    Args:
        before: settings then.
        now: settings that hold from here on.
        free: names that change nothing about the numbers that come out.
        step: that the state has reached.
    """
    for name in sorted(now.keys() - free):
        then = before.get(name)
        if then != now[name]:
            logger.warning("%s was %s until step %d, is %s now", name, then, step, now[name])
