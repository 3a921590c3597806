"""Prefect without a server started by hand, and without its chatter.

Where the user has configured a Prefect server, runs go there. Otherwise Prefect starts a temporary
one on loopback for as long as the command runs; its database is the one that ``prefect server
start`` shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from engine.config import default_environment

_SERVER_SECONDS = "180"


def prepare_prefect(*, verbose: bool) -> None:
    """Set Prefect's defaults before it is imported; what the user has set stays.

    Logs go to the Prefect UI in either case, the engine's too.

    Args:
        verbose: show them on the console as well.
    """
    default_environment(
        {
            "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO" if verbose else "CRITICAL",
            "PREFECT_LOGGING_EXTRA_LOGGERS": "engine,model",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": _SERVER_SECONDS,
            "PREFECT_CLI_PROMPT": "false",
            "DO_NOT_TRACK": "1",
        }
    )


@contextmanager
def tagged(*names: str) -> Iterator[None]:
    """Tag the flow runs that start inside the block."""
    from prefect import tags

    with tags(*names):
        yield
