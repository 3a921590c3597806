"""A process that masks shards beside others on its machine: its GPU, its cores, its end.

>>> ProcessPoolExecutor(4, initializer=join_pool, initargs=(slots, threads, gpus, leash))
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from threading import Thread

import torch

__all__ = [
    "device_memory_bytes",
    "join_pool",
    "take_place",
    "usable_cores",
    "usable_gpus",
    "worker_name",
]


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def usable_gpus(device: str | None) -> int:
    """Return how many GPUs workers can share out: those that the device leaves open.

    ``cuda`` and None mean any; ``cuda:1`` one that was chosen, which is not shared out.
    """
    return torch.cuda.device_count() if device in (None, "cuda") else 0


def device_memory_bytes(device: torch.device) -> int | None:
    """Return how much memory an accelerator has in all; None where that is not known."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return None
    memory: int = torch.cuda.get_device_properties(device).total_memory
    return memory


def join_pool(slots: Synchronized[int], threads: int, gpus: int, leash: Connection) -> None:
    """Begin as one of a pool's processes: take a place, and end when the pool's owner lets go.

    A pool does not notice when its owner is killed: its processes would wait for work for ever, and
    hold their GPU's memory. Nor does it interrupt what they do when its owner is told to stop.

    Args:
        slots: as `take_place`.
        threads: likewise.
        gpus: likewise.
        leash: the end of a pipe whose other end its owner alone has.
    """

    def end() -> None:
        with suppress(EOFError):
            leash.recv()
        os._exit(1)

    Thread(target=end, name="leash", daemon=True).start()
    take_place(slots, threads, gpus)


def take_place(slots: Synchronized[int], threads: int, gpus: int) -> None:
    """Take the next place of a machine's: its share of the cores, and its GPU.

    Args:
        slots: counts the processes that have taken one.
        threads: of torch at most, so that all together use each core once; fewer where
            OMP_NUM_THREADS says so.
        gpus: shared out in turns: what runs on ``cuda`` here runs on this process's own.
    """
    with slots.get_lock():
        slot = slots.value
        slots.value += 1
    torch.set_num_threads(min(threads, torch.get_num_threads()))
    if gpus:
        torch.cuda.set_device(slot % gpus)


def worker_name() -> str:
    """Name this process among all that work on a run."""
    return f"{socket.gethostname()}/{os.getpid()}"
