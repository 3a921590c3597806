"""Flow runs that end because everything ends: told in time, and called what they are.

    ask_to_cancel(api_url, runs)      # the worker passes it on; tasks and hooks hear of it
    ...                               # the worker ends
    call_stopped(api_url, runs)       # "Stopped": nobody's mistake, the next look starts it again

Prefect's worker kills the flow runs that it has when it is told to end, and leaves them "Running".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

__all__ = ["STOPPED", "ask_to_cancel", "call_stopped"]

log = logging.getLogger(__name__)

STOPPED = "Stopped"
"""Name of the state, of type CANCELLED."""

_MESSAGE = "Maskwheel was stopped; a new run goes on where this one was."
_ANSWER_SECONDS = 5.0


def ask_to_cancel(api_url: str, runs: Iterable[str]) -> None:
    """Ask Prefect to cancel flow runs; a server that is gone is no reason not to stop."""
    from prefect.states import Cancelling

    def ask(client: SyncPrefectClient, run: UUID) -> None:
        state = client.read_flow_run(run).state
        if state is None or not (state.is_final() or state.is_cancelling()):
            client.set_flow_run_state(run, Cancelling(message=_MESSAGE), force=True)

    _for_each(api_url, runs, ask)


def call_stopped(api_url: str, runs: Iterable[str]) -> None:
    """Say of flow runs that were at work that they were stopped, unless they had come to an end."""
    from prefect.states import Cancelled

    def call(client: SyncPrefectClient, run: UUID) -> None:
        state = client.read_flow_run(run).state
        if state is None or not (state.is_completed() or state.is_failed()):
            client.set_flow_run_state(run, Cancelled(name=STOPPED, message=_MESSAGE), force=True)

    _for_each(api_url, runs, call)


def _for_each(
    api_url: str, runs: Iterable[str], work: Callable[[SyncPrefectClient, UUID], None]
) -> None:
    try:
        with _client(api_url) as client:
            for run in runs:
                work(client, UUID(run))
    except Exception as error:  # of whatever library: what is to stop stops all the same
        log.warning("the flow runs were not told: %r", error)


@contextmanager
def _client(api_url: str) -> Iterator[SyncPrefectClient]:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES
    from prefect.settings.context import temporary_settings

    with (
        temporary_settings({PREFECT_API_URL: api_url, PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client({"timeout": _ANSWER_SECONDS}, sync_client=True) as client,
    ):
        yield client
