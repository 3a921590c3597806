"""The checkpoint of a training: all that is needed to go on as if it had never been stopped.

>>> save_training_state(path, sam, average, optimizer, step, config)
>>> step = load_training_state(path, sam, average, optimizer, config)
"""

from __future__ import annotations

import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from model.sam import Sam
from model.train_config import TrainConfig

logger = logging.getLogger(__name__)

# These change nothing about the numbers that come out.
_FREE_TO_CHANGE = {"log_every", "save_every", "recompute_rounds"}


def save_training_state(
    path: Path,
    sam: Sam,
    average: Sam,
    optimizer: torch.optim.Optimizer,
    step: int,
    config: TrainConfig,
) -> None:
    """Write a checkpoint; a process killed at any moment leaves this one or the one before it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    state = {
        "model": sam.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "config": asdict(config),
    }
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())  # before the name points to it, so that a power cut is safe too
    partial.replace(path)


def load_training_state(
    path: Path,
    sam: Sam,
    average: Sam,
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
) -> int:
    """Restore a checkpoint if there is one; return the step to continue from.

    A recipe that was changed in between is said in the log, and holds from here on.

    Raises:
        ValueError: a checkpoint of another model, or with other weights to train.
    """
    if not path.exists():
        return 0
    state = torch.load(path, map_location=sam.device, weights_only=True)
    asked = [(group["weight_decay"], group["lr_scale"]) for group in optimizer.param_groups]
    try:
        sam.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])  # brings the recipe of then along
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path} is the checkpoint of another training ({reason}); remove it, or name another"
        ) from error
    for group, (weight_decay, lr_scale) in zip(optimizer.param_groups, asked, strict=True):
        group.update(weight_decay=weight_decay, lr_scale=lr_scale)
    for name, then, now in _changes(state["config"], asdict(config)):
        logger.warning("%s was %s until step %d, is %s now", name, then, state["step"], now)
    logger.info("continuing from step %d of %s", state["step"], path)
    return int(state["step"])


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    names = sorted(now.keys() - _FREE_TO_CHANGE)
    return [(name, before.get(name), now[name]) for name in names if before.get(name) != now[name]]
