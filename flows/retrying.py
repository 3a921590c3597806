"""How tasks are tried again: what may pass is repeated after growing pauses, the rest never.

    @task(task_run_name="plan", **RETRIED)
    def plan(...): ...

A database that restarts or a store that is away for a minute costs a run that minute. A photo that
is damaged, a model that there is not, a refused audit: no second try changes them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypedDict

from engine.errors import TransientError

if TYPE_CHECKING:
    from prefect import Task
    from prefect.client.schemas.objects import State, TaskRun

__all__ = ["PAUSES_SECONDS", "RETRIED", "Retries", "is_transient"]

logger = logging.getLogger(__name__)


class Retries(TypedDict):
    """The options of `prefect.task` that say how often, when, and what is tried again."""

    retries: int
    retry_delay_seconds: list[float]
    retry_jitter_factor: float
    retry_condition_fn: Callable[[Task[..., object], TaskRun, State[object]], bool]


def is_transient(_: Task[..., object], task_run: TaskRun, state: State[object]) -> bool:
    """Whether a task failed for a reason that may pass; Prefect asks while tries are left."""
    error = state.result(raise_on_failure=False)
    transient = isinstance(error, TransientError)
    if transient:
        logger.warning("%s failed for now, and is tried again: %s", task_run.name, error)
    return transient


PAUSES_SECONDS = (2.0, 5.0, 15.0, 40.0)
"""Between the tries, about a minute in all."""

# The jitter keeps many workers from coming back to a store at once.
RETRIED: Retries = {
    "retries": len(PAUSES_SECONDS),
    "retry_delay_seconds": [*PAUSES_SECONDS],
    "retry_jitter_factor": 0.3,
    "retry_condition_fn": is_transient,
}
