"""Who masks: in a Prefect run whom the settings name, elsewhere this thread.

    with hired(load_settings(), device=None) as workers:
        for result in workers.each(mask_shard, calls):        # a Step; exceptions are results, too
            ...

What needs Prefect is in `flows.task_runners`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace
from threading import Event
from typing import Protocol, TypeVar

from engine.automatic.shard_worker import ModelSpec
from engine.config import Settings
from engine.errors import PartlyDoneError, TransientError
from flows.steps import Step, in_prefect_run

__all__ = [
    "Alone",
    "Crew",
    "WorkerLostError",
    "hired",
    "leaving",
    "one_suffices",
    "planned_with",
    "stop_if_left",
]

R = TypeVar("R")

# Of the flow whose tasks are threads; Prefect copies it into them.
_left: ContextVar[Event] = ContextVar("left")


class WorkerLostError(TransientError):
    """A process or a machine that did a task died; another one can do it."""


class Crew(Protocol):
    """Those who do a step for many arguments."""

    @property
    def share_this_process(self) -> bool:
        """Whether they work in this process, and tell its listener themselves."""
        ...

    def each(
        self, task: Step[..., R], calls: Iterable[Mapping[str, object]]
    ) -> Iterator[R | Exception]:
        """Do it for each call's arguments; yield what came of it, or the exception."""
        ...


@dataclass(frozen=True, slots=True)
class Alone:
    """This thread, which makes one after the other."""

    share_this_process: bool = True

    def each(
        self, task: Step[..., R], calls: Iterable[Mapping[str, object]]
    ) -> Iterator[R | Exception]:
        """Do it for each call's arguments; yield what came of it, or the exception."""
        for call in calls:
            result: R | Exception
            try:
                result = task(**call)
            except Exception as error:
                result = error
            yield result


def hired(settings: Settings, device: str | None) -> AbstractContextManager[Crew]:
    """Start or find the workers that the settings name; outside of Prefect it is this thread.

    Args:
        settings: who, how many, and where.
        device: what the tasks run on; None: GPUs where there are some.

    Raises:
        BadInputError: Ray or Dask is not installed.
        TransientError: their cluster does not answer.
    """
    if not in_prefect_run():
        return nullcontext(Alone())
    from flows import task_runners

    return task_runners.hired(settings, device)


def one_suffices(settings: Settings) -> bool:
    """Return whether the settings ask for no more than one worker, in this process."""
    return settings.task_runner == "threads" and settings.workers in (None, 1)


def planned_with(spec: ModelSpec, settings: Settings) -> ModelSpec:
    """Return the model for this process, which plans the tasks: workers elsewhere have the GPUs."""
    return spec if settings.task_runner == "threads" else replace(spec, device="cpu")


@contextmanager
def leaving() -> Iterator[Callable[[], None]]:
    """Let the tasks of threads hear that their flow ends early: yields what tells them."""
    left = Event()
    token = _left.set(left)
    try:
        yield left.set
    finally:
        _left.reset(token)


def stop_if_left() -> None:
    """End the task of this thread if its flow has ended, as by Ctrl-C; called between images.

    Raises:
        PartlyDoneError: it has.
    """
    left = _left.get(None)
    if left is not None and left.is_set():
        raise PartlyDoneError("the run was stopped; the same call again makes this shard")
