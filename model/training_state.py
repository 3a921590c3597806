"""The checkpoint of a training: all that is needed to go on as if it had never been stopped.

>>> save_training_state(path, sam, average, optimizer, step, config)
>>> step = load_training_state(path, sam, average, optimizer, config)
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

import torch

from model.sam import Sam
from model.state_file import log_changes, not_of_this_run, read_state, write_state
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
    state = {
        "model": sam.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "config": asdict(config),
    }
    write_state(path, state)


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
        CheckpointError: a damaged one, one of another model, or with other weights to train.
    """
    if not path.exists():
        return 0
    state = read_state(path, sam.device)
    asked = [(group["weight_decay"], group["lr_scale"]) for group in optimizer.param_groups]
    try:
        sam.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])  # brings the recipe of then along
    except (RuntimeError, ValueError, KeyError) as error:
        raise not_of_this_run(path, error) from error
    for group, (weight_decay, lr_scale) in zip(optimizer.param_groups, asked, strict=True):
        group.update(weight_decay=weight_decay, lr_scale=lr_scale)
    log_changes(state["config"], asdict(config), _FREE_TO_CHANGE, state["step"])
    logger.info("continuing from step %d of %s", state["step"], path)
    return int(state["step"])
