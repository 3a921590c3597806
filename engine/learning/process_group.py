"""Several processes that train one model: which one this is, and on which device it computes.

>>> with process_group("cuda") as group:
...     group.rank, group.processes, group.device

Processes are started by torchrun; without it a process is alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from engine.errors import BadInputError

__all__ = ["ProcessGroup", "process_group"]

logger = logging.getLogger(__name__)

# The first process measures the model and writes files while the others wait for it.
_PATIENCE = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """This process's place among those that train together.

    Attributes:
        rank: its number; number 0 writes the files.
        processes: how many there are.
        device: where it computes.
    """

    rank: int
    processes: int
    device: torch.device


@contextmanager
def process_group(device: str | None = None) -> Iterator[ProcessGroup]:
    """Join the group that torchrun started, if it did, for as long as the block runs.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; None: the best there is. In a group each
            process takes a GPU of its own.

    Raises:
        BadInputError: a device that does not exist here.
    """
    if not dist.is_available() or not dist.is_torchelastic_launched():
        yield ProcessGroup(0, 1, _device(device, 0))
        return
    chosen = _device(device, dist.get_node_local_rank())
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size(), chosen)
    finally:
        dist.destroy_process_group()


def _device(name: str | None, local_rank: int) -> torch.device:
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cpu" and torch.backends.mps.is_available():
            name = "mps"
        logger.info("training runs on %s", name)
    try:
        device = torch.device(name)
        if device == torch.device("cuda"):
            device = torch.device("cuda", local_rank)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise BadInputError(f"device {name!r} cannot be used here: {reason}") from error
    return device
