"""Steps: tasks inside of a Prefect run, plain calls elsewhere, and tried again in both.

    @step("plan")
    def plan(...): ...

    plan(...)                # in a flow run a task of it, named "plan"; else a call

One flow then works where a Prefect server watches it, and where nobody does without importing
Prefect and starting a server for nobody: that takes longer than the masks of a photo.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from engine.errors import TransientError
from flows.retrying import PAUSES_SECONDS, RETRIED

if TYPE_CHECKING:
    from prefect import Task

__all__ = ["Step", "in_prefect_run", "step"]

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Step(Generic[P, R]):
    """A function that is a step of a flow.

    Attributes:
        function: does it.
        name: of its runs, where ``{parameter}`` stands for an argument.
    """

    function: Callable[P, R]
    name: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Do the step; what may pass is tried again."""
        if in_prefect_run():
            return self.task(*args, **kwargs)
        for pause in PAUSES_SECONDS:
            try:
                return self.function(*args, **kwargs)
            except TransientError as error:
                logger.warning("%s failed for now, and is tried again: %s", self, error)
                time.sleep(pause)
        return self.function(*args, **kwargs)

    def __str__(self) -> str:
        """Return what it does, for people."""
        return self.name.partition("{")[0].strip()

    @property
    def task(self) -> Task[P, R]:
        """The step as a task of Prefect, which is imported for it."""
        task: Task[P, R] = _task_of(self)
        return task


def step(name: str) -> Callable[[Callable[P, R]], Step[P, R]]:
    """Make a function a step.

    Args:
        name: of its runs, where ``{parameter}`` stands for an argument.
    """
    return lambda function: Step(function, name)


def in_prefect_run() -> bool:
    """Return whether this is called in a run of Prefect's; without importing it."""
    context = sys.modules.get("prefect.context")
    return context is not None and (
        context.FlowRunContext.get() is not None or context.TaskRunContext.get() is not None
    )


@cache
def _task_of(made: Step[Any, Any]) -> Task[Any, Any]:
    from prefect import task

    return task(task_run_name=made.name, **RETRIED)(made.function)
