"""The folder of one training: its checkpoint, its log, its result, and whose they are.

>>> with claimed(folder, identity, steps=1000):
...     train(sam, batches, config, folder / CHECKPOINT)

``training.json`` says what the training is. Another recipe, other data or another start would go on
from a checkpoint that is not theirs, so they are refused.
"""

from __future__ import annotations

import fcntl
import json
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from engine.errors import BadInputError, WorkspaceError

__all__ = [
    "CHECKPOINT",
    "TRAININGS",
    "WEIGHTS",
    "FolderBusyError",
    "Identity",
    "checkpoint_step",
    "claimed",
    "held",
]

TRAININGS = "training"
"""Where in a workspace's local folder trainings have their folders."""
CHECKPOINT = "training.pt"
WEIGHTS = "model.safetensors"
_RECORD = "training.json"
_LOCK = ".lock"
_SHOWN = 5
_UNREADABLE = (pickle.UnpicklingError, EOFError, LookupError, RuntimeError, TypeError, ValueError)

Identity = Mapping[str, object]
"""All that decides what comes out of a training, by name; values that JSON holds."""


class FolderBusyError(BadInputError):
    """Another process trains in the folder at this moment."""


@contextmanager
def claimed(folder: Path, identity: Identity, steps: int, *, writes: bool = True) -> Iterator[None]:
    """Take a folder for a training, or take up the one that is in it, while the block runs.

    Args:
        folder: new, empty, or of this very training.
        identity: of the training.
        steps: to be done in all.
        writes: whether this process writes the files; the others of its group only check.

    Raises:
        BadInputError: the folder is another training's, or more steps are done than asked for.
        FolderBusyError: another process trains in it at this moment.
        WorkspaceError: the folder cannot be written.
    """
    _check(folder, identity, steps)
    if not writes:
        yield
        return
    with held(folder):
        if not (folder / _RECORD).exists():
            partial = folder / f"{_RECORD}.partial"
            partial.write_text(json.dumps(identity, indent=2, sort_keys=True))
            partial.replace(folder / _RECORD)
        yield


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes of this machine out of a folder, which is made if need be.

    Raises:
        FolderBusyError: another process holds it.
        WorkspaceError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / _LOCK).open("w")
    except OSError as error:
        raise WorkspaceError(f"{folder} cannot be written: {error}") from error
    with lock:
        try:
            # The system lets go of it when the process ends, however it ends. Worker processes,
            # which may outlive a killed training for seconds, do not inherit this kind of lock.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise FolderBusyError(
                f"another process trains in {folder}; wait for it, or name another --output"
            ) from error
        yield


def checkpoint_step(folder: Path) -> int:
    """Return how many steps the folder's checkpoint has behind it; 0 without one.

    Raises:
        BadInputError: a checkpoint that cannot be read.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    try:
        return int(torch.load(path, map_location="cpu", mmap=True, weights_only=True)["step"])
    except _UNREADABLE as error:
        raise BadInputError(
            f"{path} is no checkpoint of a training: {error!r}; remove it to start anew"
        ) from error


def _check(folder: Path, identity: Identity, steps: int) -> None:
    if folder.exists() and not folder.is_dir():
        raise BadInputError(f"{folder} is a file; name a folder for the training")
    done = checkpoint_step(folder)
    record = folder / _RECORD
    if record.exists():
        try:
            before = dict(json.loads(record.read_text()))
        except (ValueError, TypeError) as error:
            raise BadInputError(f"{record} is damaged: {error!r}; name another --output") from error
        now = json.loads(json.dumps(identity))  # as the file has it: tuples become lists
        names = sorted(before.keys() | now.keys())
        differ = [name for name in names if before.get(name) != now.get(name)]
        if differ:
            shown = "; ".join(
                f"{n} was {before.get(n)!r}, is {now.get(n)!r}" for n in differ[:_SHOWN]
            )
            more = f" and {len(differ) - _SHOWN} more" if len(differ) > _SHOWN else ""
            raise BadInputError(
                f"{folder} holds another training: {shown}{more}; name another --output, or remove "
                "it to start anew"
            )
    elif done:
        raise BadInputError(
            f"{folder} holds a checkpoint but not {_RECORD}, which says of which training; name "
            "another --output"
        )
    if done > steps:
        raise BadInputError(
            f"{folder} has {done} steps behind it, more than the {steps} asked for; ask for more, "
            "or name another --output"
        )
